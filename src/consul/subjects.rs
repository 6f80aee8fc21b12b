//! What is watched: the names of all services with their tags, the nodes, the instances of one service, and
//! the keys under a prefix.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tokio::sync::watch::Sender;
use tracing::{debug, warn};

use crate::catalog::{Instance, Kind, Node, Realm, Scope, Service, ServiceKey, Slot};
use crate::http::is_addressable;

use super::client::Ask;
use super::contact::Context;
use super::json::{self, TagsByName};
use super::pace::Pace;

/// What a watch asks for, and what becomes of it.
pub(super) trait Subject {
    /// What to read.
    fn ask(&self) -> Ask;
    /// How fast.
    fn pace(&self) -> Pace;
    /// What a body says.
    type News: Send + Sync;
    /// What it is in words, if everything else is found by it.
    const WHAT: Option<&'static str> = None;
    /// Reads a body.
    fn read(&self, body: &[u8]) -> serde_json::Result<Self::News>;
    /// Would publishing this take away something that is published?
    fn takes_away(&self, news: &Self::News) -> bool;
    /// Is it empty although something must be there? That is never believed unconfirmed.
    fn empties(&self, news: &Self::News) -> bool;
    /// What to ask the leader before an empty answer is believed.
    fn confirmation(&self) -> Vec<Ask>;
    /// Do the leader's answers to that bear the emptiness out?
    fn confirms(&self, bodies: &[Vec<u8>]) -> serde_json::Result<bool>;
    /// Publishes it, as of this index.
    fn publish(&mut self, news: Self::News, index: Option<u64>);
    /// Consul has answered, whether with news or not.
    fn confirmed(&mut self) {}
    /// Consul had no usable answer.
    fn fell_silent(&mut self) {}
    /// Does somebody wait for it, or may it wait where Consul limits the rate of reads?
    fn is_urgent(&self) -> bool {
        false
    }
    /// Is there nothing left to watch?
    fn is_over(&self) -> bool {
        false
    }
    /// From now on what is published may be behind what Consul has, or is not.
    fn falls_behind(&mut self, _behind: bool) {}
}

/// The service that every Consul server registers by itself: a list that has nothing else is
/// what a server shows that has just started.
pub(super) const OWN_SERVICE: &str = "consul";

/// `/v1/catalog/services`: which services exist, and their tags for whoever wants them.
pub(super) struct Names {
    pub(super) context: Context,
    pub(super) realm: Arc<Realm>,
    /// Where the tags are published.
    pub(super) tags: Option<Sender<Option<Arc<TagsByName>>>>,
    /// Names that were told of because Consul's API cannot be asked for them.
    pub(super) left_out: BTreeSet<String>,
}

/// What the list of services says.
pub(super) struct NamesNews {
    names: HashSet<Arc<str>>,
    /// Those that have no path in Consul's API: what is asked for in their stead would be another's.
    left_out: BTreeSet<String>,
    /// Nothing where nobody wants them.
    tags: TagsByName,
}

impl Names {
    /// Does a service lose a tag, as far as anybody wants to know?
    fn loses_tags(&self, news: &TagsByName) -> bool {
        let Some(published) = &self.tags else {
            return false;
        };
        let known = published.borrow();
        known
            .iter()
            .flat_map(|known| known.iter())
            .any(|(name, tags)| {
                let now = news.get(name);
                now.is_none_or(|now| !tags.is_subset(now))
            })
    }
}

impl Subject for Names {
    fn ask(&self) -> Ask {
        Ask::new(&["catalog", "services"]).in_scope(&self.context.scope_of(&self.realm))
    }

    fn pace(&self) -> Pace {
        Pace::of_names(self.context.list_rate)
    }

    type News = NamesNews;
    const WHAT: Option<&'static str> = Some("the list of services");

