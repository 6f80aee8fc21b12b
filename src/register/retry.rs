//! Services that Consul refused: they are tried again ever more seldom, and never hold up others.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// First and longest pause of a service that was refused.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Why one service is not as it should be.
#[derive(Debug)]
struct Refusal {
    /// What was tried; anything else is tried at once.
    attempt: String,
    error: String,
    pause: Duration,
    until: Instant,
}

/// All services that were refused, by ID.
#[derive(Debug, Default)]
pub(super) struct Retries {
    refusals: BTreeMap<String, Refusal>,
}

impl Retries {
    /// Whether it is time for this attempt.
    pub(super) fn is_due(&self, id: &str, attempt: &str, now: Instant) -> bool {
        let refusal = self.refusals.get(id);
        refusal.is_none_or(|refusal| refusal.attempt != attempt || refusal.until <= now)
    }

    /// An attempt was refused. Gives whether that is news.
    pub(super) fn refused(&mut self, id: &str, attempt: &str, error: &str, now: Instant) -> bool {
        let before = self.refusals.remove(id);
        let before = before.filter(|before| before.attempt == attempt);
        let pause = before
            .as_ref()
            .map_or(FIRST, |before| (before.pause * 2).min(LONGEST));
        let is_news = before.is_none_or(|before| before.error != error);
        let refusal = Refusal {
            attempt: attempt.to_owned(),
            error: error.to_owned(),
            pause,
            until: now + pause,
        };
        self.refusals.insert(id.to_owned(), refusal);
        is_news
    }

    /// An attempt went well, or there is nothing to be done any more.
    pub(super) fn settled(&mut self, id: &str) {
        self.refusals.remove(id);
    }

    /// Only these are of interest still.
    pub(super) fn retain(&mut self, is_of_interest: impl Fn(&str) -> bool) {
        self.refusals.retain(|id, _| is_of_interest(id));
    }

    /// Whether it is refused.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.refusals.contains_key(id)
    }

    /// How many are refused.
    pub(super) fn len(&self) -> usize {
        self.refusals.len()
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.refusals.values().map(|refusal| refusal.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_waits_and_what_is_changed_does_not() {
        let now = Instant::now();
        let mut retries = Retries::default();
        assert!(retries.is_due("a", "1", now));
        assert!(retries.refused("a", "1", "no", now));
        assert!(!retries.is_due("a", "1", now));
        assert!(retries.is_due("a", "1", now + FIRST));
        assert!(retries.is_due("a", "2", now));
        assert!(retries.is_due("b", "1", now));
        // The same again is no news, and the pause doubles up to its longest.
        assert!(!retries.refused("a", "1", "no", now));
        assert_eq!(retries.next(), Some(now + FIRST * 2));
        for _ in 0..20 {
            retries.refused("a", "1", "no", now);
        }
        assert_eq!(retries.next(), Some(now + LONGEST));
        assert!(retries.refused("a", "1", "still no", now));
        retries.settled("a");
        assert!(retries.is_due("a", "1", now));
        assert_eq!((retries.len(), retries.next()), (0, None));
    }
}
