//! Which datacenters and cluster peers a source knows of, and whether names may have a namespace.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::mpsc;

use super::slot::{Want, millis};
use super::{Found, Interest, Miss, Scope, Versions};

/// The cluster peers, with the names of the services that each exports to us, as far as that is known.
pub type Peers = BTreeMap<String, Option<Arc<HashSet<Arc<str>>>>>;

/// Which Consul a source is, as far as names can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// It has neither namespaces nor partitions.
    Community,
    /// It has those that are called `default`, and no others (from 1.19.2 on).
    DefaultTenancy,
    /// It has namespaces and partitions.
    Enterprise,
}

/// The namespace and the partition that everything is in where there are no others.
const DEFAULT: &str = "default";

/// No question has a list read again in so many milliseconds, whatever names clients make up.
const LIST_HOLDS: u64 = 1000;

/// What there is beside the source's own datacenter. All names are in lower case.
#[derive(Debug)]
pub struct Places {
    /// `None` until the source has learned them.
    datacenters: ArcSwapOption<BTreeSet<String>>,
    peers: ArcSwapOption<Peers>,
    /// The source does not tell which peers there are: then any may be.
    peers_are_hidden: AtomicBool,
    edition: ArcSwap<Edition>,
    datacenter_list: List,
    peer_list: List,
    versions: Arc<Versions>,
}

/// When a list was read.
#[derive(Debug)]
struct List {
    /// Met whenever it was read, or could not be.
    want: Want,
    /// Until when, in milliseconds on the catalog's clock, what is not in it is taken for absent.
    holds_until: AtomicU64,
}

impl List {
    fn new() -> Self {
        Self {
            want: Want::new(),
            holds_until: AtomicU64::new(0),
        }
    }

    /// It holds for so long, and at least as long as a question may not have it read again.
    fn hold(&self, at_least: Duration, now: u64) {
        let until = now + LIST_HOLDS.max(millis(at_least));
        self.holds_until.store(until, Ordering::Release);
        self.want.met();
    }
}

impl Places {
    pub(super) fn new(versions: &Arc<Versions>) -> Self {
        Self {
            datacenters: ArcSwapOption::empty(),
            peers: ArcSwapOption::empty(),
            peers_are_hidden: AtomicBool::new(false),
            edition: ArcSwap::from_pointee(Edition::Community),
            datacenter_list: List::new(),
            peer_list: List::new(),
            versions: Arc::clone(versions),
        }
    }

    pub(super) fn publish_datacenters(&self, names: BTreeSet<String>) {
        let names = Some(Arc::new(names));
        if *self.datacenters.load() != names {
            self.datacenters.store(names);
            self.versions.new_epoch();
        }
        self.excuse_datacenters(Duration::ZERO);
    }

    pub(super) fn publish_peers(&self, peers: Peers) {
        let is_same = |known: &Arc<Peers>| known.keys().eq(peers.keys());
        let is_known = self.peers.load().as_ref().is_some_and(is_same);
        self.peers.store(Some(Arc::new(peers)));
        let were_hidden = self.peers_are_hidden.swap(false, Ordering::AcqRel);
        if !is_known || were_hidden {
            self.versions.new_epoch();
        }
        self.excuse_peers(Duration::ZERO);
    }

    /// The source does not tell which cluster peers there are.
    pub fn hide_peers(&self) {
        if !self.peers_are_hidden.swap(true, Ordering::AcqRel) {
            self.versions.new_epoch();
        }
        self.excuse_peers(Duration::ZERO);
    }

    pub(super) fn are_peers_hidden(&self) -> bool {
        self.peers_are_hidden.load(Ordering::Acquire)
    }

    /// Which Consul the source is.
    pub fn publish_edition(&self, edition: Edition) {
        if *self.edition.swap(Arc::new(edition)) != edition {
            self.versions.new_epoch();
        }
    }

    /// Which datacenters exist; `None` until the source has learned them.
    pub fn datacenters(&self) -> Option<Arc<BTreeSet<String>>> {
        self.datacenters.load_full()
    }

    /// Which cluster peers exist; `None` until the source has learned them.
    pub fn peers(&self) -> Option<BTreeSet<String>> {
        let peers = self.peers.load();
        peers.as_ref().map(|peers| peers.keys().cloned().collect())
    }

    /// What a peer exports to us, as far as that is known.
    pub(super) fn imported(&self, peer: &str) -> Option<Arc<HashSet<Arc<str>>>> {
        let peers = self.peers.load();
        let imported = peers.as_ref().and_then(|peers| peers.get(peer)?.clone());
        imported.or_else(|| self.are_peers_hidden().then(Arc::default))
    }

    /// Which datacenters exist is not asked for again at once, `at_least` so long: it has just been learned, or could
    /// not be.
    pub fn excuse_datacenters(&self, at_least: Duration) {
        self.datacenter_list.hold(at_least, self.versions.millis());
    }

