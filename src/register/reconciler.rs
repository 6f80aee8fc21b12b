//! Compares what runs with what is registered, and does what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::{error, info};

use crate::consul::{Agent, AgentError, AgentService, Entered};
use crate::docker::{self, Desired, Snapshot, desired};

use super::catalog::{Drift, Held, Servers};
use super::checks::{Checks, Memory};
use super::due::{HealthReports, Retries};
use super::explain::{Explained, Since};
use super::heritage;
use super::identity::{Identity, WRITER};
use super::metrics::{Metrics, Report, count};
use super::plan::{Action, Circumstances, Step, Why, plan};
use super::sight::Sight;
use super::tokens::Tokens;
use super::told::{BLIND, Told};
use super::wanted::{Wanted, wanted};
use super::writers::Writers;

/// The agent is looked at this often even if a resync is further away: one that was restarted may
/// have forgotten everything.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// However much there is to do, two looks are as far apart.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// How services are registered.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How containers become registrations. Without `ip`, its `host` is replaced by the address of
    /// Consul's agent.
    pub mapping: docker::Settings,
    /// Take over what Registrator registered under this host's name.
    pub adopt: bool,
    /// How often everything is compared at least.
    pub resync: Duration,
}

/// How many services are not as they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed(pub usize);

/// Keeps what the agent holds equal to what runs.
#[derive(Debug)]
pub struct Reconciler {
    pub(super) agent: Agent,
    identity: Identity,
    settings: Settings,
    pub(super) metrics: Metrics,
    report: Report,
    /// The agent's address, once it is known.
    host: Option<IpAddr>,
    adopting: bool,
    pub(super) writers: Writers,
    pub(super) retries: Retries,
    pub(super) health: HealthReports,
    /// Services whose check the agent does not know.
    pub(super) damaged: BTreeSet<String>,
    pub(super) checks: Memory,
    pub(super) tokens: Tokens,
    pub(super) sight: Sight,
    servers: Servers,
    told: Told,
    since: Since,
}

/// Both sides, compared.
pub(super) struct Comparison {
    pub(super) wanted: BTreeMap<String, Wanted>,
    /// Services of ours that are to go.
    pub(super) going: BTreeMap<String, AgentService>,
    pub(super) checks: Checks,
    /// Services that the servers have and the agent does not.
    pub(super) ghosts: BTreeMap<String, AgentService>,
    pub(super) steps: Vec<Step>,
    desired: Desired,
    /// What the agent has of ours.
    held: Held,
    /// Something of Registrator's has to wait until more is known of its container.
    is_adoption_open: bool,
}

impl Reconciler {
    /// A reconciler of the services at `agent` that are `identity`'s.
    pub fn new(
        agent: Agent,
        identity: Identity,
        settings: Settings,
        metrics: Metrics,
        report: Report,
    ) -> Self {
        Self {
            agent,
            writers: Writers::new(identity.writer()),
            identity,
            host: None,
            adopting: settings.adopt,
            settings,
            metrics,
            report,
            retries: Retries::default(),
            health: HealthReports::default(),
            damaged: BTreeSet::new(),
            checks: Memory::default(),
            tokens: Tokens::default(),
            sight: Sight::default(),
            servers: Servers::default(),
            told: Told::default(),
            since: Since::default(),
        }
    }

    /// What would be done, without doing it.
    ///
    /// # Errors
    /// [`AgentError`] if the agent cannot be asked.
    pub async fn preview(&mut self, snapshot: &Snapshot) -> Result<Vec<Step>, AgentError> {
        Ok(self.compare(snapshot).await?.steps)
    }

    /// What would become of each container, without doing anything.
    ///
    /// # Errors
    /// As [`Reconciler::preview`].
    pub async fn explain(&mut self, snapshot: &Snapshot) -> Result<Vec<Explained>, AgentError> {
        let comparison = self.compare(snapshot).await?;
        Ok(self.explained(snapshot, &comparison, false))
    }

    /// Compares once and does what is needed.
    ///
    /// # Errors
    /// [`AgentError`] if the agent cannot be asked. A single service that it refuses is none.
    pub async fn reconcile(&mut self, snapshot: &Snapshot) -> Result<Failed, AgentError> {
        let comparison = self.compare(snapshot).await?;
        for step in &comparison.steps {
            let wanted = comparison.wanted.get(&step.id);
            match (step.action, wanted) {
                (Action::Register, Some(wanted)) => {
                    self.register(step, wanted, &comparison).await?;
                }
                (Action::Deregister, _) => self.deregister(step, &comparison).await?,
                _ => self.retries.stands(&step.id, Instant::now()),
            }
        }
        self.report_health(&comparison).await?;
        self.sight.try_token(&self.agent).await?;
        if !self.sight.is_blind() {
            let held = comparison.held.clone();
            self.servers.ask(&self.agent, held, self.settings.resync);
        }
        self.settle(&comparison);
        let explained = self.explained(snapshot, &comparison, true);
        self.report.set_containers(Some(explained));
        Ok(Failed(self.retries.len()))
    }

