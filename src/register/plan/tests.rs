//! Every case of the comparison.

use serde_json::json;
use tokio::time::Instant;

use super::*;

const HASH_NOW: &str = "1-1111111111111111";

fn wanted_web() -> BTreeMap<String, Wanted> {
    let web = Wanted {
        name: "web".to_owned(),
        endpoint: "10.0.0.1:80".to_owned(),
        container: "web".to_owned(),
        body: json!({}),
        hash: HASH_NOW.to_owned(),
        health: None,
    };
    BTreeMap::from([("host:web:80".to_owned(), web)])
}

/// A service of the agent at 10.0.0.1:80.
fn service(meta: &[(&str, &str)]) -> AgentService {
    AgentService {
        name: "web".to_owned(),
        meta: meta
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        address: "10.0.0.1".to_owned(),
        port: 80,
    }
}

/// What is done with one service, and what with what else there is.
#[derive(Default)]
struct Case {
    actual: Vec<(&'static str, AgentService)>,
    adopt: bool,
    kept: &'static [&'static str],
    damaged: &'static [&'static str],
    expected: &'static [(Action, Why, &'static str)],
}

impl Case {
    fn check(self) {
        let identity = Identity::new("me");
        let mut writers = Writers::new(identity.writer());
        writers.observe(BTreeMap::new(), Instant::now());
        let other = BTreeMap::from([("x".to_owned(), "other".to_owned())]);
        writers.observe(other, Instant::now());
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let damaged = set(self.damaged);
        let kept = self.kept.iter();
        let kept = kept
            .map(|name| (format!("id-of-{name}"), (*name).to_owned()))
            .collect();
        let circumstances = Circumstances {
            identity: &identity,
            writers: &writers,
            adopt: self.adopt.then_some("host"),
            kept: &kept,
            damaged: &damaged,
        };
        let actual = self.actual.into_iter();
        let actual = actual
            .map(|(id, service)| (id.to_owned(), service))
            .collect();
        let steps = plan(&wanted_web(), &actual, &circumstances);
        let steps: Vec<_> = steps
            .iter()
            .map(|step| (step.action, step.why, step.id.as_str()))
            .collect();
        assert_eq!(steps, self.expected);
    }
}

const WEB: &str = "host:web:80";
use super::super::identity::OWNER;
use Action::{Deregister, Keep, Leave, Register};

#[test]
fn what_is_missing_is_registered() {
    Case {
        expected: &[(Register, Why::New, WEB)],
        ..Case::default()
    }
    .check();
}

#[test]
fn what_is_there_is_kept() {
    Case {
        actual: vec![(WEB, service(&[(OWNER, "me"), (HASH, HASH_NOW)]))],
        expected: &[(Keep, Why::Unchanged, WEB)],
        ..Case::default()
    }
    .check();
}

#[test]
fn what_differs_is_registered_anew() {
    let moved = AgentService {
        port: 81,
        ..service(&[(OWNER, "me"), (HASH, HASH_NOW)])
    };
    let outdated = service(&[(OWNER, "me"), (HASH, "1-0")]);
    for actual in [moved, outdated, service(&[(OWNER, "me")])] {
        Case {
            actual: vec![(WEB, actual)],
            expected: &[(Register, Why::Changed, WEB)],
            ..Case::default()
        }
        .check();
    }
}

#[test]
fn a_lost_check_is_brought_back() {
    Case {
        actual: vec![(WEB, service(&[(OWNER, "me"), (HASH, HASH_NOW)]))],
        damaged: &[WEB],
        expected: &[(Register, Why::CheckLost, WEB)],
        ..Case::default()
    }
    .check();
}

/// Also if its ID is the one that we would give.
#[test]
fn nobody_elses_service_is_touched() {
    Case {
        actual: vec![
            (WEB, service(&[])),
            ("consul", service(&[])),
            ("host:old:80", service(&[(OWNER, "you"), (HASH, HASH_NOW)])),
        ],
        expected: &[(Leave, Why::NotOurs, WEB)],
        ..Case::default()
    }
    .check();
}

#[test]
fn what_does_not_run_is_deregistered_after_what_does_is_registered() {
    Case {
        actual: vec![("a-ghost", service(&[(OWNER, "me"), (HASH, "1-0")]))],
        expected: &[
            (Register, Why::New, WEB),
            (Deregister, Why::Gone, "a-ghost"),
        ],
        ..Case::default()
    }
    .check();
}

#[test]
fn what_failed_or_is_unknown_stays() {
    let ghost = |container| service(&[(OWNER, "me"), (CONTAINER, container)]);
    Case {
        actual: vec![("one", ghost("id-of-c1")), ("two", ghost("id-of-c2"))],
        kept: &["c1"],
        expected: &[
            (Register, Why::New, WEB),
            (Deregister, Why::Gone, "two"),
            (Keep, Why::ContainerKept, "one"),
        ],
        ..Case::default()
    }
    .check();
}

#[test]
fn registrators_are_taken_over_when_that_is_asked_for() {
    Case {
        actual: vec![
            (WEB, service(&[])),
            ("host:gone:80:udp", service(&[])),
            ("elsewhere:gone:80", service(&[])),
            ("host:not-registrators", service(&[])),
        ],
        adopt: true,
        expected: &[
            (Register, Why::Adopted, WEB),
            (Deregister, Why::Adopted, "host:gone:80:udp"),
        ],
        ..Case::default()
    }
    .check();
}

/// Nobody can say that its container is gone.
#[test]
fn registrators_service_of_an_unknown_container_stays() {
    Case {
        actual: vec![
            ("host:dark:80", service(&[])),
            ("host:gone:80", service(&[])),
            ("elsewhere:dark:80", service(&[])),
        ],
        adopt: true,
        kept: &["dark"],
        expected: &[
            (Register, Why::New, WEB),
            (Deregister, Why::Adopted, "host:gone:80"),
            (Keep, Why::ContainerKept, "host:dark:80"),
        ],
        ..Case::default()
    }
    .check();
}

#[test]
fn what_another_writer_has_written_is_left_alone() {
    let theirs = |hash| service(&[(OWNER, "me"), (HASH, hash), (WRITER, "other")]);
    Case {
        actual: vec![(WEB, theirs("1-0")), ("ghost", theirs("1-0"))],
        expected: &[
            (Leave, Why::OtherWriter, "ghost"),
            (Leave, Why::OtherWriter, WEB),
        ],
        ..Case::default()
    }
    .check();
    // Where both want the same there is nothing to fight about.
    Case {
        actual: vec![(WEB, theirs(HASH_NOW))],
        expected: &[(Keep, Why::Unchanged, WEB)],
        ..Case::default()
    }
    .check();
}
