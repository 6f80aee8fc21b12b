//! What is counted of Consul, and how old what we hold of each datacenter is: that is read off when somebody
//! looks, since an age that is written down stands still when its writer does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::catalog::{Realm, Scope};

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
const SUSPICIONS: [&str; 6] = [
    "body",
    "datacenters",
    "empty",
    "filtered",
    "index",
    "leader",
];

/// What the Consul source counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) requests: Family<OutcomeLabel, Counter>,
    watches: Family<KindLabel, Gauge>,
    pub(super) published: Counter,
    suspicions: Family<KindLabel, Counter>,
    pub(super) lag: Histogram,
    pub(super) evicted: Counter,
    pub(super) unknown_refused: Counter,
    pub(super) realms_refused: Counter,
    borne: Gauge,
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
            unknown_refused: Counter::default(),
            realms_refused: Counter::default(),
            borne: Gauge::default(),
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
        registry.register(
            "watches_borne",
            "Watches on services that Consul was found to bear before it resets connections; 0 if it bears all",
            metrics.borne.clone(),
        );
        registry.register(
            "unknown_refused",
            "Questions for names beyond the lists that were not passed on, because too many were asked",
            metrics.unknown_refused.clone(),
        );
        registry.register(
            "realms_refused",
            "Datacenters, peers, namespaces and partitions that were not followed, because too many were in use",
            metrics.realms_refused.clone(),
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

    /// Watches on services that Consul was found to bear; none while it bore all.
    pub(super) fn set_borne(&self, borne: Option<usize>) {
        self.borne
            .set(i64::try_from(borne.unwrap_or(0)).unwrap_or(i64::MAX));
    }

    pub(super) fn request(&self, outcome: &'static str) {
        self.requests.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct DatacenterLabel {
    /// As Consul names it, never as a client does; empty before the first data of the local one.
    datacenter: String,
}

/// How old what is held of a datacenter is: the ages in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Age {
    /// Since Consul last confirmed that what we hold is current.
    index: u64,
    /// The same while Consul is away, else 0.
    stale: u64,
    /// Watches that have no usable answer.
    failing: usize,
}

/// The datacenters that are followed.
#[derive(Debug, Clone, Default)]
pub(super) struct Ages(Arc<Mutex<Vec<Weak<Contact>>>>);

impl Ages {
    /// Shows the ages of a datacenter for as long as it is followed. Peers and namespaces are not
    /// shown: they are no datacenters, and clients make up the names of namespaces.
    pub(super) fn show(&self, contact: &Arc<Contact>) {
        let scope = contact.realm().scope();
        let whole = Scope {
            datacenter: scope.datacenter.clone(),
            ..Scope::default()
        };
        if *scope == whole {
            let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            shown.retain(|contact| contact.strong_count() > 0);
            shown.push(Arc::downgrade(contact));
        }
    }

    fn now(&self) -> BTreeMap<DatacenterLabel, Age> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ages: BTreeMap<DatacenterLabel, Age> = BTreeMap::new();
        for contact in shown.iter().filter_map(Weak::upgrade) {
            let datacenter = contact.realm().datacenter().to_string();
            // Two contacts about one datacenter are a moment between an end and a beginning.
            let age = ages.entry(DatacenterLabel { datacenter }).or_default();
            age.index = age.index.max(contact.age());
            age.stale = age.stale.max(contact.stale());
            age.failing += contact.failing();
        }
        ages
    }
}

impl Collector for Ages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ages = self.now();
        let mut family = |name, help, value: fn(&Age) -> f64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ages.iter().try_for_each(|(label, age)| {
                ConstGauge::new(value(age)).encode(family.encode_family(label)?)
            })
        };
        family(
            "index_age_seconds",
            "Time since Consul last confirmed that what is held of the datacenter is current",
            |age| age.index as f64 / 1000.0,
        )?;
        family(
            "stale_seconds",
            "For how long Consul has been away, or has not let us read the lists or the keys; 0 while all is well",
            |age| age.stale as f64 / 1000.0,
        )?;
        family(
            "watches_failing",
            "Watches without a usable answer; where Consul is well, what they are for ages alone",
            |age| age.failing as f64,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::catalog::{Catalog, Edition, Interest, Kind, Layer, Patience, ServiceKey};

    /// Asks for something in a scope, and gives the realm that was made for that.
    fn realm(
        layer: &Layer,
        interests: &mut crate::catalog::Interests,
        scope: &Scope,
    ) -> Arc<Realm> {
        let key = ServiceKey::new(Kind::Service, "web");
        drop(layer.service(scope, &key, Patience::Some));
        match interests.try_recv() {
            Ok(Interest::Realm(realm)) => realm,
            other => panic!("not the interest in a realm: {other:?}"),
        }
    }

    #[test]
    fn a_datacenter_is_shown_for_as_long_as_it_is_followed() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let shown = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("a string takes everything");
            let ages = text.lines().filter_map(|line| {
                let (series, age) = line.rsplit_once(' ')?;
                let series = series.strip_prefix("portolan_sources_consul_")?;
                let is_age = series.starts_with("index_age") || series.starts_with("stale");
                is_age.then(|| (series.to_owned(), age.parse::<f64>().expect("a number")))
            });
            ages.collect::<BTreeMap<_, _>>()
        };
        let (layer, mut interests) = Catalog::new().add_lazy("test");
        layer.set_unlisted_rate(45);
        let follow = |realm: &Arc<Realm>| metrics.new_contact(realm);
        let local = follow(layer.local());
        assert_eq!(shown().len(), 2);
        assert!(shown().contains_key("stale_seconds{datacenter=\"\"}"));
        layer.local().name_datacenter("dc1");
        layer.publish_datacenters(BTreeSet::from(["dc1".to_owned(), "dc2".to_owned()]));
        layer.places().publish_edition(Edition::Enterprise);

        let mut scope = Scope {
            datacenter: Some("dc2".to_owned()),
            ..Scope::default()
        };
        let other = follow(&realm(&layer, &mut interests, &scope));
        scope.namespace = Some("whatever-a-client-says".to_owned());
        let namespace = follow(&realm(&layer, &mut interests, &scope));
        let since = layer.versions().millis() - 900;
        local.note_good(since);
        other.note_good(since);
        other.realm().mark_stale(since);
        let ages = shown();
        assert_eq!(ages.len(), 4, "{ages:?}");
        assert!(ages["index_age_seconds{datacenter=\"dc1\"}"] >= 0.9);
        assert!(ages["index_age_seconds{datacenter=\"dc2\"}"] >= 0.9);
        assert_eq!(ages["stale_seconds{datacenter=\"dc1\"}"], 0.0);
        assert!(ages["stale_seconds{datacenter=\"dc2\"}"] >= 0.9);
        drop((other, namespace));
        assert!(!shown().keys().any(|series| series.contains("dc2")));
        assert_eq!(shown().len(), 2);
    }
}
