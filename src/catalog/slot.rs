//! A place for one published value, with its version, its age, and a way to wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::{Service, millis};

/// Versions are unique within the process, so a rendered answer that remembers one can never take
/// the value of a slot that was dropped and made anew for its own.
static NEXT_VERSION: AtomicU64 = AtomicU64::new(1);

/// After a refresh that failed, the old value is served without waiting for this long.
const EXCUSED_MILLIS: u64 = 1000;

/// The latest of all versions: when it has not moved, nothing has that bears one.
pub(super) fn latest_version() -> u64 {
    NEXT_VERSION.load(Ordering::Acquire)
}

/// Takes the next version number. What it marks must be there before.
pub(super) fn next_version() -> u64 {
    NEXT_VERSION.fetch_add(1, Ordering::AcqRel)
}

/// Says "it is here" to everybody who waits for it, as often as it comes.
#[derive(Debug)]
pub(super) struct Gate(watch::Sender<u64>);

impl Gate {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(super) fn open(&self) {
        self.0.send_modify(|times| *times += 1);
    }

    pub(super) fn has_opened(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Waits for the next time. Who looked for the thing before must look again after this, or it
    /// may have come in between.
    pub(super) fn pending(&self) -> Pending {
        let receiver = self.0.subscribe();
        let seen = *receiver.borrow();
        Pending {
            receiver,
            seen,
            has_old: false,
        }
    }
}

/// Something that is being loaded.
#[derive(Debug, Clone)]
pub struct Pending {
    receiver: watch::Receiver<u64>,
    seen: u64,
    has_old: bool,
}

impl Pending {
    /// There is something old to be had instead.
    pub fn has_old(&self) -> bool {
        self.has_old
    }

    pub(super) fn instead_of_old(self) -> Self {
        Self {
            has_old: true,
            ..self
        }
    }

    /// Waits until it is loaded, at most `within`. False if it is still not, or never will be.
    pub async fn wait(mut self, within: Duration) -> bool {
        let seen = self.seen;
        matches!(
            tokio::time::timeout(within, self.receiver.wait_for(|times| *times > seen)).await,
            Ok(Ok(_))
        )
    }
}

/// Where one service is published.
#[derive(Debug)]
pub struct Slot {
    value: ArcSwapOption<Service>,
    version: AtomicU64,
    /// Seconds on the catalog's clock at which it was last asked for.
    asked: AtomicU64,
    /// Milliseconds at which its source last confirmed the value; 0 for never.
    confirmed: AtomicU64,
    /// Until when the value is served although it could not be confirmed.
    excused: AtomicU64,
    /// The source tells of every change by itself.
    watched: AtomicBool,
    /// An interest has been left with the source.
    wanted: AtomicBool,
    gate: Gate,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            value: ArcSwapOption::empty(),
            version: AtomicU64::new(next_version()),
            asked: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            excused: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            gate: Gate::new(),
        }
    }

    /// What is published, if anything is yet, with its version. The version may be older than the
    /// value, never newer: who remembers it notices a change too often rather than never.
    pub fn get(&self) -> Option<(u64, Arc<Service>)> {
        let version = self.version();
        self.value.load_full().map(|service| (version, service))
    }

    /// The version of what is published; moves whenever that changes, and when it begins to age.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Publishes a service. False, and nothing moves, if it is equal to what is published.
    pub(super) fn publish(&self, service: Service) -> bool {
        let changed = self.value.load().as_deref() != Some(&service);
        if changed {
            self.value.store(Some(Arc::new(service)));
            self.version.store(next_version(), Ordering::Release);
        }
        self.confirm();
        changed
    }

    /// Puts back what was known in an earlier life, not confirmed by anybody since.
    pub(super) fn restore(&self, service: Service) {
        self.value.store(Some(Arc::new(service)));
        self.version.store(next_version(), Ordering::Release);
    }

    /// The source says that the value still holds.
    pub fn confirm(&self) {
        self.confirmed.store(millis(), Ordering::Release);
        self.end_interest();
    }

    /// The source could not say; what was known is served for a while, and then asked for again.
    pub fn excuse(&self) {
        let until = millis() + EXCUSED_MILLIS;
        self.excused.store(until, Ordering::Release);
        self.end_interest();
    }

    fn end_interest(&self) {
        self.wanted.store(false, Ordering::Release);
        self.gate.open();
    }

    /// The source will tell of every change by itself, or no longer does: then what was made of
    /// the value must be looked at again, since from now on it ages.
    pub fn set_watched(&self, watched: bool) {
        if self.watched.swap(watched, Ordering::AcqRel) && !watched {
            self.version.store(next_version(), Ordering::Release);
        }
    }

    /// Does the source tell of every change by itself?
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }

    /// How long ago the value was confirmed, in milliseconds; 0 if it need not be.
    pub(super) fn age(&self) -> u64 {
        let now = millis();
        if self.is_watched() || now < self.excused.load(Ordering::Acquire) {
            return 0;
        }
        now.saturating_sub(self.confirmed.load(Ordering::Acquire))
    }

    /// Makes every answer that depends on this slot out of date, and sends those who wait for it
    /// back to the catalog: the service is no longer here.
    pub(super) fn retire(&self) {
        self.version.store(next_version(), Ordering::Release);
        self.gate.open();
    }

    /// True for the one caller that is to leave the interest.
    pub(super) fn claim_interest(&self) -> bool {
        !self.wanted.swap(true, Ordering::AcqRel)
    }

    /// The interest could not be left; the next question tries again.
    pub(super) fn unclaim_interest(&self) {
        self.wanted.store(false, Ordering::Release);
    }

    /// Notes that it was asked for, at `now` seconds.
    pub(super) fn touch(&self, now: u64) {
        // Only a later second is written: questions in the same second share the cache line.
        if self.asked.load(Ordering::Relaxed) < now {
            self.asked.store(now, Ordering::Relaxed);
        }
    }

    /// When it was last asked for, in seconds on the catalog's clock.
    pub fn last_asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn pending(&self) -> Pending {
        self.gate.pending()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_service_moves_no_version() {
        let slot = Slot::new();
        assert!(slot.publish(Service::new(Vec::new())));
        let version = slot.version();
        assert!(!slot.publish(Service::new(Vec::new())));
        assert_eq!(slot.version(), version);
    }

    #[tokio::test]
    async fn a_waiter_is_released_by_the_next_value() {
        let slot = Slot::new();
        assert!(!slot.pending().wait(Duration::ZERO).await);
        let early = slot.pending();
        slot.publish(Service::new(Vec::new()));
        assert!(early.wait(Duration::from_secs(5)).await);
        assert!(!slot.pending().wait(Duration::ZERO).await);
        let again = slot.pending();
        slot.confirm();
        assert!(again.wait(Duration::from_secs(5)).await);
    }

    #[test]
    fn a_value_ages_unless_it_is_watched_or_excused() {
        let slot = Slot::new();
        slot.restore(Service::new(Vec::new()));
        assert!(slot.age() >= 1000, "never confirmed");
        slot.excuse();
        assert_eq!(slot.age(), 0);
        let slot = Slot::new();
        slot.set_watched(true);
        assert_eq!(slot.age(), 0);
    }
}
