//! What one layer knows of one datacenter.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::mpsc;

use super::away::{Away, Unread};
use super::nodes::Nodes;
use super::reverse::Reverse;
use super::slot::Want;
use super::slots::{ServiceSlot, Slots};
use super::{Found, Interest, Kind, Miss, Node, Scope, Service, ServiceKey, Slot, Versions};

/// One datacenter's service names, nodes and loaded services; or a peer's, or a namespace's.
#[derive(Debug)]
pub struct Realm {
    scope: Scope,
    /// The datacenter's name; empty until the source has learned it.
    datacenter: ArcSwap<String>,
    /// Every service name that exists, in lower case.
    names: ArcSwapOption<HashSet<Arc<str>>>,
    nodes: Nodes,
    /// Names that were found beyond the list, with the index at which they were: an older list does not
    /// take them away.
    found: Mutex<HashMap<Arc<str>, u64>>,
    /// The list of names may have changed since it was read.
    names_behind: AtomicBool,
    /// Moves whenever the names or the nodes do.
    version: AtomicU64,
    services: Slots,
    reverse: Reverse,
    away: Arc<Away>,
    /// The realm as a whole; met whenever its names or nodes move.
    want: Want,
    versions: Arc<Versions>,
}

impl Realm {
    pub(super) fn new(scope: Scope, datacenter: &str, versions: &Arc<Versions>) -> Self {
        Self {
            scope,
            datacenter: ArcSwap::from_pointee(datacenter.to_owned()),
            names: ArcSwapOption::empty(),
            nodes: Nodes::default(),
            found: Mutex::default(),
            names_behind: AtomicBool::new(false),
            version: AtomicU64::new(versions.next()),
            services: Slots::default(),
            reverse: Reverse::new(),
            away: Arc::default(),
            want: Want::new(),
            versions: Arc::clone(versions),
        }
    }

    /// What a cluster peer exports: read from the same source as the local realm.
    pub(super) fn of_peer(scope: Scope, local: &Self) -> Self {
        Self {
            away: Arc::clone(&local.away),
            names_behind: AtomicBool::new(true),
            ..Self::new(scope, "", &local.versions)
        }
    }

    /// Is it a cluster peer's? Nobody lists its nodes: they are those of its services.
    pub fn is_of_peer(&self) -> bool {
        self.scope.peer.is_some()
    }

    /// What part of the world it is.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The clock and the versions of the catalog that it is in.
    pub fn versions(&self) -> &Arc<Versions> {
        &self.versions
    }

    /// The datacenter's name; empty until the source has learned it.
    pub fn datacenter(&self) -> Arc<String> {
        self.datacenter.load_full()
    }

    /// The source has learned the name of its datacenter.
    pub fn name_datacenter(&self, name: &str) {
        if self.datacenter.load().as_str() != name {
            self.datacenter.store(Arc::new(name.to_owned()));
            self.moved();
            self.versions.new_epoch();
        }
    }

    /// Names and nodes are both here, so that existence can be told.
    pub fn is_ready(&self) -> bool {
        self.names.load().is_some() && (self.is_of_peer() || self.nodes.are_known())
    }

    /// The source has been away since `since` milliseconds on the catalog's clock, which wraps round: what an
    /// earlier life has left is older than the clock.
    pub fn mark_stale(&self, since: u64) {
        if self.away.begin(since) {
            self.version.store(self.versions.next(), Ordering::Release);
            self.versions.new_epoch();
        }
    }

    /// The source is here.
    pub fn mark_fresh(&self) {
        if self.away.end() {
            self.version.store(self.versions.next(), Ordering::Release);
            self.versions.new_epoch();
        }
    }

    /// For how many milliseconds the source has been away; `None` while it is not.
    pub fn stale_millis(&self) -> Option<u64> {
        self.away.millis(&self.versions)
    }

    /// The source is here, and does not let us read this, if anything: what has been unread for longest.
    pub fn set_unread(&self, unread: Option<Unread>) {
        self.away.set_unread(unread);
    }

    /// What the source has not let us read for a while although it is here, and for how many milliseconds.
    pub fn unread(&self) -> Option<(Arc<Unread>, u64)> {
        self.away.unread(&self.versions)
    }

