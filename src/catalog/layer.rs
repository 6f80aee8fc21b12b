//! What one source knows.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;

use super::query::{Look, Queries};
use super::{
    Executed, Found, Interest, Interests, QueryKey, Realm, Scope, Service, ServiceKey, Slot,
    new_epoch,
};

/// Interests that a source has not taken yet; beyond it a question is answered SERVFAIL and the
/// next one for the same name tries again.
const INTEREST_QUEUE: usize = 4096;

/// Realms other than the local one that are held at a time. Real federations have tens.
const MAX_REMOTE: usize = 1024;

/// A service as it is published.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its instances.
    pub service: Arc<Service>,
    /// The slot and version that they were read from.
    pub source: (Arc<Slot>, u64),
    /// They are the last that was known before the source went away.
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

/// Data of a service that is not watched is served without a word to its source for so many
/// milliseconds after it was confirmed.
pub(super) const FRESH: u64 = 1000;

/// Up to this age it is served while the source is asked; beyond it the answer waits for that.
const SERVED_UNCONFIRMED: u64 = 2500;

/// What one source knows.
#[derive(Debug)]
pub struct Layer {
    name: &'static str,
    local: Arc<Realm>,
    remote: RwLock<HashMap<Scope, Arc<Realm>>>,
    /// Every datacenter that exists, in lower case; `None` until the source has learned them.
    datacenters: ArcSwapOption<BTreeSet<String>>,
    /// Every cluster peer that exists, in lower case.
    peers: ArcSwapOption<BTreeSet<String>>,
    /// The source is Consul Enterprise: it has namespaces and partitions.
    enterprise: AtomicBool,
    queries: Queries,
    /// Milliseconds.
    max_stale: AtomicU64,
    interests: Option<mpsc::Sender<Interest>>,
}

impl Layer {
    /// The layer of a source that publishes everything it has, for one datacenter.
    pub fn complete(name: &'static str, datacenter: &str) -> Arc<Self> {
        let known = BTreeSet::from([datacenter.to_ascii_lowercase()]);
        Arc::new(Self {
            name,
            local: Arc::new(Realm::new(Scope::default(), datacenter)),
            remote: RwLock::default(),
            datacenters: ArcSwapOption::from_pointee(known),
            peers: ArcSwapOption::empty(),
            enterprise: AtomicBool::new(false),
            queries: Queries::default(),
            max_stale: AtomicU64::new(u64::MAX),
            interests: None,
        })
    }

