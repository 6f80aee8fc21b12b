//! What is sent to the agent: registrations, deregistrations, and what HEALTHCHECKs say.

use tokio::time::Instant;
use tracing::{info, warn};

use crate::consul::AgentError;

use super::checks::own_check;
use super::due::OUTPUT;
use super::plan::{Action, Step, Why};
use super::reconciler::{Comparison, Reconciler};
use super::wanted::{Wanted, going};

impl Reconciler {
    pub(super) async fn register(
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

    pub(super) async fn deregister(
        &mut self,
        step: &Step,
        comparison: &Comparison,
    ) -> Result<(), AgentError> {
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
            self.writers.removed(id);
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
        let lasts = matches!(step.why, Why::NewToken | Why::Unsynced | Why::Ghost);
        if self
            .retries
            .refused(id, attempt, &text, lasts, Instant::now())
        {
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
    pub(super) async fn report_health(
        &mut self,
        comparison: &Comparison,
    ) -> Result<(), AgentError> {
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
}
