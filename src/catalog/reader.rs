//! The catalog as one answer sees it: whatever is read is noted in the answer's [`Validity`], which tells
//! whether what it was made from still stands.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;

use super::{
    Catalog, Found, Kind, Miss, Node, Patience, Prepared, PreparedKey, Scope, Service, ServiceKey,
    Slot, Versions,
};

/// While the source is away, what depends on the age of its data is looked at this often, in
/// milliseconds; and what depends on a list that may be behind, or is about to be read again.
const STALE_FOR: u64 = 250;

/// Reads the catalog for one answer.
#[derive(Debug)]
pub struct Reader<'a> {
    catalog: &'a Catalog,
    /// The latest of all versions before anything was read.
    version: u64,
    validity: RefCell<Validity>,
    /// Some of what was read is the last that was known.
    has_read_stale: Cell<bool>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            version: catalog.versions().latest(),
            validity: RefCell::new(Validity::begin(catalog.versions())),
            has_read_stale: Cell::new(false),
        }
    }

    /// The catalog's clock and versions.
    pub fn versions(&self) -> &'a Arc<Versions> {
        self.catalog.versions()
    }

    /// What has been read.
    pub fn into_validity(self) -> Validity {
        self.validity.into_inner()
    }

    /// The answer holds until `until` milliseconds on the catalog's clock at most.
    pub fn ends_at(&self, until: u64) {
        self.validity.borrow_mut().ends_at(until);
    }

    fn ends_in(&self, left: u64) {
        self.ends_at(self.versions().millis().saturating_add(left));
    }

    /// As [`Catalog::local_datacenter`].
    pub fn local_datacenter(&self) -> Arc<String> {
        self.catalog.local_datacenter()
    }

    /// As [`Catalog::service`].
    pub fn service(
        &self,
        scope: &Scope,
        key: &ServiceKey,
        patience: Patience,
    ) -> Found<Arc<Service>> {
        match self.catalog.service(scope, key, patience) {
            Ok(loaded) => {
                let (slot, version) = &loaded.source;
                self.validity.borrow_mut().add_service(slot, *version);
                if loaded.stale {
                    self.note_stale();
                } else {
                    self.ends_at(slot.fresh_until());
                }
                Ok(loaded.value)
            }
            Err(miss) => {
                // No list tells when the mesh has something of that name.
                if key.kind() != Kind::Service {
                    self.ends_in(STALE_FOR);
                }
                self.in_scope(scope, Err(miss))
            }
        }
    }

    /// As [`Catalog::node`].
    pub fn node(&self, scope: &Scope, name: &str, patience: Patience) -> Found<Arc<Node>> {
        if self.catalog.nodes_age(scope) {
            self.note_stale();
        }
        self.in_scope(scope, self.catalog.node(scope, name, patience))
    }

    /// As [`Catalog::has_node_below`].
    pub fn has_node_below(&self, scope: &Scope, name: &str) -> bool {
        self.everything(self.catalog.has_node_below(scope, name))
    }

    /// As [`Catalog::has`].
    pub fn has(&self, scope: &Scope) -> Found<()> {
        self.in_scope(scope, self.catalog.has(scope))
    }

    /// As [`Catalog::prepared`]. What it finds may be this client's alone, so it is not kept.
    pub fn prepared(&self, key: &PreparedKey, patience: Patience) -> Found<Arc<Option<Prepared>>> {
        self.ends_at(0);
        let loaded = self.catalog.prepared(key, patience)?;
        if loaded.stale {
            self.note_stale();
        }
        Ok(loaded.value)
    }

    /// As [`Catalog::is_stale`]; or is something that was read?
    pub fn is_stale(&self, scope: &Scope) -> bool {
        if self.catalog.is_stale(scope) {
            self.note_stale();
        }
        self.has_read_stale.get()
    }

    fn note_stale(&self) {
        self.has_read_stale.set(true);
        self.ends_in(STALE_FOR);
    }

    /// As [`Catalog::node_at`].
    pub fn node_at(&self, address: IpAddr) -> Option<Arc<Node>> {
        self.everything(self.catalog.node_at(address))
    }

    /// As [`Catalog::service_at`].
    pub fn service_at(&self, address: IpAddr) -> Found<Arc<str>> {
        self.everything(self.catalog.service_at(address))
    }

    /// What does not exist may be there the next time it is asked for, where a list may be behind or the
    /// datacenters are asked for again.
    fn in_scope<T>(&self, scope: &Scope, found: Found<T>) -> Found<T> {
        if found.is_err() && self.catalog.is_behind(scope) {
            self.ends_in(STALE_FOR);
        }
        if matches!(found, Err(Miss::Absent))
            && let Some(until) = self.catalog.absent_until(scope)
        {
            self.ends_at(until.max(self.versions().millis() + STALE_FOR));
        }
        self.everything(found)
    }

    fn everything<T>(&self, found: T) -> T {
        self.validity.borrow_mut().add_everything(self.version);
        found
    }
}

