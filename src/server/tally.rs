//! What a worker has counted, kept apart from what other workers count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// Counts of one batch, still on the worker's stack.
#[derive(Debug, Default)]
pub(super) struct Tally {
    queries: [u32; OTHER_TYPE + 1],
    responses: [u32; OTHER_RCODE + 1],
    pub(super) malformed: u32,
    /// Replies that had been rendered before.
    pub(super) hits: u32,
    answered: u32,
}

impl Tally {
    pub(super) fn query(&mut self, qtype: u16) {
        let at = TYPES.iter().position(|(own, _)| *own == qtype);
        self.queries[at.unwrap_or(OTHER_TYPE)] += 1;
    }

    pub(super) fn response(&mut self, rcode: Rcode) {
        let at = RCODES.iter().position(|(own, _)| *own == rcode);
        self.responses[at.unwrap_or(OTHER_RCODE)] += 1;
        self.answered += 1;
    }
}

/// Counts of one worker and transport. Only one thread writes most of them, so that adding costs
/// no other core a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Counts {
    pub(super) transport: Transport,
    queries: [AtomicU64; OTHER_TYPE + 1],
    responses: [AtomicU64; OTHER_RCODE + 1],
    malformed: AtomicU64,
    hits: AtomicU64,
    cache_bytes: AtomicU64,
    at_once: Latency,
    in_full: Latency,
}

/// A histogram of times.
#[derive(Debug, Default)]
struct Latency {
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
    beyond: AtomicU64,
}

impl Latency {
    fn add(&self, each: u64, times: u64) {
        self.nanos
            .fetch_add(each.saturating_mul(times), Ordering::Relaxed);
        let mut bound = FIRST_BUCKET;
        for bucket in &self.buckets {
            if each <= bound {
                bucket.fetch_add(times, Ordering::Relaxed);
                return;
            }
            bound *= 4;
        }
        self.beyond.fetch_add(times, Ordering::Relaxed);
    }
}

impl Counts {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            queries: Default::default(),
            responses: Default::default(),
            malformed: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            cache_bytes: AtomicU64::new(0),
            at_once: Latency::default(),
            in_full: Latency::default(),
        }
    }

    /// Adds what was counted, and how long each answer took on average.
    pub(super) fn add(&self, tally: &Tally, way: Way, took: Duration) {
        let add = |counters: &[AtomicU64], counted: &[u32]| {
            for (counter, counted) in counters.iter().zip(counted) {
                if *counted > 0 {
                    counter.fetch_add(u64::from(*counted), Ordering::Relaxed);
                }
            }
        };
        add(&self.queries, &tally.queries);
        add(&self.responses, &tally.responses);
        add(std::slice::from_ref(&self.malformed), &[tally.malformed]);
        add(std::slice::from_ref(&self.hits), &[tally.hits]);
        if tally.answered > 0 {
            let each = took.as_nanos() as u64 / u64::from(tally.answered);
            self.latency(way).add(each, u64::from(tally.answered));
        }
    }

    fn latency(&self, way: Way) -> &Latency {
        match way {
            Way::AtOnce => &self.at_once,
            Way::InFull => &self.in_full,
        }
    }

    #[cfg(test)]
    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(super) fn set_cache_bytes(&self, bytes: usize) {
        self.cache_bytes.store(bytes as u64, Ordering::Relaxed);
    }
}

/// The sums over workers, for `/metrics`.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// By transport and type.
    pub(super) queries: Vec<(&'static str, &'static str, u64)>,
    pub(super) responses: Vec<(&'static str, u64)>,
    pub(super) malformed: u64,
    pub(super) hits: u64,
    pub(super) cache_bytes: u64,
    pub(super) latency: Vec<Times>,
}

/// A histogram of times, added up.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) way: &'static str,
    /// The sum of all times.
    pub(super) seconds: f64,
    pub(super) count: u64,
    /// The upper bound of each bucket, in seconds, and how many are in it.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Sums {
    pub(super) fn of<'a>(workers: impl Iterator<Item = &'a Counts> + Clone) -> Self {
        let sum = |of: &dyn Fn(&Counts) -> &AtomicU64| -> u64 {
            let each = workers.clone();
            each.map(|counts| of(counts).load(Ordering::Relaxed)).sum()
        };
        let names = |named: &[&'static str]| -> Vec<&'static str> {
            named.iter().copied().chain(["other"]).collect()
        };
        let mut sums = Self {
            malformed: sum(&|counts| &counts.malformed),
            hits: sum(&|counts| &counts.hits),
            cache_bytes: sum(&|counts| &counts.cache_bytes),
            ..Self::default()
        };
        for (at, name) in names(&RCODES.map(|(_, name)| name)).into_iter().enumerate() {
            sums.responses
                .push((name, sum(&|counts| &counts.responses[at])));
        }
        for (transport, label) in [(Transport::Udp, "udp"), (Transport::Tcp, "tcp")] {
            for (at, name) in names(&TYPES.map(|(_, name)| name)).into_iter().enumerate() {
                let own = workers
                    .clone()
                    .filter(|counts| counts.transport == transport);
                let count = own.map(|counts| counts.queries[at].load(Ordering::Relaxed));
                sums.queries.push((label, name, count.sum()));
            }
        }
        for (label, way) in [("at_once", Way::AtOnce), ("in_full", Way::InFull)] {
            let mut buckets = Vec::with_capacity(BUCKETS + 1);
            let mut bound = FIRST_BUCKET;
            for at in 0..BUCKETS {
                buckets.push((
                    bound as f64 / 1e9,
                    sum(&|counts| &counts.latency(way).buckets[at]),
                ));
                bound *= 4;
            }
            buckets.push((f64::INFINITY, sum(&|counts| &counts.latency(way).beyond)));
            let count = buckets.iter().map(|(_, count)| count).sum();
            let seconds = sum(&|counts| &counts.latency(way).nanos) as f64 / 1e9;
            sums.latency.push(Times {
                way: label,
                seconds,
                count,
                buckets,
            });
        }
        sums
    }
}
