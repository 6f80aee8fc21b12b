//! Counters of the Consul source.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::catalog::Realm;

use super::ages::Ages;
use super::contact::Contact;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OutcomeLabel {
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct KindLabel {
    pub(super) kind: &'static str,
}

/// The reasons for doubting an answer of Consul.
const SUSPICIONS: [&str; 5] = ["body", "empty", "filtered", "index", "leader"];

/// What the Consul source counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) requests: Family<OutcomeLabel, Counter>,
    watches: Family<KindLabel, Gauge>,
    pub(super) published: Counter,
    suspicions: Family<KindLabel, Counter>,
    pub(super) lag: Histogram,
    pub(super) evicted: Counter,
    ages: Ages,
}

impl Metrics {
    /// Registers the counters as `portolan_sources_consul_*`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            watches: Family::default(),
            published: Counter::default(),
            suspicions: Family::default(),
            // From a tenth of a millisecond to a second and a half.
            lag: Histogram::new(exponential_buckets(1e-4, 4.0, 8)),
            evicted: Counter::default(),
            ages: Ages::default(),
        };
        let registry = registry.sub_registry_with_prefix("portolan_sources_consul");
        registry.register(
            "requests",
            "Requests to Consul by outcome",
            metrics.requests.clone(),
        );
        registry.register(
            "watches",
            "Blocking queries that are open: lists of names and nodes, services",
            metrics.watches.clone(),
        );
        registry.register(
            "published",
            "Changes that were published to the catalog",
            metrics.published.clone(),
        );
        registry.register(
            "suspicions",
            "Answers of Consul that were not believed before they were confirmed",
            metrics.suspicions.clone(),
        );
        registry.register(
            "publish_seconds",
            "Time from Consul's answer to the change in the catalog",
            metrics.lag.clone(),
        );
        registry.register_collector(Box::new(metrics.ages.clone()));
        registry.register(
            "evicted",
            "Watches given up for a service that was asked for later",
            metrics.evicted.clone(),
        );
        // They are counted from 0, not from the first time on: only so is the first one an increase.
        for kind in SUSPICIONS {
            drop(metrics.suspicions.get_or_create(&KindLabel { kind }));
        }
        metrics
    }

    /// A contact about a realm, whose age is shown from now on.
    pub(super) fn new_contact(&self, realm: &Arc<Realm>) -> Arc<Contact> {
        let contact = Arc::new(Contact::new(Arc::clone(realm)));
        self.ages.show(&contact);
        contact
    }

    pub(super) fn suspect(&self, kind: &'static str) {
        self.suspicions.get_or_create(&KindLabel { kind }).inc();
    }

    pub(super) fn set_watches(&self, kind: &'static str, count: usize) {
        let gauge = self.watches.get_or_create(&KindLabel { kind });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn request(&self, outcome: &'static str) {
        self.requests.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}