    fn read(&self, body: &[u8]) -> serde_json::Result<Self::News> {
        let (mut names, mut tags): (HashSet<Arc<str>>, TagsByName) = match self.tags {
            None => (json::service_names(body)?, TagsByName::new()),
            Some(_) => {
                let tags = json::service_tags(body)?;
                let names = tags.keys().map(|name| Arc::from(name.as_str())).collect();
                (names, tags)
            }
        };
        let mut left_out = BTreeSet::new();
        names.retain(|name| {
            let is_addressable = is_addressable(name);
            if !is_addressable {
                left_out.insert(name.to_string());
                tags.remove(&**name);
            }
            is_addressable
        });
        Ok(NamesNews {
            names,
            left_out,
            tags,
        })
    }

    fn takes_away(&self, news: &Self::News) -> bool {
        let known = self.realm.names();
        known.iter().any(|name| !news.names.contains(name)) || self.loses_tags(&news.tags)
    }

    fn empties(&self, news: &Self::News) -> bool {
        let others = |name: &Arc<str>| **name != *OWN_SERVICE;
        !news.names.iter().any(others) && self.realm.names().iter().any(others)
    }

    fn confirmation(&self) -> Vec<Ask> {
        vec![self.ask()]
    }

    /// Where the servers' own service was seen it is still there: a list without it is what a token without
    /// rights sees.
    fn confirms(&self, bodies: &[Vec<u8>]) -> serde_json::Result<bool> {
        let [body] = bodies else { return Ok(false) };
        let mut names = json::service_names(body)?;
        names.retain(|name| is_addressable(name));
        let is_whole = names.contains(OWN_SERVICE) || !self.realm.lists(OWN_SERVICE);
        Ok(names.len() <= 1 && is_whole)
    }

    fn publish(&mut self, news: Self::News, index: Option<u64>) {
        if news.left_out != self.left_out && !news.left_out.is_empty() {
            warn!(
                services = ?news.left_out,
                "Consul's API cannot be asked for services of these names, so they are not answered: register them \
                 under names that can stand in a URL"
            );
        }
        self.left_out = news.left_out;
        // Who has heard of a service by its tag may ask for its name at once.
        if self.realm.publish_names(news.names, index) {
            self.context.metrics.published.inc();
        }
        if let Some(published) = &self.tags {
            self.context.publish(published, news.tags);
        }
    }

    fn confirmed(&mut self) {
        self.context.contact.saw_names();
    }

    /// It tells of all that is new.
    fn is_urgent(&self) -> bool {
        true
    }

    fn falls_behind(&mut self, behind: bool) {
        self.realm.set_names_behind(behind);
    }
}

/// `/v1/catalog/nodes`: the nodes with their addresses.
pub(super) struct Nodes {
    pub(super) context: Context,
    pub(super) realm: Arc<Realm>,
    pub(super) is_local: bool,
}

impl Nodes {
    /// A datacenter has nodes; what a peer or a part of Consul Enterprise shows may have none.
    fn has_nodes(&self) -> bool {
        let scope = self.realm.scope();
        scope.peer.is_none() && !scope.is_enterprise()
    }
}

impl Subject for Nodes {
    fn ask(&self) -> Ask {
        Ask::new(&["catalog", "nodes"]).in_scope(&self.context.scope_of(&self.realm))
    }

    fn pace(&self) -> Pace {
        Pace::of_nodes(self.context.list_rate)
    }

    type News = Vec<Arc<Node>>;
    const WHAT: Option<&'static str> = Some("the list of nodes");

    fn read(&self, body: &[u8]) -> serde_json::Result<Self::News> {
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
        match news.is_empty() {
            true => self.realm.node_count() > 0 || self.has_nodes(),
            // The names come first.
            false => self.context.contact.is_blind() && !self.realm.is_ready(),
        }
    }

    fn confirmation(&self) -> Vec<Ask> {
        vec![self.ask()]
    }

    /// There is no Consul without a node: none at all is what a token without rights sees.
    fn confirms(&self, bodies: &[Vec<u8>]) -> serde_json::Result<bool> {
        let [body] = bodies else { return Ok(false) };
        let some = !json::nodes(body)?.is_empty();
        self.context.contact.saw_nodes(some || !self.has_nodes());
        Ok(false)
    }

