//! Which datacenters and cluster peers a source knows of, and whether names may have a namespace.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::mpsc;

use super::slot::Want;
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

/// No question has the lists read again in so many milliseconds, whatever names clients make up.
const LIST_HOLDS: u64 = 1000;

/// What there is beside the source's own datacenter. All names are in lower case.
#[derive(Debug)]
pub(super) struct Places {
    /// `None` until the source has learned them.
    datacenters: ArcSwapOption<BTreeSet<String>>,
    peers: ArcSwapOption<Peers>,
    edition: ArcSwap<Edition>,
    /// Both lists; met whenever they were read, or could not be.
    lists: Want,
    /// Until when, in milliseconds on the catalog's clock, what is not in them is taken for absent.
    hold_until: AtomicU64,
    versions: Arc<Versions>,
}

impl Places {
    pub(super) fn new(versions: &Arc<Versions>) -> Self {
        Self {
            datacenters: ArcSwapOption::empty(),
            peers: ArcSwapOption::empty(),
            edition: ArcSwap::from_pointee(Edition::Community),
            lists: Want::new(),
            hold_until: AtomicU64::new(0),
            versions: Arc::clone(versions),
        }
    }

    pub(super) fn publish_datacenters(&self, names: BTreeSet<String>) {
        let names = Some(Arc::new(names));
        if *self.datacenters.load() != names {
            self.datacenters.store(names);
            self.versions.new_epoch();
        }
    }

    pub(super) fn publish_peers(&self, peers: Peers) {
        let is_same = |known: &Arc<Peers>| known.keys().eq(peers.keys());
        let is_known = self.peers.load().as_ref().is_some_and(is_same);
        self.peers.store(Some(Arc::new(peers)));
        if !is_known {
            self.versions.new_epoch();
        }
    }

    pub(super) fn publish_edition(&self, edition: Edition) {
        if *self.edition.swap(Arc::new(edition)) != edition {
            self.versions.new_epoch();
        }
    }

    pub(super) fn datacenters(&self) -> Option<Arc<BTreeSet<String>>> {
        self.datacenters.load_full()
    }

    pub(super) fn peers(&self) -> Option<BTreeSet<String>> {
        let peers = self.peers.load();
        peers.as_ref().map(|peers| peers.keys().cloned().collect())
    }

    /// What a peer exports to us, as far as that is known.
    pub(super) fn imported(&self, peer: &str) -> Option<Arc<HashSet<Arc<str>>>> {
        self.peers.load().as_ref()?.get(peer)?.clone()
    }

    /// The lists hold for so many milliseconds, and at least as long as a question may not have them read again.
    pub(super) fn hold(&self, at_least: u64) {
        let until = self.versions.millis() + LIST_HOLDS.max(at_least);
        self.hold_until.store(until, Ordering::Release);
        self.lists.met();
    }

    fn holds(&self) -> bool {
        self.versions.millis() < self.hold_until.load(Ordering::Acquire)
    }

    /// Until when what is in no list is absent.
    pub(super) fn held_until(&self) -> u64 {
        self.hold_until.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(super) fn expire(&self) {
        self.hold_until.store(0, Ordering::Relaxed);
    }

    /// Is the datacenter or the peer in its list? `None` until that has been read.
    pub(super) fn lists(&self, scope: &Scope, is_local: impl Fn(&str) -> bool) -> Option<bool> {
        match (&scope.peer, &scope.datacenter) {
            (Some(peer), _) => Some(self.peers.load().as_ref()?.contains_key(peer)),
            (None, Some(name)) if !is_local(name) => {
                Some(self.datacenters.load().as_ref()?.contains(name))
            }
            _ => Some(true),
        }
    }

    /// Does the scope exist? What is in no list may be new: then the lists are read again, unless that was done a
    /// moment ago, or `is_away`.
    pub(super) fn find(
        &self,
        look: impl Fn() -> Option<bool>,
        is_away: impl FnOnce() -> bool,
        to: Option<&mpsc::Sender<Interest>>,
    ) -> Found<()> {
        let look = || match look() {
            None => Err(Miss::Unready),
            Some(true) => Ok(()),
            Some(false) => Err(Miss::Absent),
        };
        let found = look();
        if found.is_ok() || self.holds() || is_away() {
            return found;
        }
        match self.lists.leave(to, || Interest::Datacenters) {
            // It may have come in the meantime.
            miss @ Miss::Loading(_) if !self.holds() => look().or(Err(miss)),
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
