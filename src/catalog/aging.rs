//! Something that ages alone: its source is well, and cannot say anything about this one thing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A failure that is over within so many milliseconds is nobody's affair.
const MOMENT: u64 = 1000;

/// Since when there has been no usable answer about it.
#[derive(Debug, Default)]
pub(super) struct Aging {
    /// Milliseconds on the catalog's clock; 0 while there is.
    since: AtomicU64,
    /// That is no matter of a moment.
    is_visible: AtomicBool,
}

impl Aging {
    /// There was no usable answer, at `now` milliseconds on the catalog's clock. True if that shows from now on.
    pub(super) fn failed(&self, now: u64) -> bool {
        let first = now.max(1);
        let since = self
            .since
            .compare_exchange(0, first, Ordering::AcqRel, Ordering::Acquire);
        let since = since.err().unwrap_or(first);
        now.saturating_sub(since) >= MOMENT && !self.is_visible.swap(true, Ordering::AcqRel)
    }

    /// There was one. True if it shows no longer that there was none.
    pub(super) fn ended(&self) -> bool {
        // Who is asked for all the time writes nothing here.
        if self.since.load(Ordering::Acquire) == 0 {
            return false;
        }
        self.since.store(0, Ordering::Release);
        self.is_visible.swap(false, Ordering::AcqRel)
    }

    /// For how many milliseconds there has been none, where that shows.
    pub(super) fn millis(&self, now: u64) -> Option<u64> {
        let is_visible = self.is_visible.load(Ordering::Acquire);
        is_visible.then(|| now.saturating_sub(self.since.load(Ordering::Acquire)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_does_not_show() {
        let aging = Aging::default();
        assert!(!aging.ended());
        assert!(!aging.failed(5000));
        assert!(!aging.failed(5900));
        assert_eq!(aging.millis(5900), None);
        assert!(!aging.ended(), "it was but a moment");
        assert!(!aging.failed(7000), "it begins anew");
        assert!(aging.failed(8000));
        assert!(!aging.failed(9000), "it is told once");
        assert_eq!(aging.millis(10_000), Some(3000));
        assert!(aging.ended());
        assert_eq!(aging.millis(10_000), None);
    }
}
