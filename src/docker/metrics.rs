//! Counters of the Docker source.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// What the Docker source counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    pub(super) events: Counter,
    pub(super) containers: Gauge,
    pub(super) unknown: Gauge,
    pub(super) connected: Gauge,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("portolan_sources_docker");
        registry.register(
            "requests",
            "Requests to Docker by kind and outcome",
            self.requests.clone(),
        );
        registry.register(
            "events",
            "Events of Docker that were a reason to look",
            self.events.clone(),
        );
        registry.register(
            "containers",
            "Containers that run and are not being stopped",
            self.containers.clone(),
        );
        registry.register(
            "unknown_containers",
            "Containers that run but could not be inspected",
            self.unknown.clone(),
        );
        registry.register(
            "connected",
            "1 while Docker can be reached",
            self.connected.clone(),
        );
    }

    pub(super) fn request(&self, kind: &'static str, is_good: bool) {
        let outcome = if is_good { "ok" } else { "error" };
        self.requests
            .get_or_create(&RequestLabels { kind, outcome })
            .inc();
    }
}
