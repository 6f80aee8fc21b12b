//! Under 500 requests a second: instances come and go by DNS alone, and what needs a reload costs
//! nobody a request.

use crate::{
    backends::Backend,
    edge::Site,
    load::Load,
    support::{ensure, eventually, http, program},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How long an instance goes on after it is taken off the catalog, as one that is drained does.
const DRAINED: Duration = Duration::from_millis(2500);

fn names(seen: &BTreeMap<String, u64>) -> BTreeSet<&str> {
    seen.keys().map(String::as_str).collect()
}

fn total(seen: &BTreeMap<String, u64>) -> u64 {
    seen.values().sum()
}

#[test]
fn one_to_twenty_to_three_instances_without_a_reload() {
    let site = Site::new();
    let mut backends = vec![Backend::start("hello1-0")];
    site.register("hello1", "rest", &backends[0]);
    let edge = site.start();
    site.answers("/hello1/x", "hello1-0 /x");
    let load = Load::start(site.http, "/hello1/x");
    thread::sleep(Duration::from_secs(1));

    for number in 1..20 {
        let backend = Backend::start(&format!("hello1-{number}"));
        site.register("hello1", "rest", &backend);
        backends.push(backend);
    }
    let mut counted = total(&load.take_seen());
    let all: BTreeSet<&str> = backends.iter().map(|b| b.name.as_str()).collect();
    let mut seen = BTreeMap::new();
    eventually(Duration::from_secs(3), "all twenty answer", || {
        seen.append(&mut count(&load, &mut counted));
        let found = names(&seen);
        ensure(found == all, || format!("only {found:?}"))
    });

    let gone = backends.split_off(3);
    for backend in &gone {
        site.deregister(backend);
    }
    thread::sleep(DRAINED);
    drop(count(&load, &mut counted));
    drop(gone);
    thread::sleep(Duration::from_secs(2));
    let seen = count(&load, &mut counted);
    assert_eq!(names(&seen).len(), 3, "{seen:?}");
    assert_eq!(edge.reloads(), 0);
    load.stop_without_failure(counted);
}

/// What was seen since the last time, added to the number of good requests.
fn count(load: &Load, counted: &mut u64) -> BTreeMap<String, u64> {
    let seen = load.take_seen();
    *counted += total(&seen);
    seen
}

/// A new service, a changed key and a removed service, each of which is one reload.
fn changes_cost_nobody_a_request(haproxy: PathBuf) {
    let site = Site::new().with_haproxy(haproxy);
    let backends: Vec<Backend> = (0..4)
        .map(|number| Backend::start(&format!("hello1-{number}")))
        .collect();
    for backend in &backends {
        site.register("hello1", "rest", backend);
    }
    let edge = site.start();
    for backend in &backends {
        let body = format!("{} /x", backend.name);
        site.answers("/hello1/x", &body);
    }
    let load = Load::start(site.http, "/hello1/x");
    thread::sleep(Duration::from_secs(1));
    assert_eq!(edge.reloads(), 0);

    let in_flight = {
        let address = site.http;
        thread::spawn(move || http::get(address, "/hello1/slow/4000").map(|answer| answer.status))
    };
    // Before the other in the file, so that HAProxy's numbers of backends move.
    let early = site.service("early");
    site.answers("/early/x", "early /x");
    edge.reloaded(1);
    site.set_key("timeouts/server", "20s");
    edge.reloaded(2);
    thread::sleep(Duration::from_secs(1));
    site.deregister(&early);
    edge.reloaded(3);
    assert!(!site.config().contains("backend early"));
    eventually(Duration::from_secs(5), "it is gone", || {
        let (status, body) = site.get("/early/x")?;
        ensure(status == 404, || body)
    });
    thread::sleep(Duration::from_secs(2));
    assert_eq!(edge.reloads(), 3);
    // All of them still answer: a reload has lost none.
    let mut counted = total(&load.take_seen());
    thread::sleep(Duration::from_secs(1));
    let seen = count(&load, &mut counted);
    assert_eq!(names(&seen).len(), 4, "{seen:?}");
    load.stop_without_failure(counted);
    // It was under way over several of the reloads.
    assert_eq!(in_flight.join().expect("it does not panic"), Ok(200));
}

#[test]
fn changes_are_one_reload_each_and_cost_nobody_a_request() {
    changes_cost_nobody_a_request(program("haproxy"));
}

/// From 2.7 on a reload is answered; this HAProxy is one of those.
#[test]
fn the_same_with_haproxy_3() {
    changes_cost_nobody_a_request(haproxy_3());
}

fn haproxy_3() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/programs/haproxy3/haproxy");
    let path = env::var_os("PORTOLAN_HAPROXY3").map_or(own, PathBuf::from);
    assert!(
        path.is_file(),
        "there is no HAProxy 3: run tests/run, it downloads one, or set PORTOLAN_HAPROXY3=/path/to/haproxy"
    );
    path
}

/// Growth beyond the slots is a reload, and shrinking none.
#[test]
fn growth_beyond_the_slots_is_one_reload() {
    let site = Site::new();
    let first = site.service("hello1");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    // They all stand for one server: what counts is how many there are.
    let more: Vec<Backend> = (0..33)
        .map(|number| Backend::start(&format!("more-{number}")))
        .collect();
    for backend in &more {
        site.register("hello1", "rest", backend);
    }
    eventually(Duration::from_secs(10), "there is room for all", || {
        let config = site.config();
        let grown = ["68", "66"]
            .iter()
            .any(|n| config.contains(&format!("server-template s {n} ")));
        ensure(grown, || config)
    });
    let reloads = eventually(Duration::from_secs(5), "it is loaded", || {
        match edge.reloads() {
            // They come one after the other, and not all may be there at the first.
            reloads @ 1..=2 => Ok(reloads),
            reloads => Err(format!("{reloads} reloads")),
        }
    });
    for backend in more {
        site.deregister(&backend);
    }
    thread::sleep(Duration::from_secs(2));
    site.answers("/hello1/x", "hello1 /x");
    assert_eq!(edge.reloads(), reloads);
    drop(first);
}
