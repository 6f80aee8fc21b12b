//! What only the instances of all services tell: addresses -> the services that have them, and of a cluster peer
//! its nodes. Consul offers no such index (D19).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::mpsc;

use super::nodes::is_below;
use super::slot::Want;
use super::{Instance, Interest, Miss, Node, Service};

/// The addresses of all services whose instances have been seen.
#[derive(Debug)]
pub(super) struct Reverse {
    seen: RwLock<Seen>,
    /// The addresses of all services; met when they have been seen once.
    all: Want,
}

impl Reverse {
    pub(super) fn new() -> Self {
        Self {
            seen: RwLock::default(),
            all: Want::new(),
        }
    }

    /// Learns at which addresses a service is. False if that was known.
    pub(super) fn learn(&self, name: &str, service: &Service) -> bool {
        let instances = service.instances().iter();
        let addresses = instances.filter_map(|instance| instance.address.parse::<IpAddr>().ok());
        let addresses = addresses.map(|address| address.to_canonical()).collect();
        self.write().set(name, addresses)
    }

    /// Learns on which nodes a service is. False if that was known.
    pub(super) fn learn_nodes(&self, name: &str, service: &Service) -> bool {
        let instances = service.instances().iter();
        let by_name = |instance: &Instance| {
            let node = Arc::clone(&instance.node);
            (node.name.to_ascii_lowercase(), node)
        };
        self.write()
            .set_nodes(name, instances.map(by_name).collect())
    }

    /// The node of that name, in lower case, among those that have been seen.
    pub(super) fn node(&self, name: &str) -> Option<Arc<Node>> {
        let seen = self.read();
        seen.nodes.get(name)?.values().next().cloned()
    }

    /// Is there one below that name?
    pub(super) fn has_node_below(&self, suffix: &str) -> bool {
        let seen = self.read();
        seen.nodes.keys().any(|name| is_below(name, suffix))
    }

    /// The service has gone.
    pub(super) fn remove(&self, service: &str) {
        self.write().remove(service);
    }

    /// Keeps only services that `exists` knows.
    pub(super) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.write().retain(exists);
    }

    /// The first service, by name, with an instance at that address.
    pub(super) fn service_at(&self, address: IpAddr) -> Option<Arc<str>> {
        self.read().service_at(address.to_canonical())
    }

    /// Have the addresses of that service been seen?
    pub(super) fn knows(&self, service: &str) -> bool {
        self.read().knows(service)
    }

    /// The addresses of all services have been seen.
    pub(super) fn complete(&self) {
        self.all.met();
    }

    pub(super) fn is_complete(&self) -> bool {
        self.all.was_met()
    }

    /// What to wait for until they have been.
    pub(super) fn leave(
        &self,
        to: Option<&mpsc::Sender<Interest>>,
        interest: impl FnOnce() -> Interest,
    ) -> Miss {
        self.all.leave(to, interest)
    }

    fn read(&self) -> RwLockReadGuard<'_, Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Seen> {
        self.seen.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Seen {
    by_service: HashMap<Arc<str>, Vec<IpAddr>>,
    by_address: HashMap<IpAddr, BTreeSet<Arc<str>>>,
    /// Nodes by name in lower case, as each service that is on them shows them.
    nodes: HashMap<String, BTreeMap<Arc<str>, Arc<Node>>>,
}

impl Seen {
    /// The service has these addresses, and no others. False if that was known.
    fn set(&mut self, service: &str, mut addresses: Vec<IpAddr>) -> bool {
        addresses.sort_unstable();
        addresses.dedup();
        if self.by_service.get(service) == Some(&addresses) {
            return false;
        }
        self.remove_addresses(service);
        let service: Arc<str> = service.into();
        for address in &addresses {
            self.by_address
                .entry(*address)
                .or_default()
                .insert(Arc::clone(&service));
        }
        self.by_service.insert(service, addresses);
        true
    }

    /// The service is on these nodes, and on no others. False if that was known.
    fn set_nodes(&mut self, service: &str, on: BTreeMap<String, Arc<Node>>) -> bool {
        let known = self.nodes.iter().filter_map(|(name, shown)| {
            let node = shown.get(service)?;
            Some((name.clone(), Arc::clone(node)))
        });
        let known: BTreeMap<_, _> = known.collect();
        if known == on {
            return false;
        }
        self.remove_nodes(service);
        let service: Arc<str> = service.into();
        for (name, node) in on {
            let shown = self.nodes.entry(name).or_default();
            shown.insert(Arc::clone(&service), node);
        }
        true
    }

    fn remove_nodes(&mut self, service: &str) {
        self.nodes.retain(|_, shown| {
            shown.remove(service);
            !shown.is_empty()
        });
    }

    /// The service has gone.
    fn remove(&mut self, service: &str) {
        self.remove_nodes(service);
        self.remove_addresses(service);
    }

    fn remove_addresses(&mut self, service: &str) {
        for address in self.by_service.remove(service).unwrap_or_default() {
            if let Some(services) = self.by_address.get_mut(&address) {
                services.remove(service);
                if services.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    /// Keeps only services that `exists` knows.
    fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        let gone: Vec<Arc<str>> = self
            .by_service
            .keys()
            .filter(|service| !exists(service))
            .cloned()
            .collect();
        for service in gone {
            self.remove(&service);
        }
    }

    /// The first service, by name, with an instance at that address.
    fn service_at(&self, address: IpAddr) -> Option<Arc<str>> {
        self.by_address.get(&address)?.first().cloned()
    }

    /// Have its addresses been seen?
    fn knows(&self, service: &str) -> bool {
        self.by_service.contains_key(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_anew_replaces_what_was() {
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        let mut reverse = Seen::default();
        reverse.set("web", vec![ip(1), ip(2), ip(1)]);
        reverse.set("api", vec![ip(1)]);
        assert_eq!(reverse.service_at(ip(1)).as_deref(), Some("api"));
        reverse.set("api", Vec::new());
        assert_eq!(reverse.service_at(ip(1)).as_deref(), Some("web"));
        reverse.set("web", vec![ip(3)]);
        assert_eq!(reverse.service_at(ip(1)), None);
        assert_eq!(reverse.service_at(ip(3)).as_deref(), Some("web"));
        reverse.retain(|service| service != "web");
        assert_eq!(reverse.service_at(ip(3)), None);
        assert!(reverse.by_address.is_empty());
    }
}
