//! How fast a watch may go on: backoff after errors, a brake on a service in a storm (D18), and what the lists
//! of all services and nodes may cost.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// A service, or what lies under a key, may change this often in a second before it is slowed, and is then
/// read once in this time.
const SERVICE: Brake = Brake::new(10.0, Duration::from_millis(100));
const KEYS: Brake = Brake::new(50.0, Duration::from_millis(20));

/// What a list may cost on average: this part of the time of the server that makes it, which the time of a
/// read stands for.
const SHARE: f64 = 0.01;

/// And these parts of what lists may bring in a second. Nodes are many bytes and change seldom.
const OF_NAMES: f64 = 0.8;
const OF_NODES: f64 = 0.2;

/// A read takes this long whatever it brings, over a network or from a server with other work: that is no cost.
const LATENCY: Duration = Duration::from_millis(100);

/// A byte costs no server more than this many seconds, ten times what was measured. What a read takes beyond that
/// it waited for something else: a leader that is being elected, another question, a network.
const DEAREST_BYTE: f64 = 2e-6;

/// For so long what was not used of that is kept: changes that come one by one are seen at once.
const SAVED: Duration = Duration::from_secs(10);

/// A list that takes this long to pay for is followed: what it does not have is known not to exist. What is
/// found beyond a longer one is there sooner than the list.
const CHEAP: Duration = Duration::from_millis(2500);

/// A list that nobody changes is read anew after so many times of what it takes to pay for it, within these
/// limits; Consul gives up by itself after ten minutes.
const WAIT_FOR: f64 = 15.0;
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// First and longest pause after errors in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause where asking more is of no use: Consul itself is in trouble, whose end wakes
/// those who pause, or it refuses.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(5);

/// Failures that still count once Consul is well again. Were it none, a Consul that is well every
/// other moment would be asked for all there is in each of them.
const REMEMBERED: u32 = 2;

/// What a read came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// The length of the body.
    pub(super) bytes: usize,
    /// How long it took.
    pub(super) took: Duration,
    /// Consul may have waited for news first: it cost no more than it took, and perhaps much less.
    pub(super) may_have_waited: bool,
}

/// How often what went well may be read anew.
#[derive(Debug)]
enum Limit {
    /// So many times.
    Times(Brake),
    /// For as much as that.
    Budget(Budget),
}

/// So many at once, and then one in this time.
#[derive(Debug, Clone, Copy)]
struct Brake {
    burst: f64,
    slowed: Duration,
}

impl Brake {
    const fn new(burst: f64, slowed: Duration) -> Self {
        Self { burst, slowed }
    }
}

/// What a list may cost.
#[derive(Debug)]
struct Budget {
    /// Bytes in a second.
    bytes: f64,
    /// Part of the time.
    share: f64,
    /// Seconds that a byte took the last time that it was known.
    per_byte: f64,
    /// Seconds that the last read takes to be paid for.
    last: f64,
}

impl Budget {
    /// Seconds in which the read is paid for.
    fn price(&mut self, cost: &Cost) -> f64 {
        let bytes = cost.bytes as f64;
        let most = match cost.may_have_waited {
            true => self.per_byte,
            false => DEAREST_BYTE,
        };
        self.per_byte =
            (cost.took.saturating_sub(LATENCY).as_secs_f64() / bytes.max(1.0)).min(most);
        self.last = (bytes / self.bytes).max(bytes * self.per_byte / self.share);
        self.last
    }
}

/// The pace of one watch.
#[derive(Debug)]
pub(super) struct Pace {
    limit: Limit,
    /// Reads, or seconds of a budget, that may be spent at once. Below zero is a debt.
    saved: f64,
    filled: Instant,
    failures: u32,
}

impl Pace {
    pub(super) fn of_service() -> Self {
        Self::new(Limit::Times(SERVICE), SERVICE.burst)
    }

    pub(super) fn of_keys() -> Self {
        Self::new(Limit::Times(KEYS), KEYS.burst)
    }

    /// For the list of all services, where lists may bring so many bytes in a second.
    pub(super) fn of_names(bytes: u32) -> Self {
        Self::of_list(bytes, OF_NAMES)
    }

    /// The same for the list of all nodes.
    pub(super) fn of_nodes(bytes: u32) -> Self {
        Self::of_list(bytes, OF_NODES)
    }

    fn of_list(bytes: u32, part: f64) -> Self {
        let budget = Budget {
            bytes: f64::from(bytes) * part,
            share: SHARE * part,
            per_byte: 0.0,
            last: 0.0,
        };
        Self::new(Limit::Budget(budget), SAVED.as_secs_f64())
    }

    fn new(limit: Limit, saved: f64) -> Self {
        Self {
            limit,
            saved,
            filled: Instant::now(),
            failures: 0,
        }
    }

