//! Queries that waited too long before they were read.
//!
//! Who sent one has given up on it or has asked again, and answering it lets those that came
//! since wait just as long: under a lasting overload every answer would be too late. So they are
//! dropped and counted. Asking the system when each datagram came costs a little for every one;
//! it is done only while a worker finds its batches full without a break.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;

/// A query that waited for longer is not answered. Resolvers ask again after a second or more.
pub(super) const LATE: Duration = Duration::from_millis(500);

/// How long batches are full before it is worth knowing how old they are.
const SUSPICIOUS: Duration = Duration::from_millis(200);

/// What one worker knows of how far it is behind.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    full_since: Option<Instant>,
}

impl Lateness {
    /// A batch has been taken. From now on, should the system tell when each datagram came?
    pub(super) fn batch(&mut self, is_full: bool) -> bool {
        if !is_full {
            self.full_since = None;
            return false;
        }
        let since = *self.full_since.get_or_insert_with(Instant::now);
        since.elapsed() > SUSPICIOUS
    }
}

/// Has a datagram that came then waited too long at `now`?
pub(super) fn is_late(came: TimeSpec, now: SystemTime) -> bool {
    let came = Duration::from(came);
    now.duration_since(UNIX_EPOCH)
        .is_ok_and(|now| now.saturating_sub(came) > LATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_later_than_half_a_second() {
        let came = TimeSpec::new(1000, 0);
        let after = |millis: u64| UNIX_EPOCH + Duration::from_millis(1_000_000 + millis);
        assert!(!is_late(came, after(500)));
        assert!(is_late(came, after(501)));
        // The clock went back in between.
        assert!(!is_late(came, UNIX_EPOCH));
    }

    #[test]
    fn only_a_lasting_backlog_is_suspicious() {
        let mut lateness = Lateness::default();
        assert!(!lateness.batch(true), "the first full batch");
        lateness.full_since = Instant::now().checked_sub(2 * SUSPICIOUS);
        assert!(lateness.batch(true));
        assert!(!lateness.batch(false), "the backlog is gone");
        assert!(!lateness.batch(true));
    }
}
