//! What the server counts: a worker counts in an array of its own, so that adding costs no other core
//! a cache line, and the arrays are added up when somebody looks. What the places of the array mean is
//! said once, in [`FAMILIES`].

use std::collections::HashSet;
use std::fmt;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::dns::{Rcode, Transport, types};

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

/// The same for rcodes.
const RCODES: [(Rcode, &str); 7] = [
    (Rcode::NOERROR, "NOERROR"),
    (Rcode::FORMERR, "FORMERR"),
    (Rcode::SERVFAIL, "SERVFAIL"),
    (Rcode::NXDOMAIN, "NXDOMAIN"),
    (Rcode::NOTIMP, "NOTIMP"),
    (Rcode::REFUSED, "REFUSED"),
    (Rcode::BADVERS, "BADVERS"),
];

/// Where each family begins in a worker's array. The last place of types and of rcodes is for others.
const QUERIES: usize = 0;
const RESPONSES: usize = QUERIES + TYPES.len() + 1;
const MALFORMED: usize = RESPONSES + RCODES.len() + 1;
const HITS: usize = MALFORMED + 1;
const PLACES: usize = HITS + 1;

/// A counter of `/metrics`, and where its numbers are in the workers' arrays.
struct Family {
    name: &'static str,
    help: &'static str,
    first: usize,
    labels: Labels,
}

/// What tells the numbers of a family apart.
enum Labels {
    Nothing,
    TypeAndTransport,
    Rcode,
}

const FAMILIES: [Family; 4] = [
    Family {
        name: "malformed",
        help: "Requests that could not be read or are not queries",
        first: MALFORMED,
        labels: Labels::Nothing,
    },
    Family {
        name: "rendered_hits",
        help: "Replies that had been rendered before",
        first: HITS,
        labels: Labels::Nothing,
    },
    Family {
        name: "queries",
        help: "Well-formed queries",
        first: QUERIES,
        labels: Labels::TypeAndTransport,
    },
    Family {
        name: "responses",
        help: "Replies by rcode",
        first: RESPONSES,
        labels: Labels::Rcode,
    },
];

/// Upper bounds of the latency buckets, in nanoseconds: from a quarter of a microsecond to four
/// seconds, each four times the one before.
const BUCKETS: usize = 13;
const FIRST_BUCKET: u64 = 250;

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From memory, on the thread that received the query.
    AtOnce,
    /// On the runtime, after waiting for something.
    InFull,
}

const WAYS: [(Way, &str); 2] = [(Way::AtOnce, "at_once"), (Way::InFull, "in_full")];

/// Counts of one batch, still on the worker's stack.
#[derive(Debug)]
pub(super) struct Tally {
    places: [u32; PLACES],
    answered: u32,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            places: [0; PLACES],
            answered: 0,
        }
    }
}

impl Tally {
    pub(super) fn query(&mut self, qtype: u16) {
        let at = TYPES.iter().position(|(own, _)| *own == qtype);
        self.places[QUERIES + at.unwrap_or(TYPES.len())] += 1;
    }

    pub(super) fn response(&mut self, rcode: Rcode) {
        let at = RCODES.iter().position(|(own, _)| *own == rcode);
        self.places[RESPONSES + at.unwrap_or(RCODES.len())] += 1;
        self.answered += 1;
    }

    pub(super) fn malformed(&mut self) {
        self.places[MALFORMED] += 1;
    }

    /// A reply that had been rendered before.
    pub(super) fn hit(&mut self) {
        self.places[HITS] += 1;
    }
}

/// Counts of one worker and transport. Only one thread writes most of them.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Counts {
    transport: Transport,
    places: [AtomicU64; PLACES],
    cache_bytes: AtomicU64,
    latency: [Latency; WAYS.len()],
}

/// A histogram of times; the last bucket has no bound.
#[derive(Debug, Default)]
struct Latency {
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS + 1],
}

impl Latency {
    fn add(&self, each: u64, times: u64) {
        self.nanos
            .fetch_add(each.saturating_mul(times), Ordering::Relaxed);
        let fitting = bounds().position(|bound| each <= bound);
        self.buckets[fitting.unwrap_or(BUCKETS)].fetch_add(times, Ordering::Relaxed);
    }
}

