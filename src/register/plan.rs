//! What has to be done so that the agent holds what should be registered; also as a table for people.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::consul::AgentService;

use super::heritage::LegacyId;
use super::identity::{CONTAINER, HASH, Identity};
use super::wanted::{Wanted, endpoint};
use super::writers::Writers;

/// What is known beside the two sides that are compared.
#[derive(Debug)]
pub(super) struct Circumstances<'a> {
    /// Who we are.
    pub(super) identity: &'a Identity,
    /// Services that are ours, by ID.
    pub(super) ours: &'a BTreeSet<String>,
    /// Who else writes under our owner's name.
    pub(super) writers: &'a Writers,
    /// Take over what Registrator registered as this host.
    pub(super) adopt: Option<&'a str>,
    /// Containers whose services stay as they are, ID to name.
    pub(super) kept: &'a BTreeMap<String, String>,
    /// Services whose check has been lost, by ID.
    pub(super) damaged: &'a BTreeSet<String>,
    /// Services that the servers do not have as the agent has them, by ID.
    pub(super) unsynced: &'a BTreeSet<String>,
    /// Services that the agent knows with a token of before, by ID.
    pub(super) outdated: &'a BTreeSet<String>,
}

/// What is done with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is registered, or registered anew.
    Register,
    /// It is deregistered.
    Deregister,
    /// It is as it should be.
    Keep,
    /// It is somebody else's, and what we would do is left undone.
    Leave,
}

/// Why it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is not registered.
    New,
    /// It is registered otherwise.
    Changed,
    /// Its health check has been taken away.
    CheckLost,
    /// The agent is to keep it up with another token.
    NewToken,
    /// The servers have not heard of it from the agent.
    Unsynced,
    /// The agent does not have it, and the servers do.
    Ghost,
    /// Registrator registered it.
    Adopted,
    /// Its container does not run.
    Gone,
    /// It is registered as it should be.
    Unchanged,
    /// Its container ended with an error, or nothing is known of it.
    ContainerKept,
    /// It does not bear our owner's name.
    NotOurs,
    /// It bears our engine's ID and is of a host with another name.
    Namesake,
    /// Another process writes it under our owner's name.
    OtherWriter,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Register => "register",
            Self::Deregister => "deregister",
            Self::Keep => "keep",
            Self::Leave => "leave",
        })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::CheckLost => "its check is gone",
            Self::NewToken => "the token has changed",
            Self::Unsynced => "Consul's servers do not have it as the agent has it",
            Self::Ghost => "Consul's servers have it, and the agent does not",
            Self::Adopted => "taken over from Registrator",
            Self::Gone => "no such container runs",
            Self::Unchanged => "unchanged",
            Self::ContainerKept => "its container failed or is unknown",
            Self::NotOurs => "registered by somebody else; --adopt takes over Registrator's",
            Self::Namesake => "registered under this engine's ID on a host of another name",
            Self::OtherWriter => "another process writes it under our owner name",
        })
    }
}

/// What is done with one service, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// Why.
    pub why: Why,
    /// The service's ID.
    pub id: String,
    /// The service's name.
    pub service: String,
    /// `IP:PORT`.
    pub address: String,
    /// The ID of the container that it is of, as far as that is known.
    pub container: Option<String>,
}

impl Step {
    /// Takes away what the servers have and the agent does not.
    pub(super) fn ghost(id: &str, service: &AgentService) -> Self {
        Self {
            action: Action::Deregister,
            why: Why::Ghost,
            id: id.to_owned(),
            service: service.name.clone(),
            address: endpoint(&service.address, service.port),
            container: service.meta.get(CONTAINER).cloned(),
        }
    }
}

