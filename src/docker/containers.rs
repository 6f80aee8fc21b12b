//! What is known of all containers, what has to be looked at, and what of it is told to others. No
//! I/O, and no clock but an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::container::{Container, Reached, Run, Summary};
use super::events::{Event, What};

/// How long `docker stop` waits if nothing else was said, and how much longer than that a container
/// counts as being stopped.
const STOP_TIME: Duration = Duration::from_secs(10);
const STOP_GRACE: Duration = Duration::from_secs(5);

/// When the services of a container that has ended are removed from Consul.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deregister {
    /// Whatever it ended with.
    #[default]
    Always,
    /// Only when it ended with 0 or was ended by a signal (a code with bit 128), as in Registrator.
    OnSuccess,
}

impl Deregister {
    /// Is a container that ended with this code to stay registered?
    pub fn keeps(self, exit_code: i64) -> bool {
        self == Self::OnSuccess && exit_code != 0 && exit_code & 128 == 0
    }
}

/// A container that ended, with an error, and still exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// What it ended with.
    pub exit_code: i64,
}

/// What runs, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The containers that run and are not being stopped, sorted by name.
    pub containers: Vec<Arc<Container>>,
    /// Containers that run but could not be inspected, id to name: nothing is known about them,
    /// so whatever is registered for them is to stay.
    pub unknown: BTreeMap<String, String>,
    /// With [`Deregister::OnSuccess`]: containers that ended with an error, by
    /// id. Whatever is registered for them is to stay.
    pub failed: BTreeMap<String, Ended>,
}

impl Snapshot {
    /// The containers whose registered services are to stay as they are, id to name: those that
    /// failed, those of which nothing is known, and those in the network of one of the latter.
    pub fn kept(&self) -> BTreeMap<String, String> {
        let failed = self.failed.iter();
        let failed = failed.map(|(id, ended)| (id.clone(), ended.name.clone()));
        let mut kept = self.unknown.clone();
        kept.extend(failed);
        let is_unknown = |other: &str| {
            let mut unknown = self.unknown.iter();
            unknown.any(|(id, name)| Container::is_called(other, id, name))
        };
        let dependent = self.containers.iter();
        let dependent =
            dependent.filter(|container| container.network_container().is_some_and(is_unknown));
        kept.extend(dependent.map(|container| (container.id.clone(), container.name.clone())));
        kept
    }
}

