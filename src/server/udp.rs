//! UDP workers: a thread for each socket, batches of datagrams in and out.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmmsg, sendmsg, setsockopt, sockopt,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::answers::Transport;

use super::door::{AtOnce, Client, Desk, Door};
use super::inbox::Inbox;
use super::tally::Counts;

/// Datagrams taken with one system call.
const BATCH: usize = 32;

/// The longest query that is read. A question has at most 267 bytes; the rest is for options.
const MAX_QUERY: usize = 4096;

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
        let answer = async move {
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

/// The address of ours that a datagram was sent to, and the reply must come from: clients drop
/// replies from any other. Known where the socket is bound to all addresses.
#[derive(Debug, Clone, Copy)]
enum Local {
    Bound,
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl Local {
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

    /// Room for the control message that names it.
    fn space(address: SocketAddr) -> Option<Vec<u8>> {
        if !address.ip().is_unspecified() {
            None
        } else if address.is_ipv4() {
            Some(cmsg_space!(in_pktinfo))
        } else {
            Some(cmsg_space!(in6_pktinfo))
        }
    }
}

/// One socket and the thread that serves it.
pub(super) struct Worker {
    asked: Arc<Asked>,
    address: SocketAddr,
    door: Arc<Door>,
    queue: Queue,
    desk: Desk,
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
            stop,
        })
    }

    /// Serves until the stop, and what had come in by then.
    pub(super) fn run(mut self) {
        let mut buffers = vec![[0_u8; MAX_QUERY]; BATCH];
        let mut headers = MultiHeaders::preallocate(BATCH, Local::space(self.address));
        let mut out_headers = MultiHeaders::preallocate(BATCH, Local::space(self.address));
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
                Ok(()) => self.send(&mut replies, &mut out_headers),
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

    /// Takes a batch of datagrams and answers or queues each.
    fn batch(
        &mut self,
        buffers: &mut [[u8; MAX_QUERY]],
        headers: &mut MultiHeaders<SockaddrStorage>,
        flags: MsgFlags,
        replies: &mut Replies,
    ) -> nix::Result<()> {
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
        for message in messages {
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
            if self.address.ip().is_unspecified() {
                for control in message.cmsgs()? {
                    match control {
                        ControlMessageOwned::Ipv4PacketInfo(info) => local = Local::V4(info),
                        ControlMessageOwned::Ipv6PacketInfo(info) => local = Local::V6(info),
                        _ => {}
                    }
                }
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
        Ok(())
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
            let sent = match &local {
                Local::Bound => sendmmsg(fd, headers, slices, peers, [], flags),
                Local::V4(info) => {
                    let from = [ControlMessage::Ipv4PacketInfo(info)];
                    sendmmsg(fd, headers, slices, peers, from, flags)
                }
                Local::V6(info) => {
                    let from = [ControlMessage::Ipv6PacketInfo(info)];
                    sendmmsg(fd, headers, slices, peers, from, flags)
                }
            };
            match sent.map(Iterator::count) {
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
    let send = |control: &[ControlMessage<'_>]| {
        sendmsg(
            socket.as_raw_fd(),
            &reply,
            control,
            MsgFlags::MSG_DONTWAIT,
            Some(&peer),
        )
        .map(|_| ())
    };
    match local {
        Local::Bound => send(&[]),
        Local::V4(info) => send(&[ControlMessage::Ipv4PacketInfo(&info)]),
        Local::V6(info) => send(&[ControlMessage::Ipv6PacketInfo(&info)]),
    }
}

fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddrV6::from(*v6).into())
}
