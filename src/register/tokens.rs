//! With which token the agent keeps up what is ours. It takes the one of a registration for all that it later tells the
//! servers of the service, so one that is to be deleted has to be replaced by registering anew, a few at a time.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::consul::TokenMark;

/// So many services are registered anew at a time, and how far apart.
const AT_ONCE: usize = 10;
const EVERY: Duration = Duration::from_secs(1);

/// The token, and whom its change concerns.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The last that was seen; `None` before the first.
    last: Option<TokenMark>,
    /// Services that the agent knows with one of before.
    outdated: VecDeque<String>,
    /// When the next of them are to be registered.
    next: Option<Instant>,
}

impl Tokens {
    /// Those of ours that are to be registered anew now, because the agent has them from another token than this.
    pub(super) fn outdated<'a>(
        &mut self,
        token: TokenMark,
        ours: impl Iterator<Item = &'a String>,
        now: Instant,
    ) -> BTreeSet<String> {
        let ours: BTreeSet<&String> = ours.collect();
        if self.last.as_ref().is_some_and(|last| *last != token) {
            self.outdated = ours.iter().copied().cloned().collect();
            self.next = Some(now);
        }
        self.last = Some(token);
        self.outdated.retain(|id| ours.contains(id));
        if self.outdated.is_empty() {
            self.next = None;
        }
        if self.next.is_none_or(|next| now < next) {
            return BTreeSet::new();
        }
        self.next = Some(now + EVERY);
        let due: BTreeSet<String> = self.outdated.iter().take(AT_ONCE).cloned().collect();
        // Those that are refused come last, and hold up nobody.
        self.outdated.rotate_left(due.len());
        due
    }

    /// Is it another token than the last?
    pub(super) fn is_other(&self, token: &TokenMark) -> bool {
        self.last.as_ref().is_some_and(|last| last != token)
    }

    /// The agent has been told of a service with the token of now.
    pub(super) fn told(&mut self, id: &str) {
        self.outdated.retain(|own| own != id);
    }

    /// When the next ones are due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_told_of_a_new_token_a_few_at_a_time() {
        let now = Instant::now();
        let ours: Vec<String> = (0..25).map(|number| format!("s{number:02}")).collect();
        let mut tokens = Tokens::default();
        let mark = |text: &'static str| TokenMark::of(text);
        let first = tokens.outdated(mark("a"), ours.iter(), now);
        assert!(
            first.is_empty() && tokens.next().is_none(),
            "nothing was before"
        );
        let mut told = BTreeSet::new();
        let mut sizes = Vec::new();
        for second in 0..4 {
            let now = now + second * EVERY;
            let due = tokens.outdated(mark("b"), ours.iter(), now);
            assert!(tokens.outdated(mark("b"), ours.iter(), now).is_empty());
            sizes.push(due.len());
            for id in due {
                tokens.told(&id);
                assert!(told.insert(id));
            }
        }
        assert_eq!(sizes, [10, 10, 5, 0]);
        assert!(tokens.next().is_none());
        // What is refused holds up nobody, and what has gone is forgotten.
        let due = |tokens: &mut Tokens, ours: &[String], second: u32| {
            tokens.outdated(mark("c"), ours.iter(), now + second * EVERY)
        };
        let (first, second) = (due(&mut tokens, &ours, 0), due(&mut tokens, &ours, 1));
        assert!(first.is_disjoint(&second) && second.len() == 10);
        assert!(due(&mut tokens, &[], 2).is_empty());
        assert!(tokens.next().is_none());
    }
}
