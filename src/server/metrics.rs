//! Counters of the server.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::answers::{Rcode, Transport};
use crate::names::types;

/// Types that have a counter of their own; all others share one, so that clients cannot make
/// counters.
const TYPES: [(u16, &str); 9] = [
    (types::A, "A"),
    (types::AAAA, "AAAA"),
    (types::SRV, "SRV"),
    (types::PTR, "PTR"),
    (types::TXT, "TXT"),
    (types::NS, "NS"),
    (types::SOA, "SOA"),
    (types::CNAME, "CNAME"),
    (types::ANY, "ANY"),
];
const OTHER_TYPE: usize = TYPES.len();

const RCODES: [(Rcode, &str); 7] = [
    (Rcode::NOERROR, "NOERROR"),
    (Rcode::FORMERR, "FORMERR"),
    (Rcode::SERVFAIL, "SERVFAIL"),
    (Rcode::NXDOMAIN, "NXDOMAIN"),
    (Rcode::NOTIMP, "NOTIMP"),
    (Rcode::REFUSED, "REFUSED"),
    (Rcode::BADVERS, "BADVERS"),
];
const OTHER_RCODE: usize = RCODES.len();

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueryLabels {
    transport: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RcodeLabel {
    rcode: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WayLabel {
    way: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The server's counters. Every labelled counter is looked up once, here, and never by a query.
#[derive(Debug)]
pub struct Metrics {
    udp: Vec<Counter>,
    tcp: Vec<Counter>,
    responses: Vec<Counter>,
    malformed: Counter,
    shed_queue: Counter,
    shed_connections: Counter,
    shed_client: Counter,
    unsent: Counter,
    /// TCP connections open now.
    pub(super) connections: Gauge,
    at_once: Histogram,
    in_full: Histogram,
}

impl Metrics {
    /// Registers the counters as `portolan_server_*`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("portolan_server");
        let queries = Family::<QueryLabels, Counter>::default();
        registry.register("queries", "Well-formed queries", queries.clone());
        let responses = Family::<RcodeLabel, Counter>::default();
        registry.register("responses", "Replies by rcode", responses.clone());
        let shed = Family::<ReasonLabel, Counter>::default();
        registry.register(
            "shed",
            "Queries and connections turned away at a limit",
            shed.clone(),
        );
        let malformed = Counter::default();
        registry.register(
            "malformed",
            "Requests that could not be read or are not queries",
            malformed.clone(),
        );
        let unsent = Counter::default();
        registry.register(
            "unsent",
            "Replies the system would not take",
            unsent.clone(),
        );
        let connections = Gauge::default();
        registry.register(
            "tcp_connections",
            "TCP connections open",
            connections.clone(),
        );
        // From one microsecond to four seconds.
        let latency = Family::<WayLabel, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(1e-6, 4.0, 12))
        });
        registry.register(
            "answer_seconds",
            "Time to make an answer: at once from memory, or the full way",
            latency.clone(),
        );
        let types = || TYPES.iter().map(|(_, name)| *name).chain(["other"]);
        let by_type = |transport| {
            let counter = |r#type| {
                queries
                    .get_or_create(&QueryLabels { transport, r#type })
                    .clone()
            };
            types().map(counter).collect()
        };
        let way = |way| latency.get_or_create(&WayLabel { way }).clone();
        let reason = |reason| shed.get_or_create(&ReasonLabel { reason }).clone();
        Self {
            udp: by_type("udp"),
            tcp: by_type("tcp"),
            responses: RCODES
                .iter()
                .map(|(_, name)| *name)
                .chain(["other"])
                .map(|rcode| responses.get_or_create(&RcodeLabel { rcode }).clone())
                .collect(),
            malformed,
            shed_queue: reason("queue"),
            shed_connections: reason("connections"),
            shed_client: reason("client_connections"),
            unsent,
            connections,
            at_once: way("at_once"),
            in_full: way("in_full"),
        }
    }

    pub(super) fn query(&self, transport: Transport, qtype: u16) {
        let counters = match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
        };
        let at = TYPES.iter().position(|(own, _)| *own == qtype);
        counters[at.unwrap_or(OTHER_TYPE)].inc();
    }

    pub(super) fn response(&self, rcode: Rcode) {
        let at = RCODES.iter().position(|(own, _)| *own == rcode);
        self.responses[at.unwrap_or(OTHER_RCODE)].inc();
    }

    pub(super) fn malformed(&self) {
        self.malformed.inc();
    }

    pub(super) fn shed_query(&self) {
        self.shed_queue.inc();
    }

    pub(super) fn shed_connection(&self, by_client: bool) {
        if by_client {
            self.shed_client.inc();
        } else {
            self.shed_connections.inc();
        }
    }

    pub(super) fn unsent(&self, replies: usize) {
        self.unsent.inc_by(replies as u64);
    }

    pub(super) fn answered_at_once(&self, time: Duration) {
        self.at_once.observe(time.as_secs_f64());
    }

    pub(super) fn answered_in_full(&self, time: Duration) {
        self.in_full.observe(time.as_secs_f64());
    }
}
