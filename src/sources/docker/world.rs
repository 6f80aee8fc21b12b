//! What is known of the containers, and what has to be looked at. No I/O, and no clock but an
//! argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::container::{Container, Status};
use super::event::{Event, What};
use super::settings::Deregister;
use super::snapshot::{Ended, Snapshot};
use super::summary::{Reached, Summary};

/// How long `docker stop` waits if nothing else was said, and how much longer than that a container
/// counts as being stopped.
const STOP_TIME: Duration = Duration::from_secs(10);
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What is known.
#[derive(Debug)]
pub(super) struct World {
    deregister: Deregister,
    /// The containers that run, by id.
    running: BTreeMap<String, Arc<Container>>,
    unknown: BTreeMap<String, String>,
    failed: BTreeMap<String, Ended>,
    /// Containers that were told to stop, and until when that is believed.
    stopping: HashMap<String, Instant>,
    /// Containers to inspect.
    wanted: BTreeSet<String>,
    /// Containers that are being inspected; true if something happened to them meanwhile.
    inspecting: HashMap<String, bool>,
    /// Where the list has containers that it has elsewhere than their inspection: one look at each
    /// is enough, should the two differ for good.
    disputed: HashMap<String, Reached>,
}

impl World {
    pub(super) fn new(deregister: Deregister) -> Self {
        Self {
            deregister,
            running: BTreeMap::new(),
            unknown: BTreeMap::new(),
            failed: BTreeMap::new(),
            stopping: HashMap::new(),
            wanted: BTreeSet::new(),
            inspecting: HashMap::new(),
            disputed: HashMap::new(),
        }
    }

