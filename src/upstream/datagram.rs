//! A question over UDP: a connected socket of its own for each try, so that only the one who was asked
//! can answer, on a port that nobody can guess (RFC 5452 section 9.2), and that a refusal of the network
//! is heard at once. A socket that has been answered is given another port before it is used again.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::runtime::{Handle, Id};
use tokio::time::timeout_at;

use crate::dns::{Query, QueryEdns, Response};

use super::metrics::Counts;
use super::{Address, Failure, read};

/// How often a question is sent, in all: as many as `receive` looks at.
const TRIES: usize = 3;

/// How soon it is sent again at the earliest.
const LEAST_PATIENCE: Duration = Duration::from_millis(150);

/// A question, and whom it is for.
pub(super) struct Exchange<'a> {
    pub(super) to: &'a Address,
    pub(super) query: &'a Query,
    pub(super) edns: Option<QueryEdns>,
    /// Ask with letters in random case.
    pub(super) random_case: bool,
    /// How long this upstream takes, about.
    pub(super) time: Duration,
    pub(super) by: Instant,
    pub(super) counts: &'a Counts,
    pub(super) buffers: &'a Buffers,
    pub(super) sockets: &'a Sockets,
}

/// A datagram that was sent, and the socket that its reply will come to.
struct Try {
    socket: AsyncFd<Socket>,
    id: u16,
    /// The question, if it is in a case of its own.
    query: Option<Query>,
}

impl Exchange<'_> {
    /// Sends it, and again when nothing comes, while the tries before are still listened to.
    pub(super) async fn run(&self) -> Result<Response, Failure> {
        let mut tries = Vec::with_capacity(1);
        tries.push(self.send()?);
        let mut patience = (2 * self.time).max(LEAST_PATIENCE);
        let mut again = Instant::now() + patience;
        loop {
            let until = if tries.len() < TRIES {
                again.min(self.by)
            } else {
                self.by
            };
            match timeout_at(until.into(), self.receive(&tries)).await {
                Ok((number, said)) => {
                    // What comes to the others is not waited for, nor heard by anybody else.
                    self.sockets.put(tries.swap_remove(number).socket);
                    return said;
                }
                Err(_) if until == self.by => return Err(Failure::Timeout),
                Err(_) => {
                    patience *= 2;
                    again = Instant::now() + patience;
                    tries.push(self.send()?);
                }
            }
        }
    }

    fn send(&self) -> Result<Try, Failure> {
        let id = rand::random();
        let mut bytes = Vec::with_capacity(self.query.question().len() + 32);
        let query = self.random_case.then(|| self.query.in_case(rand::random()));
        let written = query.as_ref().unwrap_or(self.query);
        written.write(id, self.edns, &mut bytes);
        let to = self.to.socket();
        match to.and_then(|to| self.sockets.send(to, &bytes)) {
            Ok(socket) => Ok(Try { socket, id, query }),
            Err(error) => {
                tracing::debug!(upstream = %self.to, %error, "cannot send a question");
                Err(Failure::Network)
            }
        }
    }

    /// Waits for the reply to one of the tries, and says which.
    async fn receive(&self, tries: &[Try]) -> (usize, Result<Response, Failure>) {
        loop {
            let (number, own, mut ready) = tokio::select! {
                ready = ready(tries, 0) => ready,
                ready = ready(tries, 1) => ready,
                ready = ready(tries, 2) => ready,
            };
            let mut buffer = self.buffers.take();
            let received = ready.try_io(|socket| socket.get_ref().read(&mut buffer));
            let said = match received {
                Ok(Ok(length)) => {
                    let query = own.query.as_ref().unwrap_or(self.query);
                    read(&buffer[..length], own.id, query, self.counts)
                }
                // An error of the socket is read like a datagram.
                Ok(Err(error)) => {
                    tracing::debug!(upstream = %self.to, %error, "a question was refused");
                    Some(Err(Failure::Network))
                }
                // There was nothing to read.
                Err(_) => None,
            };
            self.buffers.put(buffer);
            if let Some(said) = said {
                // Nothing else is waited for here, and whoever uses it next wants to hear of something new.
                ready.clear_ready();
                return (number, said);
            }
        }
    }
}

/// Waits until something has come to the try of this number; for ever if there is none.
async fn ready(tries: &[Try], number: usize) -> (usize, &Try, AsyncFdReadyGuard<'_, Socket>) {
    if let Some(own) = tries.get(number) {
        // A port at which nobody listens is an error of the socket, and nothing to read.
        match own.socket.ready(Interest::READABLE | Interest::ERROR).await {
            Ok(ready) => return (number, own, ready),
            Err(error) => tracing::debug!(%error, "cannot wait for a reply"),
        }
    }
    std::future::pending().await
}

/// Lets the runtime tell when something comes, and only then: that there is room to send would wake it up
/// for each socket that is new.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe, for types that may change their descriptor; a socket does not"
)]
pub(crate) fn watch<S: AsRawFd>(socket: S) -> io::Result<AsyncFd<S>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// Sockets of one upstream that are kept for the next questions, for each runtime.
const KEPT_SOCKETS: usize = 32;

/// Sockets to one upstream whose question has been answered. They are connected to nobody and have no port,
/// until there is another question: that costs less than to make new ones.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<Vec<(Id, Vec<AsyncFd<Socket>>)>>);

impl Sockets {
    /// A socket on which these bytes were sent there. The system takes a port at random when it is connected,
    /// of those that nobody needs (`ip_local_port_range`).
    fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<AsyncFd<Socket>> {
        let go = |socket: &Socket| {
            socket.connect(&to.into())?;
            socket.send(bytes)
        };
        // One to which the network has said something since may refuse; a new one has nothing against it.
        if let Some(socket) = self.take()
            && go(socket.get_ref()).is_ok()
        {
            return Ok(socket);
        }
        let kind = Type::DGRAM.nonblocking();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::UDP))?;
        go(&socket)?;
        watch(socket)
    }

    fn take(&self) -> Option<AsyncFd<Socket>> {
        let here = Handle::current().id();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, sockets) = kept.iter_mut().find(|(own, _)| *own == here)?;
        sockets.pop()
    }

    /// Keeps a socket that was answered. It gives up its port and its peer, so that nothing more comes to it; what has
    /// come besides answers no other question, and is passed over when the socket is used again.
    fn put(&self, socket: AsyncFd<Socket>) {
        if let Err(error) = rustix::net::connect_unspec(&socket) {
            tracing::debug!(%error, "cannot use a socket again");
            return;
        }
        let here = Handle::current().id();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.iter_mut().find(|(own, _)| *own == here) {
            Some((_, sockets)) if sockets.len() >= KEPT_SOCKETS => {}
            Some((_, sockets)) => sockets.push(socket),
            None => kept.push((here, vec![socket])),
        }
    }
}

/// The longest datagram. Some servers send more than was asked for.
const LONGEST: usize = 65_535;

/// Buffers that are kept for the next replies.
const KEPT: usize = 16;

/// Room for replies, used again. One is taken when something has come, not while it is waited for.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Box<[u8]>>>);

impl Buffers {
    fn take(&self) -> Box<[u8]> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; LONGEST].into_boxed_slice())
    }

    fn put(&self, buffer: Box<[u8]>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    }
}
