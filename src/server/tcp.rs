//! TCP (RFC 7766): pipelined, answered in the order in which answers are ready.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::dns::Transport;
use crate::router::Asker;

use super::Settings;
use super::responder::{Handled, Responder, Shard};

/// Queries of one connection that may be in the making at a time; then it is read no further.
const IN_FLIGHT: usize = 64;

/// How long a query that has begun may take to arrive.
const QUERY_TIME: Duration = Duration::from_secs(5);

/// How long a client may take to accept an answer.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How long to wait before accepting again when the system cannot (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Counts connections, in total and by client.
pub(super) struct Connections {
    total: usize,
    per_client: usize,
    idle: Duration,
    open: Mutex<Open>,
    /// What connections answer from: a connection takes the one that is its turn.
    shards: Vec<Mutex<Shard>>,
    next_shard: AtomicUsize,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// A connection's place among those that are allowed.
struct Permit {
    connections: Arc<Connections>,
    client: IpAddr,
}

/// Which limit turned a connection away.
enum Full {
    Total,
    Client,
}

impl Connections {
    pub(super) fn new(settings: &Settings, shards: Vec<Shard>) -> Self {
        Self {
            total: settings.max_tcp_connections,
            per_client: settings.max_tcp_connections_per_client,
            idle: settings.tcp_idle_timeout,
            open: Mutex::default(),
            shards: shards.into_iter().map(Mutex::new).collect(),
            next_shard: AtomicUsize::new(0),
        }
    }

    /// Whose turn it is to serve a new connection.
    fn turn(&self) -> usize {
        self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len().max(1)
    }

    /// Nothing waits while it holds this.
    fn shard(&self, turn: usize) -> MutexGuard<'_, Shard> {
        self.shards[turn]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, client: IpAddr) -> Result<Permit, Full> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.total {
            return Err(Full::Total);
        }
        let own = open.by_client.entry(client).or_default();
        if *own >= self.per_client {
            return Err(Full::Client);
        }
        *own += 1;
        open.total += 1;
        Ok(Permit {
            connections: Arc::clone(self),
            client,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let open = &self.connections.open;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Entry::Occupied(mut own) = open.by_client.entry(self.client) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

/// Accepts connections until the stop.
pub(super) async fn accept(
    listener: TcpListener,
    responder: Arc<Responder>,
    connections: Arc<Connections>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a TCP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match connections.enter(peer.ip().to_canonical()) {
            Ok(place) => {
                let responder = Arc::clone(&responder);
                let stop = stop.clone();
                tasks.spawn(async move {
                    let open = &responder.metrics().connections;
                    open.inc();
                    serve(stream, peer, &responder, &place.connections, &stop).await;
                    open.dec();
                    drop(place);
                });
            }
            // Closing at once tells the client more than letting it wait.
            Err(full) => {
                let by_client = matches!(full, Full::Client);
                responder.metrics().shed_connection(by_client);
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    responder: &Arc<Responder>,
    connections: &Arc<Connections>,
    stop: &CancellationToken,
) {
    // Answers are whole messages: waiting for more to send only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, %peer, "cannot set TCP_NODELAY");
    }
    let (reader, writer) = stream.into_split();
    let (replies, outbox) = mpsc::channel(IN_FLIGHT);
    let writing = tokio::spawn(write(writer, outbox));
    // A client that takes no answers ends the writer, and with it the connection.
    tokio::select! {
        () = read(reader, peer, responder, connections, &replies) => {}
        () = replies.closed() => {}
        () = stop.cancelled() => {}
    }
    // The writer ends when the last answer in the making has been sent.
    drop(replies);
    if writing.await.is_err() {
        debug!(%peer, "the writer of a TCP connection failed");
    }
}

/// Reads queries until the client ends, is silent for too long, or sends rubbish.
async fn read(
    mut reader: OwnedReadHalf,
    peer: SocketAddr,
    responder: &Arc<Responder>,
    connections: &Arc<Connections>,
    replies: &mpsc::Sender<Vec<u8>>,
) {
    let idle = connections.idle;
    let turn = connections.turn();
    let counts = Arc::clone(connections.shard(turn).counts());
    let asker = Asker::new(peer.ip(), Transport::Tcp);
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut request = Vec::new();
    loop {
        let Ok(Ok(first)) = timeout(idle, reader.read_u8()).await else {
            return;
        };
        let Ok(Ok(())) = timeout(QUERY_TIME, read_rest(&mut reader, first, &mut request)).await
        else {
            return;
        };
        let mut reply = Vec::new();
        let handled = {
            let mut shard = connections.shard(turn);
            shard.begin();
            let handled = responder.at_once(&mut shard, &request, asker, framed(&mut reply));
            shard.end();
            handled
        };
        match handled {
            Handled::Replied => {
                if replies.send(reply).await.is_err() {
                    return;
                }
            }
            // Not a query at all: whoever this is does not speak DNS.
            Handled::Ignored => return,
            Handled::Later(waiting) => {
                let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
                    return;
                };
                let responder = Arc::clone(responder);
                let request = std::mem::take(&mut request);
                let replies = replies.clone();
                let connections = Arc::clone(connections);
                let counts = Arc::clone(&counts);
                tokio::spawn(async move {
                    let mut reply = Vec::new();
                    let kept = responder
                        .later(&counts, &request, asker, waiting, framed(&mut reply))
                        .await;
                    if let Some((key, resolved)) = kept {
                        connections.shard(turn).keep(&key, resolved);
                    }
                    // If the connection is gone, so is whoever wanted this.
                    let _ = replies.send(reply).await;
                    drop(permit);
                });
            }
        }
    }
}

/// The rest of a message whose first length byte has been read.
async fn read_rest(
    reader: &mut OwnedReadHalf,
    first: u8,
    request: &mut Vec<u8>,
) -> std::io::Result<()> {
    let length = u16::from_be_bytes([first, reader.read_u8().await?]);
    request.clear();
    request.resize(usize::from(length), 0);
    reader.read_exact(request).await?;
    Ok(())
}

/// Leaves room for the length that goes before a message.
fn framed(reply: &mut Vec<u8>) -> &mut Vec<u8> {
    reply.extend_from_slice(&[0, 0]);
    reply
}

/// Sends replies until there can be no more of them.
async fn write(mut writer: OwnedWriteHalf, mut outbox: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut reply) = outbox.recv().await {
        let Ok(length) = u16::try_from(reply.len().saturating_sub(2)) else {
            return;
        };
        if length == 0 {
            continue;
        }
        reply[..2].copy_from_slice(&length.to_be_bytes());
        let Ok(Ok(())) = timeout(WRITE_TIME, writer.write_all(&reply)).await else {
            return;
        };
    }
}