    /// The same for peers.
    pub fn excuse_peers(&self, at_least: Duration) {
        self.peer_list.hold(at_least, self.versions.millis());
    }

    fn list_of(&self, scope: &Scope) -> &List {
        match scope.peer {
            Some(_) => &self.peer_list,
            None => &self.datacenter_list,
        }
    }

    /// Until when what is not in the list that should have it is absent.
    pub(super) fn held_until(&self, scope: &Scope) -> u64 {
        self.list_of(scope).holds_until.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(super) fn expire(&self) {
        self.datacenter_list.holds_until.store(0, Ordering::Relaxed);
    }

    /// Is the datacenter or the peer in its list? `None` until that has been read.
    pub(super) fn lists(&self, scope: &Scope, is_local: impl Fn(&str) -> bool) -> Option<bool> {
        match (&scope.peer, &scope.datacenter) {
            (Some(_), _) if self.are_peers_hidden() => Some(true),
            (Some(peer), _) => Some(self.peers.load().as_ref()?.contains_key(peer)),
            (None, Some(name)) if !is_local(name) => {
                Some(self.datacenters.load().as_ref()?.contains(name))
            }
            _ => Some(true),
        }
    }

    /// Does the scope exist? What is not in its list may be new: then that is read again, unless that was done a
    /// moment ago, or `is_away`.
    pub(super) fn find(
        &self,
        scope: &Scope,
        is_local: impl Fn(&str) -> bool,
        is_away: impl FnOnce() -> bool,
        to: Option<&mpsc::Sender<Interest>>,
    ) -> Found<()> {
        let look = || match self.lists(scope, &is_local) {
            None => Err(Miss::Unready),
            Some(true) => Ok(()),
            Some(false) => Err(Miss::Absent),
        };
        let holds = || self.versions.millis() < self.held_until(scope);
        let found = look();
        if found.is_ok() || holds() || is_away() {
            return found;
        }
        let interest = || match scope.peer {
            Some(_) => Interest::Peers,
            None => Interest::Datacenters,
        };
        match self.list_of(scope).want.leave(to, interest) {
            // It may have come in the meantime.
            miss @ Miss::Loading(_) if !holds() => look().or(Err(miss)),
            _ => look(),
        }
    }

    /// May names have that namespace and partition?
    pub(super) fn has_tenancy(&self, scope: &Scope) -> bool {
        let tenants = [&scope.namespace, &scope.partition];
        let mut named = tenants.into_iter().flatten();
        match **self.edition.load() {
            Edition::Community => named.next().is_none(),
            Edition::DefaultTenancy => named.all(|name| name == DEFAULT),
            Edition::Enterprise => true,
        }
    }

    /// The scope that the source knows: `default` says nothing where there is nothing else.
    pub(super) fn known_as(&self, mut scope: Scope) -> Scope {
        if **self.edition.load() == Edition::DefaultTenancy {
            (scope.namespace, scope.partition) = (None, None);
        }
        scope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where peers may not be listed any may exist, until they may be.
    #[test]
    fn hidden_peers() {
        let places = Places::new(&Arc::new(Versions::new()));
        let of = |peer: &str| Scope {
            peer: Some(peer.to_owned()),
            ..Scope::default()
        };
        let lists = |peer: &str| places.lists(&of(peer), |_| true);
        assert_eq!((lists("far"), places.imported("far")), (None, None));
        places.hide_peers();
        assert_eq!(lists("far"), Some(true));
        assert_eq!(places.imported("far"), Some(Arc::default()));
        places.publish_peers(Peers::from([("near".to_owned(), None)]));
        assert_eq!((lists("far"), lists("near")), (Some(false), Some(true)));
        assert_eq!(places.imported("near"), None);
    }

    #[test]
    fn namespaces_by_edition() {
        let places = Places::new(&Arc::new(Versions::new()));
        let scope = |namespace: Option<&str>, partition: Option<&str>| Scope {
            namespace: namespace.map(str::to_owned),
            partition: partition.map(str::to_owned),
            ..Scope::default()
        };
        use Edition::{Community, DefaultTenancy, Enterprise};
        for (namespace, partition, editions) in [
            (None, None, &[Community, DefaultTenancy, Enterprise][..]),
            (Some("default"), None, &[DefaultTenancy, Enterprise]),
            (None, Some("default"), &[DefaultTenancy, Enterprise]),
            (
                Some("default"),
                Some("default"),
                &[DefaultTenancy, Enterprise],
            ),
            (Some("team"), None, &[Enterprise]),
            (Some("default"), Some("team"), &[Enterprise]),
        ] {
            let scope = scope(namespace, partition);
            for edition in [Community, DefaultTenancy, Enterprise] {
                places.publish_edition(edition);
                let has = places.has_tenancy(&scope);
                assert_eq!(has, editions.contains(&edition), "{scope:?} in {edition:?}");
            }
        }
        places.publish_edition(DefaultTenancy);
        let known = places.known_as(scope(Some("default"), Some("default")));
        assert_eq!(known, Scope::default());
    }
}
