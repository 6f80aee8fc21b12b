//! Our contact with Consul about one realm: what its watches and its freshness probe share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::catalog::{self, Realm};

/// The contact about one realm. It lives for as long as somebody follows the realm.
#[derive(Debug)]
pub(super) struct Contact {
    realm: Arc<Realm>,
    /// Milliseconds on the catalog's clock at which Consul last was well.
    last_good: AtomicU64,
    /// Tells every watch that Consul is back: what they wait for may hang or be long overdue.
    revived: Notify,
}

impl Contact {
    /// The contact about a realm, with no trouble yet.
    pub(super) fn new(realm: Arc<Realm>) -> Self {
        Self {
            realm,
            last_good: AtomicU64::new(catalog::millis()),
            revived: Notify::new(),
        }
    }

    /// What it is about.
    pub(super) fn realm(&self) -> &Arc<Realm> {
        &self.realm
    }

    /// Consul was well at this moment, so that what it had told us was current.
    pub(super) fn note_good(&self, asked: u64) {
        self.last_good.store(asked, Ordering::Relaxed);
    }

    /// Milliseconds on the catalog's clock at which Consul last was well; before the first time,
    /// at which it was first asked.
    pub(super) fn last_good(&self) -> u64 {
        self.last_good.load(Ordering::Relaxed)
    }

    /// For how many milliseconds what we hold has not been confirmed to be current.
    pub(super) fn age(&self) -> u64 {
        let age = catalog::millis().saturating_sub(self.last_good());
        // What an earlier life left on disk is older than this contact.
        self.realm
            .stale_millis()
            .map_or(age, |stale| stale.max(age))
    }

    /// Has every watch read anew.
    pub(super) fn revive(&self) {
        self.revived.notify_waiters();
    }

    /// Waits until everything is to be read anew.
    pub(super) async fn revived(&self) {
        self.revived.notified().await;
    }
}
