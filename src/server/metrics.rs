//! The server's metrics.

use std::collections::HashSet;
use std::fmt;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::answers::Transport;

use super::drops;
use super::tally::{Counts, Sums};

/// The server's metrics.
#[derive(Debug)]
pub struct Metrics {
    workers: Workers,
    unsent: Counter,
    /// TCP connections open now.
    pub(super) connections: Gauge,
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
        self.workers.lock().inodes.extend(drops::inode(socket));
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

    pub(super) fn unsent(&self, replies: usize) {
        self.unsent.inc_by(replies as u64);
    }
}

/// What each worker counts on its own, added up when somebody looks.
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
}

impl Workers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Workers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (workers, inodes) = {
            let known = self.lock();
            (known.workers.clone(), known.inodes.clone())
        };
        let sums = Sums::of(workers.iter().map(AsRef::as_ref));
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
            ("socket", drops::count(&inodes)),
        ] {
            shed.encode_family(&[("reason", reason)])?
                .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        let mut counter = |name: &str, help: &str, value: u64| {
            encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(&value, None)
        };
        counter(
            "malformed",
            "Requests that could not be read or are not queries",
            sums.malformed,
        )?;
        counter(
            "rendered_hits",
            "Replies that had been rendered before",
            sums.hits,
        )?;
        encoder
            .encode_descriptor(
                "rendered_bytes",
                "Memory that rendered answers take",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&i64::try_from(sums.cache_bytes).unwrap_or(i64::MAX))?;
        let mut queries = encoder.encode_descriptor(
            "queries",
            "Well-formed queries",
            None,
            MetricType::Counter,
        )?;
        for (transport, rtype, count) in sums.queries {
            queries
                .encode_family(&[("transport", transport), ("type", rtype)])?
                .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        let mut responses = encoder.encode_descriptor(
            "responses",
            "Replies by rcode",
            None,
            MetricType::Counter,
        )?;
        for (rcode, count) in sums.responses {
            responses
                .encode_family(&[("rcode", rcode)])?
                .encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        let mut latency = encoder.encode_descriptor(
            "answer_seconds",
            "Time to make an answer: at once from memory, or the full way",
            None,
            MetricType::Histogram,
        )?;
        for times in sums.latency {
            latency
                .encode_family(&[("way", times.way)])?
                .encode_histogram::<NoLabelSet>(times.seconds, times.count, &times.buckets, None)?;
        }
        Ok(())
    }
}
