//! What the registrar counts, and what an operator may ask: does it work?

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::explain::Explained;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Write {
    pub(super) action: &'static str,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Outcome {
    pub(super) outcome: &'static str,
}

/// What the registrar counts.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    writes: Family<Write, Counter>,
    passes: Family<Outcome, Counter>,
    pub(super) services: Gauge,
    pub(super) failing: Gauge,
    pub(super) conflicts: Gauge,
    pub(super) problems: Gauge,
    pub(super) other_writers: Gauge,
    pub(super) unsynced: Gauge,
}

impl Metrics {
    /// Registers the counters as `portolan_register_*`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("portolan_register");
        registry.register(
            "writes",
            "Requests that change what Consul's agent holds, by outcome",
            metrics.writes.clone(),
        );
        registry.register(
            "passes",
            "Comparisons of what runs with what is registered, by outcome",
            metrics.passes.clone(),
        );
        let gauges = [
            (
                "services",
                "Services that should be registered",
                &metrics.services,
            ),
            (
                "failing",
                "Services that Consul refused as they are",
                &metrics.failing,
            ),
            (
                "conflicts",
                "Services left alone because somebody else registered the ID",
                &metrics.conflicts,
            ),
            (
                "problems",
                "Labels that cannot be followed; the log names them",
                &metrics.problems,
            ),
            (
                "other_writers",
                "Other processes that write under our owner's name",
                &metrics.other_writers,
            ),
            (
                "unsynced",
                "Services that Consul's servers do not have as the agent has them, and are therefore registered anew",
                &metrics.unsynced,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        // Counted from 0, so that the first one is an increase.
        for action in ["register", "deregister", "health"] {
            let outcome = "ok";
            drop(metrics.writes.get_or_create(&Write { action, outcome }));
        }
        metrics
    }

    pub(super) fn write(&self, action: &'static str, outcome: &'static str) {
        self.writes.get_or_create(&Write { action, outcome }).inc();
    }

    pub(super) fn pass(&self, outcome: &'static str) {
        self.passes.get_or_create(&Outcome { outcome }).inc();
    }
}

/// A count as a gauge takes it.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How it stands with Consul, and what became of each container, as of the last comparison. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Report {
    now: Arc<Mutex<Result<String, String>>>,
    /// `None` while nothing is known of them, or not any more.
    containers: Arc<Mutex<Option<Arc<[Explained]>>>>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            now: Arc::new(Mutex::new(Err(
                "waiting for the first comparison of Docker with Consul".to_owned(),
            ))),
            containers: Arc::default(),
        }
    }
}

impl Report {
    /// What there is to say if all is well, or what is wrong.
    ///
    /// # Errors
    /// What is wrong.
    pub fn get(&self) -> Result<String, String> {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What became of each container, by name.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn containers(&self) -> Result<Arc<[Explained]>, String> {
        let containers = self.containers.lock();
        let containers = containers.unwrap_or_else(PoisonError::into_inner).clone();
        containers.ok_or_else(|| self.get().err().unwrap_or_default())
    }

    /// Says what became of each container; `None` if it is not known.
    pub(super) fn set_containers(&self, containers: Option<Vec<Explained>>) {
        let containers = containers.map(Arc::from);
        *self
            .containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = containers;
    }

    /// Says how it stands.
    pub fn set(&self, now: Result<String, String>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