    /// Says why the source is away; `None` once it is not. No answer depends on it.
    pub fn explain(&self, trouble: Option<String>) {
        self.away.explain(trouble);
    }

    /// Why the source is away, as far as it has been found out.
    pub fn trouble(&self) -> Option<Arc<String>> {
        self.away.trouble()
    }

    /// Moves whenever a service name or a node comes, goes or changes.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Does a service of that name exist? `name` is in lower case. False before the first data.
    pub fn lists(&self, name: &str) -> bool {
        self.names
            .load()
            .as_ref()
            .is_some_and(|names| names.contains(name))
    }

    /// How many service names exist.
    pub fn service_count(&self) -> usize {
        self.names.load().as_ref().map_or(0, |names| names.len())
    }

    /// How many nodes exist.
    pub fn node_count(&self) -> usize {
        self.nodes.count()
    }

    /// The node of that name, as far as it has been seen; `name` is in lower case.
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        match self.is_of_peer() {
            true => self.reverse.node(name),
            false => self.nodes.get(name),
        }
    }

    /// The node of that name of a peer: one that has been seen, or whatever is there once all services have been.
    pub(super) fn find_node(
        self: &Arc<Self>,
        name: &str,
        to: Option<&mpsc::Sender<Interest>>,
    ) -> Found<Arc<Node>> {
        self.among_all(to, Miss::Unready, || self.node(name))
    }

    /// Is there a node whose name ends in `.` + `suffix`? Then the suffix is an empty
    /// non-terminal of the zone.
    pub fn has_node_below(&self, suffix: &str) -> bool {
        match self.is_of_peer() {
            true => self.reverse.has_node_below(suffix),
            false => self.nodes.has_below(suffix),
        }
    }

    /// The list of names may be behind from now on, or is followed again.
    pub fn set_names_behind(&self, behind: bool) {
        self.set_behind(&self.names_behind, behind);
    }

    /// The same for the list of nodes.
    pub fn set_nodes_behind(&self, behind: bool) {
        self.set_behind(&self.nodes.behind, behind);
    }

    fn set_behind(&self, list: &AtomicBool, behind: bool) {
        if list.swap(behind, Ordering::AcqRel) != behind {
            self.version.store(self.versions.next(), Ordering::Release);
        }
    }

    /// The source had a usable answer about the nodes, or had none.
    pub fn nodes_heard(&self, usable: bool) {
        let shows = match usable {
            true => self.nodes.aging.ended(),
            false => self.nodes.aging.failed(self.versions.millis()),
        };
        if shows {
            self.version.store(self.versions.next(), Ordering::Release);
        }
    }

    /// Has it had none for more than a moment?
    pub(super) fn nodes_age(&self) -> bool {
        self.nodes.aging.millis(0).is_some()
    }

    /// May a service exist that the list does not have?
    pub(super) fn names_are_behind(&self) -> bool {
        self.names_behind.load(Ordering::Acquire)
    }

    /// May a node exist that the list does not have?
    pub(super) fn nodes_are_behind(&self) -> bool {
        self.nodes.are_behind()
    }

    /// Publishes which service names exist (in lower case), as of `index`, and lets go of loaded services
    /// that no longer do. False if nothing changed.
    pub fn publish_names(&self, mut names: HashSet<Arc<str>>, index: Option<u64>) -> bool {
        let mut found = self.changing();
        found.retain(|_, found_at| index.is_some_and(|index| index < *found_at));
        names.extend(found.keys().cloned());
        if self.names.load().as_deref() == Some(&names) {
            return false;
        }
        let names = Arc::new(names);
        self.names.store(Some(Arc::clone(&names)));
        drop(found);
        self.moved();
        self.services.retain(|name| names.contains(name));
        self.reverse.retain(|name| names.contains(name));
        true
    }

    /// A service was found, at `index`, that the list does not have: its name, in lower case, and what it is.
    pub fn found_service(&self, name: &str, service: Service, index: u64) {
        let name: Arc<str> = name.into();
        self.change_names(|names, found| {
            found.insert(Arc::clone(&name), index);
            names.insert(Arc::clone(&name))
        });
        let key = ServiceKey::new(Kind::Service, &name);
        let slot = self.slot(&key);
        if slot.get().is_none() {
            self.learn_addresses(&name, &service);
            slot.offer(service);
        }
    }

    /// A service has gone that the list still has.
    pub fn lost_service(&self, name: &str) {
        self.change_names(|names, found| {
            found.remove(name);
            names.remove(name)
        });
        self.services.retain(|listed| listed != name);
        self.reverse.remove(name);
    }

    /// The mesh knows something of a name that no service has to have.
    pub fn found_in_mesh(&self, key: &ServiceKey, instances: Service) {
        let slot = self.slot(key);
        if slot.get().is_none() {
            slot.offer(instances);
        }
    }

    /// Is there anything of that name in the mesh, as far as is known?
    pub(super) fn is_in_mesh(&self, key: &ServiceKey) -> bool {
        self.services.is_in_mesh(key)
    }

    /// Held while names or nodes are read, changed and published: two changes at once must not lose one
    /// another.
    fn changing(&self) -> MutexGuard<'_, HashMap<Arc<str>, u64>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the names between two lists. `change` says whether it did.
    fn change_names(
        &self,
        change: impl FnOnce(&mut HashSet<Arc<str>>, &mut HashMap<Arc<str>, u64>) -> bool,
    ) {
        let mut found = self.changing();
        let mut names = (*self.names()).clone();
        if change(&mut names, &mut found) {
            self.names.store(Some(Arc::new(names)));
            self.moved();
        }
    }

    /// A node was found that the list does not have.
    pub fn found_node(&self, node: Node) {
        let _changing = self.changing();
        let mut nodes = self.nodes();
        nodes.push(Arc::new(node));
        self.put_nodes(nodes);
    }

    /// Publishes the nodes. False if nothing changed.
    pub fn publish_nodes(&self, nodes: Vec<Arc<Node>>) -> bool {
        let _changing = self.changing();
        self.put_nodes(nodes)
    }

    fn put_nodes(&self, nodes: Vec<Arc<Node>>) -> bool {
        if !self.nodes.put(nodes) {
            return false;
        }
        self.moved();
        true
    }

    /// Publishes all there is at once, for a source that is never lazy: what is not in `services`
    /// ceases to exist.
    pub fn publish_all(&self, services: HashMap<ServiceKey, Service>, nodes: Vec<Arc<Node>>) {
        let names = services.keys().map(|key| key.name().into()).collect();
        for (key, service) in services {
            let slot = self.slot(&key);
            self.publish(&key, &slot, service);
            slot.set_watched(true);
        }
        self.publish_nodes(nodes);
        self.publish_names(names, None);
        self.reverse_complete();
        // A name may be this source's from now on that was another's.
        self.versions.new_epoch();
    }

    /// Publishes the instances of a service. False if nothing changed.
    pub fn publish(&self, key: &ServiceKey, slot: &Slot<Service>, service: Service) -> bool {
        self.learn(key, &service);
        slot.publish(service)
    }

    fn learn(&self, key: &ServiceKey, service: &Service) {
        if key.kind() == Kind::Service {
            self.learn_addresses(key.name(), service);
        }
    }

    /// Learns at which addresses a service is, for reverse names; and of a peer, on which nodes.
    pub fn learn_addresses(&self, name: &str, service: &Service) {
        let learned = self.reverse.learn(name, service);
        if (self.is_of_peer() && self.reverse.learn_nodes(name, service)) || learned {
            // No slot and no list bears this change, but answers to reverse names depend on it.
            self.versions.next();
        }
    }

    /// Have the addresses of that service been seen?
    pub fn knows_addresses(&self, name: &str) -> bool {
        self.reverse.knows(name)
    }

    /// The node at an address.
    pub fn node_at(&self, address: IpAddr) -> Option<Arc<Node>> {
        self.nodes.at(address)
    }

    /// The service at an address, among those that have been seen.
    pub fn service_at(&self, address: IpAddr) -> Option<Arc<str>> {
        self.reverse.service_at(address)
    }

    /// The addresses of all services have been seen.
    pub fn reverse_complete(&self) {
        self.reverse.complete();
    }

    /// The service at an address: one that has been seen, or whatever is there once the addresses of
    /// all services have been.
    pub(super) fn find_at(
        self: &Arc<Self>,
        address: IpAddr,
        to: Option<&mpsc::Sender<Interest>>,
    ) -> Found<Arc<str>> {
        // Where the others cannot be learned, the address may be somebody else's.
        self.among_all(to, Miss::Absent, || self.service_at(address))
    }

    /// What the instances of all services tell; `otherwise` while nobody can learn those that have not been seen.
    fn among_all<T>(
        self: &Arc<Self>,
        to: Option<&mpsc::Sender<Interest>>,
        otherwise: Miss,
        look: impl Fn() -> Option<T>,
    ) -> Found<T> {
        if let Some(found) = look() {
            return Ok(found);
        }
        if self.reverse.is_complete() {
            return Err(Miss::Absent);
        }
        if self.stale_millis().is_some() {
            return Err(otherwise);
        }
        let interest = || Interest::Reverse(Arc::clone(self));
        match self.reverse.leave(to, interest) {
            Miss::Unready => Err(otherwise),
            miss => look().ok_or(miss),
        }
    }

    /// Is the service loaded, so that its addresses are followed anyhow?
    pub fn is_loaded(&self, key: &ServiceKey) -> bool {
        let slot = self.services.get(key);
        slot.is_some_and(|slot| slot.get().is_some())
    }

    /// The names of all services.
    pub fn names(&self) -> Arc<HashSet<Arc<str>>> {
        self.names.load_full().unwrap_or_default()
    }

    /// Puts back what was known in an earlier life: names, nodes, and services in use.
    pub fn restore(
        &self,
        names: HashSet<Arc<str>>,
        nodes: Vec<Arc<Node>>,
        services: Vec<(ServiceKey, Service)>,
    ) {
        self.publish_nodes(nodes);
        self.publish_names(names, None);
        for (key, service) in services {
            self.learn(&key, &service);
            self.slot(&key).restore(service);
        }
    }

    /// The nodes.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.all()
    }

    /// The services that are loaded, and where.
    pub fn loaded(&self) -> Vec<(ServiceKey, Arc<Slot<Service>>)> {
        self.services.loaded()
    }

    /// Lets a loaded service go; the next question for it loads it anew.
    pub fn forget(&self, key: &ServiceKey) {
        self.services.remove(key);
    }

    /// The place where a service is, or will be, published.
    pub(super) fn slot(&self, key: &ServiceKey) -> ServiceSlot {
        self.services.get_or_make(key, &self.versions)
    }

    /// Is this slot still where the realm publishes that service?
    pub fn holds(&self, key: &ServiceKey, slot: &Arc<Slot<Service>>) -> bool {
        let held = self.services.get(key);
        held.is_some_and(|held| Arc::ptr_eq(&held, slot))
    }

    /// What to wait for until names and nodes are here.
    pub(super) fn leave(self: &Arc<Self>, to: Option<&mpsc::Sender<Interest>>) -> Miss {
        self.want.leave(to, || Interest::Realm(Arc::clone(self)))
    }

    /// Nobody loads it for now: whoever waits is to look again.
    pub(super) fn put_off(&self) {
        self.want.met();
    }

    fn moved(&self) {
        self.version.store(self.versions.next(), Ordering::Release);
        if self.is_ready() {
            self.want.met();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use super::*;

    /// Whoever finds something builds on what the others have found, and not on what was there before.
    #[test]
    fn what_is_found_at_once_is_all_there() {
        const EACH: usize = 200;
        let realm = Realm::new(Scope::default(), "dc1", &Arc::new(Versions::new()));
        thread::scope(|scope| {
            for finder in 0..4 {
                let realm = &realm;
                scope.spawn(move || {
                    for number in 0..EACH {
                        let name = format!("f{finder}-{number}");
                        realm.found_service(&name, Service::new(Vec::new()), 1);
                        realm.found_node(Node {
                            name,
                            datacenter: "dc1".to_owned(),
                            address: "10.0.0.1".to_owned(),
                            tagged_addresses: BTreeMap::new(),
                            meta: BTreeMap::new(),
                        });
                    }
                });
            }
        });
        assert_eq!(
            (realm.service_count(), realm.node_count()),
            (4 * EACH, 4 * EACH)
        );
        // A list that is older than what was found takes none of it away, and a newer one all.
        realm.publish_names(HashSet::new(), Some(0));
        assert_eq!(realm.service_count(), 4 * EACH);
        realm.publish_names(HashSet::new(), Some(1));
        assert_eq!(realm.service_count(), 0);
    }
}