    /// The layer of a source that loads what is asked for, and where it reads that.
    pub fn lazy(name: &'static str) -> (Arc<Self>, Interests) {
        let (sender, receiver) = mpsc::channel(INTEREST_QUEUE);
        let layer = Arc::new(Self {
            name,
            local: Arc::new(Realm::new(Scope::default(), "")),
            remote: RwLock::default(),
            datacenters: ArcSwapOption::empty(),
            peers: ArcSwapOption::empty(),
            enterprise: AtomicBool::new(false),
            queries: Queries::default(),
            max_stale: AtomicU64::new(u64::MAX),
            interests: Some(sender),
        });
        (layer, receiver)
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
        self.remote
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|scope, _| {
                let datacenter = scope.datacenter.as_ref();
                datacenter.is_none_or(|name| names.contains(name))
            });
        let names = Some(Arc::new(names));
        if *self.datacenters.load() != names {
            self.datacenters.store(names);
            new_epoch();
        }
    }

    /// Publishes which cluster peers exist.
    pub fn publish_peers(&self, names: BTreeSet<String>) {
        let names = Some(Arc::new(names));
        if *self.peers.load() != names {
            self.peers.store(names);
            new_epoch();
        }
    }

    /// The source has namespaces and partitions, or has none.
    pub fn publish_enterprise(&self, enterprise: bool) {
        if self.enterprise.swap(enterprise, Ordering::AcqRel) != enterprise {
            new_epoch();
        }
    }

    /// Does the layer still hold this realm?
    pub fn holds(&self, realm: &Arc<Realm>) -> bool {
        Arc::ptr_eq(&self.local, realm)
            || self
                .remote
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .any(|held| Arc::ptr_eq(held, realm))
    }

    /// Does the scope exist, as far as its names tell?
    pub(super) fn has(&self, scope: &Scope) -> Found<()> {
        if scope.is_enterprise() && !self.enterprise.load(Ordering::Relaxed) {
            return Found::Absent;
        }
        if let Some(peer) = &scope.peer {
            let peers = self.peers.load();
            let known = peers.as_ref().is_some_and(|peers| peers.contains(peer));
            return if known {
                Found::Here(())
            } else {
                Found::Absent
            };
        }
        match &scope.datacenter {
            Some(name) if !self.is_local(name) => match self.datacenters.load().as_deref() {
                None => Found::Unready,
                Some(known) if known.contains(name) => Found::Here(()),
                Some(_) => Found::Absent,
            },
            _ => Found::Here(()),
        }
    }

    fn is_local(&self, datacenter: &str) -> bool {
        self.local.datacenter().eq_ignore_ascii_case(datacenter)
    }

    /// The realm of a scope, with its data, if it exists.
    pub(super) fn realm(&self, scope: &Scope) -> Found<Arc<Realm>> {
        self.has(scope).and_then(|()| {
            let mut scope = scope.clone();
            scope.datacenter = scope.datacenter.filter(|name| !self.is_local(name));
            let realm = if scope == Scope::default() {
                Arc::clone(&self.local)
            } else {
                match self.remote(scope) {
                    Some(realm) => realm,
                    None => return Found::Unready,
                }
            };
            if realm.is_ready() {
                return if self.is_too_stale(&realm) {
                    Found::Unready
                } else {
                    Found::Here(realm)
                };
            }
            if Arc::ptr_eq(&realm, &self.local) {
                return Found::Unready;
            }
            let pending = realm.pending();
            let left = self.leave(
                || realm.claim_interest(),
                || Interest::Realm(Arc::clone(&realm)),
                || realm.unclaim_interest(),
            );
            match left {
                Some(()) if realm.is_ready() => Found::Here(realm),
                Some(()) => Found::Loading(pending),
                None => Found::Unready,
            }
        })
    }

    /// Has its source been away for longer than the operator allows?
    pub fn is_too_stale(&self, realm: &Realm) -> bool {
        let most = self.max_stale.load(Ordering::Relaxed);
        realm.stale_millis().is_some_and(|age| age > most)
    }

    /// For how long at most the last known good is served while the source is away.
    pub fn set_max_stale(&self, most: Duration) {
        let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        self.max_stale.store(millis, Ordering::Relaxed);
        new_epoch();
    }

    /// The realm of a scope that exists, made on the first question for it.
    fn remote(&self, scope: Scope) -> Option<Arc<Realm>> {
        // A complete layer has nothing but its own datacenter.
        self.interests.as_ref()?;
        let known = self.remote.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(realm) = known.get(&scope) {
            return Some(Arc::clone(realm));
        }
        drop(known);
        let mut remote = self.remote.write().unwrap_or_else(PoisonError::into_inner);
        if remote.len() >= MAX_REMOTE {
            return None;
        }
        let datacenter = scope.datacenter.clone().unwrap_or_default();
        Some(Arc::clone(
            remote
                .entry(scope.clone())
                .or_insert_with(|| Arc::new(Realm::new(scope, &datacenter))),
        ))
    }

    /// The instances of a service, as [`super::Catalog::service`].
    pub fn service(
        &self,
        scope: &Scope,
        key: &ServiceKey,
        now: u64,
        patience: Patience,
    ) -> Found<Loaded> {
        self.realm(scope)
            .and_then(|realm| self.service_in(&realm, key, now, patience))
    }

    fn service_in(
        &self,
        realm: &Arc<Realm>,
        key: &ServiceKey,
        now: u64,
        patience: Patience,
    ) -> Found<Loaded> {
        // Existence is decided here and nowhere else (D3): an absent name makes no slot, leaves
        // no interest and reaches no source.
        if !realm.lists(key.name()) {
            return Found::Absent;
        }
        let slot = realm.slot(key);
        slot.touch(now);
        let here = |(version, service)| {
            Found::Here(Loaded {
                service,
                source: (Arc::clone(&slot), version),
                stale: realm.stale_millis().is_some(),
            })
        };
        let loaded = slot.get();
        let age = slot.age();
        if let Some(loaded) = loaded {
            // While the source is away there is nothing to wait for.
            if age <= FRESH || patience == Patience::None || realm.stale_millis().is_some() {
                return here(loaded);
            }
            let pending = slot.pending();
            let left = self.leave_service(realm, key, &slot);
            return match left {
                Some(()) if age > SERVED_UNCONFIRMED && slot.age() > FRESH => {
                    Found::Loading(pending.instead_of_old())
                }
                _ => here(slot.get().unwrap_or(loaded)),
            };
        }
        let pending = slot.pending();
        match self.leave_service(realm, key, &slot) {
            // It may have come in the meantime.
            Some(()) => slot.get().map_or(Found::Loading(pending), here),
            None => Found::Unready,
        }
    }

    fn leave_service(&self, realm: &Arc<Realm>, key: &ServiceKey, slot: &Arc<Slot>) -> Option<()> {
        self.leave(
            || slot.claim_interest(),
            || Interest::Service {
                realm: Arc::clone(realm),
                key: key.clone(),
                slot: Arc::clone(slot),
            },
            || slot.unclaim_interest(),
        )
    }

    /// The result of a prepared query.
    pub(super) fn query(&self, key: &QueryKey, patience: Patience) -> Found<Arc<Executed>> {
        let Some(interests) = &self.interests else {
            return Found::Absent;
        };
        self.has(&key.scope).and_then(|()| {
            let now = Instant::now();
            let slot = self.queries.slot(key, now);
            // While the source is away there is nothing to wait for.
            let patience = match self.local.stale_millis() {
                Some(_) => Patience::None,
                None => patience,
            };
            match slot.look(now, patience) {
                Look::Fresh(executed) => Found::Here(executed),
                Look::Running(pending) => Found::Loading(pending),
                Look::Failed => Found::Unready,
                Look::Start(pending) => {
                    let interest = Interest::Query {
                        key: key.clone(),
                        slot: Arc::clone(&slot),
                    };
                    if interests.try_send(interest).is_err() {
                        slot.fail();
                    }
                    Found::Loading(pending)
                }
            }
        })
    }

    /// What is at an address: a node, else a service.
    pub(super) fn at_address(&self, address: IpAddr) -> Found<Arc<str>> {
        self.realm(&Scope::default()).and_then(|realm| {
            if let Some(service) = realm.service_at(address) {
                return Found::Here(service);
            }
            let Some(pending) = realm.reverse_pending() else {
                return Found::Absent;
            };
            self.leave(
                || realm.claim_reverse(),
                || Interest::Reverse(Arc::clone(&realm)),
                || realm.unclaim_reverse(),
            )
            .map_or(Found::Absent, |()| Found::Loading(pending))
        })
    }

    /// Leaves an interest unless one has been left already. `None` if the source has no room.
    fn leave(
        &self,
        claim: impl FnOnce() -> bool,
        interest: impl FnOnce() -> Interest,
        unclaim: impl FnOnce(),
    ) -> Option<()> {
        let interests = self.interests.as_ref()?;
        if claim() && interests.try_send(interest()).is_err() {
            unclaim();
            return None;
        }
        Some(())
    }
}
