//! The catalog: our in-memory copy of what exists, as immutable pieces behind versions.
//!
//! A [`Layer`] is what one source knows. The [`Catalog`] asks its layers in order; a name belongs
//! to the first layer that has it. Readers never wait for a writer: they take an `Arc` of what is
//! published. A service of a lazy source (Consul) is loaded by the first question for it: the
//! lookup leaves an [`Interest`] and hands back a [`Pending`] to wait on. Clock, versions and epoch
//! are the catalog's own ([`Versions`]), and what an answer was made from is its [`Validity`].
//!
//! This room knows no DNS, no HTTP and no Docker.

mod aging;
mod away;
mod layer;
mod model;
mod nodes;
mod places;
mod prepared;
mod reader;
mod realm;
mod realms;
mod reverse;
mod slot;
mod slots;
mod unlisted;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub use away::Unread;
pub use layer::{Interest, Interests, Layer, Loaded, Patience};
pub use model::{
    Health, Instance, Kind, NamedPort, Node, Scope, Service, ServiceKey, TaggedAddress, Weights,
};
pub use places::{Edition, Peers, Places};
pub use prepared::{Prepared, PreparedKey, PreparedSlot};
pub use reader::{Reader, Validity};
pub use realm::Realm;
pub use slot::{Pending, Slot};
pub use unlisted::{Absence, Sought};

/// What a look finds, here and in every room above: a look never waits.
pub type Found<T> = Result<T, Miss>;

/// Why a look finds nothing.
#[derive(Debug)]
pub enum Miss {
    /// Whoever would know says that it does not exist.
    Absent,
    /// It is on its way: wait, then look again.
    Loading(Pending),
    /// Whoever would know has had no data yet, so nothing may be said (D5).
    Unready,
}

/// All layers, asked in order.
#[derive(Debug)]
pub struct Catalog {
    layers: Vec<Arc<Layer>>,
    versions: Arc<Versions>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalog {
    /// A catalog without layers. A name belongs to the first of those that are added that has it. A
    /// layer that may be without data for long (Consul) goes last, so that it cannot hold up the
    /// others.
    pub fn new() -> Self {
        Self {
            layers: Vec::new(),
            versions: Arc::new(Versions::new()),
        }
    }

    /// Adds the layer of a source that publishes everything it has, for one datacenter.
    pub fn add_complete(&mut self, name: &'static str, datacenter: &str) -> Arc<Layer> {
        let layer = Layer::complete(name, datacenter, &self.versions);
        self.layers.push(Arc::clone(&layer));
        layer
    }

    /// Adds the layer of a source that loads what is asked for, and gives where it reads that.
    pub fn add_lazy(&mut self, name: &'static str) -> (Arc<Layer>, Interests) {
        let (layer, interests) = Layer::lazy(name, &self.versions);
        self.layers.push(Arc::clone(&layer));
        (layer, interests)
    }

    /// The layers, first asked first.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// Its clock and its versions.
    pub fn versions(&self) -> &Arc<Versions> {
        &self.versions
    }

    /// The catalog for one answer, which notes what is read of it.
    pub fn read(&self) -> Reader<'_> {
        Reader::new(self)
    }

    /// The datacenter that names without one are in: the last layer's (Consul's), else the first
    /// one that is known. Empty before any is.
    pub fn local_datacenter(&self) -> Arc<String> {
        self.layers
            .iter()
            .rev()
            .map(|layer| layer.local().datacenter())
            .find(|name| !name.is_empty())
            .unwrap_or_default()
    }

    /// The instances of a service.
    pub fn service(
        &self,
        scope: &Scope,
        key: &ServiceKey,
        patience: Patience,
    ) -> Found<Loaded<Service>> {
        self.first(|layer| layer.service(scope, key, patience))
    }

    /// A node by name, whatever its case.
    pub fn node(&self, scope: &Scope, name: &str, patience: Patience) -> Found<Arc<Node>> {
        let name = name.to_ascii_lowercase();
        self.first(|layer| layer.node(scope, &name, patience))
    }

