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
    /// When the system began to tell, as long as what had come before is not all read.
    told_from: Option<SystemTime>,
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

    /// The system tells when each datagram comes, from now on.
    pub(super) fn told(&mut self, now: SystemTime) {
        self.told_from = Some(now);
    }

    /// Had a datagram waited too long when the system was asked for it?
    ///
    /// A datagram that was there before the system began to tell is said to have come when it is
    /// read. A full socket holds so many of them that reading them may take longer than anybody
    /// waits: they count as come when the telling began.
    pub(super) fn is_late(&mut self, came: TimeSpec, asked: SystemTime) -> bool {
        let Some(came) = UNIX_EPOCH.checked_add(Duration::from(came)) else {
            return false;
        };
        if came < asked {
            // It came after the telling began, and so did all behind it.
            self.told_from = None;
        }
        let came = self.told_from.unwrap_or(came);
        asked.duration_since(came).is_ok_and(|waited| waited > LATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many milliseconds after some time.
    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_000_000 + milliseconds)
    }

    fn told(time: SystemTime) -> TimeSpec {
        let since = time.duration_since(UNIX_EPOCH);
        TimeSpec::from(since.expect("after the epoch"))
    }

    #[test]
    fn what_waited_longer_than_half_a_second_is_late() {
        let mut lateness = Lateness::default();
        assert!(!lateness.is_late(told(at(0)), at(500)));
        assert!(lateness.is_late(told(at(0)), at(501)));
        // A clock that was set back makes nothing late.
        assert!(!lateness.is_late(told(at(900)), at(100)));
    }

    #[test]
    fn what_was_there_before_the_telling_came_before_it() {
        let mut lateness = Lateness::default();
        lateness.told(at(0));
        // The system says that they came just now, while they are read.
        assert!(!lateness.is_late(told(at(301)), at(300)));
        assert!(lateness.is_late(told(at(700)), at(700)));
        assert!(lateness.is_late(told(at(702)), at(701)));
        // The first that came while the system told, and one that comes while it is asked.
        assert!(!lateness.is_late(told(at(600)), at(701)));
        assert!(!lateness.is_late(told(at(801)), at(800)));
    }

    #[test]
    fn only_a_lasting_backlog_is_worth_knowing_how_old_it_is() {
        let mut lateness = Lateness::default();
        assert!(!lateness.batch(true), "the first full batch");
        lateness.full_since = Instant::now().checked_sub(2 * SUSPICIOUS);
        assert!(lateness.batch(true));
        assert!(!lateness.batch(false), "the backlog is gone");
        assert!(!lateness.batch(true));
    }
}
