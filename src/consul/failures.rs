//! Which watches have no good answer, and what the log is to say of it: one line for what befell one
//! watch, and one for what befell many.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::client::RequestError;

/// Watches that are named in the log in a minute because they failed in the same way. Of more of
/// them the number is told, and again when it has grown to four times that.
const NAMED: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// A watch that failed with Consul may take this long to come back with it, before its failure
/// counts as its own.
const GRACE: Duration = Duration::from_secs(5);

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// This watch has no good answer.
    One {
        path: String,
        error: String,
        is_over: bool,
    },
    /// So many watches have none, such as this one.
    Many {
        watches: usize,
        path: String,
        error: String,
        is_over: bool,
    },
}

/// What the log is to say when a watch has a good answer again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Nothing that anybody waits for.
    Quiet,
    /// The watch was named, and is well.
    One,
    /// It was one of many, and all of them are well.
    Many,
}

/// The watches of one realm that have no good answer.
#[derive(Debug)]
pub(super) struct Failures {
    failing: BTreeMap<String, Failing>,
    told: HashMap<&'static str, Told>,
    /// Consul itself is in trouble: what befalls a watch meanwhile is no news.
    is_common: bool,
    /// Since when it has been well, if it ever was not.
    well_since: Option<Instant>,
    /// Watches that failed in this common trouble.
    affected: usize,
}

#[derive(Debug)]
struct Failing {
    kind: &'static str,
    error: String,
    known: Known,
    /// It has had a good answer since, and only waits to be told.
    is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// To nobody yet.
    No,
    /// As a part of a common trouble.
    Excused,
    /// By name.
    Named,
    /// As one of many.
    Counted,
}

/// What befell of one kind in this minute, and what was told of it.
#[derive(Debug)]
struct Told {
    since: Instant,
    watches: usize,
    /// The number that was told last; 0 before there was one.
    number: usize,
}

impl Failures {
    pub(super) fn new() -> Self {
        Self {
            failing: BTreeMap::new(),
            told: HashMap::new(),
            is_common: false,
            well_since: None,
            affected: 0,
        }
    }

    /// A watch has no good answer. True if that is news.
    pub(super) fn failed(&mut self, path: &str, error: &RequestError, now: Instant) -> bool {
        let is_late = self
            .well_since
            .is_none_or(|since| now.duration_since(since) > GRACE);
        let is_own = !self.is_common && is_late;
        let news = |known| Failing {
            kind: error.kind(),
            error: error.to_string(),
            known,
            is_over: false,
        };
        match self.failing.get_mut(path) {
            None if self.is_common => {
                self.failing.insert(path.to_owned(), news(Known::Excused));
                self.affected += 1;
                false
            }
            None => {
                self.failing.insert(path.to_owned(), news(Known::No));
                true
            }
            Some(failing) if failing.known == Known::Excused && is_own => {
                *failing = news(Known::No);
                true
            }
            Some(failing) => {
                *failing = news(failing.known);
                false
            }
        }
    }

    /// A watch has a good answer.
    pub(super) fn answered(&mut self, path: &str) -> Again {
        let Some(failing) = self.failing.get_mut(path) else {
            return Again::Quiet;
        };
        let known = failing.known;
        if known == Known::No {
            failing.is_over = true;
            return Again::Quiet;
        }
        self.failing.remove(path);
        let is_counted = |failing: &Failing| failing.known == Known::Counted;
        match known {
            Known::Named => Again::One,
            Known::Counted if !self.failing.values().any(is_counted) => Again::Many,
            _ => Again::Quiet,
        }
    }

    /// A watch has ended.
    pub(super) fn forget(&mut self, path: &str) {
        self.failing.remove(path);
    }

    /// How many watches have no good answer now.
    pub(super) fn failing(&self) -> usize {
        let failing = self.failing.values();
        failing.filter(|failing| !failing.is_over).count()
    }

    /// Is Consul itself in trouble?
    pub(super) fn is_common(&self) -> bool {
        self.is_common
    }

    /// Consul itself is in trouble, and what is not known yet belongs to that.
    pub(super) fn begin(&mut self) {
        self.is_common = true;
        for failing in self.failing.values_mut() {
            if failing.known == Known::No {
                failing.known = Known::Excused;
                self.affected += 1;
            }
        }
        self.failing.retain(|_, failing| !failing.is_over);
    }

    /// Consul is well again. Gives how many watches failed meanwhile.
    pub(super) fn end(&mut self, now: Instant) -> usize {
        self.is_common = false;
        self.well_since = Some(now);
        std::mem::take(&mut self.affected)
    }

