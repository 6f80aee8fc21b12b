//! TCP (RFC 7766): pipelined, answered in the order in which answers are ready.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::dns::{Transport, begin_frame, end_frame, split_frame};
use crate::router::{Asker, Waiting};

use super::Settings;
use super::metrics::Counts;
use super::responder::{Handled, Responder, Shard};

/// Queries of one connection that may be in the making at a time; then it is read no further.
const IN_FLIGHT: usize = 64;

/// Bytes of queries that are read at a time: a hundred of them.
const READ: usize = 4 << 10;

/// Bytes of answers that are sent before more queries are answered.
const ENOUGH: usize = 64 << 10;

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

/// One connection. Queries that have come together are answered together: with one look, and one write.
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
    let (made, later) = mpsc::channel(IN_FLIGHT);
    let turn = connections.turn();
    let mut connection = Connection {
        reader,
        writer,
        asker: Asker::new(peer.ip(), Transport::Tcp),
        turn,
        counts: Arc::clone(connections.shard(turn).counts()),
        responder: Arc::clone(responder),
        connections: Arc::clone(connections),
        made,
        later,
        in_the_making: 0,
        begun: Instant::now(),
        inbox: Vec::new(),
        outbox: Vec::new(),
    };
    // Whoever takes no answers, or sends what is no query, is heard no longer.
    if connection.converse(stop).await.is_ok() {
        connection.finish().await;
    }
}

/// Why there is no going on.
struct Over;

struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    asker: Asker,
    /// Which shard it is answered from.
    turn: usize,
    counts: Arc<Counts>,
    responder: Arc<Responder>,
    connections: Arc<Connections>,
    /// Where answers come in that had to wait, and where they leave.
    made: mpsc::Sender<Vec<u8>>,
    later: mpsc::Receiver<Vec<u8>>,
    in_the_making: usize,
    /// When the query in hand began to come, or else when there last was one.
    begun: Instant,
    /// What has come and is not answered yet.
    inbox: Vec<u8>,
    /// Answers that are not sent yet.
    outbox: Vec<u8>,
}

impl Connection {
    /// Answers until the client ends, is silent for too long, or sends rubbish; or until the stop.
    async fn converse(&mut self, stop: &CancellationToken) -> Result<(), Over> {
        loop {
            while self.answer()? {
                self.send().await?;
            }
            self.send().await?;
            let has_room = self.in_the_making < IN_FLIGHT;
            let is_between = self.inbox.is_empty();
            if is_between {
                self.inbox.shrink_to(READ);
            }
            self.inbox.reserve(READ);
            // A query that has begun has to arrive.
            let patience = match is_between {
                true => self.begun + self.connections.idle,
                false => self.begun + QUERY_TIME,
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // What one address asks for does not wait for what it asked before.
                Some(reply) = self.later.recv() => {
                    self.in_the_making -= 1;
                    self.outbox.extend_from_slice(&reply);
                    self.is_heard(is_between);
                }
                read = self.reader.read_buf(&mut self.inbox), if has_room => match read {
                    Ok(1..) => self.is_heard(is_between),
                    Ok(0) | Err(_) => return Ok(()),
                },
                () = sleep_until(patience.into()), if has_room => return Ok(()),
            }
        }
    }

    /// Something was heard of or said to the client. A query that has begun is older than that.
    fn is_heard(&mut self, is_between: bool) {
        if is_between {
            self.begun = Instant::now();
        }
    }

    /// Answers queries that have come whole, until there is enough to send. True if there may be more
    /// of them.
    fn answer(&mut self) -> Result<bool, Over> {
        let connections = Arc::clone(&self.connections);
        let mut at = 0;
        let mut has_more = false;
        let mut shard = None;
        while let Some((request, rest)) = split_frame(&self.inbox[at..]) {
            if self.in_the_making >= IN_FLIGHT {
                break;
            }
            if self.outbox.len() >= ENOUGH {
                has_more = true;
                break;
            }
            let shard = shard.get_or_insert_with(|| {
                let mut shard = connections.shard(self.turn);
                shard.begin();
                shard
            });
            let begin = begin_frame(&mut self.outbox);
            let outbox = &mut self.outbox;
            match self.responder.at_once(shard, request, self.asker, outbox) {
                Handled::Replied => end_frame(outbox, begin).ok_or(Over)?,
                // Not a query at all: whoever this is does not speak DNS.
                Handled::Ignored => return Err(Over),
                Handled::Later(waiting) => {
                    outbox.truncate(begin);
                    let request = request.to_vec();
                    self.in_the_making += 1;
                    self.wait_for(request, waiting);
                }
            }
            at = self.inbox.len() - rest.len();
        }
        if at > 0 {
            self.begun = Instant::now();
        }
        if let Some(mut shard) = shard {
            shard.end();
        }
        self.inbox.drain(..at);
        Ok(has_more)
    }

    /// Has a query answered that has to wait.
    fn wait_for(&self, request: Vec<u8>, waiting: Waiting) {
        let (responder, counts) = (Arc::clone(&self.responder), Arc::clone(&self.counts));
        let (connections, turn) = (Arc::clone(&self.connections), self.turn);
        let (asker, made) = (self.asker, self.made.clone());
        tokio::spawn(async move {
            let mut reply = Vec::new();
            let begin = begin_frame(&mut reply);
            let kept = responder
                .later(&counts, &request, asker, waiting, &mut reply)
                .await;
            if let Some((key, resolved)) = kept {
                connections.shard(turn).keep(&key, resolved);
            }
            // What has no answer makes room all the same.
            let _ = end_frame(&mut reply, begin);
            // If the connection is gone, so is whoever wanted this.
            let _ = made.send(reply).await;
        });
    }

    async fn send(&mut self) -> Result<(), Over> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let sent = timeout(WRITE_TIME, self.writer.write_all(&self.outbox)).await;
        self.outbox.clear();
        // One large answer is no reason to keep room for it.
        self.outbox.shrink_to(ENOUGH);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over),
        }
    }

    /// Sends the answers that are still in the making.
    async fn finish(mut self) {
        // One that is never made is not waited for: nobody is left who could make it.
        (self.made, _) = mpsc::channel(1);
        while self.in_the_making > 0 {
            let Some(reply) = self.later.recv().await else {
                return;
            };
            self.in_the_making -= 1;
            self.outbox.extend_from_slice(&reply);
            if self.send().await.is_err() {
                return;
            }
        }
    }
}