    fn publish(&mut self, news: Self::News, _index: Option<u64>) {
        if let Some(node) = news.first().filter(|_| self.is_local) {
            self.realm.name_datacenter(&node.datacenter);
        }
        if self.realm.publish_nodes(news) {
            self.context.metrics.published.inc();
        }
    }

    fn confirmed(&mut self) {
        self.context.contact.saw_nodes(true);
        self.realm.nodes_heard(true);
    }

    fn fell_silent(&mut self) {
        self.realm.nodes_heard(false);
    }

    fn falls_behind(&mut self, behind: bool) {
        self.realm.set_nodes_behind(behind);
    }
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

/// What to ask for the instances of that key.
pub(super) fn ask_for(key: &ServiceKey, scope: &Scope) -> Ask {
    let name = key.name();
    let ask = match key.kind() {
        Kind::Service => Ask::new(&["health", "service", name]),
        Kind::Connect => Ask::new(&["health", "connect", name]),
        Kind::Ingress => Ask::new(&["health", "ingress", name]),
        // The first of several questions (`gateways`).
        Kind::ApiGateway => Ask::new(&["config", "api-gateway"]),
        Kind::Virtual => Ask {
            may_be_refused: true,
            ..Ask::new(&["discovery-chain", name])
        },
    };
    ask.in_scope(scope)
}

/// What a body of that kind says.
pub(super) fn read_instances(kind: Kind, body: &[u8]) -> serde_json::Result<Service> {
    match kind {
        Kind::Virtual => json::virtual_addresses(body),
        _ => json::service(body),
    }
}

/// What an instance is known by: its node and its id there.
fn identity(instance: &Instance) -> (&str, &str) {
    (&instance.node.name, &instance.id)
}

impl Subject for Instances {
    fn ask(&self) -> Ask {
        ask_for(&self.key, &self.context.scope_of(&self.realm))
    }

    fn pace(&self) -> Pace {
        Pace::of_service()
    }

    type News = Service;

    fn read(&self, body: &[u8]) -> serde_json::Result<Self::News> {
        read_instances(self.key.kind(), body)
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
        // What a peer exports may have no instance but proxies.
        let is_own = self.key.kind() == Kind::Service && !self.realm.is_of_peer();
        let must_have_some = is_own || !was_empty;
        news.instances().is_empty() && must_have_some && self.realm.lists(self.key.name())
    }

    /// A service that the leader still lists has instances, whoever says that it has none. Lists of gateways
    /// and proxies can be empty while the service is not. And where the servers' own service was seen, it is
    /// still there: that it is not is what a token without rights sees.
    fn confirmation(&self) -> Vec<Ask> {
        let scope = self.context.scope_of(&self.realm);
        let listed = |name| Ask::new(&["catalog", "service", name]).in_scope(&scope);
        // The catalog knows nothing of what peers export.
        if self.realm.is_of_peer() {
            return vec![self.ask()];
        }
        let mut asks = Vec::new();
        if self.key.kind() == Kind::Service {
            asks.push(listed(self.key.name()));
        }
        if self.realm.lists(OWN_SERVICE) && self.key.name() != OWN_SERVICE {
            asks.push(listed(OWN_SERVICE));
        }
        asks
    }

    fn confirms(&self, bodies: &[Vec<u8>]) -> serde_json::Result<bool> {
        let mut bodies = bodies.iter();
        let own_stays = self.key.name() != OWN_SERVICE;
        if self.key.kind() == Kind::Service || self.realm.is_of_peer() {
            let listed = bodies.next().map(|body| json::is_empty(body)).transpose()?;
            if listed != Some(true) {
                return Ok(false);
            }
        }
        let blind = bodies.next().map(|body| json::is_empty(body)).transpose()?;
        Ok(own_stays && blind != Some(true))
    }

    fn publish(&mut self, news: Self::News, _index: Option<u64>) {
        let is_gone = self.key.kind() == Kind::Service && news.instances().is_empty();
        if self.realm.publish(&self.key, &self.slot, news) {
            self.context.metrics.published.inc();
            debug!(service = %self.key, "published");
        }
        // The list may take a while to say so.
        if is_gone && self.realm.holds(&self.key, &self.slot) {
            self.realm.lost_service(self.key.name());
        }
    }

