//! UDP workers: a thread for each socket, batches of datagrams in and out, and what has to wait for
//! others in between.

use std::future::ready;
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
use send_wrapper::SendWrapper;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, Runtime};
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::dns::Transport;
use crate::router::{Asker, Waiting};
use crate::shares::{Client, Shares};
use crate::upstream::watch;

use super::cache::Room;
use super::late::{LATE, Lateness};
use super::reply_from::{ReplyFrom, std_address};
use super::responder::{Handled, Responder, Shard};
use super::sockets::SOCKET_BUFFER;
use super::waiting::{Outbox, Place, Waited};

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
/// another thread, and what is ready goes out before the thread sleeps. Where the last queries did not have
/// to wait, the thread blocks in the socket, which is the quickest way to answer from memory.
pub(super) struct Worker {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    responder: Arc<Responder>,
    queue: Arc<Shares>,
    outbox: Arc<Outbox>,
    /// Queries of the last batch that have to wait.
    fresh: Vec<Answering>,
    shard: Shard,
    lateness: Lateness,
    /// The system tells when each datagram came.
    is_timed: bool,
    /// Bytes of datagrams that may wait in the socket, as far as the system grants them.
    buffer: usize,
    /// The last batch was a full one, so that more of them wait in the socket.
    has_more: bool,
    stop: CancellationToken,
    /// When the stop was seen.
    stopped: Option<Instant>,
    /// It goes into the runtime and out of it with the worker, and never to another thread.
    desk: Option<SendWrapper<Desk>>,
}

/// A query that waits, and what comes of it.
type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Replies of one batch; the buffers are used again.
struct Replies {
    buffers: Vec<Vec<u8>>,
    peers: Vec<Option<SockaddrStorage>>,
    froms: Vec<ReplyFrom>,
    headers: MultiHeaders<SockaddrStorage>,
}

/// What a worker reads into and sends from.
struct Desk {
    buffers: Vec<[u8; MAX_QUERY]>,
    headers: MultiHeaders<SockaddrStorage>,
    replies: Replies,
}