fn bounds() -> impl Iterator<Item = u64> {
    (0..BUCKETS).map(|at| FIRST_BUCKET << (2 * at))
}

impl Counts {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            places: std::array::from_fn(|_| AtomicU64::new(0)),
            cache_bytes: AtomicU64::new(0),
            latency: Default::default(),
        }
    }

    /// Adds what was counted, and how long each answer took on average.
    pub(super) fn add(&self, tally: &Tally, way: Way, took: Duration) {
        for (place, counted) in self.places.iter().zip(tally.places) {
            if counted > 0 {
                place.fetch_add(u64::from(counted), Ordering::Relaxed);
            }
        }
        if tally.answered > 0 {
            let each = took.as_nanos() as u64 / u64::from(tally.answered);
            self.latency[way as usize].add(each, u64::from(tally.answered));
        }
    }

    #[cfg(test)]
    pub(super) fn hits(&self) -> u64 {
        self.places[HITS].load(Ordering::Relaxed)
    }

    pub(super) fn set_cache_bytes(&self, bytes: usize) {
        self.cache_bytes.store(bytes as u64, Ordering::Relaxed);
    }
}

/// The server's metrics.
#[derive(Debug)]
pub struct Metrics {
    workers: Workers,
    unsent: Counter,
    /// TCP connections open now.
    connections: Gauge,
}

/// A connection that is counted as open.
pub(super) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers the metrics as `portolan_server_*`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("portolan_server");
        let workers = Workers::default();
        registry.register_collector(Box::new(workers.clone()));
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
        Self {
            workers,
            unsent,
            connections,
        }
    }

    /// Counters for one more worker.
    pub(super) fn worker(&self, transport: Transport) -> Arc<Counts> {
        let counts = Arc::new(Counts::new(transport));
        self.workers.lock().workers.push(Arc::clone(&counts));
        counts
    }

    /// Watches what the system drops of a worker's socket.
    pub(super) fn socket(&self, socket: &UdpSocket) {
        self.workers.lock().inodes.extend(inode_of(socket));
    }

    pub(super) fn shed_query(&self) {
        self.workers.shed.queue.inc();
    }

    pub(super) fn shed_late(&self, queries: u64) {
        self.workers.shed.late.inc_by(queries);
    }

    pub(super) fn shed_connection(&self, by_client: bool) {
        if by_client {
            self.workers.shed.client_connections.inc();
        } else {
            self.workers.shed.connections.inc();
        }
    }

    /// A connection was closed for one of a client that had less.
    pub(super) fn shed_idle_connection(&self) {
        self.workers.shed.idle_connections.inc();
    }

    /// A connection is open, until this is dropped.
    pub(super) fn open_connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    pub(super) fn unsent(&self, replies: usize) {
        self.unsent.inc_by(replies as u64);
    }
}

/// All workers, and what was turned away before it came to one.
#[derive(Debug, Clone, Default)]
struct Workers {
    known: Arc<Mutex<Known>>,
    shed: Shed,
}

#[derive(Debug, Default)]
struct Known {
    workers: Vec<Arc<Counts>>,
    /// Their sockets, as the system numbers them.
    inodes: HashSet<u64>,
}

