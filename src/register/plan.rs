//! What has to be done so that the agent holds what should be registered. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::sources::consul::AgentService;

use super::identity::{CONTAINER, HASH, Identity, WRITER};
use super::legacy::LegacyId;
use super::wanted::{Wanted, endpoint};
use super::writers::Writers;

/// What is known beside the two sides that are compared.
#[derive(Debug)]
pub(super) struct Circumstances<'a> {
    /// Who we are.
    pub(super) identity: &'a Identity,
    /// Who else writes under our owner's name.
    pub(super) writers: &'a Writers,
    /// Take over what Registrator registered as this host.
    pub(super) adopt: Option<&'a str>,
    /// Containers whose services stay as they are, ID to name.
    pub(super) kept: &'a BTreeMap<String, String>,
    /// Services whose check has been lost, by ID.
    pub(super) damaged: &'a BTreeSet<String>,
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
            Self::Adopted => "taken over from Registrator",
            Self::Gone => "no such container runs",
            Self::Unchanged => "unchanged",
            Self::ContainerKept => "its container failed or is unknown",
            Self::NotOurs => "registered by somebody else; --adopt takes over Registrator's",
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
        if !self.identity.owns(actual) {
            return match self.adopted(id) {
                Some(_) => (Action::Register, Why::Adopted),
                None => (Action::Leave, Why::NotOurs),
            };
        }
        let is_same = actual.meta.get(HASH) == Some(&wanted.hash)
            && actual.name == wanted.name
            && endpoint(&actual.address, actual.port) == wanted.endpoint;
        if is_same && self.damaged.contains(id) {
            (Action::Register, Why::CheckLost)
        } else if is_same {
            (Action::Keep, Why::Unchanged)
        } else if self.is_of_other_writer(actual) {
            (Action::Leave, Why::OtherWriter)
        } else {
            (Action::Register, Why::Changed)
        }
    }

    fn of_unwanted(&self, id: &str, actual: &AgentService) -> Option<(Action, Why)> {
        if !self.identity.owns(actual) {
            return self.adopted(id).map(|id| {
                // Registrator's IDs have the container's name alone.
                match self.kept.values().any(|name| name == id.container) {
                    true => (Action::Keep, Why::ContainerKept),
                    false => (Action::Deregister, Why::Adopted),
                }
            });
        }
        let container = actual.meta.get(CONTAINER);
        Some(if self.is_of_other_writer(actual) {
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

    fn is_of_other_writer(&self, actual: &AgentService) -> bool {
        let writer = actual.meta.get(WRITER);
        writer.is_some_and(|writer| self.writers.is_living(writer))
    }
}

#[cfg(test)]
mod tests;
