//! TCP (RFC 7766): pipelined, answered in the order in which answers are ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::dns::{Transport, begin_frame, end_frame, split_frame};
use crate::router::{Asker, Waiting};
use crate::shares::{Client, Share};

use super::connections::{Connections, Entered, Full, Permit};
use super::metrics::Counts;
use super::responder::{Handled, Responder};

/// Queries of one connection that may be in the making at a time; then it is read no further.
const IN_FLIGHT: usize = 64;

/// Bytes of queries that are read at a time: a hundred of them.
const READ: usize = 4 << 10;

/// Bytes of answers that are sent before more queries are answered.
const ENOUGH: usize = 32 << 10;

/// How long a query that has begun may take to arrive.
const QUERY_TIME: Duration = Duration::from_secs(5);

/// How long a client may take to accept an answer.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// How often a connection that is silent looks whether it has been for too long by now.
const LOOK: Duration = Duration::from_secs(2);

/// How long to wait before accepting again when the system cannot (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
        match connections.enter(Client::of(peer.ip())) {
            Ok(entered) => {
                let Entered {
                    permit,
                    has_yielded,
                } = entered;
                if has_yielded {
                    responder.metrics().shed_idle_connection();
                }
                let responder = Arc::clone(&responder);
                let stop = stop.clone();
                tasks.spawn(async move {
                    let open = responder.metrics().open_connection();
                    serve(stream, peer, &responder, permit, &stop).await;
                    drop(open);
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
    permit: Permit,
    stop: &CancellationToken,
) {
    // Answers are whole messages: waiting for more to send only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, %peer, "cannot set TCP_NODELAY");
    }
    let (reader, writer) = stream.into_split();
    let (made, later) = mpsc::channel(IN_FLIGHT);
    let turn = permit.connections.turn();
    let counts = Arc::clone(permit.connections.shard(turn).counts());
    let mut connection = Connection {
        reader,
        writer,
        asker: Asker::new(peer.ip(), Transport::Tcp),
        turn,
        counts,
        responder: Arc::clone(responder),
        made,
        later,
        in_the_making: 0,
        begun: Instant::now(),
        inbox: Vec::new(),
        outbox: Vec::new(),
        permit,
    };
    // Whoever takes no answers, or sends what is no query, is heard no longer.
    if connection.converse(stop).await.is_ok() {
        connection.finish().await;
    }
}

/// Why there is no going on.
struct Over;

/// An answer that had to wait, and the room that it takes: of its connection and of all.
struct Made {
    reply: Vec<u8>,
    _room: Option<[OwnedSemaphorePermit; 2]>,
}

struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    asker: Asker,
    /// Which shard it is answered from.
    turn: usize,
    counts: Arc<Counts>,
    responder: Arc<Responder>,
    permit: Permit,
    /// Where answers come in that had to wait, and where they leave.
    made: mpsc::Sender<Made>,
    later: mpsc::Receiver<Made>,
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
                true => self.begun + self.permit.connections.idle(),
                false => self.begun + QUERY_TIME,
            };
            let now = Instant::now();
            if has_room && patience <= now {
                return Ok(());
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.permit.yielded() => return Ok(()),
                // What one address asks for does not wait for what it asked before.
                Some(made) = self.later.recv() => {
                    self.in_the_making -= 1;
                    self.outbox.extend_from_slice(&made.reply);
                    self.is_heard(is_between);
                }
                read = self.reader.read_buf(&mut self.inbox), if has_room => match read {
                    Ok(1..) => self.is_heard(is_between),
                    Ok(0) | Err(_) => return Ok(()),
                },
                () = sleep_until(patience.min(now + LOOK).into()), if has_room => {}
            }
        }
    }

    /// Something was heard of or said to the client. A query that has begun is older than that.
    fn is_heard(&mut self, is_between: bool) {
        self.permit.is_heard();
        if is_between {
            self.begun = Instant::now();
        }
    }

    /// Answers queries that have come whole, until there is enough to send. True if there may be more
    /// of them.
    fn answer(&mut self) -> Result<bool, Over> {
        let connections = Arc::clone(&self.permit.connections);
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
                    match connections.queue().take(Client::of(self.asker.address)) {
                        Some(place) => {
                            let request = request.to_vec();
                            self.in_the_making += 1;
                            self.wait_for(request, waiting, place);
                        }
                        None => {
                            let begin = begin_frame(outbox);
                            self.responder.metrics().shed_query();
                            self.responder.busy(request, self.asker, outbox);
                            end_frame(outbox, begin).ok_or(Over)?;
                        }
                    }
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
    fn wait_for(&self, request: Vec<u8>, waiting: Waiting, place: Share) {
        let (responder, counts) = (Arc::clone(&self.responder), Arc::clone(&self.counts));
        let (connections, turn) = (Arc::clone(&self.permit.connections), self.turn);
        let (asker, made, own) = (self.asker, self.made.clone(), Arc::clone(&self.permit.made));
        tokio::spawn(async move {
            let mut reply = Vec::new();
            let begin = begin_frame(&mut reply);
            // An answer takes more memory than what it is made from: no more of them than can be sent.
            let room = || room(Arc::clone(&own), Arc::clone(connections.made()));
            let answering = responder.later(&counts, &request, asker, waiting, room, &mut reply);
            let answered = tokio::select! {
                answered = answering => answered,
                // The connection is gone, and so is whoever wanted this.
                () = made.closed() => return,
            };
            let (kept, room) = answered.unwrap_or_default();
            if let Some((key, resolved)) = kept {
                connections.shard(turn).keep(&key, resolved);
            }
            // What has no answer makes room all the same.
            let _ = end_frame(&mut reply, begin);
            drop(place);
            let _ = made.send(Made { reply, _room: room }).await;
        });
    }

    async fn send(&mut self) -> Result<(), Over> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let sending = timeout(WRITE_TIME, self.writer.write_all(&self.outbox));
        let sent = tokio::select! {
            sent = sending => sent,
            () = self.permit.yielded() => return Err(Over),
        };
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
            let Some(made) = self.later.recv().await else {
                return;
            };
            self.in_the_making -= 1;
            self.outbox.extend_from_slice(&made.reply);
            if self.send().await.is_err() {
                return;
            }
        }
    }
}

/// Room for one answer among those of its connection, and among all.
async fn room(own: Arc<Semaphore>, all: Arc<Semaphore>) -> Option<[OwnedSemaphorePermit; 2]> {
    let own = own.acquire_owned().await.ok()?;
    let all = all.acquire_owned().await.ok()?;
    Some([own, all])
}
