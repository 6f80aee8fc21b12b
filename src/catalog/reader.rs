//! The catalog as one answer sees it: whatever is read is noted in the answer's [`Basis`].

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use super::layer::FRESH;
use super::slot::latest_version;
use super::{
    Basis, Catalog, Executed, Found, Node, Patience, QueryKey, Scope, Service, ServiceKey,
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
    basis: RefCell<Basis>,
}

impl<'a> Reader<'a> {
    /// A reader whose basis began as `basis`, for what was read elsewhere before.
    pub fn new(catalog: &'a Catalog, basis: Basis) -> Self {
        Self {
            catalog,
            version: latest_version(),
            basis: RefCell::new(basis),
        }
    }

    /// What has been read.
    pub fn into_basis(self) -> Basis {
        self.basis.into_inner()
    }

    /// The answer names a moment, and holds until `until` milliseconds on the catalog's clock.
    pub fn ends_at(&self, until: u64) {
        self.basis.borrow_mut().ends_at(until);
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
        now: u64,
        patience: Patience,
    ) -> Found<Arc<Service>> {
        match self.catalog.service(scope, key, now, patience) {
            Found::Here(loaded) => {
                let (slot, version) = &loaded.source;
                let mut basis = self.basis.borrow_mut();
                basis.add_service(slot, *version);
                if loaded.stale {
                    basis.ends_in(STALE_FOR);
                } else if !slot.is_watched() {
                    basis.ends_in(FRESH.saturating_sub(slot.age()));
                }
                Found::Here(loaded.service)
            }
            found => self.everything(found.and_then(|_| Found::Absent)),
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

    /// As [`Catalog::query`]. What it finds may be this client's alone, so it is not kept.
    pub fn query(&self, key: &QueryKey, patience: Patience) -> Found<Arc<Executed>> {
        self.ends_at(0);
        self.catalog.query(key, patience)
    }

    /// As [`Catalog::is_stale`].
    pub fn is_stale(&self, scope: &Scope) -> bool {
        let stale = self.catalog.is_stale(scope);
        if stale {
            self.basis.borrow_mut().ends_in(STALE_FOR);
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
        self.basis.borrow_mut().add_everything(self.version);
        found
    }
}
