//! What is counted of an HAProxy, and how it stands, for `/ready`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing::warn;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabel {
    step: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SideLabel {
    side: &'static str,
}

/// What the supervisor counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    changes: Family<OutcomeLabel, Counter>,
    reloads: Family<OutcomeLabel, Counter>,
    seconds: Family<StepLabel, Histogram>,
    pub(super) restarts: Counter,
    pub(super) up: Gauge,
    pub(super) backends: Gauge,
    pub(super) refused: Gauge,
    pub(super) refused_services: Gauge,
    pub(super) left_out: Gauge,
    pub(super) held: Counter,
    divergences: Family<SideLabel, Counter>,
}

/// Which part of a change took so long.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    Render,
    Check,
    Reload,
}

impl Metrics {
    /// Registers the counters as `portolan_haproxy_*`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            changes: Family::default(),
            reloads: Family::default(),
            // From a millisecond to sixteen seconds.
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1e-3, 4.0, 8))
            }),
            restarts: Counter::default(),
            up: Gauge::default(),
            backends: Gauge::default(),
            refused: Gauge::default(),
            refused_services: Gauge::default(),
            left_out: Gauge::default(),
            held: Counter::default(),
            divergences: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("portolan_haproxy");
        registry.register(
            "changes",
            "Changes in Consul that were looked at, by what came of them",
            metrics.changes.clone(),
        );
        registry.register(
            "reloads",
            "Reloads of HAProxy by outcome",
            metrics.reloads.clone(),
        );
        registry.register(
            "step_seconds",
            "Time that a step of a change took: render, check, reload",
            metrics.seconds.clone(),
        );
        registry.register(
            "restarts",
            "Times that HAProxy ended by itself and was started again",
            metrics.restarts.clone(),
        );
        registry.register("up", "1 while HAProxy runs", metrics.up.clone());
        registry.register(
            "backends",
            "Services with a backend",
            metrics.backends.clone(),
        );
        registry.register(
            "refused_keys",
            "Keys whose values are not taken",
            metrics.refused.clone(),
        );
        registry.register(
            "refused_services",
            "Services that stay as they were because HAProxy takes no configuration with them",
            metrics.refused_services.clone(),
        );
        registry.register(
            "left_out_services",
            "Services with the tag whose names are not such that HAProxy can ask for them",
            metrics.left_out.clone(),
        );
        registry.register(
            "held_removals",
            "Times that much was gone at once, and kept until that was certain",
            metrics.held.clone(),
        );
        registry.register(
            "divergences",
            "Times that HAProxy's servers differed from Consul's instances for long, by whose fault",
            metrics.divergences.clone(),
        );
        // They are counted from 0, not from the first time on: only so is the first one an increase.
        for outcome in ["applied", "unchanged", "refused", "failed"] {
            drop(metrics.changes.get_or_create(&OutcomeLabel { outcome }));
        }
        for outcome in ["ok", "failed"] {
            drop(metrics.reloads.get_or_create(&OutcomeLabel { outcome }));
        }
        for side in ["haproxy", "dns"] {
            drop(metrics.divergences.get_or_create(&SideLabel { side }));
        }
        for step in ["render", "check", "reload"] {
            drop(metrics.seconds.get_or_create(&StepLabel { step }));
        }
        metrics
    }

    pub(super) fn change(&self, outcome: &'static str) {
        self.changes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn reload(&self, is_good: bool) {
        let outcome = if is_good { "ok" } else { "failed" };
        self.reloads.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn took(&self, phase: Phase, time: Duration) {
        let step = match phase {
            Phase::Render => "render",
            Phase::Check => "check",
            Phase::Reload => "reload",
        };
        let seconds = time.as_secs_f64();
        self.seconds
            .get_or_create(&StepLabel { step })
            .observe(seconds);
    }

    pub(super) fn diverged(&self, side: &'static str) {
        self.divergences.get_or_create(&SideLabel { side }).inc();
    }
}

/// A number as a gauge has it.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How the supervisor stands, for others to look at.
#[derive(Debug, Clone, Default)]
pub struct Report(Arc<Mutex<Standing>>);

#[derive(Debug, Default)]
struct Standing {
    is_up: bool,
    is_current: bool,
    backends: usize,
    /// Why HAProxy did not start the last time.
    unstarted: Option<String>,
    /// What is wrong with its socket.
    socket: Option<String>,
    /// What is wrong with the last change.
    problem: Option<String>,
    /// Keys and services that are refused.
    refusals: Vec<String>,
    /// Services that have no backend though they should.
    left_out: Vec<String>,
}

impl Report {
    /// `Ok` while HAProxy runs on a configuration that was made here or is the last good one; with
    /// what there is to say either way. What is refused does not make it less ready: HAProxy goes on
    /// with what was good.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<String, String> {
        let state = self.lock();
        let mut text = match (state.is_up, state.is_current) {
            (true, true) => format!("{} backends", state.backends),
            (true, false) => "the last good configuration of before".to_owned(),
            (false, _) => "HAProxy does not run".to_owned(),
        };
        let wrongs = state.unstarted.iter().chain(&state.socket);
        let wrongs = wrongs.chain(&state.problem);
        for wrong in wrongs.chain(&state.refusals) {
            text.push_str("; ");
            text.push_str(wrong);
        }
        if !state.left_out.is_empty() {
            text.push_str("; without a backend, as their names are no labels of DNS: ");
            text.push_str(&state.left_out.join(", "));
        }
        match state.is_up {
            true => Ok(text),
            false => Err(text),
        }
    }

    pub(super) fn set_up(&self, is_up: bool) {
        self.lock().is_up = is_up;
    }

    pub(super) fn is_current(&self, backends: usize) {
        let mut state = self.lock();
        state.is_current = true;
        state.backends = backends;
    }

    pub(super) fn set_unstarted(&self, why: Option<String>) {
        self.lock().unstarted = why;
    }

    pub(super) fn set_socket(&self, problem: Option<String>) {
        self.lock().socket = problem;
    }

    pub(super) fn set_problem(&self, problem: Option<String>) {
        self.lock().problem = problem;
    }

    pub(super) fn set_refusals(&self, refusals: Vec<String>) {
        self.lock().refusals = refusals;
    }

    /// Services without a backend. What is new among them is told.
    pub(super) fn set_left_out(&self, names: &[String]) {
        let mut state = self.lock();
        for service in names.iter().filter(|name| !state.left_out.contains(name)) {
            warn!(
                service,
                "no backend for this service: HAProxy cannot ask for a name that is no label of DNS (letters, digits, - and _, 62 at most)"
            );
        }
        state.left_out = names.to_vec();
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
