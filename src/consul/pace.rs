//! How fast a watch may go on: backoff after errors, and a brake on a service in a storm (D18).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// A service may change this often in a second before it is slowed, and is then read once in this
/// time.
const SERVICE: (f64, Duration) = (10.0, Duration::from_millis(100));

/// The same for the lists of all services and all nodes, which change with every one of them.
const LISTS: (f64, Duration) = (50.0, Duration::from_millis(20));

/// First and longest pause after errors in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause where asking more is of no use: Consul itself is in trouble, whose end wakes
/// those who pause, or it refuses.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(5);

/// Failures that still count once Consul is well again. Were it none, a Consul that is well every
/// other moment would be asked for all there is in each of them.
const REMEMBERED: u32 = 2;

/// The pace of one watch.
#[derive(Debug)]
pub(super) struct Pace {
    burst: f64,
    slowed: Duration,
    tokens: f64,
    filled: Instant,
    failures: u32,
}

impl Pace {
    pub(super) fn of_service() -> Self {
        Self::new(SERVICE)
    }

    pub(super) fn of_lists() -> Self {
        Self::new(LISTS)
    }

    fn new((burst, slowed): (f64, Duration)) -> Self {
        Self {
            burst,
            slowed,
            tokens: burst,
            filled: Instant::now(),
            failures: 0,
        }
    }

    /// The pause before the next read after one that went well.
    pub(super) fn after_success(&mut self) -> Duration {
        self.failures = 0;
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() / self.slowed.as_secs_f64();
        self.filled = now;
        // Below zero is a debt, which the pause pays off.
        self.tokens = (self.tokens + gained).min(self.burst) - 1.0;
        self.slowed.mul_f64((-self.tokens).max(0.0))
    }

    /// The pause after an error: twice the one before, and somewhere in its upper half, so that
    /// many watches that failed together do not come back together.
    pub(super) fn after_failure(&mut self, longest: Duration) -> Duration {
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(16))
            .min(longest);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(0.5 + random_fraction() / 2.0)
    }

    /// Consul is well again: what failed while it was not says little about the next time.
    pub(super) fn start_anew(&mut self) {
        self.failures = self.failures.min(REMEMBERED);
    }
}

/// Somewhere in [0, 1). Good enough to spread things out, and for nothing else.
pub(super) fn random_fraction() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_slowed_and_a_calm_service_is_not() {
        let mut pace = Pace::of_service();
        let mut paused = Duration::ZERO;
        for _ in 0..30 {
            let pause = pace.after_success();
            paused += pause;
            tokio::time::sleep(pause).await;
        }
        // Ten at once, then one in 100 ms.
        assert!((Duration::from_millis(1900)..=Duration::from_millis(2100)).contains(&paused));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(pace.after_success(), Duration::ZERO);
    }

    #[test]
    fn errors_back_off_to_a_limit_and_success_starts_anew() {
        let mut pace = Pace::of_service();
        let pauses: Vec<Duration> = (0..40).map(|_| pace.after_failure(LONGEST_PAUSE)).collect();
        assert!(pauses[0] <= FIRST_PAUSE && pauses[0] >= FIRST_PAUSE / 2);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
        assert!(pauses[39] >= LONGEST_PAUSE / 2);
        pace.start_anew();
        assert!(pace.after_failure(LONGEST_PAUSE) <= 4 * FIRST_PAUSE);
        pace.after_success();
        assert!(pace.after_failure(LONGEST_PAUSE) <= FIRST_PAUSE);
    }
}
