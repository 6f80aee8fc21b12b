//! Compares what runs with what is registered, and does what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::consul::{Agent, AgentError, AgentService, Entered};
use crate::docker::{self, Desired, Snapshot, desired};

use super::catalog::{Drift, Watch};
use super::checks::{Checks, Memory, own_check};
use super::due::{HealthReports, OUTPUT, Retries};
use super::explain::{Explained, Since};
use super::heritage;
use super::identity::{Identity, WRITER};
use super::metrics::{Metrics, Report, count};
use super::plan::{Action, Circumstances, Step, Why, plan};
use super::sight::Sight;
use super::tokens::Tokens;
use super::told::{BLIND, Told};
use super::wanted::{Wanted, going, wanted};
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
    agent: Agent,
    identity: Identity,
    settings: Settings,
    metrics: Metrics,
    report: Report,
    /// The agent's address, once it is known.
    host: Option<IpAddr>,
    adopting: bool,
    writers: Writers,
    retries: Retries,
    health: HealthReports,
    /// Services whose check the agent does not know.
    damaged: BTreeSet<String>,
    checks: Memory,
    tokens: Tokens,
    sight: Sight,
    servers: Watch,
    /// What the servers have, as soon as they have said so.
    reading: Option<JoinHandle<Result<Option<Entered>, AgentError>>>,
    /// When they are to be asked again.
    next_reading: Instant,
    told: Told,
    since: Since,
}