/// Compares. The steps are sorted by what is done, then by ID: what comes is registered before what
/// goes is taken away, so that a name which moves from one container to another always has one.
pub(super) fn plan(
    wanted: &BTreeMap<String, Wanted>,
    actual: &BTreeMap<String, AgentService>,
    circumstances: &Circumstances<'_>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (id, wanted) in wanted {
        let (action, why) = circumstances.of_wanted(id, wanted, actual.get(id));
        steps.push(Step {
            action,
            why,
            id: id.clone(),
            service: wanted.name.clone(),
            address: wanted.endpoint.clone(),
            container: wanted.container_id().map(str::to_owned),
        });
    }
    for (id, service) in actual.iter().filter(|(id, _)| !wanted.contains_key(*id)) {
        if let Some((action, why)) = circumstances.of_unwanted(id, service) {
            steps.push(Step {
                action,
                why,
                id: id.clone(),
                service: service.name.clone(),
                address: endpoint(&service.address, service.port),
                container: service.meta.get(CONTAINER).cloned(),
            });
        }
    }
    steps.sort_by(|a, b| (a.action, &a.id).cmp(&(b.action, &b.id)));
    steps
}

impl Circumstances<'_> {
    fn of_wanted(&self, id: &str, wanted: &Wanted, actual: Option<&AgentService>) -> (Action, Why) {
        let Some(actual) = actual else {
            return (Action::Register, Why::New);
        };
        if !self.ours.contains(id) {
            return match self.adopted(id) {
                _ if self.identity.is_namesake(actual) => (Action::Leave, Why::Namesake),
                Some(_) => (Action::Register, Why::Adopted),
                None => (Action::Leave, Why::NotOurs),
            };
        }
        let is_same = self.identity.owns(actual)
            && actual.meta.get(HASH) == Some(&wanted.hash)
            && actual.name == wanted.name
            && endpoint(&actual.address, actual.port) == wanted.endpoint;
        if is_same && self.damaged.contains(id) {
            (Action::Register, Why::CheckLost)
        } else if is_same && self.outdated.contains(id) {
            (Action::Register, Why::NewToken)
        } else if is_same && self.unsynced.contains(id) && !self.writers.have(actual) {
            (Action::Register, Why::Unsynced)
        } else if is_same {
            (Action::Keep, Why::Unchanged)
        } else if self.writers.have(actual) {
            (Action::Leave, Why::OtherWriter)
        } else {
            (Action::Register, Why::Changed)
        }
    }

    fn of_unwanted(&self, id: &str, actual: &AgentService) -> Option<(Action, Why)> {
        if self.identity.is_namesake(actual) && !self.ours.contains(id) {
            return None;
        }
        if !self.ours.contains(id) {
            return self.adopted(id).map(|id| {
                // Registrator's IDs have the container's name alone.
                match self.kept.values().any(|name| name == id.container) {
                    true => (Action::Keep, Why::ContainerKept),
                    false => (Action::Deregister, Why::Adopted),
                }
            });
        }
        let container = actual.meta.get(CONTAINER);
        Some(if self.writers.have(actual) {
            (Action::Leave, Why::OtherWriter)
        } else if container.is_some_and(|container| self.kept.contains_key(container)) {
            (Action::Keep, Why::ContainerKept)
        } else {
            (Action::Deregister, Why::Gone)
        })
    }

    /// The ID, if it is one of Registrator's that are to be taken over.
    fn adopted<'i>(&self, id: &'i str) -> Option<LegacyId<'i>> {
        let host = self.adopt?;
        LegacyId::parse(id).filter(|id| id.host == host)
    }
}

/// The names of its columns.
const HEAD: [&str; 5] = ["ACTION", "SERVICE", "ID", "ADDRESS", "WHY"];