    /// Takes away all that is ours, for an end after which nobody keeps it up to date. What the agent
    /// refuses to take away stays, and holds up nothing else.
    ///
    /// # Errors
    /// [`AgentError`] if the agent cannot be asked.
    pub async fn withdraw(&mut self) -> Result<(), AgentError> {
        // Twice: a registration that the stop cut short may have been on its way at the first look.
        for _ in 0..2 {
            let (actual, _) = self.sight.services(&self.agent).await?;
            let ours = actual.iter().filter(|(_, own)| self.identity.owns(own));
            let ours = ours.map(|(id, _)| id.clone()).collect();
            self.observe(&actual, &ours);
            for (id, service) in actual.iter().filter(|(id, _)| ours.contains(*id)) {
                if !self.writers.have(service) {
                    match self.agent.deregister(id).await {
                        Ok(()) => {
                            self.sight.forget(id);
                            self.writers.removed(id);
                            self.metrics.write("deregister", "ok");
                            info!(service = service.name, id, "deregistered on exit");
                        }
                        Err(error) if error.is_refusal() => {
                            self.metrics.write("deregister", error.kind());
                            error!(service = service.name, id, %error, "could not deregister the service at the end; deregister it by hand, or start `portolan register` again");
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    async fn compare(&mut self, snapshot: &Snapshot) -> Result<Comparison, AgentError> {
        let mut mapping = self.settings.mapping.clone();
        if mapping.ip.is_none() {
            mapping.host = match self.host {
                Some(host) => host,
                None => *self.host.insert(self.agent.node().await?.address),
            };
        }
        let was_blind = self.sight.is_blind();
        let (actual, hidden) = self.sight.services(&self.agent).await?;
        let checks = Checks::new(self.agent.checks().await?);
        let desired = desired(&snapshot.containers, &mapping);
        self.told.problems(&desired.problems);
        self.metrics.problems.set(count(desired.problems.len()));
        let wanted = wanted(&desired.registrations, &self.identity);
        let ours = heritage::ours(&actual, &wanted, &self.identity, &mapping.host_name);
        if was_blind || self.tokens.is_other(&self.agent.token()) {
            self.writers.look_anew();
        }
        self.observe(&actual, &ours);
        let now = Instant::now();
        let shown: BTreeSet<String> = ours.difference(&hidden).cloned().collect();
        let lost = self.checks.observe(&wanted, &actual, &shown, &checks, now);
        self.damaged.extend(lost);
        let kept_up = actual.iter().filter(|(id, own)| {
            wanted.contains_key(*id) && ours.contains(*id) && !self.writers.have(own)
        });
        let outdated = self
            .tokens
            .outdated(self.agent.token(), kept_up.map(|(id, _)| id), now);
        let held = actual.iter().filter(|(id, _)| shown.contains(*id));
        let held = Held::new(held, &checks);
        let Drift { behind, mut ghosts } = match self.servers.said().await {
            Some((asked, entered)) => self.drift(&asked, entered, &actual, &held),
            None => Drift::default(),
        };
        self.metrics.unsynced.set(count(self.servers.standing()));
        // It is registered anyway.
        ghosts.retain(|id, _| !wanted.contains_key(id));
        let kept = snapshot.kept();
        let circumstances = Circumstances {
            identity: &self.identity,
            ours: &ours,
            writers: &self.writers,
            adopt: self.adopting.then_some(mapping.host_name.as_str()),
            kept: &kept,
            damaged: &self.damaged,
            unsynced: &behind,
            outdated: &outdated,
        };
        let mut steps = plan(&wanted, &actual, &circumstances);
        steps.extend(ghosts.iter().map(|(id, own)| Step::ghost(id, own)));
        let is_adoption_open = steps
            .iter()
            .any(|step| step.why == Why::ContainerKept && !ours.contains(&step.id));
        let others = self.adopting.then_some(mapping.host_name.as_str());
        let others = others.map(|host| heritage::of_other_hosts(&actual, host));
        self.told.of_other_hosts(others.unwrap_or_default());
        let namesakes = heritage::namesakes(&actual, &ours, &self.identity);
        self.told.namesakes(namesakes);
        let mut going = actual;
        going.retain(|id, _| ours.contains(id) && !wanted.contains_key(id));
        Ok(Comparison {
            wanted,
            going,
            checks,
            ghosts,
            steps,
            desired,
            held,
            is_adoption_open,
        })
    }

    /// What the servers do not have as the agent has it, if the token may know.
    fn drift(
        &mut self,
        asked: &Held,
        entered: Option<Entered>,
        actual: &BTreeMap<String, AgentService>,
        held: &Held,
    ) -> Drift {
        self.told.catalog_hidden(entered.is_none());
        let Some(entered) = entered else {
            return Drift::default();
        };
        let is_held = |id: &str| actual.contains_key(id);
        self.servers
            .compare(held, asked, &entered, &self.identity, is_held)
    }

    /// Notes who wrote what is ours, and tells of others that do so now.
    fn observe(&mut self, actual: &BTreeMap<String, AgentService>, ours: &BTreeSet<String>) {
        let named = actual.iter().filter(|(_, own)| self.identity.is_named(own));
        let writers = named
            .map(|(id, service)| {
                let writer = service.meta.get(WRITER).cloned().unwrap_or_default();
                (id.clone(), writer)
            })
            .collect();
        for writer in self
            .writers
            .observe(writers, |id| ours.contains(id), Instant::now())
        {
            error!(
                owner = self.identity.owner(),
                writer,
                "another process registers services under our owner name; what it wrote is left \
                 alone: end one of the two, or give each its own --owner"
            );
        }
        self.metrics.other_writers.set(count(self.writers.living()));
    }

    /// What became of each container, or would.
    fn explained(
        &mut self,
        snapshot: &Snapshot,
        comparison: &Comparison,
        is_done: bool,
    ) -> Vec<Explained> {
        let Desired {
            problems, reasons, ..
        } = &comparison.desired;
        self.since.explain(
            snapshot,
            &comparison.steps,
            &[problems, reasons],
            is_done.then_some(&self.retries),
            SystemTime::now(),
        )
    }

    /// What a comparison that was carried out leaves.
    fn settle(&mut self, comparison: &Comparison) {
        let Comparison { wanted, steps, .. } = comparison;
        let ids: BTreeSet<&str> = steps.iter().map(|step| step.id.as_str()).collect();
        let now = Instant::now();
        self.retries.retain(|id| ids.contains(id), now);
        let left = steps.iter().filter(|step| step.action == Action::Leave);
        let conflicts: BTreeMap<String, Why> =
            left.map(|step| (step.id.clone(), step.why)).collect();
        // What is left alone is never reported, so it must not be waited for either.
        let reports = |id: &str| wanted.get(id).is_some_and(|own| own.health.is_some());
        self.health
            .retain(|id| reports(id) && !conflicts.contains_key(id));
        self.damaged.retain(|id| wanted.contains_key(id));
        // Once, and not before all of it is done.
        let is_open = |step: &Step| step.why == Why::Adopted && self.retries.contains(&step.id);
        self.adopting &= comparison.is_adoption_open || steps.iter().any(is_open);

        let (failing, left_alone) = (self.retries.len(), conflicts.len());
        self.told.conflicts(conflicts);
        self.told.blind(self.sight.is_blind());
        self.metrics.pass("ok");
        self.metrics.services.set(count(wanted.len()));
        self.metrics.failing.set(count(failing));
        self.metrics.conflicts.set(count(left_alone));
        self.report.set(match self.writers.living() {
            _ if self.sight.is_blind() => Err(BLIND.to_owned()),
            0 => Ok(format!(
                "{} services, {failing} refused, {left_alone} left alone",
                wanted.len()
            )),
            _ => Err(format!(
                "another process registers services as the owner {:?}",
                self.identity.owner()
            )),
        });
    }

    /// The agent cannot be asked.
    pub(super) fn unreachable(&mut self, error: &AgentError) {
        self.metrics.pass(error.kind());
        self.report.set(Err(format!(
            "cannot read the services of Consul's agent: {error}"
        )));
        // It may come back as another one, with nothing of what it was told.
        self.host = None;
        self.health = HealthReports::default();
        self.servers = Servers::default();
        self.report.set_containers(None);
    }

    /// From now on, another mapping. What was refused is tried again at once: it may help, and so
    /// may a new token.
    pub(super) fn adopt(&mut self, mapping: docker::Settings) {
        self.settings.mapping = mapping;
        self.retries = Retries::default();
    }

    /// When to look without being told to.
    pub(super) fn next_look(&self) -> Instant {
        let now = Instant::now();
        let regular = now + self.settings.resync.min(LOOK_EVERY);
        [
            self.retries.next(),
            self.health.next(now),
            self.tokens.next(),
        ]
        .into_iter()
        .flatten()
        .fold(regular, Instant::min)
        .max(now + LEAST_PAUSE)
    }
}