    /// Consul itself is well: what failed and is not known yet failed on its own, and is told.
    pub(super) fn tell(&mut self, now: Instant) -> Vec<Line> {
        let mut news: BTreeMap<&'static str, Vec<(&String, &mut Failing)>> = BTreeMap::new();
        for (path, failing) in &mut self.failing {
            if failing.known == Known::No {
                news.entry(failing.kind).or_default().push((path, failing));
            }
        }
        let mut lines = Vec::new();
        for (kind, mut watches) in news {
            let nothing = || Told {
                since: now,
                watches: 0,
                number: 0,
            };
            let told = self.told.entry(kind).or_insert_with(nothing);
            if now.duration_since(told.since) > MINUTE {
                *told = nothing();
            }
            told.watches += watches.len();
            let known = if told.watches > NAMED {
                Known::Counted
            } else {
                Known::Named
            };
            for (path, failing) in &mut watches {
                failing.known = known;
                if known == Known::Named {
                    lines.push(Line::One {
                        path: (*path).clone(),
                        error: failing.error.clone(),
                        is_over: failing.is_over,
                    });
                }
            }
            if let Some((path, failing)) = watches.first()
                && known == Known::Counted
                && told.watches >= 4 * told.number
            {
                told.number = told.watches;
                lines.push(Line::Many {
                    watches: told.watches,
                    path: (*path).clone(),
                    error: failing.error.clone(),
                    is_over: watches.iter().all(|(_, failing)| failing.is_over),
                });
            }
        }
        self.failing.retain(|_, failing| !failing.is_over);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> RequestError {
        RequestError::Transport("connection refused".to_owned())
    }

    /// Lets so many watches fail; gives whether the first was news.
    fn fail(failures: &mut Failures, numbers: std::ops::Range<usize>, now: Instant) -> bool {
        let news: Vec<bool> = numbers
            .map(|number| failures.failed(&format!("w{number}"), &refused(), now))
            .collect();
        news.first().copied().unwrap_or_default()
    }

    fn one(number: usize, is_over: bool) -> Line {
        Line::One {
            path: format!("w{number}"),
            error: "connection refused".to_owned(),
            is_over,
        }
    }

    #[test]
    fn one_is_named_and_many_are_counted() {
        let (mut failures, start) = (Failures::new(), Instant::now());
        assert!(fail(&mut failures, 0..1, start));
        assert!(!fail(&mut failures, 0..1, start), "it is failing already");
        assert_eq!(failures.tell(start), [one(0, false)]);
        assert_eq!(failures.tell(start), []);
        fail(&mut failures, 0..99, start);
        let lines = failures.tell(start);
        assert!(
            matches!(&lines[..], [Line::Many { watches: 99, .. }]),
            "{lines:?}"
        );
        // The minute is full of it, but not of something else.
        fail(&mut failures, 99..100, start);
        assert_eq!(failures.tell(start), []);
        failures.failed("other", &RequestError::TooLong, start);
        assert_eq!(failures.tell(start).len(), 1);
        fail(&mut failures, 100..101, start + 2 * MINUTE);
        assert_eq!(failures.tell(start + 2 * MINUTE), [one(100, false)]);

        assert_eq!(failures.failing(), 102);
        assert_eq!(failures.answered("w0"), Again::One);
        assert_eq!(failures.answered("w0"), Again::Quiet);
        for number in 1..99 {
            assert_eq!(failures.answered(&format!("w{number}")), Again::Quiet);
        }
        assert_eq!(failures.answered("w99"), Again::Many);
    }

    #[test]
    fn a_moment_is_told_as_well() {
        let (mut failures, start) = (Failures::new(), Instant::now());
        fail(&mut failures, 0..1, start);
        assert_eq!(failures.answered("w0"), Again::Quiet);
        assert_eq!(failures.failing(), 0);
        assert_eq!(failures.tell(start), [one(0, true)]);
        assert!(fail(&mut failures, 0..1, start), "it is another time");
        failures.forget("w0");
        assert_eq!(failures.tell(start), []);
    }

    #[test]
    fn what_fails_with_consul_is_told_if_it_stays_behind() {
        let (mut failures, start) = (Failures::new(), Instant::now());
        fail(&mut failures, 0..50, start);
        failures.begin();
        fail(&mut failures, 50..60, start);
        assert_eq!(failures.end(start), 60);
        let soon = start + GRACE / 2;
        assert!(!fail(&mut failures, 0..60, soon));
        assert_eq!(failures.tell(soon), []);
        for number in 1..60 {
            assert_eq!(failures.answered(&format!("w{number}")), Again::Quiet);
        }
        let late = start + GRACE * 2;
        assert!(fail(&mut failures, 0..1, late));
        assert_eq!(failures.tell(late), [one(0, false)]);
        failures.begin();
        assert_eq!(failures.end(late), 0, "it was known before");
    }
}
