//! What recursion counts, as `portolan_recursion_*`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::upstream;

use super::cache::Cache;

/// The metrics of the room, and those of the upstreams.
#[derive(Clone)]
pub struct Metrics {
    /// Questions that the cache answered.
    pub(super) hits: Counter,
    /// Questions that it did not.
    pub(super) misses: Counter,
    /// Questions answered with what had run down.
    pub(super) stale: Counter,
    /// Names asked for anew while they were served.
    pub(super) refreshes: Counter,
    /// Questions that no upstream answered.
    pub(super) failures: Counter,
    /// Questions refused because too many were under way.
    pub(super) shed: Counter,
    cache: Shown,
    pub(super) upstreams: upstream::Metrics,
}

impl Metrics {
    /// Registers everything; `root` is the registry without a prefix.
    pub fn register(root: &mut Registry) -> Self {
        let metrics = Self {
            hits: Counter::default(),
            misses: Counter::default(),
            stale: Counter::default(),
            refreshes: Counter::default(),
            failures: Counter::default(),
            shed: Counter::default(),
            cache: Shown::default(),
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
            "stale",
            "Recursive questions answered with what had run down, because no upstream had an answer",
            metrics.stale.clone(),
        );
        room.register(
            "refreshes",
            "Names that upstreams were asked for anew while what they had said before was served",
            metrics.refreshes.clone(),
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
        room.register_collector(Box::new(metrics.cache.clone()));
        metrics
    }

    /// Shows what this cache takes, from now on.
    pub(super) fn show(&self, cache: &Arc<Cache>) {
        let mut shown = self.cache.0.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = Arc::downgrade(cache);
    }
}

/// The cache whose size is shown. It is summed up when somebody wants to know it.
#[derive(Debug, Clone, Default)]
struct Shown(Arc<Mutex<Weak<Cache>>>);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = shown.upgrade().map_or(0, |cache| cache.bytes());
        let help = "Memory that the answers of upstreams take, about";
        let unit = Some(&Unit::Bytes);
        let gauge = encoder.encode_descriptor("cache", help, unit, MetricType::Gauge)?;
        ConstGauge::new(bytes.cast_signed()).encode(gauge)
    }
}
