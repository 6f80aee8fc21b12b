//! What one source knows, and what it is asked to load.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::places::Places;
use super::prepared::PreparedQueries;
use super::realms::Realms;
use super::slot::millis;
use super::unlisted::Unlisted;
use super::{
    Absence, Found, Kind, Miss, Node, Peers, Prepared, PreparedKey, PreparedSlot, Realm, Scope,
    Service, ServiceKey, Slot, Sought, Versions,
};

/// What a lazy source is asked to load.
#[derive(Debug)]
pub enum Interest {
    /// A datacenter that nobody asked for before: its names and nodes.
    Realm(Arc<Realm>),
    /// The instances of one service.
    Service {
        /// The datacenter it was asked in.
        realm: Arc<Realm>,
        /// Which list.
        key: ServiceKey,
        /// Where to publish it.
        slot: Arc<Slot<Service>>,
    },
    /// The list of datacenters: somebody asks for one that is not in it.
    Datacenters,
    /// The list of cluster peers, for the same reason.
    Peers,
    /// The addresses of all services, for reverse names.
    Reverse(Arc<Realm>),
    /// Whether there is something that a list does not have.
    Unlisted {
        /// The datacenter it was asked in.
        realm: Arc<Realm>,
        /// What.
        sought: Sought,
        /// Where to publish that there is not.
        absence: Arc<Absence>,
    },
    /// The execution of a prepared query.
    Query {
        /// Which.
        key: PreparedKey,
        /// Where to publish the result.
        slot: Arc<PreparedSlot>,
    },
}

/// Where a lazy source reads what it is to load.
pub type Interests = mpsc::Receiver<Interest>;

/// Interests that a source has not taken yet; beyond it a question is answered SERVFAIL and the
/// next one for the same name tries again.
const INTEREST_QUEUE: usize = 4096;

/// A service as it is published.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// What is published: a service, or the result of a prepared query.
    pub value: Arc<T>,
    /// The slot and version that it was read from.
    pub source: (Arc<Slot<T>>, u64),
    /// It is the last that was known: the source is away, or has no usable answer about it.
    pub stale: bool,
}

/// May a lookup wait until old data has been confirmed?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It may.
    Some,
    /// It has waited enough: what is known will do.
    None,
}

/// What one source knows.
#[derive(Debug)]
pub struct Layer {
    name: &'static str,
    local: Arc<Realm>,
    remote: Realms,
    places: Places,
    queries: PreparedQueries,
    unlisted: Unlisted,
    /// Milliseconds.
    max_stale: AtomicU64,
    interests: Option<mpsc::Sender<Interest>>,
    versions: Arc<Versions>,
}

impl Layer {
    /// The layer of a source that publishes everything it has, for one datacenter.
    pub(super) fn complete(
        name: &'static str,
        datacenter: &str,
        versions: &Arc<Versions>,
    ) -> Arc<Self> {
        let known = BTreeSet::from([datacenter.to_ascii_lowercase()]);
        let layer = Self::new(name, datacenter, None, versions);
        layer.places.publish_datacenters(known);
        layer.places.publish_peers(Peers::new());
        Arc::new(layer)
    }

    /// The layer of a source that loads what is asked for, and where it reads that.
    pub(super) fn lazy(name: &'static str, versions: &Arc<Versions>) -> (Arc<Self>, Interests) {
        let (sender, receiver) = mpsc::channel(INTEREST_QUEUE);
        let layer = Self::new(name, "", Some(sender), versions);
        (Arc::new(layer), receiver)
    }

    fn new(
        name: &'static str,
        datacenter: &str,
        interests: Option<mpsc::Sender<Interest>>,
        versions: &Arc<Versions>,
    ) -> Self {
        Self {
            name,
            local: Arc::new(Realm::new(Scope::default(), datacenter, versions)),
            remote: Realms::default(),
            places: Places::new(versions),
            queries: PreparedQueries::default(),
            unlisted: Unlisted::default(),
            max_stale: AtomicU64::new(u64::MAX),
            interests,
            versions: Arc::clone(versions),
        }
    }

    /// The clock and the versions of the catalog that it is in.
    pub fn versions(&self) -> &Arc<Versions> {
        &self.versions
    }

    /// The source's name, for logs and `/ready`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The source's own datacenter.
    pub fn local(&self) -> &Arc<Realm> {
        &self.local
    }

    /// Publishes which datacenters exist, and lets go of those that no longer do.
    pub fn publish_datacenters(&self, names: BTreeSet<String>) {
        self.remote.retain(|scope| {
            let datacenter = scope.datacenter.as_ref();
            datacenter.is_none_or(|name| names.contains(name))
        });
        self.places.publish_datacenters(names);
    }

