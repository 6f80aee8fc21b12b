//! What became of each container, for who asks: registered as what and since when, or why not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::docker::{Problem, Snapshot};

use super::due::Retries;
use super::plan::{Action, Step, Why};

/// What became of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Its name.
    pub container: String,
    /// Its ID.
    pub id: String,
    /// Since when it runs, as Docker says it; empty if it does not run.
    pub runs_since: String,
    /// Its services.
    pub services: Vec<ExplainedService>,
    /// Why something is not registered, or not as it was asked for.
    pub notes: Vec<String>,
}

/// What became of one service of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedService {
    /// Its name.
    pub name: String,
    /// Its ID.
    pub id: String,
    /// `IP:PORT`.
    pub address: String,
    /// `registered`, or `refused`, `left alone`, `kept`, `planned`.
    pub state: String,
    /// Why it is so, where it is not just registered.
    pub why: String,
    /// Since when it is so, as this process saw it (RFC 3339); empty where it only looked once.
    pub since: String,
}

impl Explained {
    /// Is it called so: by its name, its ID or the beginning of that?
    pub fn is_called(&self, name: &str) -> bool {
        let is_id = name.len() >= 4 && self.id.starts_with(name);
        self.container == name.trim_start_matches('/') || is_id
    }

    /// For people, in lines.
    pub fn text(&self) -> String {
        let short = self.id.get(..12).unwrap_or(&self.id);
        let runs = match self.runs_since.as_str() {
            "" => "does not run, or nothing is known of it".to_owned(),
            since => format!("runs since {since}"),
        };
        let mut text = format!("{} ({short}) {runs}\n", self.container);
        for service in &self.services {
            let ExplainedService {
                name,
                id,
                address,
                state,
                why,
                since,
            } = service;
            let why = match why.as_str() {
                "" => String::new(),
                why => format!(": {why}"),
            };
            let since = match since.as_str() {
                "" => String::new(),
                since => format!(" since {since}"),
            };
            let _ = writeln!(text, "  {state}{since}{why}");
            let _ = writeln!(text, "    service {name}, ID {id}, at {address}");
        }
        if self.services.is_empty() {
            text.push_str("  not registered\n");
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        text
    }
}

/// Since when each service is as it is.
#[derive(Debug, Default)]
pub(super) struct Since(BTreeMap<String, ((&'static str, String), SystemTime)>);

impl Since {
    /// Explains a comparison; `retries` are what became of it, and `None` where nothing was done.
    pub(super) fn explain(
        &mut self,
        snapshot: &Snapshot,
        steps: &[Step],
        problems: &[&[Problem]],
        retries: Option<&Retries>,
        now: SystemTime,
    ) -> Vec<Explained> {
        let mut services: BTreeMap<&str, Vec<ExplainedService>> = BTreeMap::new();
        let ids: BTreeSet<&str> = steps.iter().map(|step| step.id.as_str()).collect();
        self.0.retain(|id, _| ids.contains(id.as_str()));
        for step in steps
            .iter()
            .filter(|step| step.action != Action::Deregister)
        {
            let state = state(step, retries);
            let since = match retries {
                Some(_) => {
                    let entry = self.0.entry(step.id.clone());
                    let entry = entry.or_insert_with(|| (state.clone(), now));
                    if entry.0 != state {
                        *entry = (state.clone(), now);
                    }
                    humantime::format_rfc3339_seconds(entry.1).to_string()
                }
                None => String::new(),
            };
            let of = services.entry(step.container.as_deref().unwrap_or_default());
            of.or_default().push(ExplainedService {
                name: step.service.clone(),
                id: step.id.clone(),
                address: step.address.clone(),
                state: state.0.to_owned(),
                why: state.1,
                since,
            });
        }
        let running = snapshot.containers.iter().map(|container| {
            let of = problems.iter().copied().flatten();
            let notes = of.filter(|problem| problem.container == container.name);
            Explained {
                container: container.name.clone(),
                id: container.id.clone(),
                runs_since: container.started_at.clone(),
                services: services.remove(container.id.as_str()).unwrap_or_default(),
                notes: notes.map(|problem| problem.message.clone()).collect(),
            }
        });
        let mut explained: Vec<Explained> = running.collect();
        let failed = snapshot.failed.iter().map(|(id, ended)| {
            let note = format!("it ended with {}", ended.exit_code);
            (id, &ended.name, note)
        });
        let unknown = snapshot.unknown.iter().map(|(id, name)| {
            let note = "Docker does not say what it is".to_owned();
            (id, name, note)
        });
        explained.extend(failed.chain(unknown).map(|(id, name, note)| Explained {
            container: name.clone(),
            id: id.clone(),
            runs_since: String::new(),
            services: services.remove(id.as_str()).unwrap_or_default(),
            notes: vec![note],
        }));
        explained.sort_by(|one, other| one.container.cmp(&other.container));
        explained
    }
}

/// How it is with a service that should be registered, and why.
fn state(step: &Step, retries: Option<&Retries>) -> (&'static str, String) {
    let (action, why) = (step.action, step.why);
    match (action, why) {
        (Action::Leave, why) => return ("left alone", why.to_string()),
        (_, Why::ContainerKept) => return ("kept", why.to_string()),
        _ => {}
    }
    match retries.map(|retries| retries.error(&step.id)) {
        None if action == Action::Register => ("planned", why.to_string()),
        Some(Some(error)) => ("refused", error),
        None | Some(None) => ("registered", String::new()),
    }
}
