//! What is counted of upstreams, as `portolan_recursion_*`.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::dns::Rcode;

use super::{Address, Failure};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByUpstream {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    upstream: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    upstream: String,
    cause: &'static str,
}

/// The metrics of the room. Upstreams are few and fixed, so their labels are.
#[derive(Clone)]
pub struct Metrics {
    queries: Family<ByOutcome, Counter>,
    odd: Family<ByCause, Counter>,
    hedges: Family<ByUpstream, Counter>,
    healthy: Family<ByUpstream, Gauge>,
    connections: Family<ByUpstream, Gauge>,
    latency: Family<ByUpstream, Histogram, fn() -> Histogram>,
}

/// From a resolver next door to one that is about to time out.
const LATENCY_SECONDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.0,
];

/// What came of a query.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    NoError,
    NxDomain,
    ServFail,
    Refused,
    FormErr,
    NotImp,
    OtherRcode,
    Lame,
    Untrusted,
    Unreadable,
    Network,
    Timeout,
    /// Another upstream was quicker.
    Overtaken,
}

impl Outcome {
    const ALL: [(Self, &'static str); 13] = [
        (Self::NoError, "noerror"),
        (Self::NxDomain, "nxdomain"),
        (Self::ServFail, "servfail"),
        (Self::Refused, "refused"),
        (Self::FormErr, "formerr"),
        (Self::NotImp, "notimp"),
        (Self::OtherRcode, "other_rcode"),
        (Self::Lame, "lame"),
        (Self::Untrusted, "untrusted"),
        (Self::Unreadable, "unreadable"),
        (Self::Network, "network"),
        (Self::Timeout, "timeout"),
        (Self::Overtaken, "overtaken"),
    ];
}

impl From<&Failure> for Outcome {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Timeout => Self::Timeout,
            Failure::Network | Failure::NoStream => Self::Network,
            Failure::Unreadable => Self::Unreadable,
            Failure::Lame => Self::Lame,
            Failure::Untrusted(_) => Self::Untrusted,
            Failure::Rcode(rcode, _) => match *rcode {
                Rcode::SERVFAIL => Self::ServFail,
                Rcode::REFUSED => Self::Refused,
                Rcode::FORMERR => Self::FormErr,
                Rcode::NOTIMP => Self::NotImp,
                _ => Self::OtherRcode,
            },
        }
    }
}

/// What is wrong with something that an upstream sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Odd {
    /// Its id is not that of the query.
    OtherId,
    /// It is to another question.
    OtherQuestion,
    /// It is not a reply that can be read.
    Unreadable,
}

impl Odd {
    const ALL: [(Self, &'static str); 3] = [
        (Self::OtherId, "other_id"),
        (Self::OtherQuestion, "other_question"),
        (Self::Unreadable, "unreadable"),
    ];
}

impl Metrics {
    /// Registers everything; `root` is the registry without a prefix.
    pub fn register(root: &mut Registry) -> Self {
        let metrics = Self {
            queries: Family::default(),
            odd: Family::default(),
            hedges: Family::default(),
            healthy: Family::default(),
            connections: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_SECONDS)),
        };
        let room = root.sub_registry_with_prefix("portolan_recursion");
        room.register(
            "queries",
            "Queries to an upstream, by what came of them",
            metrics.queries.clone(),
        );
        room.register(
            "odd_replies",
            "What an upstream sent that is no reply to what it was asked, by what is wrong with it",
            metrics.odd.clone(),
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
        room.register(
            "upstream_connections",
            "Open TCP and TLS connections to an upstream, those of HTTPS not counted",
            metrics.connections.clone(),
        );
        room.register_with_unit(
            "latency",
            "Time until an upstream's good answer",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        metrics
    }

    /// What is counted of one upstream, found once.
    pub(super) fn of(&self, address: &Address) -> Counts {
        let upstream = address.to_string();
        let own = ByUpstream {
            upstream: upstream.clone(),
        };
        let outcomes = Outcome::ALL.map(|(_, outcome)| {
            let upstream = upstream.clone();
            let labels = ByOutcome { upstream, outcome };
            self.queries.get_or_create_owned(&labels)
        });
        let odd = Odd::ALL.map(|(_, cause)| {
            let upstream = upstream.clone();
            self.odd.get_or_create_owned(&ByCause { upstream, cause })
        });
        let counts = Counts(Arc::new(Inner {
            outcomes,
            odd,
            hedges: self.hedges.get_or_create_owned(&own),
            healthy: self.healthy.get_or_create_owned(&own),
            connections: self.connections.get_or_create_owned(&own),
            latency: self.latency.get_or_create_owned(&own),
        }));
        counts.healthy(true);
        counts
    }
}

/// What is counted of one upstream.
#[derive(Clone)]
pub(super) struct Counts(Arc<Inner>);

struct Inner {
    outcomes: [Counter; Outcome::ALL.len()],
    odd: [Counter; Odd::ALL.len()],
    hedges: Counter,
    healthy: Gauge,
    connections: Gauge,
    latency: Histogram,
}

impl Counts {
    pub(super) fn query(&self, outcome: Outcome) {
        self.0.outcomes[outcome as usize].inc();
    }

    pub(super) fn odd(&self, odd: Odd) {
        self.0.odd[odd as usize].inc();
    }

    pub(super) fn hedge(&self) {
        self.0.hedges.inc();
    }

    pub(super) fn healthy(&self, is_well: bool) {
        self.0.healthy.set(i64::from(is_well));
    }

    pub(super) fn connections(&self) -> &Gauge {
        &self.0.connections
    }

    pub(super) fn latency(&self, latency: Duration) {
        self.0.latency.observe(latency.as_secs_f64());
    }
}
