//! The health that a container's HEALTHCHECK tells, reported to the TTL check in Consul.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// For how long the agent believes a report: a registrar that is gone makes its health checks
/// critical after this. Containers without HEALTHCHECK are not concerned.
pub(super) const TTL: &str = "60s";

/// A third of it: how often the same is reported again. The agent keeps that to itself: nothing
/// reaches the servers, and no watch wakes.
const EVERY: Duration = Duration::from_secs(20);

/// What goes with a status. Any other text would reach the servers once more; what a probe prints
/// stays in Docker, where it may hold anything.
pub(super) const OUTPUT: &str = "";

/// What was reported of each service, by ID.
#[derive(Debug, Default)]
pub(super) struct Reports {
    sent: BTreeMap<String, (String, Instant)>,
}

impl Reports {
    /// Whether this is to be reported now.
    pub(super) fn is_due(&self, id: &str, status: &str, now: Instant) -> bool {
        let sent = self.sent.get(id);
        sent.is_none_or(|(said, when)| said != status || now.duration_since(*when) >= EVERY)
    }

    /// It was reported.
    pub(super) fn sent(&mut self, id: &str, status: &str, now: Instant) {
        self.sent.insert(id.to_owned(), (status.to_owned(), now));
    }

    /// What was reported is not known any more.
    pub(super) fn forget(&mut self, id: &str) {
        self.sent.remove(id);
    }

    /// Only these are of interest still.
    pub(super) fn retain(&mut self, is_of_interest: impl Fn(&str) -> bool) {
        self.sent.retain(|id, _| is_of_interest(id));
    }

    /// When the next report is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.sent.values().map(|(_, when)| *when + EVERY);
        due.min()
    }
}
