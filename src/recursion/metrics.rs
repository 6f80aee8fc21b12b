//! What recursion counts, as `portolan_recursion_*`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::upstream;

/// The metrics of the room, and those of the upstreams.
#[derive(Clone)]
pub struct Metrics {
    /// Questions that the cache answered.
    pub(super) hits: Counter,
    /// Questions that it did not.
    pub(super) misses: Counter,
    /// Questions that no upstream answered.
    pub(super) failures: Counter,
    /// Questions refused because too many were under way.
    pub(super) shed: Counter,
    /// What the cache takes.
    pub(super) cache: Gauge,
    pub(super) upstreams: upstream::Metrics,
}

impl Metrics {
    /// Registers everything; `root` is the registry without a prefix.
    pub fn register(root: &mut Registry) -> Self {
        let metrics = Self {
            hits: Counter::default(),
            misses: Counter::default(),
            failures: Counter::default(),
            shed: Counter::default(),
            cache: Gauge::default(),
            upstreams: upstream::Metrics::register(root),
        };
        let room = root.sub_registry_with_prefix("portolan_recursion");
        room.register(
            "cache_hits",
            "Recursive questions answered from the cache",
            metrics.hits.clone(),
        );
        room.register(
            "cache_misses",
            "Recursive questions that were not in the cache",
            metrics.misses.clone(),
        );
        room.register(
            "failures",
            "Recursive questions that no upstream answered",
            metrics.failures.clone(),
        );
        room.register(
            "shed",
            "Recursive questions refused because too many were under way",
            metrics.shed.clone(),
        );
        room.register_with_unit(
            "cache",
            "Memory that the answers of upstreams take, about",
            Unit::Bytes,
            metrics.cache.clone(),
        );
        metrics
    }
}