    /// The pause before the next read after one that went well.
    pub(super) fn after_success(&mut self, cost: &Cost) -> Duration {
        self.failures = 0;
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64();
        self.filled = now;
        let (gained, most, price, seconds) = match &mut self.limit {
            Limit::Times(Brake { burst, slowed }) => {
                let slowed = slowed.as_secs_f64();
                (gained / slowed, *burst, 1.0, slowed)
            }
            Limit::Budget(budget) => (gained, SAVED.as_secs_f64(), budget.price(cost), 1.0),
        };
        self.saved = (self.saved + gained).min(most) - price;
        // A debt is paid off by the pause.
        Duration::from_secs_f64((-self.saved * seconds).max(0.0))
    }

    /// Is it cheap enough for every change to be read?
    pub(super) fn is_cheap(&self) -> bool {
        match &self.limit {
            Limit::Times(_) => true,
            Limit::Budget(budget) => budget.last <= CHEAP.as_secs_f64(),
        }
    }

    /// How long Consul may hold the query with nothing new to say, if that is not to be `usual`.
    pub(super) fn longest_wait(&self, usual: Duration) -> Duration {
        match &self.limit {
            Limit::Times(_) => usual,
            Limit::Budget(budget) => {
                Duration::from_secs_f64(budget.last * WAIT_FOR).clamp(usual, LONGEST_WAIT)
            }
        }
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

    const FREE: Cost = Cost {
        bytes: 1000,
        took: Duration::ZERO,
        may_have_waited: true,
    };

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_slowed_and_a_calm_service_is_not() {
        let mut pace = Pace::of_service();
        let mut paused = Duration::ZERO;
        for _ in 0..30 {
            let pause = pace.after_success(&FREE);
            paused += pause;
            tokio::time::sleep(pause).await;
        }
        // Ten at once, then one in 100 ms.
        assert!((Duration::from_millis(1900)..=Duration::from_millis(2100)).contains(&paused));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(pace.after_success(&FREE), Duration::ZERO);
    }

    /// What the lists of 100, 1,000 and 10,000 services come to when something changes ten times a second.
    #[tokio::test(start_paused = true)]
    async fn a_list_costs_what_it_may() {
        for (bytes, took, cheap) in [
            (2_800, 1, true),
            (28_000, 8, true),
            (280_000, 80, false),
            (280_000, 600, false),
        ] {
            let mut pace = Pace::of_names(20_000);
            let start = Instant::now();
            let mut cost = Cost {
                bytes,
                took: Duration::from_millis(took),
                may_have_waited: false,
            };
            let mut reads = 0;
            while start.elapsed() < Duration::from_secs(600) {
                tokio::time::sleep(pace.after_success(&cost)).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
                // What Consul waits with says nothing of what it costs.
                cost.may_have_waited = true;
                cost.took = Duration::from_millis(took).max(Duration::from_secs(60));
                reads += 1;
            }
            let latency = LATENCY.as_millis() as f64;
            let per_second = |what: f64| f64::from(reads) * what / 600.0;
            assert!(per_second(bytes as f64) <= 16_500.0, "{reads} of {bytes}");
            assert!(
                per_second(took as f64 - latency) <= 9.0,
                "{reads} of {took} ms"
            );
            assert!(
                per_second(bytes as f64) >= 4_000.0,
                "{reads} of {bytes}: too slow"
            );
            assert_eq!(pace.is_cheap(), cheap, "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_come_one_by_one_are_read_at_once() {
        let mut pace = Pace::of_names(20_000);
        let cost = Cost {
            bytes: 2_800,
            took: Duration::from_millis(1),
            may_have_waited: false,
        };
        for _ in 0..20 {
            assert_eq!(pace.after_success(&cost), Duration::ZERO);
        }
        assert_eq!(
            pace.longest_wait(Duration::from_secs(30)),
            Duration::from_secs(30)
        );
        let mut pace = Pace::of_nodes(20_000);
        pace.after_success(&Cost {
            bytes: 1_200_000,
            ..cost
        });
        assert_eq!(pace.longest_wait(Duration::from_secs(30)), LONGEST_WAIT);
    }

    /// A first read that waits for a leader is no dear list, and a dear one that becomes cheap is seen to be.
    #[tokio::test(start_paused = true)]
    async fn what_a_read_waited_for_is_no_cost() {
        let mut pace = Pace::of_names(20_000);
        let mut cost = Cost {
            bytes: 500,
            took: Duration::from_secs(7),
            may_have_waited: false,
        };
        assert_eq!(pace.after_success(&cost), Duration::ZERO);
        assert!(pace.is_cheap());
        cost.bytes = 280_000;
        let dear = pace.after_success(&cost);
        assert!(dear < Duration::from_secs(75), "{dear:?}");
        tokio::time::sleep(dear).await;
        cost = Cost {
            took: Duration::from_millis(150),
            may_have_waited: true,
            ..cost
        };
        let cheaper = pace.after_success(&cost);
        assert!(cheaper < Duration::from_secs(20), "{cheaper:?}");
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
        pace.after_success(&FREE);
        assert!(pace.after_failure(LONGEST_PAUSE) <= FIRST_PAUSE);
    }
}