/// Both sides, compared.
struct Comparison {
    wanted: BTreeMap<String, Wanted>,
    /// Services of ours that are to go.
    going: BTreeMap<String, AgentService>,
    checks: Checks,
    /// Services that the servers have and the agent does not.
    ghosts: BTreeMap<String, AgentService>,
    steps: Vec<Step>,
    desired: Desired,
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
            servers: Watch::default(),
            reading: None,
            next_reading: Instant::now(),
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
                _ => self.retries.settled(&step.id),
            }
        }
        self.report_health(&comparison).await?;
        if let Some(id) = self.sight.untried(self.agent.token()) {
            let is_hidden = self.agent.hides(&id).await?;
            self.sight.set_blind(is_hidden);
        }
        self.ask_servers();
        self.settle(&comparison);
        let explained = self.explained(snapshot, &comparison, true);
        self.report.set_containers(explained);
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
            let (actual, _) = self.actual().await?;
            let ours = actual.iter().filter(|(_, own)| self.identity.owns(own));
            let ours = ours.map(|(id, _)| id.clone()).collect();
            self.observe(&actual, &ours);
            for (id, service) in actual.iter().filter(|(id, _)| ours.contains(*id)) {
                if !self.writers.have(service) {
                    match self.agent.deregister(id).await {
                        Ok(()) => {
                            self.sight.forget(id);
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
        let (actual, hidden) = self.actual().await?;
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
        let Drift { behind, ghosts } = self.drift(&actual, &shown, &checks).await;
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
            is_adoption_open,
        })
    }

    /// The agent's services, and the IDs of those among them that it does not show to our token.
    async fn actual(
        &mut self,
    ) -> Result<(BTreeMap<String, AgentService>, BTreeSet<String>), AgentError> {
        let mut actual = self.agent.services().await?;
        let missing = self.sight.missing(&actual);
        let is_hidden = match &missing {
            Some(id) => self.agent.hides(id).await?,
            None => false,
        };
        self.sight.set_blind(is_hidden);
        let mut hidden = BTreeSet::new();
        if is_hidden {
            let shown: BTreeSet<String> = actual.keys().cloned().collect();
            self.sight.complete(&mut actual);
            hidden.extend(actual.keys().filter(|id| !shown.contains(*id)).cloned());
        } else if let Some(id) = missing {
            self.sight.forget(&id);
        }
        Ok((actual, hidden))
    }

    /// What the servers do not have as the agent has it, if they have said meanwhile what they have.
    async fn drift(
        &mut self,
        actual: &BTreeMap<String, AgentService>,
        ours: &BTreeSet<String>,
        checks: &Checks,
    ) -> Drift {
        let Some(reading) = self.reading.take_if(|reading| reading.is_finished()) else {
            return Drift::default();
        };
        let entered = match reading.await {
            Ok(Ok(Some(entered))) => entered,
            Ok(Ok(None)) => {
                self.told.catalog_hidden(true);
                return Drift::default();
            }
            Ok(Err(error)) => {
                debug!(%error, "cannot read what the servers have of this node");
                return Drift::default();
            }
            Err(_) => return Drift::default(),
        };
        self.told.catalog_hidden(false);
        let held = actual.iter().filter(|(id, _)| ours.contains(*id)).collect();
        let is_held = |id: &str| actual.contains_key(id);
        let drift = self
            .servers
            .observe(&held, checks, &entered, &self.identity, is_held);
        self.metrics
            .unsynced
            .set(count(drift.behind.len() + drift.ghosts.len()));
        drift
    }

    /// Asks the servers now and then what they have of this node. Nothing waits for the answer: without a leader there is
    /// none for a long time.
    fn ask_servers(&mut self) {
        let now = Instant::now();
        if self.reading.is_some() || self.sight.is_blind() || now < self.next_reading {
            return;
        }
        self.next_reading = now + self.settings.resync;
        let agent = self.agent.clone();
        self.reading = Some(tokio::spawn(async move {
            let node = agent.node().await?;
            agent.catalog(&node.name).await
        }));
    }

    /// Notes who wrote what is ours, and tells of others that do so now.
    fn observe(&mut self, actual: &BTreeMap<String, AgentService>, ours: &BTreeSet<String>) {
        let ours = actual.iter().filter(|(id, _)| ours.contains(*id));
        let writers = ours
            .map(|(id, service)| {
                let writer = service.meta.get(WRITER).cloned().unwrap_or_default();
                (id.clone(), writer)
            })
            .collect();
        for writer in self.writers.observe(writers, Instant::now()) {
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
            &comparison.wanted,
            &comparison.steps,
            &[problems, reasons],
            is_done.then_some(&self.retries),
            SystemTime::now(),
        )
    }

    async fn register(
        &mut self,
        step: &Step,
        wanted: &Wanted,
        comparison: &Comparison,
    ) -> Result<(), AgentError> {
        let (id, now) = (&step.id, Instant::now());
        if !self.retries.is_due(id, &wanted.hash, now) {
            return Ok(());
        }
        let Comparison { going, checks, .. } = comparison;
        let begins = match step.why {
            Why::New | Why::CheckLost => self.checks.begins(id, wanted, going, checks),
            // A check that is there keeps its status.
            _ => None,
        };
        let body = wanted.beginning_as(begins.as_deref()).to_string();
        let others = checks.has_others(id);
        // Where the checks of others are to stay, the one that the definition had before would stay as well.
        let is_left_over = others && !wanted.has_check() && checks.own(id).is_some();
        let cleared = match is_left_over {
            true => self.agent.deregister_check(&own_check(id)).await,
            false => Ok(()),
        };
        let result = match cleared {
            Ok(()) => self.agent.register(body.into_bytes(), others).await,
            Err(error) => Err(error),
        };
        if self.has_succeeded(step, "register", &wanted.hash, result)? {
            if step.why == Why::CheckLost {
                self.checks.restored(id, now);
            }
            self.tokens.told(id);
            self.writers.wrote(id);
            self.sight.wrote(id, wanted.shown());
            self.damaged.remove(id);
            match &wanted.health {
                // A service that was there keeps the status it had: the next report says it anew.
                Some(_) if step.why != Why::New => self.health.forget(id),
                Some(reported) => self.health.sent(id, &reported.status, Instant::now()),
                None => {}
            }
            info!(
                service = step.service,
                id,
                address = step.address,
                container = wanted.container,
                why = %step.why,
                "registered"
            );
        }
        Ok(())
    }

    async fn deregister(&mut self, step: &Step, comparison: &Comparison) -> Result<(), AgentError> {
        let (id, attempt) = (&step.id, "deregister");
        if !self.retries.is_due(id, attempt, Instant::now()) {
            return Ok(());
        }
        let known = match comparison.ghosts.get(id) {
            Some(ghost) => {
                let body = going(id, ghost).to_string();
                self.agent.register(body.into_bytes(), false).await
            }
            None => Ok(()),
        };
        let result = match known {
            Ok(()) => self.agent.deregister(id).await,
            Err(error) => Err(error),
        };
        if self.has_succeeded(step, "deregister", attempt, result)? {
            self.sight.forget(id);
            info!(service = step.service, id, why = %step.why, "deregistered");
        }
        Ok(())
    }

    /// Whether a write went well. One that the agent refused waits for its next turn and holds up
    /// nothing else; any other error concerns all.
    fn has_succeeded(
        &mut self,
        step: &Step,
        action: &'static str,
        attempt: &str,
        result: Result<(), AgentError>,
    ) -> Result<bool, AgentError> {
        let Err(error) = result else {
            self.metrics.write(action, "ok");
            self.retries.settled(&step.id);
            return Ok(true);
        };
        self.metrics.write(action, error.kind());
        if !error.is_refusal() {
            return Err(error);
        }
        let text = error.to_string();
        let (service, id) = (&step.service, &step.id);
        if self.retries.refused(id, attempt, &text, Instant::now()) {
            warn!(
                service,
                id,
                error = text,
                "Consul's agent refuses to {action} this service; trying again later"
            );
        }
        Ok(false)
    }

    /// HealthReports what HEALTHCHECKs say: at once when it changes, and now and then when it does not.
    async fn report_health(&mut self, comparison: &Comparison) -> Result<(), AgentError> {
        let now = Instant::now();
        for step in &comparison.steps {
            let id = &step.id;
            let health = comparison.wanted.get(id).and_then(|w| w.health.as_ref());
            let Some(reported) = health.filter(|_| step.action != Action::Leave) else {
                continue;
            };
            let is_held = self.health.is_held(id, reported.is_paused, now);
            if is_held || !self.health.is_due(id, &reported.status, now) {
                continue;
            }
            let (check, status) = (&reported.check, &reported.status);
            match self.agent.update_check(check, status, OUTPUT).await {
                Ok(()) => {
                    self.metrics.write("health", "ok");
                    self.health.sent(id, status, now);
                }
                Err(error) if error.is_refusal() => {
                    self.metrics.write("health", error.kind());
                    // Not registered, or somebody took the check away: the next look mends it.
                    self.damaged.insert(id.clone());
                    self.health.sent(id, status, now);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What a comparison that was carried out leaves.
    fn settle(&mut self, comparison: &Comparison) {
        let Comparison { wanted, steps, .. } = comparison;
        let ids: BTreeSet<&str> = steps.iter().map(|step| step.id.as_str()).collect();
        self.retries.retain(|id| ids.contains(id));
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
