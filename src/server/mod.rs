//! Sockets, limits and shutdown, and the router behind them.
//!
//! UDP: per address as many workers as asked for, each a thread with its own SO_REUSEPORT socket.
//! A worker answers at once what is in memory and queues the rest for the runtime. TCP: a task
//! for each connection, the same two steps. Both end in `Router::route`, which is the one place
//! that decides what a name means to a client.

mod access;
mod bind;
mod cache;
mod chase;
mod convert;
mod door;
mod drops;
mod holder;
mod inbox;
mod late;
mod local;
mod metrics;
mod router;
mod tally;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use bind::{BindError, Bound, bind};
pub use metrics::Metrics;
pub use router::{Policy, Router};

use crate::answers::Transport;
use door::Desk;

/// Memory for rendered answers, in bytes: all workers together, and each.
const CACHE: usize = 256 << 20;
const LEAST_CACHE: usize = 1 << 20;
const MOST_CACHE: usize = 32 << 20;

/// Limits of the server's own.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Queries that may wait for the full way, all workers together.
    pub queue: usize,
    /// TCP connections in total.
    pub tcp_connections: usize,
    /// TCP connections of one client.
    pub tcp_connections_per_client: usize,
    /// How long a TCP connection may be silent.
    pub tcp_idle: Duration,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Starts to answer on sockets that are bound, until `stop`.
    ///
    /// # Errors
    /// If a worker's thread cannot be started or a socket not be handed to the runtime.
    pub fn start(
        bound: Vec<Bound>,
        router: &Arc<Router>,
        limits: &Limits,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let tasks = TaskTracker::new();
        let addresses = bound.iter().map(|bound| bound.address).collect();
        let door = Arc::new(door::Door::new(Arc::clone(router)));
        let queue = udp::Queue::new(Arc::clone(&door), limits.queue, tasks.clone());
        // A worker of its own for each UDP socket, and as many desks for TCP as one address has.
        let workers: usize = bound.iter().map(|bound| bound.udp.len()).sum();
        let desks = bound.first().map_or(1, |bound| bound.udp.len().max(1));
        let cache_bytes = (CACHE / (workers + desks)).clamp(LEAST_CACHE, MOST_CACHE);
        let metrics = router.metrics();
        let desk = |_| Desk::new(cache_bytes, metrics.worker(Transport::Tcp));
        let connections = tcp::Connections::new(limits, (0..desks).map(desk).collect());
        let connections = Arc::new(connections);
        for Bound { address, udp, tcp } in bound {
            for (number, socket) in udp.into_iter().enumerate() {
                let worker = udp::Worker::new(
                    socket,
                    Arc::clone(&door),
                    queue.clone(),
                    cache_bytes,
                    stop.clone(),
                )?;
                let done = tasks.token();
                std::thread::Builder::new()
                    .name(format!("udp-{}-{number}", address.port()))
                    .spawn(move || {
                        worker.run();
                        drop(done);
                    })?;
            }
            let listener = tokio::net::TcpListener::from_std(tcp)?;
            tasks.spawn(tcp::accept(
                listener,
                Arc::clone(&door),
                Arc::clone(&connections),
                tasks.clone(),
                stop.clone(),
            ));
        }
        tasks.close();
        Ok(Self {
            addresses,
            stop,
            tasks,
        })
    }

    /// Where it listens; with the ports that the system chose where 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops taking queries, finishes those that were taken, and returns when that is done or
    /// after `grace`. False if something was still unfinished.
    pub async fn drain(self, grace: Duration) -> bool {
        self.stop.cancel();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }
}
