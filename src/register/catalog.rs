//! Whether the servers have what the agent has. An agent brings them in line by itself, but not with a token that was
//! deleted since: then it says one thing to those who ask it and the catalog another, and the catalog keeps what has
//! gone. Registering anew gives it a token that works.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::debug;

use crate::consul::{Agent, AgentError, AgentService, Entered};

use super::checks::{Checks, own_check};
use super::identity::{HASH, Identity};

/// So many are registered anew at a time.
const AT_ONCE: usize = 10;

/// A service as one of the two has it: the hash that it was registered with, and the status of its own check. Checks of
/// others are theirs to repair.
type State = (Option<String>, Option<String>);

/// What the servers do not have as the agent has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Drift {
    /// Services that they do not have, have otherwise, or have with another health.
    pub(super) behind: BTreeSet<String>,
    /// Services of ours that the agent does not have any more.
    pub(super) ghosts: BTreeMap<String, AgentService>,
}

/// Differences, with what makes each of them.
#[derive(Debug, Default)]
struct Differences {
    behind: BTreeMap<String, (State, Option<State>)>,
    ghosts: BTreeMap<String, AgentService>,
}

impl Differences {
    /// Is there anything?
    fn len(&self) -> usize {
        self.behind.len() + self.ghosts.len()
    }

    /// What is the same in both.
    fn and(&self, other: &Self) -> Self {
        let mut both = Self {
            behind: self.behind.clone(),
            ghosts: self.ghosts.clone(),
        };
        both.behind
            .retain(|id, what| other.behind.get(id) == Some(what));
        both.ghosts.retain(|id, _| other.ghosts.contains_key(id));
        both
    }
}

/// What the agent has of ours, by ID.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held(BTreeMap<String, State>);

impl Held {
    pub(super) fn new<'a>(
        ours: impl Iterator<Item = (&'a String, &'a AgentService)>,
        checks: &Checks,
    ) -> Self {
        let state = |(id, service): (&String, &AgentService)| {
            let status = checks.own(id).map(str::to_owned);
            (id.clone(), (service.meta.get(HASH).cloned(), status))
        };
        Self(ours.map(state).collect())
    }
}

/// What the servers are being asked.
type Reading = JoinHandle<Result<Option<Entered>, AgentError>>;

/// What the servers have of our node, asked for now and then, and what was seen of it before.
#[derive(Debug, Default)]
pub(super) struct Servers {
    before: Differences,
    /// What they have, as soon as they have said so; and what the agent had when they were asked.
    reading: Option<(Held, Reading)>,
    /// When they are to be asked again.
    next: Option<Instant>,
    /// How much differs, and did so before.
    standing: usize,
}

impl Servers {
    /// Asks them, if that is due. Nothing waits for the answer: without a leader there is none for a long time.
    pub(super) fn ask(&mut self, agent: &Agent, held: Held, every: Duration) {
        let now = Instant::now();
        if self.reading.is_some() || self.next.is_some_and(|next| now < next) {
            return;
        }
        self.next = Some(now + every);
        let agent = agent.clone();
        let reading = tokio::spawn(async move {
            let read = async {
                let node = agent.node().await?;
                agent.catalog(&node.name).await
            };
            match read.await {
                Err(error) if error.is_forbidden() => Ok(None),
                read => read,
            }
        });
        self.reading = Some((held, reading));
    }

    /// What they have, if they have said so since the last time, with what the agent had when they were asked; `None`
    /// in it where the token may not know.
    pub(super) async fn said(&mut self) -> Option<(Held, Option<Entered>)> {
        let is_finished = |(_, reading): &mut (_, JoinHandle<_>)| reading.is_finished();
        let (held, reading) = self.reading.take_if(is_finished)?;
        self.standing = 0;
        match reading.await.ok()? {
            Ok(entered) => Some((held, entered)),
            Err(error) => {
                debug!(%error, "cannot read what the servers have of this node");
                None
            }
        }
    }

    /// How many services differ, and did so the time before.
    pub(super) fn standing(&self) -> usize {
        self.standing
    }

