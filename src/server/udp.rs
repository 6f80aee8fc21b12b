//! UDP workers: a thread for each socket, batches of datagrams in and out.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, sendmsg,
    setsockopt, sockopt,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::answers::Transport;

use super::bind::SOCKET_BUFFER;
use super::door::{AtOnce, Client, Desk, Door};
use super::inbox::Inbox;
use super::late::{LATE, Lateness, is_late};
use super::local::Local;
use super::tally::Counts;

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
    door: Arc<Door>,
    places: Arc<Semaphore>,
    runtime: Handle,
    tasks: TaskTracker,
}

impl Queue {
    /// A queue with so many places. Call it on the runtime.
    pub(super) fn new(door: Arc<Door>, places: usize, tasks: TaskTracker) -> Self {
        Self {
            door,
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            runtime: Handle::current(),
            tasks,
        }
    }

    /// Takes a query, or sheds it when there is no place.
    fn push(&self, request: &[u8], peer: SocketAddr, local: Local, asked: &Arc<Asked>) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.door.router().metrics().shed_query();
            return;
        };
        let request = request.to_vec();
        let asked = Arc::clone(asked);
        let door = Arc::clone(&self.door);
        let taken = Instant::now();
        let answer = async move {
            if taken.elapsed() > LATE {
                door.router().metrics().shed_query();
                return;
            }
            let mut reply = Vec::with_capacity(512);
            let made = door
                .in_full(&asked.counts, &request, client(peer), &mut reply)
                .await;
            if !reply.is_empty() && send_one(&asked.socket, &reply, peer, local).is_err() {
                door.router().metrics().unsent(1);
            }
            if let Some((key, made)) = made {
                asked.inbox.put(key, made);
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

fn client(peer: SocketAddr) -> Client {
    Client::new(peer.ip(), Transport::Udp)
}

/// One socket and the thread that serves it.
pub(super) struct Worker {
    asked: Arc<Asked>,
    address: SocketAddr,
    door: Arc<Door>,
    queue: Queue,
    desk: Desk,
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
    locals: Vec<Local>,
}

impl Worker {
    /// A worker for a bound socket, with so many bytes for answers that can be sent again.
    pub(super) fn new(
        socket: UdpSocket,
        door: Arc<Door>,
        queue: Queue,
        cache_bytes: usize,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        if address.ip().is_unspecified() && address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else if address.ip().is_unspecified() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        socket.set_read_timeout(Some(STOP_CHECK))?;
        door.router().metrics().socket(&socket);
        let counts = door.router().metrics().worker(Transport::Udp);
        Ok(Self {
            asked: Arc::new(Asked {
                socket,
                inbox: Inbox::default(),
                counts: Arc::clone(&counts),
            }),
            address,
            door,
            queue,
            desk: Desk::new(cache_bytes, counts),
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
            locals: Vec::with_capacity(BATCH),
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
                    warn!(%error, "cannot receive");
                    // A lasting error must not turn the thread into a busy loop.
                    std::thread::sleep(STOP_CHECK);
                }
            }
        }
    }

    /// Room for a batch of datagrams and what the system tells of each.
    fn headers(&self) -> MultiHeaders<SockaddrStorage> {
        MultiHeaders::preallocate(BATCH, Local::space(self.address, self.is_timed))
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
    /// at the door costs us nothing, and what waits too long is read for nothing.
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
        self.desk.begin();
        for (key, made) in asked.inbox.take() {
            self.desk.keep(&key, made);
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
            let mut local = Local::Bound;
            let mut came = None;
            if self.is_timed || self.address.ip().is_unspecified() {
                // A socket that somebody else opened may tell more than there is room for: then
                // nothing of it is known, which is no reason not to answer.
                for control in message.cmsgs().into_iter().flatten() {
                    match control {
                        ControlMessageOwned::Ipv4PacketInfo(info) => local = Local::V4(info),
                        ControlMessageOwned::Ipv6PacketInfo(info) => local = Local::V6(info),
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
                AtOnce::Replied => {
                    replies.peers.push(Some(storage));
                    replies.locals.push(local);
                }
                AtOnce::Later => self.queue.push(request, peer, local, &asked),
                AtOnce::Ignored => {}
            }
        }
        self.desk.end();
        if late > 0 {
            self.door.router().metrics().shed_late(late);
            self.size_buffer((self.buffer / 2).max(LEAST_BUFFER));
        }
        Ok(taken)
    }

    /// A defect that one query brings to light must not end the worker for all others.
    fn answer(&mut self, request: &[u8], peer: SocketAddr, reply: &mut Vec<u8>) -> AtOnce {
        catch_unwind(AssertUnwindSafe(|| {
            self.door
                .at_once(&mut self.desk, request, client(peer), reply)
        }))
        .unwrap_or_else(|_| {
            error!(%peer, ?request, "a query caused a panic; please report this");
            AtOnce::Ignored
        })
    }

    /// Sends with as few system calls as the system allows.
    fn send(&self, replies: &mut Replies, headers: &mut MultiHeaders<SockaddrStorage>) {
        let Replies {
            buffers,
            peers,
            locals,
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
            let local = locals[done];
            let run = locals[done..]
                .iter()
                .take_while(|own| own.is(&local))
                .count();
            let range = done..done + run;
            let (slices, peers) = (&slices[range.clone()], &peers[range]);
            let flags = MsgFlags::MSG_DONTWAIT;
            let sent = local.with(|from| {
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
            self.door.router().metrics().unsent(unsent);
        }
        peers.clear();
        locals.clear();
    }
}

/// Sends one reply from the address that was asked.
fn send_one(socket: &UdpSocket, reply: &[u8], peer: SocketAddr, local: Local) -> nix::Result<()> {
    let reply = [IoSlice::new(reply)];
    let peer = SockaddrStorage::from(peer);
    local.with(|from| {
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