/// What an answer was made from: it holds until some of that changes or its time is over.
///
/// Nobody has to tell the answers that are kept about a change: whoever keeps one looks here first.
/// That costs an atomic load for the epoch and one for each service.
#[derive(Debug, Clone)]
pub struct Validity {
    epoch: u64,
    /// The latest of all versions at that time, if more was read than services.
    everything: Option<u64>,
    /// The services that were read, with the versions that were.
    services: Vec<(Arc<Slot<Service>>, u64)>,
    /// Milliseconds on the catalog's clock from which on it does not hold.
    until: u64,
}

impl Validity {
    /// The state of things now. Take it before anything is read: what changes in between then
    /// makes the answer look older than it is, never newer.
    pub(super) fn begin(versions: &Versions) -> Self {
        Self {
            epoch: versions.epoch(),
            ..Self::forever()
        }
    }

    fn forever() -> Self {
        Self {
            epoch: 0,
            everything: None,
            services: Vec::new(),
            until: u64::MAX,
        }
    }

    /// It never holds: the answer is for this one time.
    pub fn none() -> Self {
        Self {
            until: 0,
            ..Self::forever()
        }
    }

    /// Does it hold at `now` (milliseconds on the catalog's clock)?
    pub fn holds(&self, versions: &Versions, now: u64) -> bool {
        now < self.until
            && versions.epoch() == self.epoch
            && self
                .everything
                .is_none_or(|version| versions.latest() == version)
            && self
                .services
                .iter()
                .all(|(slot, version)| slot.version() == *version)
    }

    /// Notes that the services it is made of were asked for, at `now` seconds.
    pub fn touch(&self, now: u64) {
        for (slot, _) in &self.services {
            slot.touch(now);
        }
    }

    /// It holds until then at most, in milliseconds on the catalog's clock.
    pub fn ends_at(&mut self, until: u64) {
        self.until = self.until.min(until);
    }

    /// Bytes of memory that it takes, about.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.services.capacity() * size_of::<(Arc<Slot<Service>>, u64)>()
    }

    /// Could it hold at all?
    pub fn is_none(&self) -> bool {
        self.until == 0
    }

    pub(super) fn add_service(&mut self, slot: &Arc<Slot<Service>>, version: u64) {
        let known = self
            .services
            .iter()
            .any(|(own, own_version)| Arc::ptr_eq(own, slot) && *own_version == version);
        if !known {
            self.services.push((Arc::clone(slot), version));
        }
    }

    pub(super) fn add_everything(&mut self, version: u64) {
        self.everything = Some(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_its_time_and_with_its_services() {
        let versions = Arc::new(Versions::new());
        let mut validity = Validity::begin(&versions);
        let slot = Arc::new(Slot::new(&versions));
        validity.add_service(&slot, slot.version());
        validity.ends_at(100);
        assert!(!validity.holds(&versions, 100));
        assert!(validity.holds(&versions, 99));
        slot.publish(Service::new(Vec::new()));
        assert!(!validity.holds(&versions, 99));
    }

    #[test]
    fn a_new_epoch_ends_it() {
        let versions = Versions::new();
        let validity = Validity::begin(&versions);
        assert!(validity.holds(&versions, 0));
        versions.new_epoch();
        assert!(!validity.holds(&versions, 0));
        assert!(Validity::none().is_none() && !Validity::none().holds(&versions, 0));
    }

    #[test]
    fn what_was_read_of_everything_ends_with_any_version() {
        let versions = Versions::new();
        let mut validity = Validity::begin(&versions);
        validity.add_everything(versions.latest());
        assert!(validity.holds(&versions, 0));
        versions.next();
        assert!(!validity.holds(&versions, 0));
    }
}
