//! UDP workers: a thread for each socket, batches of datagrams in and out, and what has to wait for
//! others in between.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt,
    sockopt,
};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::dns::Transport;
use crate::router::{Asker, Waiting};

use super::cache::Room;
use super::late::{LATE, Lateness, is_late};
use super::reply_from::{ReplyFrom, std_address};
use super::responder::{Handled, Responder, Shard};
use super::sockets::SOCKET_BUFFER;
use super::waiting::{Outbox, Place, Queue, watch};

/// Datagrams taken with one system call.
const BATCH: usize = 32;

/// The longest query that is read. A question has at most 267 bytes; the rest is for options.
const MAX_QUERY: usize = 4096;

/// What may wait in a socket, in bytes, however far behind its worker is: some batches.
const LEAST_BUFFER: usize = 64 << 10;

/// How often an idle worker looks whether it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(200);

/// After a stop, queries that were already received are answered for at most this long.
const DRAIN: Duration = Duration::from_secs(1);

fn asker(peer: SocketAddr) -> Asker {
    Asker::new(peer.ip(), Transport::Udp)
}

/// One socket and the thread that serves it.
///
/// What cannot be answered at once waits on a runtime of this thread's own: nothing crosses over to
/// another thread, and what is ready together goes out together. While nothing waits, the thread blocks
/// in the socket, which is the quickest way to answer from memory.
pub(super) struct Worker {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    responder: Arc<Responder>,
    queue: Queue,
    outbox: Arc<Outbox>,
    /// Queries of the last batch that have to wait.
    fresh: Vec<Answering>,
    shard: Shard,
    lateness: Lateness,
    /// The system tells when each datagram came.
    is_timed: bool,
    /// Bytes of datagrams that may wait in the socket, as far as the system grants them.
    buffer: usize,
    stop: CancellationToken,
}

/// A query that waits, and what comes of it.
type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Replies of one batch; the buffers are used again.
struct Replies {
    buffers: Vec<Vec<u8>>,
    peers: Vec<Option<SockaddrStorage>>,
    froms: Vec<ReplyFrom>,
}

impl Worker {
    /// A worker for a bound socket, with so much room for answers that can be sent again.
    pub(super) fn new(
        socket: UdpSocket,
        responder: Arc<Responder>,
        queue: Queue,
        room: Room,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        if address.ip().is_unspecified() && address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else if address.ip().is_unspecified() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        socket.set_read_timeout(Some(STOP_CHECK))?;
        responder.metrics().socket(&socket);
        let shard = responder.shard(room, Transport::Udp);
        Ok(Self {
            socket: Arc::new(socket),
            address,
            outbox: Arc::default(),
            fresh: Vec::new(),
            responder,
            queue,
            shard,
            lateness: Lateness::default(),
            is_timed: false,
            buffer: SOCKET_BUFFER,
            stop,
        })
    }