/// What is known.
#[derive(Debug)]
pub(super) struct Containers {
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

impl Containers {
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
            Some(container) => match container.run {
                Run::Running => {
                    self.failed.remove(id);
                    let started_at = container.started_at.clone();
                    let before = self.running.insert(id.to_owned(), container);
                    if before.is_some_and(|before| before.started_at != started_at) {
                        // Whoever was told to stop has stopped, and was started since.
                        self.stopping.remove(id);
                    }
                }
                Run::Stopped { exit_code } => {
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
mod tests {
    // Events, lists and inspections in every order.

    use serde_json::{Value, json};

    use super::*;

    fn inspected(id: &str, state: &Value) -> Arc<Container> {
        let json = json!({ "Id": id, "Name": format!("/{id}"), "State": state });
        Arc::new(Container::from_inspect(json.to_string().as_bytes()).expect("an inspection"))
    }

    fn running(id: &str) -> Option<Arc<Container>> {
        Some(inspected(id, &json!({ "Status": "running" })))
    }

    fn exited(id: &str, code: i64) -> Option<Arc<Container>> {
        Some(inspected(
            id,
            &json!({ "Status": "exited", "ExitCode": code }),
        ))
    }

    fn list(elements: &[(&str, &str, &str)]) -> Vec<Summary> {
        elements
        .iter()
        .map(|(id, state, status)| {
            let json = json!({
                "Id": id, "Names": [format!("/{id}"), "/other/link"], "State": state, "Status": status
            });
            serde_json::from_value(json).expect("an element of a list")
        })
        .collect()
    }

    fn event(container: &str, what: What) -> Event {
        Event {
            what,
            container: container.to_owned(),
        }
    }

    fn signal(container: &str, signal: &str) -> Event {
        event(container, What::Signalled(signal.to_owned()))
    }

    fn died(container: &str, exit_code: i64) -> Event {
        let what = What::Died {
            name: container.to_owned(),
            exit_code: Some(exit_code),
        };
        event(container, what)
    }

    fn names(containers: &Containers) -> Vec<String> {
        let containers = containers.snapshot().containers;
        containers
            .iter()
            .map(|container| container.name.clone())
            .collect()
    }

    /// What has to be inspected, all of it.
    fn due(containers: &mut Containers) -> Vec<String> {
        std::iter::from_fn(|| containers.next_to_inspect(usize::MAX)).collect()
    }

    /// What is known when these containers run.
    fn containers_with(deregister: Deregister, ids: &[&str]) -> Containers {
        let mut containers = Containers::new(deregister);
        let elements: Vec<_> = ids
            .iter()
            .map(|id| (*id, "running", "Up 1 second"))
            .collect();
        containers.listed(&list(&elements));
        for id in due(&mut containers) {
            containers.inspected(&id, running(&id));
        }
        assert!(containers.is_settled());
        assert_eq!(names(&containers), ids);
        containers
    }

    #[test]
    fn a_list_that_says_what_is_known_asks_for_nothing() {
        let mut containers = containers_with(Deregister::Always, &["a", "b"]);
        containers.listed(&list(&[
            ("a", "running", "Up 2 hours"),
            ("b", "paused", "Up 2 hours (Paused)"),
        ]));
        assert_eq!(due(&mut containers), Vec::<String>::new());
    }

    #[test]
    fn a_list_makes_up_for_lost_events() {
        let mut containers = containers_with(Deregister::Always, &["a", "b", "c"]);
        // a got a name or a health that is not known, b is gone, d is new.
        let healthy = "Up 2 seconds (healthy)";
        containers.listed(&list(&[
            ("a", "running", healthy),
            ("c", "running", "Up 1 hour"),
            ("d", "running", "Up 1 second"),
        ]));
        // Until it is known what became of them, they are as they were.
        assert_eq!(names(&containers), ["a", "b", "c"]);
        assert_eq!(
            containers.snapshot().unknown.keys().collect::<Vec<_>>(),
            ["d"]
        );
        assert_eq!(due(&mut containers), ["a", "b", "d"]);
        containers.inspected("b", None);
        containers.not_inspected("d");
        assert_eq!(names(&containers), ["a", "c"]);
        assert_eq!(
            containers.snapshot().unknown.len(),
            1,
            "the container runs, but Docker could not inspect it"
        );
    }

    #[test]
    fn a_list_that_is_older_than_an_event_does_no_harm() {
        let mut containers = containers_with(Deregister::Always, &["a"]);
        let now = Instant::now();
        // The list was made before b started and a died, and arrives after.
        assert!(containers.event(event("b", What::Started), now));
        assert!(containers.event(died("a", 0), now));
        for id in due(&mut containers) {
            containers.inspected(
                &id,
                if id == "b" {
                    running("b")
                } else {
                    exited("a", 0)
                },
            );
        }
        containers.listed(&list(&[("a", "running", "Up 1 second")]));
        assert_eq!(names(&containers), ["b"]);
        for id in due(&mut containers) {
            containers.inspected(
                &id,
                if id == "b" {
                    running("b")
                } else {
                    exited("a", 0)
                },
            );
        }
        assert_eq!(names(&containers), ["b"]);
    }

    #[test]
    fn an_event_during_an_inspection_is_a_reason_for_another() {
        let mut containers = containers_with(Deregister::Always, &["a"]);
        let now = Instant::now();
        containers.event(event("a", What::Changed), now);
        assert_eq!(due(&mut containers), ["a"]);
        containers.event(event("a", What::Changed), now);
        assert_eq!(due(&mut containers), Vec::<String>::new(), "one at a time");
        containers.inspected("a", running("a"));
        assert_eq!(due(&mut containers), ["a"]);
    }

    #[test]
    fn a_network_is_joined_before_the_start_and_that_is_no_reason_to_look() {
        let mut containers = containers_with(Deregister::Always, &[]);
        let now = Instant::now();
        assert!(!containers.event(event("a", What::Changed), now));
        assert!(containers.event(event("a", What::Started), now));
        assert_eq!(due(&mut containers), ["a"]);
    }

    #[test]
    fn what_is_told_to_stop_is_gone_at_once_and_back_if_it_does_not() {
        let mut containers = containers_with(Deregister::Always, &["a", "b"]);
        let now = Instant::now();
        assert!(containers.event(signal("a", "15"), now));
        assert_eq!(names(&containers), ["b"]);
        let until = containers.next_reprieve().expect("a moment");
        assert_eq!(until - now, STOP_TIME + STOP_GRACE);
        containers.reprieve(now + STOP_TIME);
        assert_eq!(names(&containers), ["b"]);
        containers.reprieve(until);
        assert_eq!(due(&mut containers), ["a"]);
        containers.inspected("a", running("a"));
        assert_eq!(names(&containers), ["a", "b"]);
        assert_eq!(containers.next_reprieve(), None);
    }

    #[test]
    fn signals_that_end_nothing_change_nothing() {
        let mut containers = containers_with(Deregister::Always, &["a"]);
        for harmless in ["1", "10", "SIGUSR2", "28", "3", "", "none"] {
            assert!(
                !containers.event(signal("a", harmless), Instant::now()),
                "{harmless}"
            );
            assert_eq!(names(&containers), ["a"]);
        }
        for deadly in ["2", "9", "15", "SIGTERM", "kill"] {
            let mut containers = containers_with(Deregister::Always, &["a"]);
            containers.event(signal("a", deadly), Instant::now());
            assert_eq!(names(&containers), Vec::<String>::new(), "{deadly}");
        }
    }

    #[test]
    fn the_stop_signal_of_a_container_ends_it() {
        for (configured, sent) in [
            ("SIGQUIT", "3"),
            ("3", "QUIT"),
            ("RTMIN+3", "37"),
            ("HUP", "1"),
        ] {
            let json = json!({
                "Id": "a", "Name": "/a", "State": { "Status": "running" },
                "Config": { "StopSignal": configured, "StopTimeout": 60 }
            });
            let container = Container::from_inspect(json.to_string().as_bytes());
            let mut containers = Containers::new(Deregister::Always);
            containers.inspected("a", container.ok().map(Arc::new));
            let now = Instant::now();
            assert!(
                containers.event(signal("a", sent), now),
                "{configured} {sent}"
            );
            assert_eq!(names(&containers), Vec::<String>::new());
            let until = containers.next_reprieve().expect("a moment");
            assert_eq!(until - now, Duration::from_secs(65));
        }
    }

    #[test]
    fn a_restart_is_a_death_and_a_start() {
        let mut containers = containers_with(Deregister::OnSuccess, &["a"]);
        let now = Instant::now();
        containers.event(signal("a", "15"), now);
        containers.event(died("a", 1), now);
        assert_eq!(containers.snapshot().failed.len(), 1);
        containers.event(event("a", What::Started), now);
        assert_eq!(due(&mut containers), ["a"]);
        containers.inspected("a", running("a"));
        assert_eq!(names(&containers), ["a"]);
        assert_eq!(containers.snapshot().failed.len(), 0);
    }

    #[test]
    fn who_failed_is_kept_on_request_while_it_exists() {
        for (code, is_kept) in [
            (0, false),
            (1, true),
            (127, true),
            (137, false),
            (143, false),
            (255, false),
        ] {
            let mut containers = containers_with(Deregister::OnSuccess, &["a"]);
            containers.event(died("a", code), Instant::now());
            assert_eq!(
                containers.snapshot().failed.contains_key("a"),
                is_kept,
                "{code}"
            );
            containers.inspected("a", exited("a", code));
            assert_eq!(
                containers.snapshot().failed.contains_key("a"),
                is_kept,
                "{code}"
            );
            // The list tells too, for a death that nobody saw.
            let mut containers = containers_with(Deregister::OnSuccess, &["a"]);
            containers.listed(&list(&[(
                "a",
                "exited",
                &format!("Exited ({code}) 2 minutes ago"),
            )]));
            assert_eq!(
                containers.snapshot().failed.contains_key("a"),
                is_kept,
                "{code}"
            );
            assert!(containers.event(event("a", What::Removed), Instant::now()));
            assert_eq!(containers.snapshot().failed.len(), 0);
        }
        let mut containers = containers_with(Deregister::Always, &["a"]);
        containers.event(died("a", 1), Instant::now());
        assert_eq!(containers.snapshot().failed.len(), 0);
    }

    #[test]
    fn an_inspection_that_hangs_holds_up_nobody() {
        let mut containers = Containers::new(Deregister::Always);
        containers.listed(&list(&[("a", "running", ""), ("b", "running", "")]));
        assert_eq!(containers.next_to_inspect(1).as_deref(), Some("a"));
        assert_eq!(containers.next_to_inspect(1), None, "so many at a time");
        assert_eq!(containers.next_to_inspect(2).as_deref(), Some("b"));
        containers.inspected("b", running("b"));
        assert_eq!(names(&containers), ["b"]);
        assert!(!containers.is_settled());
        containers.interrupted();
        assert_eq!(
            due(&mut containers),
            ["b"],
            "of what runs nothing is certain"
        );
    }

    /// A container at an address and a port of the host, since a moment.
    fn placed(id: &str, address: &str, port: u16, started_at: &str) -> Option<Arc<Container>> {
        let json = json!({
            "Id": id, "Name": format!("/{id}"),
            "State": { "Status": "running", "StartedAt": started_at },
            "NetworkSettings": {
                "Ports": { "80/tcp": [
                    { "HostIp": "0.0.0.0", "HostPort": port.to_string() },
                    { "HostIp": "::", "HostPort": port.to_string() },
                ], "443/tcp": null },
                "Networks": { "bridge": { "IPAddress": address, "GlobalIPv6Address": "" } },
            },
        });
        let container = Container::from_inspect(json.to_string().as_bytes());
        Some(Arc::new(container.expect("an inspection")))
    }

    /// What a list says of the container `a`, with these ports and networks.
    fn listed(ports: &Value, networks: &Value) -> [Summary; 1] {
        let json = json!({
            "Id": "a", "Names": ["/a"], "State": "running", "Status": "Up 1 second",
            "Ports": ports, "NetworkSettings": { "Networks": networks },
        });
        [serde_json::from_value(json).expect("an element of a list")]
    }

    #[test]
    fn a_restart_that_nobody_saw_is_noticed() {
        let ports = |port: u16| {
            json!([
                { "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": port, "Type": "tcp" },
                { "IP": "::", "PrivatePort": 80, "PublicPort": port, "Type": "tcp" },
                { "PrivatePort": 443, "Type": "tcp" },
            ])
        };
        let networks =
            |address: &str| json!({ "bridge": { "IPAddress": address, "GlobalIPv6Address": "" } });
        let mut containers = Containers::new(Deregister::Always);
        containers.inspected("a", placed("a", "172.17.0.2", 32768, "1"));
        // Nothing has changed, or the list does not say.
        for (ports, networks) in [
            (ports(32768), networks("172.17.0.2")),
            (Value::Null, Value::Null),
            (ports(32768), json!({ "bridge": null })),
            (ports(32768), json!({ "bridge": {} })),
        ] {
            containers.listed(&listed(&ports, &networks));
            assert_eq!(
                due(&mut containers),
                Vec::<String>::new(),
                "{ports} {networks}"
            );
        }
        for (ports, networks) in [
            (ports(32769), networks("172.17.0.2")),
            (ports(32768), networks("172.17.0.3")),
            (ports(32768), json!({ "other": {} })),
        ] {
            containers.listed(&listed(&ports, &networks));
            assert_eq!(due(&mut containers), ["a"], "{ports} {networks}");
            // An inspection that failed is no answer.
            containers.not_inspected("a");
            containers.listed(&listed(&ports, &networks));
            assert_eq!(due(&mut containers), ["a"], "{ports} {networks}");
            // It is as it was: then the two differ for good, and one look is enough.
            containers.inspected("a", placed("a", "172.17.0.2", 32768, "1"));
            containers.listed(&listed(&ports, &networks));
            assert_eq!(
                due(&mut containers),
                Vec::<String>::new(),
                "{ports} {networks}"
            );
        }
    }

    #[test]
    fn who_was_told_to_stop_and_started_since_runs() {
        let mut containers = Containers::new(Deregister::Always);
        containers.inspected("a", placed("a", "172.17.0.2", 32768, "1"));
        containers.event(signal("a", "15"), Instant::now());
        // It still ends.
        containers.inspected("a", placed("a", "172.17.0.2", 32768, "1"));
        assert_eq!(names(&containers), Vec::<String>::new());
        containers.interrupted();
        assert_eq!(due(&mut containers), ["a"]);
        containers.inspected("a", placed("a", "172.17.0.3", 32769, "2"));
        assert_eq!(names(&containers), ["a"]);
    }

    #[test]
    fn who_waits_for_a_restart_has_failed_too() {
        let mut containers = containers_with(Deregister::OnSuccess, &["a"]);
        let waits = [("a", "restarting", "Restarting (1) 3 seconds ago")];
        for _ in 0..2 {
            containers.listed(&list(&waits));
            for id in due(&mut containers) {
                let state = json!({ "Status": "restarting", "ExitCode": 1 });
                containers.inspected(&id, Some(inspected(&id, &state)));
            }
            assert_eq!(names(&containers), Vec::<String>::new());
            assert_eq!(containers.snapshot().failed.len(), 1);
        }
    }

    #[test]
    fn what_hangs_on_the_unknown_is_kept_with_it() {
        let container = |id: &str, mode: &str| {
            let json = json!({
                "Id": id, "Name": format!("/{id}-name"), "HostConfig": { "NetworkMode": mode },
            });
            let container = Container::from_inspect(json.to_string().as_bytes());
            Arc::new(container.expect("an inspection"))
        };
        let ended = Ended {
            name: "failed-name".to_owned(),
            exit_code: 1,
        };
        let snapshot = Snapshot {
            containers: vec![
                container("by-id", "container:dark"),
                container("by-name", "container:dark-name"),
                container("of-another", "container:by-id"),
                container("of-none", "container:"),
                container("on-its-own", "bridge"),
            ],
            unknown: BTreeMap::from([("dark".to_owned(), "dark-name".to_owned())]),
            failed: BTreeMap::from([("failed".to_owned(), ended)]),
        };
        let kept = ["by-id", "by-name", "dark", "failed"];
        let kept = kept.map(|id| (id.to_owned(), format!("{id}-name")));
        assert_eq!(snapshot.kept(), BTreeMap::from(kept));
    }
}
