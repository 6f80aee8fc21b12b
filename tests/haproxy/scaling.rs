//! Under 500 requests a second: instances come and go by DNS alone, and what needs a reload costs
//! nobody a request.

use crate::{
    backends::Backend,
    edge::Site,
    load::{Load, RATE},
    support::{ensure, eventually, http, program},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Whatever has to happen has happened by then, on the slowest machine.
const SOON: Duration = Duration::from_secs(30);

/// Requests after which it would have shown that something goes wrong: a second's worth.
const ENOUGH: u64 = RATE as u64;

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
    let mut counted = 0;
    let seen = ask_on(&load, &mut counted);
    assert_eq!(names(&seen), ["hello1-0"].into());

    for number in 1..20 {
        let backend = Backend::start(&format!("hello1-{number}"));
        site.register("hello1", "rest", &backend);
        backends.push(backend);
    }
    let all: BTreeSet<&str> = backends.iter().map(|b| b.name.as_str()).collect();
    let mut seen = BTreeMap::new();
    eventually(SOON, "all twenty answer", || {
        seen.append(&mut count(&load, &mut counted));
        let found = names(&seen);
        ensure(found == all, || format!("only {found:?}"))
    });

    let gone = backends.split_off(3);
    for backend in &gone {
        site.deregister(backend);
    }
    // They go on until nobody is sent to them any more, as instances that are drained do.
    eventually(SOON, "only three are asked", || {
        let seen = ask_on(&load, &mut counted);
        ensure(names(&seen).len() == 3, || format!("{seen:?}"))
    });
    drop(gone);
    for _ in 0..2 {
        let seen = ask_on(&load, &mut counted);
        assert_eq!(names(&seen).len(), 3, "{seen:?}");
    }
    assert_eq!(edge.reloads(), 0);
    load.stop_without_failure(counted);
}

/// What was seen since the last time, added to the number of good requests.
fn count(load: &Load, counted: &mut u64) -> BTreeMap<String, u64> {
    let seen = load.take_seen();
    *counted += total(&seen);
    seen
}

/// Waits until there are enough new answers to judge by, and gives who they came from.
fn ask_on(load: &Load, counted: &mut u64) -> BTreeMap<String, u64> {
    drop(count(load, counted));
    let mut seen = BTreeMap::<String, u64>::new();
    eventually(SOON, "a second's worth of answers", || {
        for (who, times) in count(load, counted) {
            *seen.entry(who).or_default() += times;
        }
        ensure(total(&seen) >= ENOUGH, || format!("{seen:?}"))
    });
    seen
}

/// Each is replaced by a new one: which is entered, and asked; and then the old one is taken off, and ends some seconds
/// later.
#[test]
fn a_rolling_deployment_of_ten_fails_no_request() {
    let site = Site::new();
    let start = |version: u32, number: u32| {
        let backend = Backend::start(&format!("v{version}-{number}"));
        site.register("hello1", "rest", &backend);
        backend
    };
    let old: Vec<Backend> = (0..10).map(|number| start(1, number)).collect();
    let edge = site.start();
    site.answers("/hello1/x", "v1-9 /x");
    let load = Load::start(site.http, "/hello1/x");
    let (mut counted, mut new) = (0, Vec::new());
    for (number, old) in (0..).zip(old) {
        new.push(start(2, number));
        let seen = |name: &str, counted: &mut u64| count(&load, counted).contains_key(name);
        eventually(SOON, "the new one is asked", || {
            let is_asked = seen(&format!("v2-{number}"), &mut counted);
            ensure(is_asked, || "not yet".to_owned())
        });
        site.deregister(&old);
        // HAProxy asks once a second.
        let mut quiet = Instant::now();
        eventually(SOON, "the old one is asked no more", || {
            if seen(&old.name, &mut counted) {
                quiet = Instant::now();
            }
            ensure(quiet.elapsed() > Duration::from_secs(1), || {
                "not yet".to_owned()
            })
        });
        drop(old);
    }
    let seen = ask_on(&load, &mut counted);
    assert_eq!(names(&seen).len(), 10, "{seen:?}");
    assert!(
        names(&seen).iter().all(|name| name.starts_with("v2-")),
        "{seen:?}"
    );
    assert_eq!(edge.reloads(), 0);
    load.stop_without_failure(counted);
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
    let mut counted = 0;
    drop(ask_on(&load, &mut counted));
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
    drop(ask_on(&load, &mut counted));
    site.deregister(&early);
    edge.reloaded(3);
    assert!(!site.config().contains("backend early"));
    eventually(SOON, "it is gone", || {
        let (status, body) = site.get("/early/x")?;
        ensure(status == 404, || body)
    });
    // All of them still answer: a reload has lost none, and there is no other.
    for _ in 0..3 {
        let seen = ask_on(&load, &mut counted);
        assert_eq!(names(&seen).len(), 4, "{seen:?}");
    }
    assert_eq!(edge.reloads(), 3);
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

pub(crate) fn haproxy_3() -> PathBuf {
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
    eventually(SOON, "there is room for all", || {
        let config = site.config();
        let grown = ["68", "66"]
            .iter()
            .any(|n| config.contains(&format!("server-template s {n} ")));
        ensure(grown, || config)
    });
    let reloads = eventually(SOON, "it is loaded", || {
        match edge.reloads() {
            // They come one after the other, and not all may be there at the first.
            reloads @ 1..=2 => Ok(reloads),
            reloads => Err(format!("{reloads} reloads")),
        }
    });
    for backend in more {
        site.deregister(&backend);
    }
    // HAProxy hears of it by DNS; what has to be loaded after that is the only reload.
    eventually(SOON, "one is left", || {
        let stat = edge.ask("@1 show stat")?;
        let servers = stat.lines().filter(|line| line.starts_with("hello1,s"));
        let up = servers.filter(|line| line.contains(",UP,")).count();
        ensure(up == 1, || format!("{up} are up"))
    });
    site.set_key("timeouts/server", "20s");
    edge.reloaded(reloads + 1);
    site.answers("/hello1/x", "hello1 /x");
    assert_eq!(edge.reloads(), reloads + 1);
    drop(first);
}
