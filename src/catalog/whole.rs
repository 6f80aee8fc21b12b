//! The catalog: all layers, asked in order.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Executed, Found, Layer, Loaded, Node, Patience, QueryKey, Scope, ServiceKey};

/// All layers, asked in order.
#[derive(Debug)]
pub struct Catalog {
    layers: Vec<Arc<Layer>>,
}

impl Catalog {
    /// A name belongs to the first of `layers` that has it. A layer that may be without data for
    /// long (Consul) goes last, so that it cannot hold up the others.
    pub fn new(layers: Vec<Arc<Layer>>) -> Self {
        Self { layers }
    }

    /// The layers, first asked first.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
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

    /// The instances of a service, asked for at `now` seconds.
    pub fn service(
        &self,
        scope: &Scope,
        key: &ServiceKey,
        now: u64,
        patience: Patience,
    ) -> Found<Loaded> {
        self.first(|layer| layer.service(scope, key, now, patience))
    }

    /// A node by name, whatever its case.
    pub fn node(&self, scope: &Scope, name: &str) -> Found<Arc<Node>> {
        let name = name.to_ascii_lowercase();
        self.first(|layer| {
            layer
                .realm(scope)
                .and_then(|realm| realm.node(&name).map_or(Found::Absent, Found::Here))
        })
    }

    /// Is there a node below this name (`name` = `b` for a node `a.b`)?
    pub fn has_node_below(&self, scope: &Scope, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.layers.iter().any(
            |layer| matches!(layer.realm(scope), Found::Here(realm) if realm.has_node_below(&name)),
        )
    }

    /// Does the datacenter, peer or namespace exist?
    pub fn has(&self, scope: &Scope) -> Found<()> {
        self.first(|layer| layer.has(scope))
    }

    /// The result of a prepared query.
    pub fn query(&self, key: &QueryKey, patience: Patience) -> Found<Arc<Executed>> {
        self.first(|layer| layer.query(key, patience))
    }

    /// Is this scope served from the last that was known, because its source is away?
    pub fn is_stale(&self, scope: &Scope) -> bool {
        self.layers.iter().any(
            |layer| matches!(layer.realm(scope), Found::Here(realm) if realm.stale_millis().is_some()),
        )
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
            .find(|found| !matches!(found, Found::Absent))
            .unwrap_or(Found::Absent)
    }
}
