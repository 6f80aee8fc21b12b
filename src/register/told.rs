//! What the log has told already. Each thing is told once, and again when it comes back.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{error, info, warn};

use crate::docker::{Problem, tell};

use super::plan::Why;

/// What was told last of each kind.
#[derive(Debug, Default)]
pub(super) struct Told {
    problems: BTreeSet<Problem>,
    conflicts: BTreeMap<String, Why>,
    of_other_hosts: BTreeMap<String, Vec<String>>,
    namesakes: BTreeMap<String, Vec<String>>,
    is_blind: bool,
    is_catalog_hidden: bool,
}

impl Told {
    /// What cannot be done as labels ask for it.
    pub(super) fn problems(&mut self, problems: &[Problem]) {
        tell(&mut self.problems, problems);
    }

    /// Services that are left alone, by ID.
    pub(super) fn conflicts(&mut self, conflicts: BTreeMap<String, Why>) {
        for (id, why) in &conflicts {
            if self.conflicts.get(id) != Some(why) {
                warn!(id, "left alone: {why}");
            }
        }
        self.conflicts = conflicts;
    }

    /// Registrator's services that are not taken over, by the name of their host.
    pub(super) fn of_other_hosts(&mut self, others: BTreeMap<String, Vec<String>>) {
        for (host, ids) in &others {
            if !self.of_other_hosts.contains_key(host) {
                warn!(
                    host,
                    services = ids.join(", "),
                    "Registrator registered these under another host name, so they are left alone: start \
                     `register --adopt` under that name, or deregister them by hand"
                );
            }
        }
        self.of_other_hosts = others;
    }

    /// Services of hosts whose engine has our ID, by the name of the host; empty where it is not said.
    pub(super) fn namesakes(&mut self, others: BTreeMap<String, Vec<String>>) {
        for (host, ids) in &others {
            if !self.namesakes.contains_key(host) {
                warn!(
                    host,
                    services = ids.join(", "),
                    "these bear the ID of this host's Docker engine and not the name of this host, so they are left \
                     alone: if a machine that was cloned from the same template has them, give each its own engine ID \
                     (remove engine-id in Docker's data directory, and restart Docker); if they are left over from \
                     this host under another name, deregister them by hand"
                );
            }
        }
        self.namesakes = others;
    }

    /// Whether the token may not read what it writes.
    pub(super) fn blind(&mut self, is_blind: bool) {
        if is_blind && !self.is_blind {
            error!("{BLIND}");
        }
        self.is_blind = is_blind;
    }

    /// Whether the token may not read what the servers have of this node.
    pub(super) fn catalog_hidden(&mut self, is_hidden: bool) {
        if is_hidden && !self.is_catalog_hidden {
            info!(
                "the token may not read this node in the catalog, so what the agent cannot tell the servers is not \
                 noticed: give it node_prefix \"\" {{ policy = \"read\" }} and agent_prefix \"\" {{ policy = \"read\" }}"
            );
        }
        self.is_catalog_hidden = is_hidden;
    }
}

/// What is wrong where a token may not read what it writes.
pub(super) const BLIND: &str = "the token may register services and not read them, so what others do to them is not \
     seen: give it service_prefix \"\" { policy = \"read\" }";
