//! The subjects of watches: the names, the nodes, and the instances of one service.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::debug;

use crate::catalog::{Instance, Kind, Node, Realm, Service, ServiceKey, Slot};

use super::json;
use super::pace::Pace;
use super::request::Ask;
use super::watch::{Context, Subject};

/// The service that every Consul server registers by itself: a list that has nothing else is
/// what a server shows that has just started.
pub(super) const OWN_SERVICE: &str = "consul";

/// Is a list of names whole, as far as one can tell? Where the servers' own service was seen it is
/// still there: a list without it is what a token without rights sees.
fn is_whole(realm: &Realm, names: &HashSet<Arc<str>>) -> bool {
    names.contains(OWN_SERVICE) || !realm.lists(OWN_SERVICE)
}

/// `/v1/catalog/services`: which services exist.
pub(super) struct Names {
    pub(super) context: Context,
    pub(super) realm: Arc<Realm>,
}

impl Subject for Names {
    fn ask(&self) -> Ask {
        Ask::new(&["catalog", "services"]).in_scope(&self.context.scope_of(&self.realm))
    }

    fn pace(&self) -> Pace {
        Pace::of_lists()
    }

    type News = HashSet<Arc<str>>;

    fn read(body: &[u8]) -> serde_json::Result<Self::News> {
        json::service_names(body)
    }

    fn takes_away(&self, news: &Self::News) -> bool {
        self.realm.names().iter().any(|name| !news.contains(name))
    }

    fn empties(&self, news: &Self::News) -> bool {
        let others = |name: &Arc<str>| **name != *OWN_SERVICE;
        !news.iter().any(others) && self.realm.names().iter().any(others)
    }

    fn confirmation(&self) -> Ask {
        self.ask()
    }

    fn confirms(&self, body: &[u8]) -> serde_json::Result<bool> {
        let names = json::service_names(body)?;
        Ok(names.len() <= 1 && is_whole(&self.realm, &names))
    }

    fn publish(&mut self, news: Self::News) {
        if self.realm.publish_names(news) {
            self.context.metrics.published.inc();
        }
    }

    fn confirmed(&mut self) {}
}

/// `/v1/catalog/nodes`: the nodes with their addresses.
pub(super) struct Nodes {
    pub(super) context: Context,
    pub(super) realm: Arc<Realm>,
    pub(super) is_local: bool,
}

impl Subject for Nodes {
    fn ask(&self) -> Ask {
        Ask::new(&["catalog", "nodes"]).in_scope(&self.context.scope_of(&self.realm))
    }

    fn pace(&self) -> Pace {
        Pace::of_lists()
    }

    type News = Vec<Arc<Node>>;

    fn read(body: &[u8]) -> serde_json::Result<Self::News> {
        json::nodes(body)
    }

    fn takes_away(&self, news: &Self::News) -> bool {
        // Every node of the list that is known already stays; fewer of them than are known means
        // that some go.
        let staying = news
            .iter()
            .filter(|node| self.realm.node(&node.name.to_ascii_lowercase()).is_some());
        staying.count() < self.realm.node_count()
    }

    fn empties(&self, news: &Self::News) -> bool {
        news.is_empty() && self.realm.node_count() > 0
    }

    fn confirmation(&self) -> Ask {
        self.ask()
    }

    /// There is no Consul without a node: none at all is what a token without rights sees.
    fn confirms(&self, _body: &[u8]) -> serde_json::Result<bool> {
        Ok(false)
    }

    fn publish(&mut self, news: Self::News) {
        if let Some(node) = news.first().filter(|_| self.is_local) {
            self.realm.name_datacenter(&node.datacenter);
        }
        if self.realm.publish_nodes(news) {
            self.context.metrics.published.inc();
        }
    }

    fn confirmed(&mut self) {}
}

/// `/v1/health/service/NAME` and its kin: the instances of one service. Without `?passing`: a
/// service whose instances are all critical then has a body that is not empty, so that an empty
/// one is worth a doubt.
pub(super) struct Instances {
    pub(super) context: Context,
    pub(super) realm: Arc<Realm>,
    pub(super) key: ServiceKey,
    pub(super) slot: Arc<Slot<Service>>,
}

/// What an instance is known by: its node and its id there.
fn identity(instance: &Instance) -> (&str, &str) {
    (&instance.node.name, &instance.id)
}

impl Subject for Instances {
    fn ask(&self) -> Ask {
        let list = match self.key.kind() {
            Kind::Service => "service",
            Kind::Connect => "connect",
            Kind::Ingress => "ingress",
        };
        Ask::new(&["health", list, self.key.name()]).in_scope(&self.context.scope_of(&self.realm))
    }

    fn pace(&self) -> Pace {
        Pace::of_service()
    }

    type News = Service;

    fn read(body: &[u8]) -> serde_json::Result<Self::News> {
        json::service(body)
    }

    fn takes_away(&self, news: &Self::News) -> bool {
        let Some((_, known)) = self.slot.get() else {
            return false;
        };
        let stays: HashSet<(&str, &str)> = news.instances().iter().map(identity).collect();
        !known
            .instances()
            .iter()
            .all(|instance| stays.contains(&identity(instance)))
    }

    fn empties(&self, news: &Self::News) -> bool {
        let was_empty = self
            .slot
            .get()
            .is_none_or(|(_, service)| service.instances().is_empty());
        let must_have_some = self.key.kind() == Kind::Service || !was_empty;
        news.instances().is_empty() && must_have_some && self.realm.lists(self.key.name())
    }

    /// A service that the leader still lists has instances, whoever says that it has none.
    fn confirmation(&self) -> Ask {
        Ask::new(&["catalog", "services"]).in_scope(&self.context.scope_of(&self.realm))
    }

    fn confirms(&self, body: &[u8]) -> serde_json::Result<bool> {
        let names = json::service_names(body)?;
        // Lists of gateways and proxies can be empty while the service is not.
        let is_gone = self.key.kind() != Kind::Service || !names.contains(self.key.name());
        Ok(is_gone && is_whole(&self.realm, &names))
    }

    fn publish(&mut self, news: Self::News) {
        if self.realm.publish(&self.key, &self.slot, news) {
            self.context.metrics.published.inc();
            debug!(service = %self.key, "published");
        }
    }

    fn confirmed(&mut self) {
        self.slot.confirm();
    }
}
