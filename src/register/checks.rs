//! What the agent's checks say of a service: its own one, known by its ID, and those that others have added, such as the
//! one that puts it into maintenance. And what they said of services that the agent has lost since.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::consul::{AgentCheck, AgentService};

use super::identity::{CONTAINER, HASH};
use super::wanted::{Wanted, endpoint};

/// A check that was brought back and is gone again is not brought back any sooner.
const AGAIN: Duration = Duration::from_secs(60);

/// The agent's checks, by ID.
#[derive(Debug, Default)]
pub(super) struct Checks(BTreeMap<String, AgentCheck>);

impl Checks {
    pub(super) fn new(checks: BTreeMap<String, AgentCheck>) -> Self {
        Self(checks)
    }

    /// The status of the service's own check, if it has one.
    pub(super) fn own(&self, id: &str) -> Option<&str> {
        let own = self.0.get(&own_check(id))?;
        Some(&own.status)
    }

    /// Has anybody else added a check to the service?
    pub(super) fn has_others(&self, id: &str) -> bool {
        let own = own_check(id);
        self.0
            .iter()
            .any(|(check, of)| of.service == id && *check != own)
    }
}

/// The ID that Consul gives to the check of a service's definition.
pub(super) fn own_check(id: &str) -> String {
    format!("service:{id}")
}

/// What is remembered of the checks of what is ours.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The hash that a service was registered with, and the status of its check when it was last seen.
    seen: BTreeMap<String, (String, String)>,
    /// When checks were brought back.
    restored: BTreeMap<String, Instant>,
}

impl Memory {
    /// Notes what the agent has of ours, and says which of what should have a check has none.
    pub(super) fn observe(
        &mut self,
        wanted: &BTreeMap<String, Wanted>,
        actual: &BTreeMap<String, AgentService>,
        ours: &BTreeSet<String>,
        checks: &Checks,
        now: Instant,
    ) -> BTreeSet<String> {
        let mut lost = BTreeSet::new();
        for (id, service) in actual.iter().filter(|(id, _)| ours.contains(*id)) {
            match (checks.own(id), service.meta.get(HASH)) {
                (Some(status), Some(hash)) => {
                    let seen = (hash.clone(), status.to_owned());
                    self.seen.insert(id.clone(), seen);
                }
                (None, _) if wanted.get(id).is_some_and(Wanted::has_check) => {
                    let before = self.restored.get(id);
                    if before.is_none_or(|at| now.duration_since(*at) >= AGAIN) {
                        lost.insert(id.clone());
                    }
                }
                _ => {}
            }
        }
        self.seen.retain(|id, _| wanted.contains_key(id));
        self.restored.retain(|id, _| wanted.contains_key(id));
        lost
    }

    /// A check was brought back.
    pub(super) fn restored(&mut self, id: &str, now: Instant) {
        self.restored.insert(id.to_owned(), now);
    }

    /// The status that the check of a service begins with that the agent does not have, if anything is known of it: the
    /// one that it had, or that the same container had under another ID. What Consul has taken away because it was
    /// critical would come back as passing otherwise, and what only gets another name would be critical for a while.
    pub(super) fn begins(
        &self,
        id: &str,
        wanted: &Wanted,
        others: &BTreeMap<String, AgentService>,
        checks: &Checks,
    ) -> Option<String> {
        if let Some((hash, status)) = self.seen.get(id) {
            return (*hash == wanted.hash).then(|| status.clone());
        }
        let container = wanted.container_id();
        let same_container =
            |service: &&AgentService| service.meta.get(CONTAINER).map(String::as_str) == container;
        let mut before: Vec<(&String, &AgentService)> = others
            .iter()
            .filter(|(_, service)| same_container(service))
            .collect();
        // Of several ports the same one; another port may be well where this one is not.
        if before.len() > 1 {
            before.retain(|(_, own)| endpoint(&own.address, own.port) == wanted.endpoint);
        }
        let (other, _) = before.first()?;
        checks.own(other).map(str::to_owned)
    }
}
