//! Queries that have to wait: how many there may be, and what came of them until their worker sends it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::router::Resolved;
use crate::shares::{Client, Share, Shares};

use super::cache::Key;
use super::reply_from::ReplyFrom;

/// What came of queries that had to wait. Only their worker's thread comes here.
#[derive(Debug, Default)]
pub(super) struct Outbox(Mutex<Made>);

#[derive(Debug, Default)]
struct Made {
    replies: Vec<Waited>,
    kept: Vec<(Key, Resolved)>,
    /// Queries that still wait.
    waiting: usize,
}

/// A reply to a query that had to wait.
#[derive(Debug)]
pub(super) struct Waited {
    pub(super) reply: Vec<u8>,
    pub(super) to: SocketAddr,
    pub(super) from: ReplyFrom,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many queries still wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// Puts in what came of a query.
    pub(super) fn put(&self, waited: Waited, kept: Option<(Key, Resolved)>) {
        let mut made = self.lock();
        if !waited.reply.is_empty() {
            made.replies.push(waited);
        }
        made.kept.extend(kept);
    }

    /// Hands over what can be kept of the answers since this was last called.
    pub(super) fn hand_over(&self, mut to: impl FnMut(Key, Resolved)) {
        let mut made = self.lock();
        for (key, resolved) in made.kept.drain(..) {
            to(key, resolved);
        }
    }

    /// Sends the replies since this was last called. Gives how many the system would not send.
    pub(super) fn send(&self, socket: &UdpSocket) -> usize {
        let mut replies = std::mem::take(&mut self.lock().replies);
        let send = |waited: Waited| waited.from.send(socket, &waited.reply, waited.to);
        let unsent = replies.drain(..).map(send).filter(Result::is_err).count();
        let mut made = self.lock();
        if made.replies.is_empty() {
            // Its room is for the next ones.
            made.replies = replies;
        }
        unsent
    }
}

/// A query that waits. However it ends, it waits no more.
pub(super) struct Place {
    pub(super) outbox: Arc<Outbox>,
    _share: Share,
}

impl Place {
    /// A place for one more of this client's; `None` if there is none.
    pub(super) fn take(queue: &Arc<Shares>, outbox: &Arc<Outbox>, client: Client) -> Option<Self> {
        let share = queue.take(client)?;
        outbox.lock().waiting += 1;
        Some(Self {
            outbox: Arc::clone(outbox),
            _share: share,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.outbox.lock().waiting -= 1;
    }
}
