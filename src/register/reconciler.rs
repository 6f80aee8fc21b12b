//! Compares what runs with what is registered, and does what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::consul::{Agent, AgentError, AgentService};
use crate::docker::{self, Problem, Severity, Snapshot, desired};

use super::checks::{Checks, Memory, own_check};
use super::due::{HealthReports, OUTPUT, Retries};
use super::identity::{Identity, WRITER, Writers};
use super::metrics::{Metrics, Report, count};
use super::plan::{Action, Circumstances, Step, Why, plan};
use super::tokens::Tokens;
use super::wanted::{Wanted, wanted};

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
    /// What the log has told already.
    told: BTreeSet<Problem>,
    conflicts: BTreeMap<String, Why>,
    of_other_hosts: BTreeMap<String, Vec<String>>,
}

/// Both sides, compared.
struct Comparison {
    wanted: BTreeMap<String, Wanted>,
    /// Services of ours that are to go.
    going: BTreeMap<String, AgentService>,
    checks: Checks,
    steps: Vec<Step>,
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
            told: BTreeSet::new(),
            conflicts: BTreeMap::new(),
            of_other_hosts: BTreeMap::new(),
        }
    }

    /// What would be done, without doing it.
    ///
    /// # Errors
    /// [`AgentError`] if the agent cannot be asked.
    pub async fn preview(&mut self, snapshot: &Snapshot) -> Result<Vec<Step>, AgentError> {
        Ok(self.compare(snapshot).await?.steps)
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
                (Action::Deregister, _) => self.deregister(step).await?,
                _ => self.retries.settled(&step.id),
            }
        }
        self.report_health(&comparison).await?;
        self.settle(&comparison);
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
            let actual = self.agent.services().await?;
            self.observe(&actual);
            for (id, service) in &actual {
                if self.identity.owns(service) && !self.writers.have(service) {
                    match self.agent.deregister(id).await {
                        Ok(()) => {
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
                None => *self.host.insert(self.agent.address().await?),
            };
        }
        let actual = self.agent.services().await?;
        let checks = Checks::new(self.agent.checks().await?);
        self.observe(&actual);
        let desired = desired(&snapshot.containers, &mapping);
        self.tell(&desired.problems);
        let wanted = wanted(&desired.registrations, &self.identity);
        let now = Instant::now();
        let lost = self
            .checks
            .observe(&wanted, &actual, &checks, &self.identity, now);
        self.damaged.extend(lost);
        let is_ours = |own: &AgentService| self.identity.owns(own) && !self.writers.have(own);
        let ours = actual
            .iter()
            .filter(|(id, own)| wanted.contains_key(*id) && is_ours(own));
        let outdated = self
            .tokens
            .outdated(self.agent.token(), ours.map(|(id, _)| id), now);
        let kept = snapshot.kept();
        let circumstances = Circumstances {
            identity: &self.identity,
            writers: &self.writers,
            adopt: self.adopting.then_some(mapping.host_name.as_str()),
            kept: &kept,
            damaged: &self.damaged,
            outdated: &outdated,
        };
        let steps = plan(&wanted, &actual, &circumstances);
        let of_others = circumstances.of_other_hosts(&actual);
        let is_adoption_open = steps
            .iter()
            .filter(|step| step.why == Why::ContainerKept)
            .filter_map(|step| actual.get(&step.id))
            .any(|service| !self.identity.owns(service));
        self.tell_of_other_hosts(of_others);
        let mut going = actual;
        going.retain(|id, own| self.identity.owns(own) && !wanted.contains_key(id));
        Ok(Comparison {
            wanted,
            going,
            checks,
            steps,
            is_adoption_open,
        })
    }

    /// Tells once which of Registrator's services are left because of another host's name.
    fn tell_of_other_hosts(&mut self, others: BTreeMap<String, Vec<String>>) {
        if self.of_other_hosts == others {
            return;
        }
        for (host, ids) in &others {
            warn!(
                host,
                services = ids.join(", "),
                "Registrator registered these under another host name, so they are left alone: start \
                 `register --adopt` under that name, or deregister them by hand"
            );
        }
        self.of_other_hosts = others;
    }

    /// Notes who wrote what is ours, and tells of others that do so now.
    fn observe(&mut self, actual: &BTreeMap<String, AgentService>) {
        let ours = actual
            .iter()
            .filter(|(_, service)| self.identity.owns(service));
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

    /// Tells of each problem once, and of those that are over not at all.
    fn tell(&mut self, problems: &[Problem]) {
        for problem in problems
            .iter()
            .filter(|problem| !self.told.contains(problem))
        {
            let (container, message) = (&problem.container, &problem.message);
            match problem.severity {
                Severity::Note => info!(container, "{message}"),
                Severity::Warning => warn!(container, "{message}"),
            }
        }
        self.told = problems.iter().cloned().collect();
        self.metrics.problems.set(count(problems.len()));
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

    async fn deregister(&mut self, step: &Step) -> Result<(), AgentError> {
        let (id, attempt) = (&step.id, "deregister");
        if !self.retries.is_due(id, attempt, Instant::now()) {
            return Ok(());
        }
        let result = self.agent.deregister(id).await;
        if self.has_succeeded(step, "deregister", attempt, result)? {
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

        for (id, why) in &conflicts {
            if self.conflicts.get(id) != Some(why) {
                warn!(id, "left alone: {why}");
            }
        }
        self.conflicts = conflicts;

        let (failing, conflicts) = (self.retries.len(), self.conflicts.len());
        self.metrics.pass("ok");
        self.metrics.services.set(count(wanted.len()));
        self.metrics.failing.set(count(failing));
        self.metrics.conflicts.set(count(conflicts));
        self.report.set(match self.writers.living() {
            0 => Ok(format!(
                "{} services, {failing} refused, {conflicts} left alone",
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