    /// Is there a node below this name (`name` = `b` for a node `a.b`)?
    pub fn has_node_below(&self, scope: &Scope, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let below = |realm: Arc<Realm>| realm.has_node_below(&name);
        self.layers
            .iter()
            .any(|layer| layer.realm(scope).is_ok_and(below))
    }

    /// Does the datacenter, peer or namespace exist?
    pub fn has(&self, scope: &Scope) -> Found<()> {
        self.first(|layer| layer.has(scope))
    }

    /// As [`Layer::absent_until`], of the layer whose list of datacenters is read again first.
    fn absent_until(&self, scope: &Scope) -> Option<u64> {
        let layers = self.layers.iter();
        layers.filter_map(|layer| layer.absent_until(scope)).min()
    }

    /// The result of a prepared query; `None` if there is no such query.
    pub fn prepared(
        &self,
        key: &PreparedKey,
        patience: Patience,
    ) -> Found<Loaded<Option<Prepared>>> {
        self.first(|layer| layer.prepared(key, patience))
    }

    /// Are its nodes those that were known last, because there is no usable answer about them?
    pub fn nodes_age(&self, scope: &Scope) -> bool {
        let age = |realm: Arc<Realm>| realm.nodes_age();
        self.layers
            .iter()
            .any(|layer| layer.realm(scope).is_ok_and(age))
    }

    /// Is this scope served from the last that was known, because its source is away?
    pub fn is_stale(&self, scope: &Scope) -> bool {
        let stale = |realm: Arc<Realm>| realm.stale_millis().is_some();
        self.layers
            .iter()
            .any(|layer| layer.realm(scope).is_ok_and(stale))
    }

    /// May what the lists of this scope do not have exist all the same?
    pub fn is_behind(&self, scope: &Scope) -> bool {
        let behind = |realm: Arc<Realm>| realm.names_are_behind() || realm.nodes_are_behind();
        self.layers
            .iter()
            .any(|layer| layer.realm(scope).is_ok_and(behind))
    }

    /// The node at an address of the local datacenter.
    pub fn node_at(&self, address: IpAddr) -> Option<Arc<Node>> {
        self.layers
            .iter()
            .find_map(|layer| layer.local().node_at(address))
    }

    /// The name of the service at an address of the local datacenter.
    pub fn service_at(&self, address: IpAddr) -> Found<Arc<str>> {
        self.first(|layer| layer.at_address(address))
    }

    /// The first layer that has it decides; a layer that cannot tell yet decides too, since what
    /// it may have would have come first.
    fn first<T>(&self, look: impl Fn(&Layer) -> Found<T>) -> Found<T> {
        self.layers
            .iter()
            .map(|layer| look(layer))
            .find(|found| !matches!(found, Err(Miss::Absent)))
            .unwrap_or(Err(Miss::Absent))
    }
}

/// What tells old from new in one catalog.
#[derive(Debug)]
pub struct Versions {
    started: Instant,
    /// The version that is given out next. Versions are unique within a catalog, so that an answer
    /// that remembers one can never take the value of a slot that was dropped and made anew for its
    /// own.
    next: AtomicU64,
    /// Moves when something changes that any answer may depend on: a source comes or goes, a source
    /// that publishes everything has new data, datacenters change, the operator's settings change.
    epoch: AtomicU64,
}

impl Versions {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            next: AtomicU64::new(1),
            epoch: AtomicU64::new(1),
        }
    }

    /// Milliseconds on the catalog's clock, which never goes back. It starts at one second: 0 stands
    /// for never.
    pub fn millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1000
    }

    /// Seconds on the same clock.
    pub fn seconds(&self) -> u64 {
        self.millis() / 1000
    }

    /// Makes every answer of before out of date. For what changes seldom; call it after the change.
    pub fn new_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// When it has not moved, nothing has that bears a version.
    pub(super) fn latest(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Takes the next version. What it marks must be there before.
    pub(super) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::AcqRel)
    }
}