    fn is_urgent(&self) -> bool {
        self.slot.get().is_none()
    }

    /// A watch on a name that does not exist would wake with every registration.
    fn is_over(&self) -> bool {
        !self.realm.holds(&self.key, &self.slot)
    }

    fn confirmed(&mut self) {
        self.slot.confirm();
    }

    fn fell_silent(&mut self) {
        self.slot.fell_silent();
    }
}

/// Values by key, as they are stored. The keys are whole, with the prefix.
pub type KeyValues = BTreeMap<String, Vec<u8>>;

/// `/v1/kv/PREFIX?recurse`.
pub(super) struct Keys {
    context: Context,
    prefix: String,
    published: Sender<Option<Arc<KeyValues>>>,
}

/// An element of the body.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PairJson {
    key: String,
    /// `null` for a key without a value.
    #[serde(default, deserialize_with = "from_base64")]
    value: Vec<u8>,
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    let text = text.unwrap_or_default();
    STANDARD.decode(text).map_err(D::Error::custom)
}

impl Keys {
    pub(super) fn new(
        context: Context,
        prefix: &str,
        published: Sender<Option<Arc<KeyValues>>>,
    ) -> Self {
        Self {
            context,
            prefix: prefix.to_owned(),
            published,
        }
    }
}

impl Subject for Keys {
    /// Consul says 404 when there is no key under the prefix.
    fn ask(&self) -> Ask {
        let mut path = vec!["kv"];
        path.extend(self.prefix.split('/'));
        let scope = self.context.scope_of(self.context.contact.realm());
        let mut ask = Ask::new(&path).in_scope(&scope);
        ask.params.push(("recurse", "true".to_owned()));
        ask.may_be_absent = true;
        ask.may_be_refused = true;
        ask
    }

    fn pace(&self) -> Pace {
        Pace::of_keys()
    }

    type News = KeyValues;
    const WHAT: Option<&'static str> = Some("the keys");

    fn read(&self, body: &[u8]) -> serde_json::Result<Self::News> {
        key_values(body)
    }

    fn takes_away(&self, news: &Self::News) -> bool {
        let known = self.published.borrow();
        let mut known = known.iter().flat_map(|known| known.keys());
        known.any(|key| !news.contains_key(key))
    }

    fn empties(&self, news: &Self::News) -> bool {
        let known = self.published.borrow();
        news.is_empty() && known.as_ref().is_some_and(|known| !known.is_empty())
    }

    fn confirmation(&self) -> Vec<Ask> {
        vec![self.ask()]
    }

    fn confirms(&self, bodies: &[Vec<u8>]) -> serde_json::Result<bool> {
        let [body] = bodies else { return Ok(false) };
        Ok(self.read(body)?.is_empty())
    }

    fn publish(&mut self, news: Self::News, _index: Option<u64>) {
        self.context.publish(&self.published, news);
    }
}

fn key_values(body: &[u8]) -> serde_json::Result<KeyValues> {
    if body.is_empty() {
        return Ok(KeyValues::new());
    }
    let pairs: Vec<PairJson> = serde_json::from_slice(body)?;
    // A key that ends in a slash is a folder of Consul's user interface.
    let pairs = pairs.into_iter().filter(|pair| !pair.key.ends_with('/'));
    Ok(pairs.map(|pair| (pair.key, pair.value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_folders_left_out() {
        let body = br#"[{"Key":"a/","Value":null},{"Key":"a/b","Value":"NDA5Ng=="},
            {"Key":"a/c","Value":null}]"#;
        let keys = key_values(body).expect("Consul's form");
        let expected = [("a/b", "4096"), ("a/c", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(keys, KeyValues::from(expected));
        assert!(key_values(b"").expect("nothing").is_empty());
        for body in ["{}", "[{\"Key\":\"a\",\"Value\":\"?\"}]", "<html>"] {
            assert!(key_values(body.as_bytes()).is_err(), "{body}");
        }
    }
}
