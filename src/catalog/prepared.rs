//! Results of prepared queries. They cannot be watched: each is executed when it is asked for,
//! kept for its TTL, and kept on as the last known good when it cannot be executed (D22).
//!
//! They are bounded in number, in two generations: what is asked for moves to the young one, and when that is full
//! the old one is dropped as a whole. Names without a result have generations of their own, so that random ones
//! cannot push out what is in use.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::slot::millis;
use super::{Instance, Scope, Slot, Versions};

/// Results that are kept at a time, and names beside them that have none.
const MAX_RESULTS: usize = 4096;
const MAX_OTHERS: usize = 1024;

/// Parts of them, each with a lock of its own.
const SHARDS: usize = 16;

/// Names one execution.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PreparedKey {
    /// Name, UUID, or a name that a template matches; in lower case.
    pub name: String,
    /// Where it is executed.
    pub scope: Scope,
    /// Who asks, where that can matter: a query may be sorted by the distance to the node at that address.
    /// `None` is anybody who is no node.
    pub client: Option<IpAddr>,
}

impl PreparedKey {
    /// The same for anybody.
    fn for_anybody(&self) -> Self {
        Self {
            client: None,
            ..self.clone()
        }
    }
}

/// What a prepared query found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The service that it found.
    pub service: String,
    /// The datacenter that it was found in, after failover.
    pub datacenter: String,
    /// The cluster peer that it was found in, after failover to one.
    #[serde(default)]
    pub peer: Option<String>,
    /// The query's own TTL, in seconds, if it sets one.
    pub ttl: Option<u32>,
    /// The instances, filtered and in the order that Consul chose.
    pub instances: Vec<Instance>,
}

/// Where the result of one query is published; `None` is that there is no such query.
pub type PreparedSlot = Slot<Option<Prepared>>;

impl PreparedSlot {
    /// Is there such a query, as far as is known?
    pub(super) fn has_result(&self) -> bool {
        self.get().is_some_and(|(_, result)| result.is_some())
    }

    /// Publishes a result that is good for `ttl`.
    pub fn executed(&self, result: Option<Prepared>, ttl: Duration) {
        self.publish_for(result, millis(ttl));
    }
}

/// All results of a layer.
#[derive(Debug)]
pub(super) struct PreparedQueries {
    shards: [RwLock<Shard>; SHARDS],
    /// Names are chosen by clients; where they end up must not be.
    hasher: RandomState,
}

/// What is kept of some names.
#[derive(Debug)]
struct Shard {
    results: Generations,
    others: Generations,
}

/// Slots of one kind, young and old.
#[derive(Debug)]
struct Generations {
    young: HashMap<PreparedKey, Arc<PreparedSlot>>,
    old: HashMap<PreparedKey, Arc<PreparedSlot>>,
    /// Of the young.
    limit: usize,
}

impl Generations {
    fn new(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            limit: most / 2,
        }
    }

    fn get(&self, key: &PreparedKey) -> Option<&Arc<PreparedSlot>> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn take(&mut self, key: &PreparedKey) -> Option<Arc<PreparedSlot>> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    fn insert(&mut self, key: PreparedKey, slot: Arc<PreparedSlot>) {
        if self.young.len() >= self.limit {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, slot);
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            results: Generations::new(MAX_RESULTS / SHARDS),
            others: Generations::new(MAX_OTHERS / SHARDS),
        }
    }
}

impl Shard {
    /// The place of one result, which is young from now on.
    fn slot(&mut self, key: &PreparedKey, versions: &Arc<Versions>) -> Arc<PreparedSlot> {
        let slot = self.take(key, versions);
        if key.client.is_some()
            && let Some((_, result)) = slot.get()
        {
            // What was found for a node will do for anybody, where nothing else is known.
            let anybody = key.for_anybody();
            let lent = self.take(&anybody, versions);
            if lent.get().is_none() {
                lent.begin_with(Some(result));
            }
            self.keep(anybody, lent);
        }
        self.keep(key.clone(), Arc::clone(&slot));
        slot
    }

    /// What is kept there, or a new one.
    fn take(&mut self, key: &PreparedKey, versions: &Arc<Versions>) -> Arc<PreparedSlot> {
        let kept = self.results.take(key).or_else(|| self.others.take(key));
        kept.unwrap_or_else(|| {
            let slot = Arc::new(Slot::new(versions));
            // What anybody else got is better than nothing.
            let similar = self.results.get(&key.for_anybody());
            let similar = similar.and_then(|slot| slot.get());
            slot.begin_with(similar.map(|(_, result)| result));
            slot
        })
    }

    fn keep(&mut self, key: PreparedKey, slot: Arc<PreparedSlot>) {
        let kind = match slot.has_result() {
            true => &mut self.results,
            false => &mut self.others,
        };
        kind.insert(key, slot);
    }
}

impl Default for PreparedQueries {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
        }
    }
}

impl PreparedQueries {
    /// The place of one result.
    pub(super) fn slot(&self, key: &PreparedKey, versions: &Arc<Versions>) -> Arc<PreparedSlot> {
        let shard = self.shard(key);
        let known = shard.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = known.results.young.get(key) {
            return Arc::clone(slot);
        }
        drop(known);
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        shard.slot(key, versions)
    }