    /// Serves until the stop, and what had come in by then.
    pub(super) fn run(mut self) {
        let mut buffers = vec![[0_u8; MAX_QUERY]; BATCH];
        let mut headers = self.headers();
        let mut out_headers = self.headers();
        let mut replies = Replies {
            buffers: (0..BATCH).map(|_| Vec::with_capacity(1024)).collect(),
            peers: Vec::with_capacity(BATCH),
            froms: Vec::with_capacity(BATCH),
        };
        // The wake-ups of a socket that only this thread looks at.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                error!(%error, "cannot start what a worker waits with");
                return;
            }
        };
        let mut watched: Option<AsyncFd<Arc<UdpSocket>>> = None;
        let mut stopped: Option<Instant> = None;
        // The last batch was a full one, so that more of them wait in the socket.
        let mut has_more = false;
        loop {
            if stopped.is_none() && self.stop.is_cancelled() {
                stopped = Some(Instant::now());
            }
            let waiting = self.outbox.lock().waiting;
            let is_over = stopped.is_some_and(|at| at.elapsed() > DRAIN);
            if is_over && waiting == 0 {
                return;
            }
            let mut has_come = !is_over;
            if waiting > 0 {
                has_come &= runtime.block_on(self.go_on(&mut watched, has_more));
                self.flush(&mut replies, &mut out_headers);
            } else {
                watched = None;
            }
            if !has_come {
                continue;
            }
            let flags = if stopped.is_some() || waiting > 0 {
                MsgFlags::MSG_DONTWAIT
            } else {
                MsgFlags::MSG_WAITFORONE
            };
            match self.batch(&mut buffers, &mut headers, flags, &mut replies) {
                Ok(taken) => {
                    has_more = taken == BATCH;
                    self.send(&mut replies, &mut out_headers);
                    let is_timed = self.lateness.batch(has_more);
                    if is_timed != self.is_timed && self.tell_time(is_timed) {
                        headers = self.headers();
                    }
                }
                Err(Errno::EAGAIN) if stopped.is_some() && waiting == 0 => return,
                Err(Errno::EAGAIN) => has_more = false,
                Err(Errno::EINTR) => {}
                Err(error) => {
                    warn!(%error, "cannot receive queries");
                    // A lasting error must not turn the thread into a busy loop.
                    std::thread::sleep(STOP_CHECK);
                }
            }
        }
    }

    /// Lets those that wait go on, until one of them is done or something has come, which is true then.
    /// The system tells only when something comes, not that something is there: a full socket is silent.
    async fn go_on(
        &mut self,
        watched: &mut Option<AsyncFd<Arc<UdpSocket>>>,
        has_more: bool,
    ) -> bool {
        // Here, where the runtime is at work: from outside each would have to wake it up.
        for fresh in self.fresh.drain(..) {
            tokio::spawn(fresh);
        }
        if has_more {
            // Those that are ready come first, or in a flood they would wait for ever.
            tokio::task::yield_now().await;
            return true;
        }
        if watched.is_none() {
            *watched = watch(&self.socket)
                .inspect_err(|error| warn!(%error, "cannot watch the socket of a worker"))
                .ok();
        }
        let readable = async {
            match watched {
                Some(watched) => match watched.readable().await {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(error) => warn!(%error, "cannot watch the socket of a worker"),
                },
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        tokio::select! {
            biased;
            () = readable => true,
            () = self.outbox.news.notified() => false,
            // Whatever the system has not told of is found then.
            () = tokio::time::sleep(STOP_CHECK) => true,
        }
    }

    /// Sends what was made for those that waited, and keeps it.
    fn flush(&mut self, replies: &mut Replies, headers: &mut MultiHeaders<SockaddrStorage>) {
        let (made, kept) = {
            let mut made = self.outbox.lock();
            (
                std::mem::take(&mut made.replies),
                std::mem::take(&mut made.kept),
            )
        };
        for (key, resolved) in kept {
            self.shard.keep(&key, resolved);
        }
        for (reply, peer, from) in made {
            if replies.peers.len() == BATCH {
                self.send(replies, headers);
            }
            replies.buffers[replies.peers.len()] = reply;
            replies.peers.push(Some(peer.into()));
            replies.froms.push(from);
        }
        self.send(replies, headers);
    }

    /// Takes a query that has to wait, or sheds it when there is no place.
    fn wait_for(&mut self, request: &[u8], waiting: Waiting, peer: SocketAddr, from: ReplyFrom) {
        let Some(place) = Place::take(&self.queue, &self.outbox) else {
            self.responder.metrics().shed_query();
            return;
        };
        let request = request.to_vec();
        let responder = Arc::clone(&self.responder);
        let counts = Arc::clone(self.shard.counts());
        let taken = Instant::now();
        self.fresh.push(Box::pin(async move {
            if taken.elapsed() > LATE {
                responder.metrics().shed_query();
                return;
            }
            let mut reply = Vec::with_capacity(512);
            let kept = responder
                .later(&counts, &request, asker(peer), waiting, &mut reply)
                .await;
            let mut made = place.outbox.lock();
            if !reply.is_empty() {
                made.replies.push((reply, peer, from));
            }
            made.kept.extend(kept);
            drop(made);
            drop(place);
        }));
    }

    /// Room for a batch of datagrams and what the system tells of each.
    fn headers(&self) -> MultiHeaders<SockaddrStorage> {
        MultiHeaders::preallocate(BATCH, ReplyFrom::space(self.address, self.is_timed))
    }

    /// Lets the system tell when each datagram came, or not. False if it will not do it.
    fn tell_time(&mut self, is_timed: bool) -> bool {
        let socket = &self.socket;
        let done = setsockopt(socket, sockopt::ReceiveTimestampns, &is_timed);
        if done.is_ok() {
            self.is_timed = is_timed;
            self.size_buffer(SOCKET_BUFFER);
        }
        done.is_ok()
    }

    /// Lets so many bytes of datagrams wait. Under a lasting overload few: what the system drops
    /// at the responder costs us nothing, and what waits too long is read for nothing.
    fn size_buffer(&mut self, bytes: usize) {
        // If it cannot be done, more of them are read to be dropped.
        if setsockopt(&*self.socket, sockopt::RcvBuf, &bytes).is_ok() {
            self.buffer = bytes;
        }
    }

    /// Takes a batch of datagrams and answers, queues or drops each. Gives how many it were.
    fn batch(
        &mut self,
        buffers: &mut [[u8; MAX_QUERY]],
        headers: &mut MultiHeaders<SockaddrStorage>,
        flags: MsgFlags,
        replies: &mut Replies,
    ) -> nix::Result<usize> {
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = {
            let mut buffers = buffers.iter_mut();
            std::array::from_fn(|_| {
                let buffer = buffers.next().map(<[u8; MAX_QUERY]>::as_mut_slice);
                [IoSliceMut::new(buffer.unwrap_or_default())]
            })
        };
        let fd = self.socket.as_raw_fd();
        let messages = recvmmsg(fd, headers, slices.iter_mut(), flags, None)?;
        self.shard.begin();
        let now = self.is_timed.then(SystemTime::now);
        let (mut taken, mut late) = (0, 0);
        for message in messages {
            taken += 1;
            let Some((storage, peer)) = message
                .address
                .and_then(|address| Some((address, std_address(&address)?)))
            else {
                continue;
            };
            // Nobody listens on port 0; a reply would only raise an error.
            let Some(request) = message.iovs().next().filter(|_| peer.port() != 0) else {
                continue;
            };
            let mut from = ReplyFrom::Bound;
            let mut came = None;
            if self.is_timed || self.address.ip().is_unspecified() {
                // A socket that somebody else opened may tell more than there is room for: then
                // nothing of it is known, which is no reason not to answer.
                for control in message.cmsgs().into_iter().flatten() {
                    match control {
                        ControlMessageOwned::Ipv4PacketInfo(info) => from = ReplyFrom::V4(info),
                        ControlMessageOwned::Ipv6PacketInfo(info) => from = ReplyFrom::V6(info),
                        ControlMessageOwned::ScmTimestampns(time) => came = Some(time),
                        _ => {}
                    }
                }
            }
            if let (Some(came), Some(now)) = (came, now)
                && is_late(came, now)
            {
                late += 1;
                continue;
            }
            let reply = &mut replies.buffers[replies.peers.len()];
            reply.clear();
            match self.answer(request, peer, reply) {
                Handled::Replied => {
                    replies.peers.push(Some(storage));
                    replies.froms.push(from);
                }
                Handled::Later(waiting) => {
                    self.wait_for(request, waiting, peer, from);
                }
                Handled::Ignored => {}
            }
        }
        self.shard.end();
        if late > 0 {
            self.responder.metrics().shed_late(late);
            self.size_buffer((self.buffer / 2).max(LEAST_BUFFER));
        }
        Ok(taken)
    }

    /// A defect that one query brings to light must not end the worker for all others.
    fn answer(&mut self, request: &[u8], peer: SocketAddr, reply: &mut Vec<u8>) -> Handled {
        catch_unwind(AssertUnwindSafe(|| {
            self.responder
                .at_once(&mut self.shard, request, asker(peer), reply)
        }))
        .unwrap_or_else(|_| {
            error!(%peer, ?request, "a query caused a panic; please report this");
            Handled::Ignored
        })
    }

    /// Sends with as few system calls as the system allows.
    fn send(&self, replies: &mut Replies, headers: &mut MultiHeaders<SockaddrStorage>) {
        let Replies {
            buffers,
            peers,
            froms,
        } = replies;
        let mut buffers = buffers.iter();
        let slices: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            let reply = buffers.next().map_or(&[][..], Vec::as_slice);
            [IoSlice::new(reply)]
        });
        let fd = self.socket.as_raw_fd();
        let mut done = 0;
        let mut unsent = 0;
        while done < peers.len() {
            // Those that were asked of one address of ours go together.
            let from = froms[done];
            let run = froms[done..].iter().take_while(|own| own.is(&from)).count();
            let range = done..done + run;
            let (slices, peers) = (&slices[range.clone()], &peers[range]);
            let flags = MsgFlags::MSG_DONTWAIT;
            let sent = from.with(|from| {
                sendmmsg(fd, headers, slices, peers, from, flags).map(Iterator::count)
            });
            match sent {
                Ok(sent) if sent > 0 => done += sent,
                Err(Errno::EINTR) => {}
                // The first one is refused: go on with the next.
                _ => {
                    done += 1;
                    unsent += 1;
                }
            }
        }
        if unsent > 0 {
            self.responder.metrics().unsent(unsent);
        }
        peers.clear();
        froms.clear();
    }
}
