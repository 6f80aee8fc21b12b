//! What is due when: services that Consul refused are tried again ever more seldom and never hold up
//! others; what a container's HEALTHCHECK tells is reported to the TTL check in Consul again and again.

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
    /// What was tried is not planned at every comparison: that it is not now says nothing.
    lasts: bool,
}

impl Refusal {
    /// Is it of no interest any more, although nobody has tried again?
    fn is_over(&self, now: Instant) -> bool {
        !self.lasts || now >= self.until + LONGEST
    }
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
    /// Where it `lasts`, it is not over because nobody tries it at the next comparison.
    pub(super) fn refused(
        &mut self,
        id: &str,
        attempt: &str,
        error: &str,
        lasts: bool,
        now: Instant,
    ) -> bool {
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
            lasts,
        };
        self.refusals.insert(id.to_owned(), refusal);
        is_news
    }

    /// What was said when the last attempt was refused, if it was.
    pub(super) fn error(&self, id: &str) -> Option<String> {
        self.refusals.get(id).map(|refusal| refusal.error.clone())
    }

    /// An attempt went well.
    pub(super) fn settled(&mut self, id: &str) {
        self.refusals.remove(id);
    }

    /// At this comparison there was nothing to be done.
    pub(super) fn stands(&mut self, id: &str, now: Instant) {
        if self
            .refusals
            .get(id)
            .is_some_and(|refusal| refusal.is_over(now))
        {
            self.refusals.remove(id);
        }
    }

    /// Only these are of interest still.
    pub(super) fn retain(&mut self, is_of_interest: impl Fn(&str) -> bool, now: Instant) {
        self.refusals
            .retain(|id, refusal| is_of_interest(id) || !refusal.is_over(now));
    }

    /// Whether it is refused.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.refusals.contains_key(id)
    }

    /// How many are refused.
    pub(super) fn len(&self) -> usize {
        self.refusals.len()
    }

    /// When the next one is due. What is not planned at every comparison is due when it is planned again.
    pub(super) fn next(&self) -> Option<Instant> {
        let planned = self.refusals.values().filter(|refusal| !refusal.lasts);
        planned.map(|refusal| refusal.until).min()
    }
}

/// For how long the agent believes a report: a registrar that is gone makes its health checks
/// critical after this. Containers without HEALTHCHECK are not concerned.
pub(super) const TTL: &str = "180s";

/// How often the same is reported again, twice within that. The agent keeps that to itself: nothing reaches the
/// servers, and no watch wakes. A hundred services cost the agent little more than a request a second.
const EVERY: Duration = Duration::from_secs(80);

/// What is due so soon is reported with what is due now: no service makes anybody look for it alone.
const SOON: Duration = Duration::from_secs(10);

/// What goes with a status. Any other text would reach the servers once more; what a probe prints
/// stays in Docker, where it may hold anything.
pub(super) const OUTPUT: &str = "";

/// For how long a container that is paused is taken to be as it was: `docker commit` pauses it for moments.
const PAUSE: Duration = Duration::from_secs(5);

/// What was reported of each service, by ID.
#[derive(Debug, Default)]
pub(super) struct HealthReports {
    sent: BTreeMap<String, (String, Instant)>,
    /// Since when those are paused that were not when something was last reported of them.
    paused: BTreeMap<String, Instant>,
}

impl HealthReports {
    /// Whether this is to be reported now.
    pub(super) fn is_due(&self, id: &str, status: &str, now: Instant) -> bool {
        let sent = self.sent.get(id);
        sent.is_none_or(|(said, when)| said != status || now.duration_since(*when) + SOON >= EVERY)
    }

    /// Is it too early to say that its container is paused? Nothing is reported of it then.
    pub(super) fn is_held(&mut self, id: &str, is_paused: bool, now: Instant) -> bool {
        if !is_paused || !self.sent.contains_key(id) {
            self.paused.remove(id);
            return false;
        }
        let since = *self.paused.entry(id.to_owned()).or_insert(now);
        now.duration_since(since) < PAUSE
    }

    /// It was reported.
    pub(super) fn sent(&mut self, id: &str, status: &str, now: Instant) {
        self.sent.insert(id.to_owned(), (status.to_owned(), now));
    }

    /// What was reported is not known any more.
    pub(super) fn forget(&mut self, id: &str) {
        self.sent.remove(id);
    }

    /// Only these are of interest still.
    pub(super) fn retain(&mut self, is_of_interest: impl Fn(&str) -> bool) {
        self.sent.retain(|id, _| is_of_interest(id));
        self.paused.retain(|id, _| is_of_interest(id));
    }

    /// When the next report is due.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let due = self.sent.iter().map(|(id, (_, when))| {
            let held = self.paused.get(id).map(|since| *since + PAUSE);
            held.filter(|until| *until > now).unwrap_or(*when + EVERY)
        });
        due.min()
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
        assert!(retries.refused("a", "1", "no", false, now));
        assert!(!retries.is_due("a", "1", now));
        assert!(retries.is_due("a", "1", now + FIRST));
        assert!(retries.is_due("a", "2", now));
        assert!(retries.is_due("b", "1", now));
        // The same again is no news, and the pause doubles up to its longest.
        assert!(!retries.refused("a", "1", "no", false, now));
        assert_eq!(retries.next(), Some(now + FIRST * 2));
        for _ in 0..20 {
            retries.refused("a", "1", "no", false, now);
        }
        assert_eq!(retries.next(), Some(now + LONGEST));
        assert!(retries.refused("a", "1", "still no", false, now));
        retries.settled("a");
        assert!(retries.is_due("a", "1", now));
        assert_eq!((retries.len(), retries.next()), (0, None));
    }

    /// What is planned now and then is refused until well after its pause, and never makes anybody look at once.
    #[test]
    fn a_refusal_outlives_comparisons_that_do_not_try() {
        let now = Instant::now();
        let mut retries = Retries::default();
        assert!(retries.refused("a", "1", "no", true, now));
        retries.stands("a", now + FIRST);
        retries.retain(|_| false, now + FIRST);
        assert_eq!((retries.len(), retries.next()), (1, None));
        assert!(!retries.refused("a", "1", "no", true, now + FIRST));
        retries.stands("a", now + 4 * FIRST + LONGEST);
        assert_eq!(retries.len(), 0);
        retries.refused("b", "1", "no", false, now);
        retries.stands("b", now);
        assert_eq!(retries.len(), 0);
    }

    #[test]
    fn a_pause_is_told_when_it_lasts() {
        let now = Instant::now();
        let mut reports = HealthReports::default();
        assert!(!reports.is_held("new", true, now), "nothing was said of it");
        reports.sent("a", "passing", now);
        assert!(reports.is_held("a", true, now));
        assert_eq!(reports.next(now), Some(now + PAUSE));
        assert!(reports.is_held("a", true, now + PAUSE / 2));
        assert!(!reports.is_held("a", true, now + PAUSE));
        assert!(reports.is_due("a", "critical", now + PAUSE));
        assert!(!reports.is_due("a", "passing", now + EVERY - 2 * SOON));
        assert!(
            reports.is_due("a", "passing", now + EVERY - SOON),
            "with those that are due"
        );
        reports.sent("a", "critical", now + PAUSE);
        assert_eq!(reports.next(now + PAUSE), Some(now + PAUSE + EVERY));
        // It goes on, and is paused again later.
        assert!(!reports.is_held("a", false, now + 2 * PAUSE));
        assert!(reports.is_held("a", true, now + 3 * PAUSE));
    }
}
