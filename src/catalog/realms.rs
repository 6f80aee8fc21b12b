//! The realms of a layer beside its own datacenter: each is made by the first question for it, there are so many
//! at most, and those that nobody asks for make room. Clients may make up their names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Found, Miss, Realm, Scope};

/// Realms that are held at a time. Real federations have tens.
const MAX_REALMS: usize = 1024;

/// Other datacenters, peers, namespaces and partitions.
#[derive(Debug, Default)]
pub(super) struct Realms(RwLock<HashMap<Scope, Held>>);

#[derive(Debug)]
struct Held {
    realm: Arc<Realm>,
    /// Seconds on the catalog's clock at which it was last asked for.
    asked: AtomicU64,
    /// Until when, in milliseconds on that clock, its source has no room for it.
    put_off_until: AtomicU64,
}

impl Held {
    fn found(&self, now: u64) -> Found<Arc<Realm>> {
        self.asked.fetch_max(now / 1000, Ordering::Relaxed);
        match now < self.put_off_until.load(Ordering::Acquire) {
            true => Err(Miss::Unready),
            false => Ok(Arc::clone(&self.realm)),
        }
    }

    fn last_asked(&self) -> u64 {
        let of_services = self.realm.loaded().into_iter();
        let of_services = of_services.map(|(_, slot)| slot.last_asked()).max();
        self.asked
            .load(Ordering::Relaxed)
            .max(of_services.unwrap_or(0))
    }
}

impl Realms {
    /// The realm of a scope that exists, made if it `may` be.
    pub(super) fn realm(
        &self,
        scope: Scope,
        local: &Realm,
        may: impl FnOnce() -> Found<()>,
    ) -> Found<Arc<Realm>> {
        let versions = local.versions();
        let now = versions.millis();
        if let Some(held) = self.read().get(&scope) {
            return held.found(now);
        }
        may()?;
        let mut realms = self.write();
        if realms.len() >= MAX_REALMS {
            // What has been loaded stays: somebody uses it, or its source lets it go.
            let unused = realms.iter().filter(|(_, held)| !held.realm.is_ready());
            let oldest = unused.min_by_key(|(_, held)| held.asked.load(Ordering::Relaxed));
            let oldest = oldest.map(|(scope, _)| scope.clone());
            realms.remove(&oldest.ok_or(Miss::Unready)?);
        }
        let held = realms.entry(scope).or_insert_with_key(|scope| {
            let datacenter = scope.datacenter.clone().unwrap_or_default();
            let realm = match &scope.peer {
                Some(_) => Realm::of_peer(scope.clone(), local),
                None => Realm::new(scope.clone(), &datacenter, versions),
            };
            Held {
                realm: Arc::new(realm),
                asked: AtomicU64::new(0),
                put_off_until: AtomicU64::new(0),
            }
        });
        held.found(now)
    }

    /// The realm of a scope, if there is one.
    pub(super) fn get(&self, scope: &Scope) -> Option<Arc<Realm>> {
        self.read().get(scope).map(|held| Arc::clone(&held.realm))
    }

    /// The realm of a cluster peer, if there is one.
    pub(super) fn of_peer(&self, name: &str) -> Option<Arc<Realm>> {
        self.get(&Scope {
            peer: Some(name.to_owned()),
            ..Scope::default()
        })
    }

    pub(super) fn holds(&self, realm: &Arc<Realm>) -> bool {
        self.held(realm, |_| ()).is_some()
    }

    /// When it, or something in it, was last asked for, in seconds on the catalog's clock.
    pub(super) fn last_asked(&self, realm: &Arc<Realm>) -> Option<u64> {
        self.held(realm, Held::last_asked)
    }

    /// Its source has no room for it until then, in milliseconds on the catalog's clock.
    pub(super) fn put_off(&self, realm: &Arc<Realm>, until: u64) {
        self.held(realm, |held| {
            held.put_off_until.store(until, Ordering::Release)
        });
        realm.put_off();
    }

    /// It is made anew by the next question for it.
    pub(super) fn let_go(&self, realm: &Arc<Realm>) {
        self.write().remove(realm.scope());
    }

    pub(super) fn retain(&self, stays: impl Fn(&Scope) -> bool) {
        self.write().retain(|scope, _| stays(scope));
    }

    fn held<T>(&self, realm: &Arc<Realm>, of: impl FnOnce(&Held) -> T) -> Option<T> {
        let realms = self.read();
        let held = realms.get(realm.scope());
        held.filter(|held| Arc::ptr_eq(&held.realm, realm)).map(of)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Scope, Held>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Scope, Held>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Versions;

    fn namespace(number: usize) -> Scope {
        Scope {
            namespace: Some(format!("ns{number}")),
            ..Scope::default()
        }
    }

    fn local() -> Realm {
        Realm::new(Scope::default(), "dc1", &Arc::new(Versions::new()))
    }

    fn make(realms: &Realms, local: &Realm, number: usize) -> Arc<Realm> {
        let made = realms.realm(namespace(number), local, || Ok(()));
        made.expect("there is room")
    }

    #[test]
    fn made_up_names_push_out_nothing_that_is_there() {
        let (realms, local) = (Realms::default(), local());
        let real = make(&realms, &local, 0);
        real.restore(Default::default(), Vec::new(), Vec::new());
        for number in 1..2 * MAX_REALMS {
            make(&realms, &local, number);
        }
        assert_eq!(realms.read().len(), MAX_REALMS);
        assert!(realms.holds(&real));
        assert!(Arc::ptr_eq(&make(&realms, &local, 0), &real));
    }

    #[test]
    fn what_there_is_no_room_for_is_not_asked_for_again_at_once() {
        let (realms, local) = (Realms::default(), local());
        let realm = make(&realms, &local, 1);
        let again = || realms.realm(namespace(1), &local, || Ok(()));
        realms.put_off(&realm, local.versions().millis() + 60_000);
        assert!(matches!(again(), Err(Miss::Unready)));
        realms.put_off(&realm, 0);
        assert!(again().is_ok());
        realms.let_go(&realm);
        assert!(!realms.holds(&realm));
        assert!(!Arc::ptr_eq(&make(&realms, &local, 1), &realm));
        let refused = realms.realm(namespace(2), &local, || Err(Miss::Unready));
        assert!(matches!(refused, Err(Miss::Unready)));
    }
}
