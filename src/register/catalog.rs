//! Whether the servers have what the agent has. An agent brings them in line by itself, but not with a token that was
//! deleted since: then it says one thing to those who ask it and the catalog another, and the catalog keeps what has
//! gone. Registering anew gives it a token that works.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::debug;

use crate::consul::{Agent, AgentError, AgentService, Entered};

use super::checks::Checks;
use super::identity::{HASH, Identity};

/// What the servers do not have as the agent has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Drift {
    /// Services that they do not have, have otherwise, or have with another health.
    pub(super) behind: BTreeSet<String>,
    /// Services of ours that the agent does not have any more.
    pub(super) ghosts: BTreeMap<String, AgentService>,
}

impl Drift {
    /// Compares. `ours` are the services of the agent that are ours.
    fn between(
        ours: &BTreeMap<&String, &AgentService>,
        checks: &Checks,
        entered: &Entered,
        identity: &Identity,
        is_held: impl Fn(&str) -> bool,
    ) -> Self {
        let is_behind = |id: &str, service: &AgentService| {
            let other = entered.services.get(id);
            let is_same = other.is_some_and(|other| {
                other.name == service.name && other.meta.get(HASH) == service.meta.get(HASH)
            });
            !is_same || checks.differ(id, &entered.checks)
        };
        let behind = ours.iter().filter(|(id, own)| is_behind(id, own));
        let ghosts = entered
            .services
            .iter()
            .filter(|(id, own)| identity.owns(own) && !is_held(id));
        Self {
            behind: behind.map(|(id, _)| (*id).clone()).collect(),
            ghosts: ghosts.map(|(id, own)| (id.clone(), own.clone())).collect(),
        }
    }

    /// What both say.
    fn and(mut self, other: &Self) -> Self {
        self.behind.retain(|id| other.behind.contains(id));
        self.ghosts.retain(|id, _| other.ghosts.contains_key(id));
        self
    }
}

/// What the servers have of our node, asked for now and then, and what was seen of it before.
#[derive(Debug, Default)]
pub(super) struct Servers {
    before: Drift,
    /// What they have, as soon as they have said so.
    reading: Option<JoinHandle<Result<Option<Entered>, AgentError>>>,
    /// When they are to be asked again.
    next: Option<Instant>,
}

impl Servers {
    /// Asks them, if that is due. Nothing waits for the answer: without a leader there is none for a long time.
    pub(super) fn ask(&mut self, agent: &Agent, every: Duration) {
        let now = Instant::now();
        if self.reading.is_some() || self.next.is_some_and(|next| now < next) {
            return;
        }
        self.next = Some(now + every);
        let agent = agent.clone();
        self.reading = Some(tokio::spawn(async move {
            let node = agent.node().await?;
            agent.catalog(&node.name).await
        }));
    }

    /// What they have, if they have said so since the last time; `None` in it where the token may not know.
    pub(super) async fn said(&mut self) -> Option<Option<Entered>> {
        let reading = self.reading.take_if(|reading| reading.is_finished())?;
        match reading.await.ok()? {
            Ok(entered) => Some(entered),
            Err(error) => {
                debug!(%error, "cannot read what the servers have of this node");
                None
            }
        }
    }

    /// Takes note of what the servers have. Gives what they should have had since the last time: a moment's difference
    /// is usual. What is given once has to be seen twice again.
    pub(super) fn compare(
        &mut self,
        ours: &BTreeMap<&String, &AgentService>,
        checks: &Checks,
        entered: &Entered,
        identity: &Identity,
        is_held: impl Fn(&str) -> bool,
    ) -> Drift {
        let now = Drift::between(ours, checks, entered, identity, is_held);
        let lasting = now.clone().and(&self.before);
        self.before = now;
        self.before.behind.retain(|id| !lasting.behind.contains(id));
        self.before
            .ghosts
            .retain(|id, _| !lasting.ghosts.contains_key(id));
        lasting
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
        let held = BTreeMap::from([(&id, &own)]);
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
        let none = BTreeMap::new();
        for (ours, entered, expected) in [
            (&held, of_others(entered("1", "passing")), Drift::default()),
            (&held, entered("0", "passing"), behind.clone()),
            (&held, entered("1", "critical"), behind.clone()),
            (&held, Entered::default(), behind),
            (&none, of_others(entered("1", "passing")), ghost),
        ] {
            let mut servers = Servers::default();
            let checks = Checks::new(checks("passing"));
            let mut compare = || {
                let is_held = |id: &str| ours.contains_key(&id.to_owned());
                servers.compare(ours, &checks, &entered, &identity, is_held)
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
    }
}
