//! When a change is taken up: once nothing more has changed for a moment; and what was held back is tried again. And how
//! often HAProxy is reloaded.

use std::time::Duration;

use tokio::time::Instant;

/// A change is taken when there has been none for this long, and at the latest after that.
const QUIET: Duration = Duration::from_millis(250);
pub(super) const LATEST: Duration = Duration::from_secs(2);

/// Why a change is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Something that it asks for has to come first.
    Waiting,
    /// It is in the file, and HAProxy is not there to load it.
    Unloaded,
    /// It could not be found out whether it is right, or not be written.
    Failed,
    /// Part of it is loaded; the rest comes.
    Part,
    /// It is not taken; what was before goes on.
    Refused,
    /// The same, for the sake of keys that are refused from now on.
    KeysRefused,
    /// HAProxy has been reloaded so often of late that the next reload waits so long.
    Paced(Duration),
}

/// Reloads that need not wait for each other.
const AT_ONCE: u32 = 3;

/// How often HAProxy may be reloaded: each reload leaves a process behind that ends with its last connection.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    /// When all that were made would be made up for.
    free_at: Instant,
}

impl Pace {
    pub(super) fn new(every: Duration, now: Instant) -> Self {
        let free_at = now;
        Self { every, free_at }
    }

    /// How long the next reload has to wait.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let behind = self.free_at.saturating_duration_since(now);
        behind.saturating_sub(self.every * (AT_ONCE - 1))
    }

    /// There is a reload now.
    pub(super) fn take(&mut self, now: Instant) {
        self.free_at = self.free_at.max(now) + self.every;
    }
}

/// What becomes of what Consul says: of inputs `I`, each with a print that tells it from others.
pub(super) enum Rollout<I> {
    /// It is what HAProxy runs on, as far as Consul has said anything.
    Current,
    /// It has changed, and may change more in a moment.
    Gathering {
        input: (u64, I),
        first: Instant,
        last: Instant,
    },
    /// It is not what HAProxy runs on, and is tried again then.
    Held { until: Instant },
}

/// What it is time for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due<I> {
    /// To take up a change.
    Change(I),
    /// To try once more what there is now.
    Again,
}

impl<I> Rollout<I> {
    /// Consul says this; `taken` is the print of what was last taken up.
    pub(super) fn see(&mut self, print: u64, input: I, taken: Option<u64>, now: Instant) {
        let (seen, since) = match self {
            Self::Gathering { input, first, .. } => (Some(input.0), *first),
            Self::Current | Self::Held { .. } => (taken, now),
        };
        if seen != Some(print) {
            *self = Self::Gathering {
                input: (print, input),
                first: since,
                last: now,
            };
        }
    }

    /// What it is time for; it is asked once.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due<I>> {
        let is_ripe = match self {
            Self::Current => false,
            Self::Gathering { first, last, .. } => {
                now.duration_since(*last) >= QUIET || now.duration_since(*first) >= LATEST
            }
            Self::Held { until } => *until <= now,
        };
        if !is_ripe {
            return None;
        }
        match std::mem::replace(self, Self::Current) {
            Self::Gathering { input, .. } => Some(Due::Change(input.1)),
            Self::Current | Self::Held { .. } => Some(Due::Again),
        }
    }

    /// Then what there is is tried once more, unless it changes before.
    pub(super) fn hold(&mut self, until: Instant) {
        if !matches!(self, Self::Gathering { .. }) {
            *self = Self::Held { until };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(100);

    #[test]
    fn three_reloads_at_once_and_then_one_after_the_other() {
        let start = Instant::now();
        let every = Duration::from_secs(10);
        let mut pace = Pace::new(every, start);
        let mut made = Vec::new();
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            if pace.wait(now).is_zero() {
                pace.take(now);
                made.push(second);
            }
        }
        assert_eq!(made, [0, 1, 2, 10, 20, 30, 40, 50]);
        let later = start + Duration::from_secs(200);
        assert!(pace.wait(later).is_zero());
        let mut free = Pace::new(Duration::ZERO, start);
        for _ in 0..100 {
            assert!(free.wait(start).is_zero());
            free.take(start);
        }
    }

    #[test]
    fn a_change_is_taken_when_it_is_quiet() {
        let (mut rollout, start) = (Rollout::Current, Instant::now());
        assert_eq!(rollout.due(start), None);
        rollout.see(1, "a", None, start);
        rollout.see(2, "b", None, start + MOMENT);
        // The same again is nothing new.
        rollout.see(2, "b", None, start + 2 * MOMENT);
        assert_eq!(rollout.due(start + 3 * MOMENT), None);
        assert_eq!(rollout.due(start + MOMENT + QUIET), Some(Due::Change("b")));
        assert_eq!(rollout.due(start + LATEST), None, "it was asked once");
        rollout.see(2, "b", Some(2), start + LATEST);
        assert_eq!(rollout.due(start + 2 * LATEST), None, "it was taken");
    }

    #[test]
    fn what_never_rests_is_taken_all_the_same() {
        let (mut rollout, start) = (Rollout::Current, Instant::now());
        let mut taken = Vec::new();
        for step in 0..60 {
            let now = start + step * MOMENT;
            rollout.see(step.into(), step, None, now);
            taken.extend(rollout.due(now).map(|_| step));
        }
        assert_eq!(taken, [20, 41], "every two seconds");
    }

    #[test]
    fn what_is_held_is_tried_again_unless_it_changes() {
        let (mut rollout, start) = (Rollout::Current, Instant::now());
        rollout.hold(start + 10 * MOMENT);
        rollout.see(1, "a", Some(1), start);
        assert_eq!(rollout.due(start + MOMENT), None);
        assert_eq!(rollout.due(start + 10 * MOMENT), Some(Due::Again));
        assert_eq!(rollout.due(start + LATEST), None);

        rollout.hold(start + 100 * MOMENT);
        rollout.see(2, "b", Some(1), start);
        // What gathers comes sooner than what is tried again.
        rollout.hold(start + 100 * MOMENT);
        assert_eq!(rollout.due(start + QUIET), Some(Due::Change("b")));
    }
}
