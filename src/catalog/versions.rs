//! The catalog's clock, its versions, and its epoch. A catalog and its layers share one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What tells old from new in one catalog.
#[derive(Debug)]
pub struct Versions {
    started: Instant,
    /// The version that is given out next. Versions are unique within a catalog, so that an answer
    /// that remembers one can never take the value of a slot that was dropped and made anew for its
    /// own.
    next: AtomicU64,
    /// Moves when something changes that any answer may depend on: a source comes or goes, a source
    /// that publishes everything has new data, datacenters change, the operator's settings change.
    epoch: AtomicU64,
}

impl Versions {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            next: AtomicU64::new(1),
            epoch: AtomicU64::new(1),
        }
    }

    /// Milliseconds on the catalog's clock, which never goes back. It starts at one second: 0 stands
    /// for never.
    pub fn millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1000
    }

    /// Seconds on the same clock.
    pub fn seconds(&self) -> u64 {
        self.millis() / 1000
    }

    /// Makes every answer of before out of date. For what changes seldom; call it after the change.
    pub fn new_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// When it has not moved, nothing has that bears a version.
    pub(super) fn latest(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Takes the next version. What it marks must be there before.
    pub(super) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::AcqRel)
    }
}