    /// Publishes which cluster peers exist, and what they export.
    pub fn publish_peers(&self, peers: Peers) {
        self.remote.retain(|scope| {
            let peer = scope.peer.as_ref();
            peer.is_none_or(|name| peers.contains_key(name))
        });
        self.places.publish_peers(peers);
        let names = self.places.peers().into_iter().flatten();
        for realm in names.filter_map(|peer| self.remote.of_peer(&peer)) {
            self.import(&realm);
        }
    }

    /// Publishes the names of what a peer exports, as far as they are known.
    pub fn import(&self, realm: &Realm) {
        let peer = realm.scope().peer.as_ref();
        let imported = peer.and_then(|peer| self.places.imported(peer));
        if let Some(names) = imported {
            // What was found beyond the list stays until it is no longer found.
            realm.publish_names((*names).clone(), Some(0));
        }
    }

    /// What there is beside the source's own datacenter.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Does the layer still hold this realm?
    pub fn holds(&self, realm: &Arc<Realm>) -> bool {
        Arc::ptr_eq(&self.local, realm) || self.remote.holds(realm)
    }

    /// When another realm than the local one was last asked for, in seconds on the catalog's clock; `None` if
    /// the layer does not hold it.
    pub fn last_asked(&self, realm: &Arc<Realm>) -> Option<u64> {
        self.remote.last_asked(realm)
    }

    /// The source has no room for another realm: for so long it is not asked for it again.
    pub fn put_off(&self, realm: &Arc<Realm>, pause: Duration) {
        let until = self.versions.millis().saturating_add(millis(pause));
        self.remote.put_off(realm, until);
    }

    /// Lets another realm go: the next question for it loads it anew.
    pub fn let_go(&self, realm: &Arc<Realm>) {
        self.remote.let_go(realm);
        self.versions.new_epoch();
    }

    /// Does the scope exist, as far as its names tell?
    pub(super) fn has(&self, scope: &Scope) -> Found<()> {
        if !self.places.has_tenancy(scope) {
            return Err(Miss::Absent);
        }
        let is_away = || self.local.stale_millis().is_some();
        self.places.find(
            scope,
            |name| self.is_local(name),
            is_away,
            self.interests.as_ref(),
        )
    }

    /// Until when, in milliseconds on the catalog's clock, the scope is absent because its datacenter or peer is;
    /// `None` where it is for another reason.
    pub(super) fn absent_until(&self, scope: &Scope) -> Option<u64> {
        let is_local = |name: &str| self.is_local(name);
        let is_known = self.places.lists(scope, is_local) == Some(true);
        let may_come = self.interests.is_some() && !is_known;
        may_come.then(|| self.places.held_until(scope))
    }

    fn is_local(&self, datacenter: &str) -> bool {
        self.local.datacenter().eq_ignore_ascii_case(datacenter)
    }

    /// The realm of a scope, with its data, if it exists.
    pub(super) fn realm(&self, scope: &Scope) -> Found<Arc<Realm>> {
        self.has(scope)?;
        let mut scope = scope.clone();
        scope.datacenter = scope.datacenter.filter(|name| !self.is_local(name));
        let scope = self.places.known_as(scope);
        let realm = if scope == Scope::default() {
            Arc::clone(&self.local)
        } else {
            self.remote(scope)?
        };
        if realm.is_ready() {
            return if self.is_too_stale(&realm) {
                Err(Miss::Unready)
            } else {
                Ok(realm)
            };
        }
        if Arc::ptr_eq(&realm, &self.local) {
            return Err(Miss::Unready);
        }
        let miss = realm.leave(self.interests.as_ref());
        // It may have come in the meantime.
        if realm.is_ready() {
            Ok(realm)
        } else {
            Err(miss)
        }
    }

    /// Has its source been away for longer than the operator allows?
    pub fn is_too_stale(&self, realm: &Realm) -> bool {
        self.is_too_old(realm.stale_millis())
    }

    fn is_too_old(&self, age: Option<u64>) -> bool {
        age.is_some_and(|age| age > self.max_stale.load(Ordering::Relaxed))
    }

    /// For how long at most the last known good is served while the source is away.
    pub fn set_max_stale(&self, most: Duration) {
        let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        self.max_stale.store(millis, Ordering::Relaxed);
        self.versions.new_epoch();
    }

