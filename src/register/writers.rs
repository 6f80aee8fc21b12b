//! Whether somebody else is writing under our owner's name.
//!
//! What another process of ours wrote before this one began is our own past. What appears later
//! under the name of another process means that two of them run: each would take away what only
//! the other knows, for ever. So what a living one wrote is left as it is, and an operator is told.

use std::collections::{BTreeMap, BTreeSet};
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
    /// What we took away of others, with who had written it.
    removed: BTreeMap<String, String>,
    /// Others that have brought back what we took away: they are alive, however calm they are.
    lasting: BTreeSet<String>,
}

impl Writers {
    pub(super) fn new(me: &str) -> Self {
        Self {
            me: me.to_owned(),
            seen: None,
            living: BTreeMap::new(),
            removed: BTreeMap::new(),
            lasting: BTreeSet::new(),
        }
    }

    /// Takes note of all services that bear our owner's name, by ID, with their writers. Gives the writers of what is
    /// ours that were not known to be alive.
    pub(super) fn observe(
        &mut self,
        services: BTreeMap<String, String>,
        is_ours: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Vec<String> {
        let lasting = &self.lasting;
        self.living
            .retain(|writer, last| lasting.contains(writer) || now.duration_since(*last) < CALM);
        let mut found = Vec::new();
        if let Some(seen) = &self.seen {
            for (id, writer) in &services {
                let is_news = *writer != self.me && seen.get(id) != Some(writer) && is_ours(id);
                if is_news && self.removed.get(id) == Some(writer) {
                    self.lasting.insert(writer.clone());
                }
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

    /// This process has taken a service away: if it comes back, somebody else has brought it.
    pub(super) fn removed(&mut self, id: &str) {
        let seen = self.seen.as_mut().and_then(|seen| seen.remove(id));
        if let Some(writer) = seen.filter(|writer| *writer != self.me) {
            self.removed.insert(id.to_owned(), writer);
        }
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

    fn all(_: &str) -> bool {
        true
    }

    fn services(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(id, writer): &(&str, &str)| ((*id).to_owned(), (*writer).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn the_past_is_no_other_writer() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        let past = [("a", "old"), ("b", "older")];
        assert!(writers.observe(services(&past), all, now).is_empty());
        writers.wrote("a");
        let taken_over = [("a", "me"), ("b", "older")];
        assert!(writers.observe(services(&taken_over), all, now).is_empty());
        assert!(!writers.is_living("old") && !writers.is_living("older"));
    }

    #[test]
    fn what_others_write_later_tells_them() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        writers.observe(services(&[("a", "me")]), all, now);
        // One that was ours, and one that is new.
        let found = writers.observe(services(&[("a", "x"), ("b", "x"), ("c", "y")]), all, now);
        assert_eq!(found, ["x", "y"]);
        assert!(writers.is_living("x") && writers.is_living("y"));
        // Told once.
        let found = writers.observe(services(&[("a", "x"), ("d", "x")]), all, now);
        assert!(found.is_empty());
        assert_eq!(writers.living(), 2);
    }

    #[test]
    fn what_could_not_be_seen_is_no_news() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        writers.observe(services(&[]), all, now);
        writers.look_anew();
        let found = writers.observe(services(&[("a", "old")]), all, now);
        assert!(found.is_empty() && !writers.is_living("old"));
        assert_eq!(writers.observe(services(&[("b", "x")]), all, now), ["x"]);
    }

    #[test]
    fn one_that_is_calm_is_the_past() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        writers.observe(services(&[]), all, now);
        writers.observe(services(&[("a", "x")]), all, now);
        writers.observe(services(&[("a", "x")]), all, now + CALM);
        assert!(!writers.is_living("x"));
        // Until it writes again.
        let again = services(&[("a", "x"), ("b", "x")]);
        assert_eq!(writers.observe(again, all, now + CALM), ["x"]);
    }

    #[test]
    fn who_brings_back_what_we_took_away_is_alive_for_good() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        let theirs = [("a", "old"), ("b", "old")];
        assert!(writers.observe(services(&theirs), all, now).is_empty());
        writers.removed("a");
        assert!(writers.observe(services(&theirs[1..]), all, now).is_empty());
        assert_eq!(writers.observe(services(&theirs), all, now), ["old"]);
        writers.observe(services(&theirs), all, now + 2 * CALM);
        assert!(writers.is_living("old"));
    }

    /// A service may become ours without being written, when its container starts.
    #[test]
    fn what_becomes_ours_is_no_news() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        writers.observe(services(&[("a", "old")]), |_| false, now);
        let found = writers.observe(services(&[("a", "old")]), all, now);
        assert!(found.is_empty());
    }
}
