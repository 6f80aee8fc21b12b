//! A real HAProxy 2.6 that fills its `server-template` from Portolan. Its view is the verdict: it drops
//! what follows a misplaced record, asks again for every address it did not get, and at its default
//! `hold obsolete` takes a slot away for a single missing record.

#[path = "../support/mod.rs"]
mod support;

mod backends;
mod behaviour;
mod connections;
mod corners;
mod edge;
mod ghosts;
mod load;
mod outages;
mod ownership;
mod pace;
mod process;
mod refusals;
mod scaling;
mod size;
mod templates;
mod watchdog;

use serde_json::json;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use support::{
    consul::{Consul, instance},
    eventually,
    haproxy::{Haproxy, Server, backend, over_tcp, resolvers},
    portolan::Portolan,
    soak, throughout,
};

const NAME: &str = "_app._tcp.service.consul";

/// Instance `n` of `app`: an address and a port of its own.
fn register(consul: &Consul, n: usize) {
    let address = format!("127.1.{}.{}", n / 250, 1 + n % 250);
    let service = json!({ "Service": "app", "ID": format!("app-{n}"), "Address": address,
        "Port": 20_000 + n });
    consul.register(&instance("w", "127.0.0.1", &service));
}

fn start(instances: usize) -> (Consul, Portolan) {
    let consul = Consul::start();
    for n in 0..instances {
        register(&consul, n);
    }
    let portolan = Portolan::beside(&consul);
    (consul, portolan)
}

/// Waits until HAProxy has `count` servers up.
fn filled(haproxy: &Haproxy, count: usize) {
    let what = format!("HAProxy has {count} servers up");
    eventually(Duration::from_secs(15), &what, || {
        match haproxy.up("app").len() {
            up if up == count => Ok(()),
            up => Err(format!("{up} are up; {:?}", haproxy.counters())),
        }
    });
}

/// Nothing that HAProxy holds may change for `during`, and each resolution has to be one query.
fn holds_still(haproxy: &Haproxy, during: Duration) {
    let before: Vec<Server> = haproxy.servers("app");
    let logged = haproxy.log().len();
    let (sent, start) = (haproxy.counter("sent"), Instant::now());
    throughout(
        during,
        Duration::from_millis(200),
        "HAProxy's slots",
        || {
            for (was, is) in before.iter().zip(haproxy.servers("app")) {
                if *was != is {
                    return Err(format!("{was:?} became {is:?}"));
                }
            }
            Ok(())
        },
    );
    // One SRV query per `timeout resolve` of 1 s. A query per server and second, which a missing
    // address record costs, would be dozens of times as many.
    let queries = haproxy.counter("sent") - sent;
    let seconds = start.elapsed().as_secs();
    assert!(
        queries <= seconds + 2,
        "{queries} queries in {seconds} s: more than one a second: {:?}",
        haproxy.counters()
    );
    assert!(
        queries + 2 >= seconds / 2,
        "HAProxy stopped asking: {queries} in {seconds} s"
    );
    for counter in [
        "truncated",
        "invalid",
        "too_big",
        "any_err",
        "nx",
        "other",
        "refused",
    ] {
        assert_eq!(
            haproxy.counter(counter),
            0,
            "{counter}: {:?}",
            haproxy.counters()
        );
    }
    for complaint in ["entry removed", "changed its"] {
        let log = haproxy.log().split_off(logged);
        let line = log.lines().find(|line| line.contains(complaint));
        assert_eq!(line, None, "HAProxy logged a change of a slot");
    }
}

fn endpoints(haproxy: &Haproxy) -> BTreeSet<String> {
    haproxy.up("app").iter().map(Server::endpoint).collect()
}

#[test]
fn sixty_instances_fill_stay_and_follow() {
    let (consul, portolan) = start(60);
    let config = resolvers(&portolan.dns().to_string(), 8192) + &backend("app", 70, NAME);
    let haproxy = Haproxy::start(&config);
    filled(&haproxy, 60);
    let before = endpoints(&haproxy);
    assert_eq!(before.len(), 60, "sixty different servers: {before:?}");
    holds_still(
        &haproxy,
        soak(Duration::from_secs(15), Duration::from_secs(300)),
    );

    // One goes, another comes: seen within 3 s, and nobody else moves.
    consul.deregister("w", "app-7");
    register(&consul, 60);
    let (gone, new) = ("127.1.0.8:20007", "127.1.0.61:20060");
    eventually(Duration::from_secs(3), "one gone and one new", || {
        let now = endpoints(&haproxy);
        match (now.contains(gone), now.contains(new)) {
            (false, true) => Ok(()),
            (old, new) => Err(format!("old still there: {old}, new there: {new}")),
        }
    });
    let mut expected = before;
    expected.remove(gone);
    expected.insert(new.to_owned());
    assert_eq!(endpoints(&haproxy), expected);
}

#[test]
fn two_hundred_instances_that_do_not_fit_stay() {
    let (_consul, portolan) = start(200);
    let config = resolvers(&portolan.dns().to_string(), 8192) + &backend("app", 200, NAME);
    let haproxy = Haproxy::start(&config);
    // As many as fit into 8192 bytes: how many that is, only the server knows. Three answers are
    // enough to have them all.
    let within = Duration::from_secs(15);
    let held = eventually(within, "HAProxy has servers", || {
        match (haproxy.up("app").len(), haproxy.counter("valid")) {
            (up @ 1.., 3..) => Ok(up),
            _ => Err(format!("{:?}", haproxy.counters())),
        }
    });
    assert!(
        (120..=200).contains(&held),
        "{held} of 200 servers in 8192 bytes"
    );
    holds_still(
        &haproxy,
        soak(Duration::from_secs(15), Duration::from_secs(300)),
    );
    assert_eq!(haproxy.up("app").len(), held);
}

/// Over TCP everything fits.
#[test]
fn two_hundred_instances_over_tcp() {
    let (_consul, portolan) = start(200);
    let config = resolvers(&over_tcp(portolan.dns()), 65_535) + &backend("app", 200, NAME);
    let haproxy = Haproxy::start(&config);
    filled(&haproxy, 200);
    holds_still(
        &haproxy,
        soak(Duration::from_secs(10), Duration::from_secs(300)),
    );
}
