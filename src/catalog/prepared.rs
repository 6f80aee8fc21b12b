//! Results of prepared queries. They cannot be watched: each is executed when it is asked for,
//! kept for its TTL, and kept on as the last known good when it cannot be executed (D22).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::slot::millis;
use super::{Instance, Scope, Slot, Versions};

/// Results that are kept at a time; the one asked for longest ago makes room.
const MAX_RESULTS: usize = 4096;

/// How long a failed execution is not tried again, in milliseconds.
const AFTER_FAILURE: u64 = 1000;

/// Names one execution. The client is part of it, since a query may be sorted by where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PreparedKey {
    /// Name, UUID, or a name that a template matches; in lower case.
    pub name: String,
    /// Where it is executed.
    pub scope: Scope,
    /// Who asks.
    pub client: IpAddr,
}

/// What a prepared query found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The service that it found.
    pub service: String,
    /// The datacenter that it was found in, after failover.
    pub datacenter: String,
    /// The query's own TTL, in seconds, if it sets one.
    pub ttl: Option<u32>,
    /// The instances, filtered and in the order that Consul chose.
    pub instances: Vec<Instance>,
}

/// Where the result of one query is published; `None` is that there is no such query.
pub type PreparedSlot = Slot<Option<Prepared>>;

impl PreparedSlot {
    /// Publishes a result that is good for `ttl`.
    pub fn executed(&self, result: Option<Prepared>, ttl: Duration) {
        self.publish_for(result, millis(ttl));
    }

    /// The execution failed, and is not tried again for a while, `at_least` so long; what was known stays.
    pub fn failed(&self, at_least: Duration) {
        self.fail_for(AFTER_FAILURE.max(millis(at_least)));
    }
}

/// All results of a layer.
#[derive(Debug, Default)]
pub(super) struct PreparedQueries(Mutex<HashMap<PreparedKey, Arc<PreparedSlot>>>);

impl PreparedQueries {
    /// The place of one result. If it is one too many, the one that was asked for longest ago
    /// goes; if there is a result for another client, it is better than none.
    pub(super) fn slot(&self, key: &PreparedKey, versions: &Arc<Versions>) -> Arc<PreparedSlot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key) {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_RESULTS {
            let oldest = slots
                .iter()
                .min_by_key(|(_, slot)| slot.last_asked())
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                slots.remove(&oldest);
            }
        }
        let slot = Arc::new(Slot::new(versions));
        slot.touch(versions.seconds());
        let similar = slots
            .iter()
            .filter(|(other, _)| other.name == key.name && other.scope == key.scope)
            .find_map(|(_, slot)| slot.get());
        slot.begin_with(similar.map(|(_, result)| result));
        slots.insert(key.clone(), Arc::clone(&slot));
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Miss, Patience, slot::Pending};

    fn key(name: &str, client: u8) -> PreparedKey {
        PreparedKey {
            name: name.to_owned(),
            scope: Scope::default(),
            client: IpAddr::from([10, 0, 0, client]),
        }
    }

    #[test]
    fn the_last_known_good_outlives_failures_and_serves_other_clients() {
        let queries = PreparedQueries::default();
        let versions = Arc::new(Versions::new());
        let slot = queries.slot(&key("db", 1), &versions);
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
        slot.failed(Duration::ZERO);
        assert_eq!(starts(&slot, Patience::Some), (false, false), "failed");

        let slot = queries.slot(&key("web", 1), &versions);
        slot.executed(None, Duration::ZERO);
        assert_eq!(starts(&slot, Patience::Some), (true, false), "too old");
        assert_eq!(starts(&slot, Patience::None), (false, true), "will do");
        slot.failed(Duration::ZERO);
        assert_eq!(starts(&slot, Patience::Some), (false, true), "stays");
        let other = queries.slot(&key("web", 2), &versions);
        other.failed(Duration::ZERO);
        assert_eq!(starts(&other, Patience::Some), (false, true), "another's");
    }

    #[test]
    fn results_are_bounded_and_the_one_asked_for_longest_ago_goes() {
        let queries = PreparedQueries::default();
        let versions = Arc::new(Versions::new());
        for at in 0..MAX_RESULTS + 10 {
            let slot = queries.slot(&key(&format!("q{at}"), 1), &versions);
            slot.touch(1000 + at as u64);
        }
        let slots = queries.0.lock().expect("not poisoned");
        assert_eq!(slots.len(), MAX_RESULTS);
        assert!(!slots.contains_key(&key("q0", 1)));
        assert!(slots.contains_key(&key("q100", 1)));
    }
}
