//! Whether somebody else is writing under our owner's name.
//!
//! What another process of ours wrote before this one began is our own past. What appears later
//! under the name of another process means that two of them run: each would take away what only
//! the other knows, for ever. So what a living one wrote is left as it is, and an operator is told.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::consul::AgentService;

use super::identity::WRITER;

/// A process that has written nothing for this long is our past as well: it may have been one
/// that ended just after this one began.
const CALM: Duration = Duration::from_secs(180);

/// Who wrote what bears our owner's name.
#[derive(Debug)]
pub(super) struct Writers {
    /// This process.
    me: String,
    /// Who wrote each service, as last seen; `None` before the first look.
    seen: Option<BTreeMap<String, String>>,
    /// Others that write, and when they last did.
    living: BTreeMap<String, Instant>,
}

impl Writers {
    pub(super) fn new(me: &str) -> Self {
        Self {
            me: me.to_owned(),
            seen: None,
            living: BTreeMap::new(),
        }
    }

    /// Takes note of all services of our owner, by ID, with their writers. Gives the writers that
    /// were not known to be alive.
    pub(super) fn observe(
        &mut self,
        services: BTreeMap<String, String>,
        now: Instant,
    ) -> Vec<String> {
        self.living
            .retain(|_, last| now.duration_since(*last) < CALM);
        let mut found = Vec::new();
        if let Some(seen) = &self.seen {
            for (id, writer) in &services {
                let is_news = *writer != self.me && seen.get(id) != Some(writer);
                if is_news && self.living.insert(writer.clone(), now).is_none() {
                    found.push(writer.clone());
                }
            }
        }
        self.seen = Some(services);
        found
    }

    /// More may be seen from now on than was before, which is no news then.
    pub(super) fn look_anew(&mut self) {
        self.seen = None;
    }

    /// This process has written a service.
    pub(super) fn wrote(&mut self, id: &str) {
        if let Some(seen) = &mut self.seen {
            seen.insert(id.to_owned(), self.me.clone());
        }
    }

    /// Did another one write this that still writes?
    pub(super) fn have(&self, service: &AgentService) -> bool {
        let writer = service.meta.get(WRITER);
        writer.is_some_and(|writer| self.is_living(writer))
    }

    /// Whether the writer is another process that is alive.
    pub(super) fn is_living(&self, writer: &str) -> bool {
        self.living.contains_key(writer)
    }

    /// How many others are alive.
    pub(super) fn living(&self) -> usize {
        self.living.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(id, writer): &(&str, &str)| ((*id).to_owned(), (*writer).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn the_past_is_no_other_writer() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        let past = [("a", "old"), ("b", "older")];
        assert!(writers.observe(services(&past), now).is_empty());
        writers.wrote("a");
        let taken_over = [("a", "me"), ("b", "older")];
        assert!(writers.observe(services(&taken_over), now).is_empty());
        assert!(!writers.is_living("old") && !writers.is_living("older"));
    }

    #[test]
    fn what_others_write_later_tells_them() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        writers.observe(services(&[("a", "me")]), now);
        // One that was ours, and one that is new.
        let found = writers.observe(services(&[("a", "x"), ("b", "x"), ("c", "y")]), now);
        assert_eq!(found, ["x", "y"]);
        assert!(writers.is_living("x") && writers.is_living("y"));
        // Told once.
        let found = writers.observe(services(&[("a", "x"), ("d", "x")]), now);
        assert!(found.is_empty());
        assert_eq!(writers.living(), 2);
    }

    #[test]
    fn what_could_not_be_seen_is_no_news() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        writers.observe(services(&[]), now);
        writers.look_anew();
        let found = writers.observe(services(&[("a", "old")]), now);
        assert!(found.is_empty() && !writers.is_living("old"));
        assert_eq!(writers.observe(services(&[("b", "x")]), now), ["x"]);
    }

    #[test]
    fn one_that_is_calm_is_the_past() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        writers.observe(services(&[]), now);
        writers.observe(services(&[("a", "x")]), now);
        writers.observe(services(&[("a", "x")]), now + CALM);
        assert!(!writers.is_living("x"));
        // Until it writes again.
        let again = services(&[("a", "x"), ("b", "x")]);
        assert_eq!(writers.observe(again, now + CALM), ["x"]);
    }
}
