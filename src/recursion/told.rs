//! From links to an answer: the chain from a name on, and for how long it may be said.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dns::{Answer, Name, Open, Rcode, Reach};

use super::Question;
use super::link::Link;
use super::scrub::Links;

/// Links of a chain that one answer has: no reply has as many.
const MAX_LINKS: usize = 4096;

/// What can be said to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The answer.
    pub answer: Answer,
    /// For how long it may be said to others: then something newer may be known. No time at all if it is
    /// for this one asker.
    pub holds: Duration,
}

impl Told {
    /// Said once.
    pub(super) fn once(answer: Answer) -> Self {
        let holds = Duration::ZERO;
        Self { answer, holds }
    }

    /// That there is no answer, and why.
    pub(super) fn failed(error: u16) -> Self {
        Self::once(Answer::failed(error))
    }
}

/// Links that are walked through in their order, from one to where it leads.
pub(super) struct Found<'a>(std::slice::Iter<'a, (Name, Arc<Link>)>);

impl<'a> Found<'a> {
    pub(super) fn new(links: &'a Links) -> Self {
        Self(links.iter())
    }

    pub(super) fn next(&mut self, name: &Name) -> Option<Arc<Link>> {
        let (_, link) = self.0.next().filter(|(own, _)| own == name)?;
        Some(Arc::clone(link))
    }
}

/// The answer that links make, from that of the question's name on, the first; `None` if that is not known.
pub(super) fn told(
    question: Question<'_>,
    now: Instant,
    mut link_at: impl FnMut(&Name, bool) -> Option<Arc<Link>>,
) -> Option<Told> {
    let mut answer = Answer {
        authentic: true,
        ..Answer::empty(Rcode::NOERROR, false)
    };
    let mut at = question.name.clone();
    let mut holds = Duration::MAX;
    let mut seen = HashSet::new();
    loop {
        let Some(link) = link_at(&at, seen.is_empty()) else {
            if seen.is_empty() {
                return None;
            }
            answer.authentic = false;
            answer.open.push(Open {
                to: at,
                of: None,
                max_ttl: u32::MAX,
                decides: true,
                reach: Reach::Recursive,
            });
            break;
        };
        link.tell(&at, now, &mut answer);
        holds = holds.min(link.look_again(now));
        let Some(next) = &link.alias else { break };
        seen.insert(at);
        if seen.len() == MAX_LINKS || seen.contains(next) {
            break;
        }
        at = next.clone();
    }
    for (of, record) in answer.answers.iter().enumerate() {
        // Whatever the upstream knows of its hosts it would have sent.
        answer.open.extend(record.data.host().map(|to| Open {
            to,
            of: Some(of),
            max_ttl: u32::MAX,
            decides: false,
            reach: Reach::House,
        }));
    }
    Some(Told { answer, holds })
}