impl Worker {
    /// A worker for a bound socket, with so much room for answers that can be sent again.
    pub(super) fn new(
        socket: UdpSocket,
        responder: Arc<Responder>,
        queue: Arc<Shares>,
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
            has_more: false,
            stop,
            stopped: None,
            desk: None,
        })
    }

    /// Serves until the stop, and what had come in by then.
    pub(super) fn run(self) {
        let runtime = match self.runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                error!(%error, "cannot start what a worker waits with");
                return;
            }
        };
        let mut worker = Box::new(self);
        loop {
            let is_stopping = worker.is_stopping();
            let flags = if is_stopping {
                MsgFlags::MSG_DONTWAIT
            } else {
                MsgFlags::MSG_WAITFORONE
            };
            if worker.is_over() || !worker.take(flags) && is_stopping {
                return;
            }
            if !worker.fresh.is_empty() {
                // As a task of its own: whoever is called from outside of the tasks has to be woken up.
                let back = runtime.block_on(async { tokio::spawn(worker.wait()).await });
                match back {
                    Ok(back) => worker = back,
                    Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
                }
            }
        }
    }

    /// What queries wait with. Before it sleeps, it sends what was made.
    fn runtime(&self) -> io::Result<Runtime> {
        let (socket, outbox) = (Arc::clone(&self.socket), Arc::clone(&self.outbox));
        let responder = Arc::clone(&self.responder);
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_park(move || send_waited(&outbox, &socket, &responder))
            .build()
    }

    /// Serves while queries wait, and as long as the last that came had to.
    async fn wait(mut self: Box<Self>) -> Box<Self> {
        let watched = watch(Arc::clone(&self.socket))
            .inspect_err(|error| warn!(%error, "cannot watch the socket of a worker"))
            .ok();
        let mut checks = interval_at((Instant::now() + STOP_CHECK).into(), STOP_CHECK);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            for fresh in self.fresh.drain(..) {
                tokio::spawn(fresh);
            }
            let is_over = self.is_over();
            if self.has_more && !is_over {
                // Those that are ready come first, or in a flood they would wait for ever.
                tokio::task::yield_now().await;
            } else {
                tokio::select! {
                    biased;
                    () = readable(watched.as_ref()) => {}
                    // Whatever the system has not told of is found then.
                    _ = checks.tick() => {}
                }
            }
            send_waited(&self.outbox, &self.socket, &self.responder);
            let Self { outbox, shard, .. } = &mut *self;
            outbox.hand_over(|key, resolved| shard.keep(&key, resolved));
            let waiting = outbox.waiting();
            if !is_over {
                self.take(MsgFlags::MSG_DONTWAIT);
            }
            // A question whose asker has left is still on its way here; at the end nobody needs it.
            let is_alone = Handle::current().metrics().num_alive_tasks() <= 1;
            if waiting == 0 && self.fresh.is_empty() && (is_alone || self.stopped.is_some()) {
                return self;
            }
        }
    }

    /// Is it to stop? From when that was first seen, it answers what has come.
    fn is_stopping(&mut self) -> bool {
        if self.stopped.is_none() && self.stop.is_cancelled() {
            self.stopped = Some(Instant::now());
        }
        self.stopped.is_some()
    }

    /// Is the time over in which it answers what had come before the stop?
    fn is_over(&mut self) -> bool {
        self.is_stopping() && self.stopped.is_some_and(|at| at.elapsed() > DRAIN)
    }

    /// Takes a batch and answers what can be answered at once. False if nothing has come.
    fn take(&mut self, flags: MsgFlags) -> bool {
        let desk = self.desk.take();
        let mut desk = desk.unwrap_or_else(|| SendWrapper::new(self.new_desk()));
        let taken = self.batch(&mut desk, flags);
        if taken.is_ok() {
            self.send(&mut desk.replies);
        }
        self.desk = Some(desk);
        match taken {
            Ok(taken) => {
                // The system tells only when something comes, not that something is there: a full
                // socket is silent.
                self.has_more = taken == BATCH;
                let is_timed = self.lateness.batch(self.has_more);
                if is_timed != self.is_timed && self.tell_time(is_timed) {
                    // What the system tells takes more room, or less.
                    self.desk = None;
                }
                true
            }
            Err(Errno::EAGAIN) => {
                self.has_more = false;
                false
            }
            Err(Errno::EINTR) => true,
            Err(error) => {
                warn!(%error, "cannot receive queries");
                // A lasting error must not turn the thread into a busy loop.
                std::thread::sleep(STOP_CHECK);
                true
            }
        }
    }

    /// Room for a batch of datagrams, what the system tells of each, and the replies.
    fn new_desk(&self) -> Desk {
        // A reply says where it comes from, never when: space that is not used is refused by the system.
        let headers =
            |is_timed| MultiHeaders::preallocate(BATCH, ReplyFrom::space(self.address, is_timed));
        Desk {
            buffers: vec![[0; MAX_QUERY]; BATCH],
            headers: headers(self.is_timed),
            replies: Replies {
                buffers: (0..BATCH).map(|_| Vec::with_capacity(1024)).collect(),
                peers: Vec::with_capacity(BATCH),
                froms: Vec::with_capacity(BATCH),
                headers: headers(false),
            },
        }
    }

    /// Takes a query that has to wait, or sheds it when there is no place.
    fn wait_for(&mut self, request: &[u8], waiting: Waiting, peer: SocketAddr, from: ReplyFrom) {
        let client = Client::of(peer.ip());
        let Some(place) = Place::take(&self.queue, &self.outbox, client) else {
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
            // It is sent before anything else is done.
            let room = || ready(());
            let made = responder
                .later(&counts, &request, asker(peer), waiting, room, &mut reply)
                .await;
            let kept = made.and_then(|(kept, ())| kept);
            let to = peer;
            place.outbox.put(Waited { reply, to, from }, kept);
        }));
    }

    /// Lets the system tell when each datagram came, or not. False if it will not do it.
    fn tell_time(&mut self, is_timed: bool) -> bool {
        let socket = &self.socket;
        let done = setsockopt(socket, sockopt::ReceiveTimestampns, &is_timed);
        if done.is_ok() {
            self.is_timed = is_timed;
            self.lateness.told(SystemTime::now());
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
    fn batch(&mut self, desk: &mut Desk, flags: MsgFlags) -> nix::Result<usize> {
        let Desk {
            buffers,
            headers,
            replies,
        } = desk;
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = {
            let mut buffers = buffers.iter_mut();
            std::array::from_fn(|_| {
                let buffer = buffers.next().map(<[u8; MAX_QUERY]>::as_mut_slice);
                [IoSliceMut::new(buffer.unwrap_or_default())]
            })
        };
        let fd = self.socket.as_raw_fd();
        let asked = self.is_timed.then(SystemTime::now);
        let messages = recvmmsg(fd, headers, slices.iter_mut(), flags, None)?;
        self.shard.begin();
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
            if let (Some(came), Some(asked)) = (came, asked)
                && self.lateness.is_late(came, asked)
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
    fn send(&self, replies: &mut Replies) {
        let Replies {
            buffers,
            peers,
            froms,
            headers,
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

/// Sends the replies to queries that have waited.
fn send_waited(outbox: &Outbox, socket: &UdpSocket, responder: &Responder) {
    let unsent = outbox.send(socket);
    if unsent > 0 {
        responder.metrics().unsent(unsent);
    }
}

/// Waits until something comes; a moment if that cannot be told.
async fn readable(watched: Option<&AsyncFd<Arc<UdpSocket>>>) {
    match watched {
        Some(watched) => match watched.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => warn!(%error, "cannot watch the socket of a worker"),
        },
        None => tokio::time::sleep(Duration::from_millis(1)).await,
    }
}
