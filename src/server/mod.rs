//! Sockets, limits and shutdown: a request's bytes in, a reply's bytes out. What a question means is the
//! router's.
//!
//! UDP: per address as many workers as asked for, each a thread with its own SO_REUSEPORT socket.
//! A worker answers at once what is in memory, and lets the rest wait beside that. TCP: a task
//! for each connection, the same two steps. Both are one `Responder`'s. Places to wait, and for
//! connections, are shared among clients.

mod cache;
mod connections;
mod late;
mod metrics;
mod reply_from;
mod responder;
mod sockets;
mod tcp;
mod udp;
mod waiting;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dns::Transport;
use crate::router::Router;
use crate::shares::Shares;

use connections::Connections;
pub use metrics::Metrics;
use responder::Responder;
pub use sockets::{BindError, Bound, InheritError, bind, inherited};

/// Memory for rendered answers, in bytes: all workers together, and each.
const CACHE: usize = 256 << 20;
const LEAST_CACHE: usize = 1 << 20;
const MOST_CACHE: usize = 32 << 20;

/// What an operator may set about sockets and their limits: the keys of `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses for UDP and TCP, each once.
    pub listen: Vec<SocketAddr>,
    /// UDP workers for each address.
    pub workers: usize,
    /// TCP connections in total. The default fits under the usual limit of 1024 open files, with room
    /// for Consul and the sockets.
    pub max_tcp_connections: usize,
    /// TCP connections of one client.
    pub max_tcp_connections_per_client: usize,
    /// How long a TCP connection may be silent. HAProxy keeps its connections open between one
    /// resolution and the next.
    pub tcp_idle_timeout: Duration,
    /// Queries that may wait for the full way, over UDP and TCP; one client gets a half at most.
    pub queue_size: usize,
    /// Bytes of memory for answers whose TTLs run down, all workers together: part of what
    /// `recursion.cache` allows.
    pub outside_cache: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 53))],
            workers: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            max_tcp_connections: 512,
            max_tcp_connections_per_client: 128,
            tcp_idle_timeout: Duration::from_secs(30),
            queue_size: 4096,
            outside_cache: 16 << 20,
        }
    }
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
        router: Arc<Router>,
        metrics: Metrics,
        settings: &Settings,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let tasks = TaskTracker::new();
        let addresses = bound.iter().map(|bound| bound.address).collect();
        let responder = Arc::new(Responder::new(router, metrics));
        let queue = Shares::new(settings.queue_size);
        // A worker of its own for each UDP socket, and as many shards for TCP as one address has.
        let workers: usize = bound.iter().map(|bound| bound.udp.len()).sum();
        let shards = bound.first().map_or(1, |bound| bound.udp.len().max(1));
        let room = cache::Room {
            house: (CACHE / (workers + shards)).clamp(LEAST_CACHE, MOST_CACHE),
            outside: settings.outside_cache / (workers + shards),
        };
        let shard = |_| responder.shard(room, Transport::Tcp);
        let connections = Connections::new(settings, &queue, (0..shards).map(shard).collect());
        let connections = Arc::new(connections);
        for Bound { address, udp, tcp } in bound {
            for (number, socket) in udp.into_iter().enumerate() {
                let worker = udp::Worker::new(
                    socket,
                    Arc::clone(&responder),
                    Arc::clone(&queue),
                    room,
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
                Arc::clone(&responder),
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

#[cfg(test)]
mod tests;
