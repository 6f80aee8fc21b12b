//! Who may have TCP connections, and how many: when all places are taken, who has most gives one back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::shares::{Client, Shares};

use super::Settings;
use super::responder::Shard;

/// Answers of one connection that had to wait and are not sent yet: 64 KiB each at most.
const MADE: usize = 2;

/// The same of all connections.
const ALL_MADE: usize = 1024;

/// A connection that has been silent for so long may be closed for one of a client that has none.
const SILENT: Duration = Duration::from_secs(1);

/// However full it is, a client has so long for its next query.
const LEAST_IDLE: Duration = Duration::from_secs(2);

/// The open connections, and what they answer from.
pub(super) struct Connections {
    total: usize,
    per_client: usize,
    idle: Duration,
    began: Instant,
    open: Mutex<Open>,
    /// Places for queries that wait.
    queue: Arc<Shares>,
    /// Room for answers to those.
    made: Arc<Semaphore>,
    /// A connection takes the one that is its turn.
    shards: Vec<Mutex<Shard>>,
    next_shard: AtomicUsize,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_client: HashMap<Client, Vec<Arc<Held>>>,
}

/// What is known of an open connection.
#[derive(Debug)]
struct Held {
    /// When it was last heard of, in milliseconds since the beginning.
    heard: AtomicU64,
    leave: CancellationToken,
}

/// A connection's place among those that are allowed.
pub(super) struct Permit {
    pub(super) connections: Arc<Connections>,
    client: Client,
    held: Arc<Held>,
    /// Room for answers that had to wait.
    pub(super) made: Arc<Semaphore>,
}

/// Which limit turned a connection away.
pub(super) enum Full {
    Total,
    Client,
}

/// A place, and whether somebody else gives up his for it.
pub(super) struct Entered {
    pub(super) permit: Permit,
    pub(super) has_yielded: bool,
}

impl Open {
    /// Closes a connection of who has most, if that is more than `own`: the one that has been silent for
    /// longest.
    fn make_room(&mut self, own: usize, now: u64) -> bool {
        let largest = self.by_client.values_mut().max_by_key(|held| held.len());
        let Some(largest) = largest.filter(|held| held.len() > own) else {
            return false;
        };
        let heard = |held: &Arc<Held>| held.heard.load(Ordering::Relaxed);
        let longest = largest
            .iter()
            .enumerate()
            .min_by_key(|(_, held)| heard(held));
        let Some((at, held)) = longest else {
            return false;
        };
        // Between equals nobody is cut short.
        let silent = Duration::from_millis(now.saturating_sub(heard(held)));
        if largest.len() == own + 1 && silent < SILENT {
            return false;
        }
        largest.swap_remove(at).leave.cancel();
        self.total -= 1;
        true
    }
}

impl Connections {
    pub(super) fn new(settings: &Settings, queue: &Arc<Shares>, shards: Vec<Shard>) -> Self {
        Self {
            total: settings.max_tcp_connections,
            per_client: settings.max_tcp_connections_per_client,
            idle: settings.tcp_idle_timeout,
            began: Instant::now(),
            open: Mutex::default(),
            queue: Arc::clone(queue),
            made: Arc::new(Semaphore::new(ALL_MADE)),
            shards: shards.into_iter().map(Mutex::new).collect(),
            next_shard: AtomicUsize::new(0),
        }
    }

    /// Whose turn it is to serve a new connection.
    pub(super) fn turn(&self) -> usize {
        self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len().max(1)
    }

    /// Nothing waits while it holds this.
    pub(super) fn shard(&self, turn: usize) -> MutexGuard<'_, Shard> {
        self.shards[turn]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Places for queries that wait.
    pub(super) fn queue(&self) -> &Arc<Shares> {
        &self.queue
    }

    /// Room for answers that had to wait, all connections together.
    pub(super) fn made(&self) -> &Arc<Semaphore> {
        &self.made
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A place for a connection of this client's, if need be that of somebody who has more of them.
    pub(super) fn enter(self: &Arc<Self>, client: Client) -> Result<Entered, Full> {
        let now = self.millis();
        let mut open = self.open();
        let own = open.by_client.get(&client).map_or(0, Vec::len);
        if own >= self.per_client {
            return Err(Full::Client);
        }
        let has_yielded = open.total >= self.total;
        if has_yielded && !open.make_room(own, now) {
            return Err(Full::Total);
        }
        let held = Arc::new(Held {
            heard: AtomicU64::new(now),
            leave: CancellationToken::new(),
        });
        let all = open.by_client.entry(client).or_default();
        all.push(Arc::clone(&held));
        open.total += 1;
        Ok(Entered {
            permit: Permit {
                connections: Arc::clone(self),
                client,
                held,
                made: Arc::new(Semaphore::new(MADE)),
            },
            has_yielded,
        })
    }

    /// How long a connection may be silent: less when more than half of the places are taken.
    pub(super) fn idle(&self) -> Duration {
        let taken = self.open().total;
        let half = (self.total / 2).max(1);
        let free = self.total.saturating_sub(taken).min(half);
        let share = self.idle.mul_f64(free as f64 / half as f64);
        share.max(LEAST_IDLE.min(self.idle))
    }
}

impl Permit {
    /// Something was heard of or said to the client.
    pub(super) fn is_heard(&self) {
        let now = self.connections.millis();
        self.held.heard.store(now, Ordering::Relaxed);
    }

    /// Until somebody else gets the place.
    pub(super) async fn yielded(&self) {
        self.held.leave.cancelled().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        let Some(own) = open.by_client.get_mut(&self.client) else {
            return;
        };
        let before = own.len();
        own.retain(|held| !Arc::ptr_eq(held, &self.held));
        let (is_gone, is_last) = (own.len() < before, own.is_empty());
        if is_last {
            open.by_client.remove(&self.client);
        }
        // Who made room for another one is counted no more.
        open.total -= usize::from(is_gone);
    }
}
