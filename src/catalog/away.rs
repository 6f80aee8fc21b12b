//! Since when a source is away, and why. What a cluster's peers export is read from the cluster's own servers, so
//! its realms share that with the local one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::Versions;

/// Something that everything else of a source is found by, and that it does not let us read although it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// What it is, in words.
    pub what: &'static str,
    /// Since when, in milliseconds on the catalog's clock.
    pub since: u64,
    /// What the source said last.
    pub why: String,
}

/// So many milliseconds are a while: one read that fails, and is made again or elsewhere, means nothing.
const WHILE: u64 = 5000;

/// How it stands with one source.
#[derive(Debug, Default)]
pub(super) struct Away {
    /// Milliseconds on the catalog's clock since which it is away; 0 while it is not.
    since: AtomicU64,
    /// Why, in words.
    trouble: ArcSwapOption<String>,
    /// What has been unread for longest.
    unread: ArcSwapOption<Unread>,
}

impl Away {
    /// It has been away since `since` milliseconds on the catalog's clock, which wraps round. True if that is news.
    pub(super) fn begin(&self, since: u64) -> bool {
        let first =
            self.since
                .compare_exchange(0, since.max(1), Ordering::AcqRel, Ordering::Acquire);
        first.is_ok()
    }

    /// It is here. True if that is news.
    pub(super) fn end(&self) -> bool {
        self.since.swap(0, Ordering::AcqRel) != 0
    }

    /// For how many milliseconds it has been away; `None` while it is not.
    pub(super) fn millis(&self, versions: &Versions) -> Option<u64> {
        match self.since.load(Ordering::Acquire) {
            0 => None,
            since => Some(versions.millis().wrapping_sub(since)),
        }
    }

    pub(super) fn explain(&self, trouble: Option<String>) {
        self.trouble.store(trouble.map(Arc::new));
    }

    pub(super) fn set_unread(&self, unread: Option<Unread>) {
        self.unread.store(unread.map(Arc::new));
    }

    pub(super) fn unread(&self, versions: &Versions) -> Option<(Arc<Unread>, u64)> {
        let unread = self.unread.load_full()?;
        let millis = versions.millis().saturating_sub(unread.since);
        (millis >= WHILE).then_some((unread, millis))
    }

    pub(super) fn trouble(&self) -> Option<Arc<String>> {
        self.trouble.load_full()
    }
}
