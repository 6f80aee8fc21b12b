//! UDP workers: a thread for each socket, batches of datagrams in and out.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmmsg, sendmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::dns::Transport;
use crate::router::{Asker, Resolved, Waiting};

use super::cache::{Key, Room};
use super::late::{LATE, Lateness, is_late};
use super::metrics::Counts;
use super::responder::{Handled, Responder, Shard};
use super::sockets::SOCKET_BUFFER;

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

/// Puts queries that cannot be answered at once on the runtime, no more than a limit at a time.
#[derive(Clone)]
pub(super) struct Queue {
    responder: Arc<Responder>,
    places: Arc<Semaphore>,
    runtime: Handle,
    tasks: TaskTracker,
}

impl Queue {
    /// A queue with so many places. Call it on the runtime.
    pub(super) fn new(responder: Arc<Responder>, places: usize, tasks: TaskTracker) -> Self {
        Self {
            responder,
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            runtime: Handle::current(),
            tasks,
        }
    }

    /// Takes a query, or sheds it when there is no place.
    fn push(
        &self,
        request: &[u8],
        waiting: Waiting,
        peer: SocketAddr,
        from: ReplyFrom,
        asked: &Arc<Asked>,
    ) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.responder.metrics().shed_query();
            return;
        };
        let request = request.to_vec();
        let asked = Arc::clone(asked);
        let responder = Arc::clone(&self.responder);
        let taken = Instant::now();
        let answer = async move {
            if taken.elapsed() > LATE {
                responder.metrics().shed_query();
                return;
            }
            let mut reply = Vec::with_capacity(512);
            let kept = responder
                .later(&asked.counts, &request, asker(peer), waiting, &mut reply)
                .await;
            if !reply.is_empty() && send_one(&asked.socket, &reply, peer, from).is_err() {
                responder.metrics().unsent(1);
            }
            if let Some((key, resolved)) = kept {
                asked.inbox.put(key, resolved);
            }
            drop(place);
        };
        self.tasks.spawn_on(answer, &self.runtime);
    }
}

/// The worker that was asked, as the runtime sees it.
#[derive(Debug)]
struct Asked {
    socket: UdpSocket,
    inbox: Inbox,
    counts: Arc<Counts>,
}

fn asker(peer: SocketAddr) -> Asker {
    Asker::new(peer.ip(), Transport::Udp)
}

/// One socket and the thread that serves it.
pub(super) struct Worker {
    asked: Arc<Asked>,
    address: SocketAddr,
    responder: Arc<Responder>,
    queue: Queue,
    shard: Shard,
    lateness: Lateness,
    /// The system tells when each datagram came.
    is_timed: bool,
    /// Bytes of datagrams that may wait in the socket, as far as the system grants them.
    buffer: usize,
    stop: CancellationToken,
}

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
            asked: Arc::new(Asked {
                socket,
                inbox: Inbox::default(),
                counts: Arc::clone(shard.counts()),
            }),
            address,
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
        let mut stopped: Option<Instant> = None;
        loop {
            if stopped.is_none() && self.stop.is_cancelled() {
                stopped = Some(Instant::now());
            }
            if stopped.is_some_and(|at| at.elapsed() > DRAIN) {
                return;
            }
            let flags = if stopped.is_some() {
                MsgFlags::MSG_DONTWAIT
            } else {
                MsgFlags::MSG_WAITFORONE
            };
            match self.batch(&mut buffers, &mut headers, flags, &mut replies) {
                Ok(taken) => {
                    self.send(&mut replies, &mut out_headers);
                    let is_timed = self.lateness.batch(taken == BATCH);
                    if is_timed != self.is_timed && self.tell_time(is_timed) {
                        headers = self.headers();
                    }
                }
                Err(Errno::EAGAIN) if stopped.is_some() => return,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => {
                    warn!(%error, "cannot receive queries");
                    // A lasting error must not turn the thread into a busy loop.
                    std::thread::sleep(STOP_CHECK);
                }
            }
        }
    }

    /// Room for a batch of datagrams and what the system tells of each.
    fn headers(&self) -> MultiHeaders<SockaddrStorage> {
        MultiHeaders::preallocate(BATCH, ReplyFrom::space(self.address, self.is_timed))
    }

    /// Lets the system tell when each datagram came, or not. False if it will not do it.
    fn tell_time(&mut self, is_timed: bool) -> bool {
        let socket = &self.asked.socket;
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
        if setsockopt(&self.asked.socket, sockopt::RcvBuf, &bytes).is_ok() {
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
        let asked = Arc::clone(&self.asked);
        let fd = asked.socket.as_raw_fd();
        let messages = recvmmsg(fd, headers, slices.iter_mut(), flags, None)?;
        self.shard.begin();
        for (key, resolved) in asked.inbox.take() {
            self.shard.keep(&key, resolved);
        }
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
                    self.queue.push(request, waiting, peer, from, &asked);
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
        let fd = self.asked.socket.as_raw_fd();
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

/// Sends one reply from the address that was asked.
fn send_one(
    socket: &UdpSocket,
    reply: &[u8],
    peer: SocketAddr,
    from: ReplyFrom,
) -> nix::Result<()> {
    let reply = [IoSlice::new(reply)];
    let peer = SockaddrStorage::from(peer);
    from.with(|from| {
        let flags = MsgFlags::MSG_DONTWAIT;
        sendmsg(socket.as_raw_fd(), &reply, from, flags, Some(&peer)).map(|_| ())
    })
}

fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddrV6::from(*v6).into())
}