/// What was turned away, by the limit that it was turned away at.
#[derive(Debug, Clone, Default)]
struct Shed {
    queue: Counter,
    late: Counter,
    connections: Counter,
    client_connections: Counter,
    idle_connections: Counter,
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Workers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (workers, inodes) = {
            let known = self.lock();
            (known.workers.clone(), known.inodes.clone())
        };
        let sum = |of: &dyn Fn(&Counts) -> u64| workers.iter().map(|own| of(own)).sum::<u64>();
        let mut shed = encoder.encode_descriptor(
            "shed",
            "Queries and connections turned away at a limit",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in [
            ("queue", self.shed.queue.get()),
            ("late", self.shed.late.get()),
            ("connections", self.shed.connections.get()),
            ("client_connections", self.shed.client_connections.get()),
            ("idle_connections", self.shed.idle_connections.get()),
            ("socket", drops_of(&inodes)),
        ] {
            shed.encode_family(&[("reason", reason)])?
                .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        for family in FAMILIES {
            let counter = MetricType::Counter;
            let mut encoded = encoder.encode_descriptor(family.name, family.help, None, counter)?;
            let count = |at: usize, transport: Option<Transport>| {
                sum(&|own| match transport {
                    Some(transport) if own.transport != transport => 0,
                    _ => own.places[family.first + at].load(Ordering::Relaxed),
                })
            };
            match family.labels {
                Labels::Nothing => {
                    encoded.encode_counter::<NoLabelSet, _, f64>(&count(0, None), None)?;
                }
                Labels::TypeAndTransport => {
                    for (transport, label) in [(Transport::Udp, "udp"), (Transport::Tcp, "tcp")] {
                        for (at, name) in or_other(TYPES.map(|(_, name)| name)).enumerate() {
                            encoded
                                .encode_family(&[("transport", label), ("type", name)])?
                                .encode_counter::<NoLabelSet, _, f64>(
                                    &count(at, Some(transport)),
                                    None,
                                )?;
                        }
                    }
                }
                Labels::Rcode => {
                    for (at, name) in or_other(RCODES.map(|(_, name)| name)).enumerate() {
                        encoded
                            .encode_family(&[("rcode", name)])?
                            .encode_counter::<NoLabelSet, _, f64>(&count(at, None), None)?;
                    }
                }
            }
        }
        let bytes = sum(&|own| own.cache_bytes.load(Ordering::Relaxed));
        encoder
            .encode_descriptor(
                "rendered_bytes",
                "Memory that rendered answers take",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&i64::try_from(bytes).unwrap_or(i64::MAX))?;
        let mut latency = encoder.encode_descriptor(
            "answer_seconds",
            "Time to make an answer: at once from memory, or the full way",
            None,
            MetricType::Histogram,
        )?;
        for (way, label) in WAYS {
            let of = |own: &Counts, at: usize| {
                own.latency[way as usize].buckets[at].load(Ordering::Relaxed)
            };
            let bounds = bounds().map(|nanos| nanos as f64 / 1e9);
            let buckets: Vec<(f64, u64)> = bounds
                .chain([f64::INFINITY])
                .enumerate()
                .map(|(at, bound)| (bound, sum(&|own| of(own, at))))
                .collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let nanos = sum(&|own| own.latency[way as usize].nanos.load(Ordering::Relaxed));
            latency
                .encode_family(&[("way", label)])?
                .encode_histogram::<NoLabelSet>(nanos as f64 / 1e9, count, &buckets, None)?;
        }
        Ok(())
    }
}

fn or_other<const N: usize>(names: [&'static str; N]) -> impl Iterator<Item = &'static str> {
    names.into_iter().chain(["other"])
}

/// The system's tables of UDP sockets (proc(5)). It counts for each the datagrams that it dropped
/// because a worker did not keep up, and nobody else sees them.
const TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];
/// The columns of a socket's number and of its drops.
const INODE: usize = 9;
const DROPS: usize = 12;

/// The number that the system's tables have for a socket, if it tells.
fn inode_of(socket: &UdpSocket) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    let inside = link.to_str()?.strip_prefix("socket:[")?;
    inside.strip_suffix(']')?.parse().ok()
}

/// How many datagrams the system has dropped for these sockets.
fn drops_of(inodes: &HashSet<u64>) -> u64 {
    TABLES
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .map(|table| drops_in(&table, inodes))
        .sum()
}

fn drops_in(table: &str, inodes: &HashSet<u64>) -> u64 {
    let number = |line: &str, column| line.split_ascii_whitespace().nth(column)?.parse().ok();
    table
        .lines()
        .skip(1)
        .filter(|line| number(line, INODE).is_some_and(|inode| inodes.contains(&inode)))
        .filter_map(|line| number(line, DROPS))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            10: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 111 2 00000000 5\n\
            11: 0100007F:0036 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 222 2 00000000 7\n";
        assert_eq!(drops_in(table, &HashSet::from([222, 333])), 7);
        assert_eq!(drops_in("", &HashSet::from([222])), 0);
    }

    #[test]
    fn a_socket_is_in_the_table() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let inode = inode_of(&socket).expect("the system tells");
        assert_eq!(drops_of(&HashSet::from([inode])), 0);
    }
}