/// The steps as a table, with a line for each and one that names the columns.
pub fn table(steps: &[Step]) -> String {
    let head = HEAD.map(str::to_owned);
    let rows = steps.iter().map(|step| {
        [
            step.action.to_string(),
            step.service.clone(),
            step.id.clone(),
            step.address.clone(),
            step.why.to_string(),
        ]
    });
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths);
        let cells: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    // Every case of the comparison.

    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::register::identity::{OWNER, WRITER};

    const HASH_NOW: &str = "1-1111111111111111";

    fn wanted_web() -> BTreeMap<String, Wanted> {
        let web = Wanted {
            name: "web".to_owned(),
            endpoint: "10.0.0.1:80".to_owned(),
            container: "web".to_owned(),
            body: json!({}),
            hash: HASH_NOW.to_owned(),
            health: None,
        };
        BTreeMap::from([("host:web:80".to_owned(), web)])
    }

    /// A service of the agent at 10.0.0.1:80.
    fn service(meta: &[(&str, &str)]) -> AgentService {
        AgentService {
            name: "web".to_owned(),
            meta: meta
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            address: "10.0.0.1".to_owned(),
            port: 80,
        }
    }

    /// What is done with one service, and what with what else there is.
    #[derive(Default)]
    struct Case {
        actual: Vec<(&'static str, AgentService)>,
        adopt: bool,
        kept: &'static [&'static str],
        damaged: &'static [&'static str],
        outdated: &'static [&'static str],
        unsynced: &'static [&'static str],
        expected: &'static [(Action, Why, &'static str)],
    }

    impl Case {
        fn check(self) {
            let identity = Identity::new("me");
            let mut writers = Writers::new(identity.writer());
            writers.observe(BTreeMap::new(), |_| true, Instant::now());
            let other = BTreeMap::from([("x".to_owned(), "other".to_owned())]);
            writers.observe(other, |_| true, Instant::now());
            let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let damaged = set(self.damaged);
            let outdated = set(self.outdated);
            let unsynced = set(self.unsynced);
            let kept = self.kept.iter();
            let kept = kept
                .map(|name| (format!("id-of-{name}"), (*name).to_owned()))
                .collect();
            let ours = self.actual.iter();
            let ours = ours
                .filter(|(_, own)| identity.owns(own))
                .map(|(id, _)| (*id).to_owned())
                .collect();
            let circumstances = Circumstances {
                identity: &identity,
                ours: &ours,
                writers: &writers,
                adopt: self.adopt.then_some("host"),
                kept: &kept,
                damaged: &damaged,
                unsynced: &unsynced,
                outdated: &outdated,
            };
            let actual = self.actual.into_iter();
            let actual = actual
                .map(|(id, service)| (id.to_owned(), service))
                .collect();
            let steps = plan(&wanted_web(), &actual, &circumstances);
            let steps: Vec<_> = steps
                .iter()
                .map(|step| (step.action, step.why, step.id.as_str()))
                .collect();
            assert_eq!(steps, self.expected);
        }
    }

    const WEB: &str = "host:web:80";
    use Action::{Deregister, Keep, Leave, Register};

    #[test]
    fn what_is_missing_is_registered() {
        Case {
            expected: &[(Register, Why::New, WEB)],
            ..Case::default()
        }
        .check();
    }

    #[test]
    fn what_is_there_is_kept() {
        Case {
            actual: vec![(WEB, service(&[(OWNER, "me"), (HASH, HASH_NOW)]))],
            expected: &[(Keep, Why::Unchanged, WEB)],
            ..Case::default()
        }
        .check();
    }

    #[test]
    fn what_differs_is_registered_anew() {
        let moved = AgentService {
            port: 81,
            ..service(&[(OWNER, "me"), (HASH, HASH_NOW)])
        };
        let outdated = service(&[(OWNER, "me"), (HASH, "1-0")]);
        for actual in [moved, outdated, service(&[(OWNER, "me")])] {
            Case {
                actual: vec![(WEB, actual)],
                expected: &[(Register, Why::Changed, WEB)],
                ..Case::default()
            }
            .check();
        }
    }

    #[test]
    fn a_lost_check_is_brought_back() {
        Case {
            actual: vec![(WEB, service(&[(OWNER, "me"), (HASH, HASH_NOW)]))],
            damaged: &[WEB],
            expected: &[(Register, Why::CheckLost, WEB)],
            ..Case::default()
        }
        .check();
    }

    #[test]
    fn a_new_token_is_told_to_the_agent() {
        Case {
            actual: vec![(WEB, service(&[(OWNER, "me"), (HASH, HASH_NOW)]))],
            outdated: &[WEB],
            expected: &[(Register, Why::NewToken, WEB)],
            ..Case::default()
        }
        .check();
    }

    #[test]
    fn what_the_servers_lack_is_told_to_the_agent_again() {
        Case {
            actual: vec![(WEB, service(&[(OWNER, "me"), (HASH, HASH_NOW)]))],
            unsynced: &[WEB],
            expected: &[(Register, Why::Unsynced, WEB)],
            ..Case::default()
        }
        .check();
    }

    /// Also if its ID is the one that we would give.
    #[test]
    fn nobody_elses_service_is_touched() {
        Case {
            actual: vec![
                (WEB, service(&[])),
                ("consul", service(&[])),
                ("host:old:80", service(&[(OWNER, "you"), (HASH, HASH_NOW)])),
            ],
            expected: &[(Leave, Why::NotOurs, WEB)],
            ..Case::default()
        }
        .check();
    }

    #[test]
    fn what_does_not_run_is_deregistered_after_what_does_is_registered() {
        Case {
            actual: vec![("a-ghost", service(&[(OWNER, "me"), (HASH, "1-0")]))],
            expected: &[
                (Register, Why::New, WEB),
                (Deregister, Why::Gone, "a-ghost"),
            ],
            ..Case::default()
        }
        .check();
    }

    #[test]
    fn what_failed_or_is_unknown_stays() {
        let ghost = |container| service(&[(OWNER, "me"), (CONTAINER, container)]);
        Case {
            actual: vec![("one", ghost("id-of-c1")), ("two", ghost("id-of-c2"))],
            kept: &["c1"],
            expected: &[
                (Register, Why::New, WEB),
                (Deregister, Why::Gone, "two"),
                (Keep, Why::ContainerKept, "one"),
            ],
            ..Case::default()
        }
        .check();
    }

    #[test]
    fn registrators_are_taken_over_when_that_is_asked_for() {
        Case {
            actual: vec![
                (WEB, service(&[])),
                ("host:gone:80:udp", service(&[])),
                ("elsewhere:gone:80", service(&[])),
                ("host:not-registrators", service(&[])),
            ],
            adopt: true,
            expected: &[
                (Register, Why::Adopted, WEB),
                (Deregister, Why::Adopted, "host:gone:80:udp"),
            ],
            ..Case::default()
        }
        .check();
    }

    /// Nobody can say that its container is gone.
    #[test]
    fn registrators_service_of_an_unknown_container_stays() {
        Case {
            actual: vec![
                ("host:dark:80", service(&[])),
                ("host:gone:80", service(&[])),
                ("elsewhere:dark:80", service(&[])),
            ],
            adopt: true,
            kept: &["dark"],
            expected: &[
                (Register, Why::New, WEB),
                (Deregister, Why::Adopted, "host:gone:80"),
                (Keep, Why::ContainerKept, "host:dark:80"),
            ],
            ..Case::default()
        }
        .check();
    }

    #[test]
    fn what_another_writer_has_written_is_left_alone() {
        let theirs = |hash| service(&[(OWNER, "me"), (HASH, hash), (WRITER, "other")]);
        Case {
            actual: vec![(WEB, theirs("1-0")), ("ghost", theirs("1-0"))],
            expected: &[
                (Leave, Why::OtherWriter, "ghost"),
                (Leave, Why::OtherWriter, WEB),
            ],
            ..Case::default()
        }
        .check();
        // Where both want the same there is nothing to fight about.
        Case {
            actual: vec![(WEB, theirs(HASH_NOW))],
            expected: &[(Keep, Why::Unchanged, WEB)],
            ..Case::default()
        }
        .check();
    }
}