    /// The realm of a scope that exists, made on the first question for it.
    fn remote(&self, scope: Scope) -> Found<Arc<Realm>> {
        // A complete layer has nothing but its own datacenter.
        if self.interests.is_none() {
            return Err(Miss::Unready);
        }
        // Datacenters and peers are listed, as a rule; namespaces and partitions may be made up.
        let is_hidden = scope.peer.is_some() && self.places.are_peers_hidden();
        let is_made_up = scope.is_enterprise() || is_hidden;
        let may = || match is_made_up {
            true => self.unlisted.later(self.versions.millis()),
            false => Ok(()),
        };
        self.remote.realm(scope, &self.local, may)
    }

    /// The instances of a service, as [`super::Catalog::service`].
    pub fn service(
        &self,
        scope: &Scope,
        key: &ServiceKey,
        patience: Patience,
    ) -> Found<Loaded<Service>> {
        let realm = self.realm(scope)?;
        // Existence is decided here and nowhere else (D3): while the list is followed, an absent name makes
        // no slot, leaves no interest and reaches no source.
        if key.kind() == Kind::Service && !realm.lists(key.name()) {
            let sought = || Sought::Service(key.name().to_owned());
            return Err(self.unlisted(&realm, realm.names_are_behind(), sought, patience));
        }
        // Gateways are for their own datacenter; Consul shows its own for every peer.
        let is_gateway = matches!(key.kind(), Kind::Ingress | Kind::ApiGateway);
        if is_gateway && realm.is_of_peer() {
            return Err(Miss::Absent);
        }
        // That a service is listed does not say that the mesh gives it an address, or an API gateway.
        let is_apart = matches!(key.kind(), Kind::Virtual | Kind::ApiGateway);
        let has_list = !is_apart && realm.lists(key.name());
        if key.kind() != Kind::Service && !has_list && !realm.is_in_mesh(key) {
            let sought = Sought::Mesh(key.clone());
            return Err(match (self.interests.as_ref(), realm.stale_millis()) {
                // A source that publishes everything has nothing else.
                (None, _) => Miss::Absent,
                (_, Some(_)) => Miss::Unready,
                (to, None) => self.unlisted.look(&realm, sought, patience, to),
            });
        }
        let stale = realm.stale_millis().is_some();
        let slot = realm.slot(key);
        let looked = slot.look(Self::patience(patience, stale), |want| {
            want.leave(self.interests.as_ref(), || Interest::Service {
                realm: Arc::clone(&realm),
                key: key.clone(),
                slot: Arc::clone(&slot),
            })
        })?;
        self.loaded(slot, looked, stale)
    }

    /// What was looked up in a slot, unless it is older than the operator allows.
    fn loaded<T>(
        &self,
        slot: Arc<Slot<T>>,
        (version, value): (u64, Arc<T>),
        is_away: bool,
    ) -> Found<Loaded<T>> {
        let age = slot.stale_millis();
        if self.is_too_old(age) {
            return Err(Miss::Unready);
        }
        Ok(Loaded {
            value,
            source: (slot, version),
            stale: is_away || age.is_some(),
        })
    }

    /// The node of that name, which is in lower case.
    pub(super) fn node(&self, scope: &Scope, name: &str, patience: Patience) -> Found<Arc<Node>> {
        let realm = self.realm(scope)?;
        if realm.is_of_peer() {
            let found = realm.find_node(name, self.interests.as_ref());
            // Where it is not told what a peer exports, its nodes are those that were seen.
            let is_hidden = self.places.are_peers_hidden();
            return found.map_err(|miss| if is_hidden { Miss::Unready } else { miss });
        }
        let sought = || Sought::Node(name.to_owned());
        realm
            .node(name)
            .ok_or_else(|| self.unlisted(&realm, realm.nodes_are_behind(), sought, patience))
    }

    /// What a list does not have is absent, unless the list may be behind.
    fn unlisted(
        &self,
        realm: &Arc<Realm>,
        is_behind: bool,
        sought: impl FnOnce() -> Sought,
        patience: Patience,
    ) -> Miss {
        // While the source is away there is nobody to ask.
        if !is_behind || realm.stale_millis().is_some() {
            return Miss::Absent;
        }
        let to = self.interests.as_ref();
        self.unlisted.look(realm, sought(), patience, to)
    }

    /// How often in a second the source is asked at most for what its lists do not have.
    pub fn set_unlisted_rate(&self, rate: u32) {
        self.unlisted.set_rate(rate);
    }

    /// How often that was too often since this was last asked, so that the lists had to do.
    pub fn take_unlisted_refused(&self) -> u64 {
        self.unlisted.take_refused()
    }