    /// Puts back a result of an earlier life.
    pub(super) fn restore(&self, key: &PreparedKey, result: Prepared, versions: &Arc<Versions>) {
        let mut shard = self
            .shard(key)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let slot = Arc::new(Slot::new(versions));
        slot.restore(Some(result));
        shard.results.insert(key.clone(), slot);
    }

    /// All that have a result.
    pub(super) fn results(&self) -> Vec<(PreparedKey, Arc<PreparedSlot>)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            let kept = [&shard.results, &shard.others]
                .into_iter()
                .flat_map(|kind| kind.young.iter().chain(&kind.old))
                .filter(|(_, slot)| slot.has_result());
            all.extend(kept.map(|(key, slot)| (key.clone(), Arc::clone(slot))));
        }
        all
    }

    /// Those of one name lie together.
    fn shard(&self, key: &PreparedKey) -> &RwLock<Shard> {
        let hash = self.hasher.hash_one(&key.name);
        &self.shards[hash as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Miss, Patience, slot::Pending};

    fn key(name: &str, client: Option<u8>) -> PreparedKey {
        PreparedKey {
            name: name.to_owned(),
            scope: Scope::default(),
            client: client.map(|last| IpAddr::from([10, 0, 0, last])),
        }
    }

    fn found(service: &str) -> Prepared {
        Prepared {
            service: service.to_owned(),
            datacenter: "dc1".to_owned(),
            peer: None,
            ttl: None,
            instances: Vec::new(),
        }
    }

    #[test]
    fn the_last_known_good_outlives_failures_and_serves_other_clients() {
        let queries = PreparedQueries::default();
        let versions = Arc::new(Versions::new());
        let slot = queries.slot(&key("db", None), &versions);
        let starts = |slot: &PreparedSlot, patience| {
            let mut started = false;
            let said = slot.look(patience, |_| {
                started = true;
                Miss::Loading(Pending::new(std::future::pending(), Duration::MAX))
            });
            (started, said.is_ok())
        };
        assert_eq!(starts(&slot, Patience::Some), (true, false));
        assert_eq!(starts(&slot, Patience::None), (true, false));
        slot.excuse(Duration::ZERO);
        assert_eq!(starts(&slot, Patience::Some), (false, false), "failed");

        let slot = queries.slot(&key("web", None), &versions);
        slot.executed(Some(found("web")), Duration::ZERO);
        assert_eq!(starts(&slot, Patience::Some), (true, false), "too old");
        assert_eq!(starts(&slot, Patience::None), (false, true), "will do");
        slot.excuse(Duration::ZERO);
        assert_eq!(starts(&slot, Patience::Some), (false, true), "stays");
        queries.slot(&key("web", None), &versions);
        let node = queries.slot(&key("web", Some(2)), &versions);
        node.excuse(Duration::ZERO);
        assert_eq!(starts(&node, Patience::Some), (false, true), "another's");

        let key = key("near", Some(1));
        let node = queries.slot(&key, &versions);
        node.executed(Some(found("near")), Duration::ZERO);
        // Who waited for it looks again.
        queries.slot(&key, &versions);
        let anybody = queries.slot(&key.for_anybody(), &versions);
        assert_eq!(starts(&anybody, Patience::None), (false, true), "a node's");
    }

    /// Whatever is asked in between: random names, or ever more that have a result.
    #[test]
    fn results_are_bounded_and_those_in_use_stay() {
        for others_have_results in [false, true] {
            let queries = PreparedQueries::default();
            let versions = Arc::new(Versions::new());
            let used = |at: usize| key(&format!("used{at}"), None);
            let ask = |key: &PreparedKey, has_result: bool| {
                let slot = queries.slot(key, &versions);
                let was_known = slot.has_result();
                slot.executed(has_result.then(|| found("x")), Duration::ZERO);
                was_known
            };
            for at in 0..100 {
                ask(&used(at), true);
                ask(&used(at), true);
            }
            for at in 0..20_000 {
                ask(&key(&format!("other{at}"), None), others_have_results);
                assert!(at < 200 || ask(&used(at % 100), true), "{at} was forgotten");
            }
            let kept: usize = queries
                .shards
                .iter()
                .map(|shard| {
                    let shard = shard.read().expect("not poisoned");
                    let kinds = [&shard.results, &shard.others];
                    let lengths = kinds.map(|kind| kind.young.len() + kind.old.len());
                    lengths.iter().sum::<usize>()
                })
                .sum();
            assert!(kept <= MAX_RESULTS + MAX_OTHERS, "{kept}");
            let results = queries.results();
            assert!(results.iter().any(|(key, _)| *key == used(7)));
        }
    }

    #[test]
    fn what_was_known_in_an_earlier_life_is_there() {
        let queries = PreparedQueries::default();
        let versions = Arc::new(Versions::new());
        queries.restore(&key("db", None), found("db"), &versions);
        let slot = queries.slot(&key("db", None), &versions);
        assert!(slot.has_result());
        let said = slot.look(Patience::Some, |_| Miss::Unready);
        assert!(said.is_ok(), "nobody can be asked");
        assert_eq!(queries.results().len(), 1);
    }
}
