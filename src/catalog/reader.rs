//! The catalog as one answer sees it: whatever is read is noted in the answer's [`Validity`].

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use super::{
    Catalog, Found, Node, Patience, Prepared, PreparedKey, Scope, Service, ServiceKey, Validity,
    Versions,
};

/// While the source is away, what depends on the age of its data is looked at this often, in
/// milliseconds.
const STALE_FOR: u64 = 250;

/// Reads the catalog for one answer.
#[derive(Debug)]
pub struct Reader<'a> {
    catalog: &'a Catalog,
    /// The latest of all versions before anything was read.
    version: u64,
    validity: RefCell<Validity>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            version: catalog.versions().latest(),
            validity: RefCell::new(Validity::begin(catalog.versions())),
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
                    self.ends_in(STALE_FOR);
                } else {
                    self.ends_at(slot.fresh_until());
                }
                Ok(loaded.service)
            }
            Err(miss) => self.everything(Err(miss)),
        }
    }

    /// As [`Catalog::node`].
    pub fn node(&self, scope: &Scope, name: &str) -> Found<Arc<Node>> {
        self.everything(self.catalog.node(scope, name))
    }

    /// As [`Catalog::has_node_below`].
    pub fn has_node_below(&self, scope: &Scope, name: &str) -> bool {
        self.everything(self.catalog.has_node_below(scope, name))
    }

    /// As [`Catalog::has`].
    pub fn has(&self, scope: &Scope) -> Found<()> {
        self.everything(self.catalog.has(scope))
    }

    /// As [`Catalog::prepared`]. What it finds may be this client's alone, so it is not kept.
    pub fn prepared(&self, key: &PreparedKey, patience: Patience) -> Found<Arc<Option<Prepared>>> {
        self.ends_at(0);
        self.catalog.prepared(key, patience)
    }

    /// As [`Catalog::is_stale`].
    pub fn is_stale(&self, scope: &Scope) -> bool {
        let stale = self.catalog.is_stale(scope);
        if stale {
            self.ends_in(STALE_FOR);
        }
        stale
    }

    /// As [`Catalog::node_at`].
    pub fn node_at(&self, address: IpAddr) -> Option<Arc<Node>> {
        self.everything(self.catalog.node_at(address))
    }

    /// As [`Catalog::service_at`].
    pub fn service_at(&self, address: IpAddr) -> Found<Arc<str>> {
        self.everything(self.catalog.service_at(address))
    }

    fn everything<T>(&self, found: T) -> T {
        self.validity.borrow_mut().add_everything(self.version);
        found
    }
}