    /// Compares what the agent has `now`, and had when the servers were `asked`, with what they have. Gives what is
    /// the same as the last time: a moment's difference is usual. What is given once has to be seen twice again.
    pub(super) fn compare(
        &mut self,
        now: &Held,
        asked: &Held,
        entered: &Entered,
        identity: &Identity,
        is_held: impl Fn(&str) -> bool,
    ) -> Drift {
        let theirs = |id: &str| -> Option<State> {
            let service = entered.services.get(id)?;
            let check = entered.checks.get(&own_check(id));
            let status = check.map(|check| check.status.clone());
            Some((service.meta.get(HASH).cloned(), status))
        };
        // What has changed since they were asked says nothing.
        let steady = now
            .0
            .iter()
            .filter(|(id, state)| asked.0.get(*id) == Some(state));
        let differing = steady.filter_map(|(id, state)| {
            let theirs = theirs(id);
            let is_same = theirs.as_ref() == Some(state);
            (!is_same).then(|| (id.clone(), (state.clone(), theirs)))
        });
        let ghosts = entered
            .services
            .iter()
            .filter(|(id, own)| identity.owns(own) && !is_held(id));
        let found = Differences {
            behind: differing.collect(),
            ghosts: ghosts.map(|(id, own)| (id.clone(), own.clone())).collect(),
        };
        let mut lasting = found.and(&self.before);
        self.standing = lasting.len();
        lasting.behind = lasting.behind.into_iter().take(AT_ONCE).collect();
        lasting.ghosts = lasting.ghosts.into_iter().take(AT_ONCE).collect();
        self.before = found;
        self.before
            .behind
            .retain(|id, _| !lasting.behind.contains_key(id));
        self.before
            .ghosts
            .retain(|id, _| !lasting.ghosts.contains_key(id));
        Drift {
            behind: lasting.behind.into_keys().collect(),
            ghosts: lasting.ghosts,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::consul::AgentCheck;
    use crate::register::identity::OWNER;

    use super::*;

    fn service(hash: &str) -> AgentService {
        let meta = [(OWNER, "me"), (HASH, hash)];
        AgentService {
            name: "web".to_owned(),
            meta: meta
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..AgentService::default()
        }
    }

    fn checks(status: &str) -> BTreeMap<String, AgentCheck> {
        let check = AgentCheck {
            status: status.to_owned(),
            output: String::new(),
            service: "a".to_owned(),
        };
        BTreeMap::from([("service:a".to_owned(), check)])
    }

    #[test]
    fn what_lasts_is_told_once_in_a_while() {
        let identity = Identity::new("me");
        let (id, own) = ("a".to_owned(), service("1"));
        let entered = |hash: &str, status: &str| Entered {
            services: BTreeMap::from([(id.clone(), service(hash))]),
            checks: checks(status),
        };
        let of_others = |mut entered: Entered| {
            entered
                .services
                .insert("theirs".to_owned(), AgentService::default());
            entered
        };
        let behind = Drift {
            behind: BTreeSet::from([id.clone()]),
            ..Drift::default()
        };
        let ghost = Drift {
            ghosts: BTreeMap::from([(id.clone(), service("1"))]),
            ..Drift::default()
        };
        let all = Held::new([(&id, &own)].into_iter(), &Checks::new(checks("passing")));
        let ill = Held::new([(&id, &own)].into_iter(), &Checks::new(checks("critical")));
        let none = Held::default();
        for (now, asked, entered, expected) in [
            (
                &all,
                &all,
                of_others(entered("1", "passing")),
                Drift::default(),
            ),
            (&all, &all, entered("0", "passing"), behind.clone()),
            (&all, &all, entered("1", "critical"), behind.clone()),
            (&all, &all, Entered::default(), behind),
            // It has changed since they were asked.
            (&all, &ill, entered("1", "critical"), Drift::default()),
            (&none, &none, of_others(entered("1", "passing")), ghost),
        ] {
            let mut servers = Servers::default();
            let mut compare = || {
                let is_held = |id: &str| now.0.contains_key(id);
                servers.compare(now, asked, &entered, &identity, is_held)
            };
            assert_eq!(compare(), Drift::default(), "it may be on its way");
            assert_eq!(compare(), expected);
            assert_eq!(
                compare(),
                Drift::default(),
                "what is done about it takes its time"
            );
            assert_eq!(compare(), expected);
        }
        // Another difference each time is none that lasts.
        let mut servers = Servers::default();
        for status in ["critical", "warning", "critical"] {
            let entered = entered("1", status);
            let drift = servers.compare(&all, &all, &entered, &identity, |_| true);
            assert_eq!(drift, Drift::default(), "{status}");
        }
    }
}