/// The address of ours that a datagram was sent to, and the reply must come from: clients drop
/// replies from any other. Known where the socket is bound to all addresses.
#[derive(Debug, Clone, Copy)]
enum ReplyFrom {
    Bound,
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl ReplyFrom {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bound, Self::Bound) => true,
            (Self::V4(a), Self::V4(b)) => {
                a.ipi_ifindex == b.ipi_ifindex
                    && a.ipi_addr.s_addr == b.ipi_addr.s_addr
                    && a.ipi_spec_dst.s_addr == b.ipi_spec_dst.s_addr
            }
            (Self::V6(a), Self::V6(b)) => {
                a.ipi6_ifindex == b.ipi6_ifindex && a.ipi6_addr.s6_addr == b.ipi6_addr.s6_addr
            }
            _ => false,
        }
    }

    /// Calls `send` with the control message that names it.
    fn with<T>(&self, send: impl FnOnce(&[ControlMessage<'_>]) -> T) -> T {
        match self {
            Self::Bound => send(&[]),
            Self::V4(info) => send(&[ControlMessage::Ipv4PacketInfo(info)]),
            Self::V6(info) => send(&[ControlMessage::Ipv6PacketInfo(info)]),
        }
    }

    /// Room for the control messages of a datagram to `bound`: the one that names the address,
    /// and, if it is `timed`, the time it came at.
    fn space(bound: SocketAddr, timed: bool) -> Option<Vec<u8>> {
        match (bound.ip().is_unspecified(), bound.is_ipv4(), timed) {
            (false, _, false) => None,
            (false, _, true) => Some(cmsg_space!(TimeSpec)),
            (true, true, false) => Some(cmsg_space!(in_pktinfo)),
            (true, true, true) => Some(cmsg_space!(in_pktinfo, TimeSpec)),
            (true, false, false) => Some(cmsg_space!(in6_pktinfo)),
            (true, false, true) => Some(cmsg_space!(in6_pktinfo, TimeSpec)),
        }
    }
}

/// Answers made on the runtime that a worker has not taken yet; more are not kept.
const INBOX: usize = 256;

/// Where the runtime leaves for a worker what can be sent again.
#[derive(Debug, Default)]
struct Inbox {
    made: Mutex<Vec<(Key, Resolved)>>,
    /// So that an empty one costs a worker no lock.
    is_filled: AtomicBool,
}

impl Inbox {
    fn put(&self, key: Key, made: Resolved) {
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < INBOX {
            all.push((key, made));
            self.is_filled.store(true, Ordering::Release);
        }
    }

    fn take(&self) -> Vec<(Key, Resolved)> {
        if !self.is_filled.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_filled.store(false, Ordering::Release);
        std::mem::take(&mut all)
    }
}