    /// The result of a prepared query; `None` if there is no such query.
    pub(super) fn prepared(
        &self,
        key: &PreparedKey,
        patience: Patience,
    ) -> Found<Loaded<Option<Prepared>>> {
        if self.interests.is_none() {
            return Err(Miss::Absent);
        }
        self.has(&key.scope)?;
        if self.is_too_stale(&self.local) {
            return Err(Miss::Unready);
        }
        let key = PreparedKey {
            client: key
                .client
                .filter(|client| self.may_be_node(&key.scope, *client)),
            ..key.clone()
        };
        let slot = self.queries.slot(&key, &self.versions);
        let stale = self.local.stale_millis().is_some();
        let looked = slot.look(Self::patience(patience, stale), |want| {
            // What clients make up costs no more than other names that nothing is known of.
            let is_free = slot.has_result() || want.is_left();
            let turn = match is_free {
                true => Ok(()),
                false => self.unlisted.later(self.versions.millis()),
            };
            if let Err(miss) = turn {
                return miss;
            }
            want.leave(self.interests.as_ref(), || Interest::Query {
                key: key.clone(),
                slot: Arc::clone(&slot),
            })
        })?;
        self.loaded(slot, looked, stale)
    }

    /// May there be a node at the address, where a query is executed? Where its nodes are not known, there may.
    fn may_be_node(&self, scope: &Scope, address: IpAddr) -> bool {
        let is_at = |realm: &Realm| !realm.is_ready() || realm.node_at(address).is_some();
        match &scope.datacenter {
            Some(name) if !self.is_local(name) => {
                let of_datacenter = Scope {
                    datacenter: scope.datacenter.clone(),
                    ..Scope::default()
                };
                let remote = self.remote.get(&of_datacenter);
                remote.is_none_or(|realm| is_at(&realm))
            }
            _ => is_at(&self.local),
        }
    }

    /// The prepared queries that have a result, and where it is published.
    pub fn prepared_results(&self) -> Vec<(PreparedKey, Arc<PreparedSlot>)> {
        self.queries.results()
    }

    /// Puts back the result that a prepared query had in an earlier life.
    pub fn restore_prepared(&self, key: &PreparedKey, result: Prepared) {
        self.queries.restore(key, result, &self.versions);
    }

    /// While the source is away there is nothing to wait for.
    fn patience(patience: Patience, is_away: bool) -> Patience {
        if is_away { Patience::None } else { patience }
    }

    /// What is at an address: a node, else a service.
    pub(super) fn at_address(&self, address: IpAddr) -> Found<Arc<str>> {
        let realm = self.realm(&Scope::default())?;
        realm.find_at(address, self.interests.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    /// However many ask for datacenters that are not known, the source is asked once in a while.
    #[test]
    fn an_unknown_datacenter_has_the_list_read_again() {
        let (layer, mut interests) = Catalog::new().add_lazy("test");
        layer.local().name_datacenter("dc1");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let scope = |name: &str| Scope {
            datacenter: Some(name.to_owned()),
            ..Scope::default()
        };
        let has = |name: &str| layer.has(&scope(name));
        let expire = || layer.places.expire();
        assert!(has("dc1").is_ok());
        assert!(
            matches!(has("dc2"), Err(Miss::Loading(_))),
            "nothing is known"
        );
        assert!(
            matches!(has("dc3"), Err(Miss::Loading(_))),
            "it is on its way"
        );
        assert!(matches!(interests.try_recv(), Ok(Interest::Datacenters)));
        assert!(interests.try_recv().is_err(), "once for both");
        layer.places.excuse_datacenters(Duration::ZERO);
        assert!(
            matches!(has("dc2"), Err(Miss::Unready)),
            "it could not be had"
        );

        layer.publish_datacenters(names(&["dc1", "dc3"]));
        assert!(has("dc3").is_ok());
        assert!(matches!(has("dc2"), Err(Miss::Absent)), "just read");
        assert!(layer.absent_until(&scope("dc2")) > Some(layer.versions.millis()));
        assert_eq!(layer.absent_until(&scope("dc3")), None);
        assert_eq!(layer.absent_until(&Scope::default()), None);
        expire();
        assert!(has("dc3").is_ok(), "what is listed needs no other list");
        assert!(matches!(has("dc2"), Err(Miss::Loading(_))), "it may be new");
        assert!(matches!(interests.try_recv(), Ok(Interest::Datacenters)));
        layer.publish_datacenters(names(&["dc1", "dc2"]));
        assert!(has("dc2").is_ok());

        expire();
        layer.local().mark_stale(layer.versions.millis());
        assert!(
            matches!(has("dc3"), Err(Miss::Absent)),
            "nobody can be asked"
        );
        assert!(interests.try_recv().is_err());
    }
}
