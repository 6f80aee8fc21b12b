//! What recursion counts, as `portolan_recursion_*`.

use std::net::SocketAddr;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByUpstream {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    upstream: String,
    outcome: &'static str,
}

/// The metrics of the room. Upstreams are few and fixed, so their labels are.
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
    queries: Family<ByOutcome, Counter>,
    hedges: Family<ByUpstream, Counter>,
    healthy: Family<ByUpstream, Gauge>,
    latency: Family<ByUpstream, Histogram, fn() -> Histogram>,
}

/// From a resolver next door to one that is about to time out.
const LATENCY_SECONDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.0,
];

impl Metrics {
    /// Registers everything; `root` is the registry without a prefix.
    pub fn register(root: &mut Registry) -> Self {
        let metrics = Self {
            hits: Counter::default(),
            misses: Counter::default(),
            failures: Counter::default(),
            shed: Counter::default(),
            queries: Family::default(),
            hedges: Family::default(),
            healthy: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_SECONDS)),
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
        room.register(
            "queries",
            "Queries to an upstream, by what came of them",
            metrics.queries.clone(),
        );
        room.register(
            "hedges",
            "Queries to an upstream because the one before it was slow",
            metrics.hedges.clone(),
        );
        room.register(
            "upstream_healthy",
            "1 if the upstream is asked in its turn, 0 if it is asked last",
            metrics.healthy.clone(),
        );
        room.register_with_unit(
            "latency",
            "Time until an upstream's good answer",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        metrics
    }

    pub(super) fn query(&self, upstream: SocketAddr, outcome: &'static str) {
        let labels = ByOutcome {
            upstream: upstream.to_string(),
            outcome,
        };
        self.queries.get_or_create(&labels).inc();
    }

    pub(super) fn hedge(&self, upstream: SocketAddr) {
        self.hedges.get_or_create(&labels(upstream)).inc();
    }

    pub(super) fn healthy(&self, upstream: SocketAddr, is_well: bool) {
        self.healthy
            .get_or_create(&labels(upstream))
            .set(i64::from(is_well));
    }

    pub(super) fn latency(&self, upstream: SocketAddr, latency: Duration) {
        self.latency
            .get_or_create(&labels(upstream))
            .observe(latency.as_secs_f64());
    }
}

fn labels(upstream: SocketAddr) -> ByUpstream {
    ByUpstream {
        upstream: upstream.to_string(),
    }
}
