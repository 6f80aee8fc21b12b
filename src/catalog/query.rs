//! Results of prepared queries. They cannot be watched: each is executed when it is asked for,
//! kept for its TTL, and kept on as the last known good when it cannot be executed (D22).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::slot::{Gate, Pending};
use super::{Instance, Patience, Scope};

/// Results that are kept at a time; the one asked for longest ago makes room.
const MAX_RESULTS: usize = 4096;

/// How long a failed execution is not tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Names one execution. The client is part of it, since a query may be sorted by where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueryKey {
    /// Name, UUID, or a name that a template matches; in lower case.
    pub name: String,
    /// Where it is executed.
    pub scope: Scope,
    /// Who asks.
    pub client: IpAddr,
}

/// What a query found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryResult {
    /// The service that it found.
    pub service: String,
    /// The datacenter that it was found in, after failover.
    pub datacenter: String,
    /// The query's own TTL, in seconds, if it sets one.
    pub ttl: Option<u32>,
    /// The instances, filtered and in the order that Consul chose.
    pub instances: Vec<Instance>,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Executed {
    /// With a result; maybe an empty one.
    Found(QueryResult),
    /// There is no such query.
    Unknown,
}

/// Where the result of one query is published.
#[derive(Debug)]
pub struct QuerySlot(Mutex<State>);

#[derive(Debug)]
struct State {
    value: Option<Arc<Executed>>,
    fresh_until: Option<Instant>,
    asked: Instant,
    /// Opens when the execution under way ends.
    running: Option<Arc<Gate>>,
}

impl State {
    fn pending(&self, gate: &Gate) -> Pending {
        let pending = gate.pending();
        match self.value {
            Some(_) => pending.instead_of_old(),
            None => pending,
        }
    }
}

/// What can be said of a query.
pub(super) enum Look {
    Fresh(Arc<Executed>),
    /// An execution is under way.
    Running(Pending),
    /// An execution is needed, and this is who waits for it.
    Start(Pending),
    /// It failed a moment ago, and there never was a result.
    Failed,
}

impl QuerySlot {
    fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            value: None,
            fresh_until: None,
            asked: now,
            running: None,
        }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known at `now`. Without patience an old result is as good as a fresh one.
    pub(super) fn look(&self, now: Instant, patience: Patience) -> Look {
        let mut state = self.state();
        state.asked = now;
        if patience == Patience::None
            && let Some(value) = &state.value
        {
            return Look::Fresh(Arc::clone(value));
        }
        if state.fresh_until.is_some_and(|until| now < until) {
            return state.value.clone().map_or(Look::Failed, Look::Fresh);
        }
        if let Some(gate) = &state.running {
            return Look::Running(state.pending(gate));
        }
        let gate = Arc::new(Gate::new());
        let pending = state.pending(&gate);
        state.running = Some(gate);
        Look::Start(pending)
    }

    /// Publishes a result that is good for `ttl`.
    pub fn publish(&self, executed: Executed, ttl: Duration) {
        let mut state = self.state();
        state.value = Some(Arc::new(executed));
        Self::end(&mut state, ttl);
    }

    /// The execution failed: what was known stays.
    pub fn fail(&self) {
        Self::end(&mut self.state(), AFTER_FAILURE);
    }

    fn end(state: &mut State, fresh_for: Duration) {
        state.fresh_until = Some(Instant::now() + fresh_for);
        if let Some(gate) = state.running.take() {
            gate.open();
        }
    }
}

/// All results of a layer.
#[derive(Debug, Default)]
pub(super) struct Queries(Mutex<HashMap<QueryKey, Arc<QuerySlot>>>);

impl Queries {
    /// The place of one result. If it is one too many, the one that was asked for longest ago
    /// goes; if there is a result for another client, it is better than none.
    pub(super) fn slot(&self, key: &QueryKey, now: Instant) -> Arc<QuerySlot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key) {
            return Arc::clone(slot);
        }
        if slots.len() >= MAX_RESULTS {
            let oldest = slots
                .iter()
                .min_by_key(|(_, slot)| slot.state().asked)
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                slots.remove(&oldest);
            }
        }
        let slot = QuerySlot::new(now);
        let similar = slots
            .iter()
            .filter(|(other, _)| other.name == key.name && other.scope == key.scope)
            .find_map(|(_, slot)| slot.state().value.clone());
        slot.state().value = similar;
        let slot = Arc::new(slot);
        slots.insert(key.clone(), Arc::clone(&slot));
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, client: u8) -> QueryKey {
        QueryKey {
            name: name.to_owned(),
            scope: Scope::default(),
            client: IpAddr::from([10, 0, 0, client]),
        }
    }

    #[test]
    fn the_last_known_good_outlives_failures_and_serves_other_clients() {
        let queries = Queries::default();
        let start = Instant::now();
        let slot = queries.slot(&key("db", 1), start);
        assert!(matches!(slot.look(start, Patience::Some), Look::Start(_)));
        assert!(matches!(slot.look(start, Patience::Some), Look::Running(_)));
        assert!(matches!(slot.look(start, Patience::None), Look::Running(_)));
        slot.fail();
        assert!(matches!(
            slot.look(Instant::now(), Patience::Some),
            Look::Failed
        ));
        slot.publish(Executed::Unknown, Duration::ZERO);
        assert!(matches!(
            slot.look(Instant::now(), Patience::Some),
            Look::Start(_)
        ));
        assert!(matches!(
            slot.look(Instant::now(), Patience::None),
            Look::Fresh(_)
        ));
        slot.fail();
        assert!(matches!(
            slot.look(Instant::now(), Patience::Some),
            Look::Fresh(_)
        ));
        let other = queries.slot(&key("db", 2), Instant::now());
        other.fail();
        assert!(matches!(
            other.look(Instant::now(), Patience::Some),
            Look::Fresh(_)
        ));
    }

    #[test]
    fn results_are_bounded() {
        let queries = Queries::default();
        for at in 0..MAX_RESULTS + 10 {
            queries.slot(&key(&format!("q{at}"), 1), Instant::now());
        }
        let slots = queries.0.lock().expect("not poisoned");
        assert_eq!(slots.len(), MAX_RESULTS);
        assert!(!slots.contains_key(&key("q0", 1)));
    }
}
