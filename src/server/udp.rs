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

use super::door::{AtOnce, Client, Door};

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
    fn push(&self, request: &[u8], peer: SocketAddr, local: Local, socket: &Arc<UdpSocket>) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.door.router().metrics().shed_query();
            return;
        };
        let request = request.to_vec();
        let socket = Arc::clone(socket);
        let door = Arc::clone(&self.door);
        let answer = async move {
            let mut reply = Vec::with_capacity(512);
            door.in_full(&request, client(peer), &mut reply).await;
            if !reply.is_empty() && send_one(&socket, &reply, peer, local).is_err() {
                door.router().metrics().unsent(1);
            }
            drop(place);
        };
        self.tasks.spawn_on(answer, &self.runtime);
    }
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

/// One socket and the thread that serves it.
pub(super) struct Worker {
    socket: Arc<UdpSocket>,
    /// Bound to all addresses: which one was asked comes with each datagram.
    wildcard: bool,
    door: Arc<Door>,
    queue: Queue,
    stop: CancellationToken,
}

/// Replies of one batch; the buffers are used again.
struct Replies {
    buffers: Vec<Vec<u8>>,
    peers: Vec<(SocketAddr, Local)>,
}

impl Worker {
    /// A worker for a bound socket.
    pub(super) fn new(
        socket: UdpSocket,
        door: Arc<Door>,
        queue: Queue,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let wildcard = address.ip().is_unspecified();
        if wildcard && address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else if wildcard {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        socket.set_read_timeout(Some(STOP_CHECK))?;
        Ok(Self {
            socket: Arc::new(socket),
            wildcard,
            door,
            queue,
            stop,
        })
    }

    /// Serves until the stop, and what had come in by then.
    pub(super) fn run(self) {
        let mut buffers = vec![[0_u8; MAX_QUERY]; BATCH];
        let space = self.wildcard.then(|| cmsg_space!(in_pktinfo, in6_pktinfo));
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, space);
        let mut out_headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
        let mut replies = Replies {
            buffers: (0..BATCH).map(|_| Vec::with_capacity(1024)).collect(),
            peers: Vec::with_capacity(BATCH),
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
        &self,
        buffers: &mut [[u8; MAX_QUERY]],
        headers: &mut MultiHeaders<SockaddrStorage>,
        flags: MsgFlags,
        replies: &mut Replies,
    ) -> nix::Result<()> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
            .iter_mut()
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        let fd = self.socket.as_raw_fd();
        for message in recvmmsg(fd, headers, slices.iter_mut(), flags, None)? {
            let Some(peer) = message.address.as_ref().and_then(std_address) else {
                continue;
            };
            // Nobody listens on port 0; a reply would only raise an error.
            let Some(request) = message.iovs().next().filter(|_| peer.port() != 0) else {
                continue;
            };
            let mut local = Local::Bound;
            if self.wildcard {
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
                AtOnce::Replied => replies.peers.push((peer, local)),
                AtOnce::Later => self.queue.push(request, peer, local, &self.socket),
                AtOnce::Ignored => {}
            }
        }
        Ok(())
    }

    /// A defect that one query brings to light must not end the worker for all others.
    fn answer(&self, request: &[u8], peer: SocketAddr, reply: &mut Vec<u8>) -> AtOnce {
        catch_unwind(AssertUnwindSafe(|| {
            self.door.at_once(request, client(peer), reply)
        }))
        .unwrap_or_else(|_| {
            error!(%peer, ?request, "a query caused a panic; please report this");
            AtOnce::Ignored
        })
    }

    fn send(&self, replies: &mut Replies, headers: &mut MultiHeaders<SockaddrStorage>) {
        let unsent = if self.wildcard || replies.peers.len() == 1 {
            replies
                .peers
                .iter()
                .zip(&replies.buffers)
                .filter(|((peer, local), reply)| {
                    send_one(&self.socket, reply, *peer, *local).is_err()
                })
                .count()
        } else {
            self.send_batch(replies, headers)
        };
        if unsent > 0 {
            self.door.router().metrics().unsent(unsent);
        }
        replies.peers.clear();
    }

    /// Sends with as few system calls as the system allows. Returns how many could not be sent.
    fn send_batch(&self, replies: &Replies, headers: &mut MultiHeaders<SockaddrStorage>) -> usize {
        let peers: Vec<Option<SockaddrStorage>> = replies
            .peers
            .iter()
            .map(|(peer, _)| Some(SockaddrStorage::from(*peer)))
            .collect();
        let slices: Vec<[IoSlice<'_>; 1]> = replies.buffers[..peers.len()]
            .iter()
            .map(|reply| [IoSlice::new(reply)])
            .collect();
        let fd = self.socket.as_raw_fd();
        let mut done = 0;
        let mut unsent = 0;
        while done < peers.len() {
            let sent = sendmmsg(
                fd,
                headers,
                &slices[done..],
                &peers[done..],
                [],
                MsgFlags::empty(),
            );
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
        unsent
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