    /// The states of containers that a list has to hold; `None` for all.
    pub(super) fn states(&self) -> Option<&'static [&'static str]> {
        match self.deregister {
            Deregister::Always => Some(&["running", "paused"]),
            // Nearly all: also those that wait for a restart. Podman does not know Docker's words.
            Deregister::OnSuccess => None,
        }
    }

    /// Something happened. True if it was a reason to look.
    pub(super) fn event(&mut self, event: Event, now: Instant) -> bool {
        let Event { what, container } = event;
        let is_known = self.running.contains_key(&container);
        match what {
            What::Started => {
                self.stopping.remove(&container);
                self.failed.remove(&container);
            }
            What::Signalled(signal) => match self.running.get(&container) {
                Some(known) if ends(known, &signal) => {
                    let patience = known.stop_timeout.map_or(STOP_TIME, Duration::from_secs);
                    let until = now.checked_add(patience.max(STOP_TIME) + STOP_GRACE);
                    self.stopping
                        .insert(container, until.unwrap_or(now + STOP_TIME));
                    return true;
                }
                // `docker kill -s HUP` makes a program read its configuration again.
                _ => return false,
            },
            What::Died { name, exit_code } => {
                // It is dead, whatever an inspection says later and however long that takes.
                self.stopping.remove(&container);
                self.unknown.remove(&container);
                let known = self.running.remove(&container);
                let name = known.map_or(name, |known| known.name.clone());
                self.ended(&container, name, exit_code.unwrap_or_default());
            }
            What::Removed => {
                let held = self.failed.remove(&container).is_some();
                if !is_known {
                    return held;
                }
            }
            // A container that does not run is connected to its network before it starts.
            What::Changed if !is_known && !self.unknown.contains_key(&container) => return false,
            What::Changed => {}
        }
        self.want(container);
        true
    }

    fn ended(&mut self, id: &str, name: String, exit_code: i64) {
        if self.deregister.keeps(exit_code) {
            self.failed.insert(id.to_owned(), Ended { name, exit_code });
        } else {
            self.failed.remove(id);
        }
    }

    /// All containers were listed. What is not as it is known is looked at, and what the list does
    /// not hold any more too: the list may be older than the last event.
    pub(super) fn listed(&mut self, list: &[Summary]) {
        let (running, others): (Vec<&Summary>, Vec<&Summary>) =
            list.iter().partition(|summary| summary.is_running());
        for summary in &running {
            match self.running.get(&summary.id).cloned() {
                Some(known) => {
                    // A restart that nobody saw may have moved it.
                    let is_moved = self.is_moved(summary, &known);
                    if is_moved || !summary.agrees_with(&known) {
                        self.want(summary.id.clone());
                    }
                }
                None => {
                    let name = summary.name().to_owned();
                    self.unknown.insert(summary.id.clone(), name);
                    self.want(summary.id.clone());
                }
            }
        }
        let ids: BTreeSet<&str> = running.iter().map(|summary| summary.id.as_str()).collect();
        self.disputed.retain(|id, _| ids.contains(id.as_str()));
        let gone = self.running.keys().chain(self.unknown.keys());
        let gone: Vec<String> = gone
            .filter(|id| !ids.contains(id.as_str()))
            .cloned()
            .collect();
        gone.into_iter().for_each(|id| self.want(id));

        self.failed.clear();
        for summary in others {
            if let Some(exit_code) = summary.exit_code() {
                self.ended(&summary.id, summary.name().to_owned(), exit_code);
            }
        }
    }

    /// Does the list have the container where we do not, and is that news?
    fn is_moved(&mut self, summary: &Summary, known: &Container) -> bool {
        let reached = summary.reached();
        if reached.agrees_with(known) {
            self.disputed.remove(&summary.id);
            return false;
        }
        let before = self.disputed.insert(summary.id.clone(), reached.clone());
        before != Some(reached)
    }

    fn want(&mut self, id: String) {
        match self.inspecting.get_mut(&id) {
            Some(again) => *again = true,
            None => {
                self.wanted.insert(id);
            }
        }
    }

    /// The next container to inspect, while fewer than `most` are.
    pub(super) fn next_to_inspect(&mut self, most: usize) -> Option<String> {
        if self.inspecting.len() >= most {
            return None;
        }
        let id = self.wanted.pop_first()?;
        self.inspecting.insert(id.clone(), false);
        Some(id)
    }

    /// Is nothing left to look at?
    pub(super) fn is_settled(&self) -> bool {
        self.wanted.is_empty() && self.inspecting.is_empty()
    }

    /// A container was inspected; `None` if there is none of that id.
    pub(super) fn inspected(&mut self, id: &str, container: Option<Arc<Container>>) {
        self.unknown.remove(id);
        match container {
            Some(container) => match container.status {
                Status::Running => {
                    self.failed.remove(id);
                    let started_at = container.started_at.clone();
                    let before = self.running.insert(id.to_owned(), container);
                    if before.is_some_and(|before| before.started_at != started_at) {
                        // Whoever was told to stop has stopped, and was started since.
                        self.stopping.remove(id);
                    }
                }
                Status::Stopped { exit_code } => {
                    self.running.remove(id);
                    self.stopping.remove(id);
                    self.ended(id, container.name.clone(), exit_code);
                }
            },
            None => {
                self.running.remove(id);
                self.stopping.remove(id);
                self.failed.remove(id);
            }
        }
        self.done(id);
    }

    /// A container could not be inspected: what was known of it stays.
    pub(super) fn not_inspected(&mut self, id: &str) {
        self.disputed.remove(id);
        self.done(id);
    }

    fn done(&mut self, id: &str) {
        if self.inspecting.remove(id) == Some(true) {
            self.wanted.insert(id.to_owned());
        }
    }

    /// The contact to Docker broke: nothing is being inspected any more, and all that runs has to
    /// be looked at again. It may have been restarted meanwhile, elsewhere.
    pub(super) fn interrupted(&mut self) {
        self.inspecting.clear();
        self.disputed.clear();
        self.wanted = self.running.keys().cloned().collect();
    }

    /// When the next container that was told to stop counts as running again.
    pub(super) fn next_reprieve(&self) -> Option<Instant> {
        self.stopping.values().min().copied()
    }

    /// Containers that were told to stop and did not are looked at again.
    pub(super) fn reprieve(&mut self, now: Instant) {
        let late: Vec<String> = self
            .stopping
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            self.stopping.remove(&id);
            self.want(id);
        }
    }

    /// What runs, as far as is known.
    pub(super) fn snapshot(&self) -> Snapshot {
        let running = self.running.iter();
        let mut containers: Vec<Arc<Container>> = running
            .filter(|(id, _)| !self.stopping.contains_key(*id))
            .map(|(_, container)| Arc::clone(container))
            .collect();
        containers.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        Snapshot {
            containers,
            unknown: self.unknown.clone(),
            failed: self.failed.clone(),
        }
    }
}

/// Does the signal mean that the container is being stopped? Its own stop signal does, and those
/// that end a program; `QUIT` does not by itself, since it makes Java print its threads.
fn ends(container: &Container, signal: &str) -> bool {
    let signal = number(signal);
    let own = container.stop_signal.as_deref().and_then(number);
    signal.is_some_and(|signal| Some(signal) == own || matches!(signal, 2 | 9 | 15))
}

/// A signal's number, from that or its name (Linux).
fn number(signal: &str) -> Option<u8> {
    if let Ok(number) = signal.parse() {
        return Some(number);
    }
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return offset.parse::<u8>().ok()?.checked_add(34);
    }
    Some(match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ABRT" => 6,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        "CONT" => 18,
        "STOP" => 19,
        "WINCH" => 28,
        "PWR" => 30,
        "RTMIN" => 34,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
