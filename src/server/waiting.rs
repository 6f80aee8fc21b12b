//! Queries that have to wait: how many there may be, and what came of them until their worker sends it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::router::Resolved;

use super::cache::Key;
use super::reply_from::ReplyFrom;

/// The places for queries that wait, of all workers.
#[derive(Clone)]
pub(super) struct Queue(Arc<Semaphore>);

impl Queue {
    /// A queue with so many places.
    pub(super) fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))))
    }
}

/// What came of queries that had to wait, until their worker sends it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    made: Mutex<Made>,
    /// Something was made, or nothing waits any more.
    pub(super) news: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) replies: Vec<(Vec<u8>, SocketAddr, ReplyFrom)>,
    pub(super) kept: Vec<(Key, Resolved)>,
    /// Queries that still wait.
    pub(super) waiting: usize,
}

impl Outbox {
    pub(super) fn lock(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A query that waits. However it ends, it waits no more.
pub(super) struct Place {
    pub(super) outbox: Arc<Outbox>,
    _shared: OwnedSemaphorePermit,
}

impl Place {
    /// A place for one more; `None` if there is none.
    pub(super) fn take(queue: &Queue, outbox: &Arc<Outbox>) -> Option<Self> {
        let shared = Arc::clone(&queue.0).try_acquire_owned().ok()?;
        outbox.lock().waiting += 1;
        Some(Self {
            outbox: Arc::clone(outbox),
            _shared: shared,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.outbox.lock().waiting -= 1;
        self.outbox.news.notify_one();
    }
}

/// Lets the runtime tell when something comes. The socket itself stays one that blocks.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe, for types that may change their descriptor; this one cannot"
)]
pub(super) fn watch(socket: &Arc<UdpSocket>) -> io::Result<AsyncFd<Arc<UdpSocket>>> {
    AsyncFd::with_interest(Arc::clone(socket), Interest::READABLE)
}
