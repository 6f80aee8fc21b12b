//! What it costs: nothing while nothing happens, and no more than needed when something does.

use crate::{
    health::{checked, checked_every, wait_for_health},
    support::{docker::Container, ensure, eventually, soak},
    world::{Host, LATE, host_name},
};
use serde_json::json;
use std::{
    io::{Write, stderr},
    thread::sleep,
    time::{Duration, Instant},
};

/// As many as one host may well have.
const MANY: u16 = 200;

const REGISTER: &str = "PUT /v1/agent/service/register";

/// The index of a service in the catalog: it grows with every write to the servers.
fn index(host: &Host, service: &str) -> String {
    let path = format!("/v1/health/service/{service}");
    let response = crate::support::http::get(host.consul.http(), &path).expect("an answer");
    response
        .header("X-Consul-Index")
        .expect("an index")
        .to_owned()
}

/// Waits until the index of the servers stands still, and nothing is written or asked of Docker for a
/// second: no condition says that there is nothing left to come.
fn quiet(host: &Host) {
    let state = || {
        let writes = host.recorder.take_writes().len();
        (
            writes + host.proxy.take_asked().len(),
            index(host, "consul"),
        )
    };
    let mut last = state();
    eventually(LATE, "nothing is left to do", || {
        sleep(Duration::from_secs(1));
        let (happened, index) = state();
        let was = std::mem::replace(&mut last, (happened, index.clone()));
        ensure(happened == 0 && index == was.1, || {
            format!("{happened} requests, index {index}")
        })
    });
}

/// Without HEALTHCHECK nothing is written at all. With one the agent hears of it now and then, which
/// it keeps to itself.
#[test]
fn nothing_is_written_while_nothing_happens() {
    let host = Host::start();
    let registrar = host.registrar(&["--resync", "5s"]);
    let mut plain: Vec<Container> = (0..4)
        .map(|number| host.service(&format!("plain-{number}"), "plain"))
        .collect();
    plain.push(checked(&host, "checked"));
    wait_for_health(&plain[4], "healthy");
    host.wait_for(LATE, &plain.iter().collect::<Vec<_>>());
    // The report that it is healthy, and what the agent has still to tell the servers.
    eventually(LATE, "the servers know of its health", || {
        let path = "/v1/health/service/checked?passing";
        let passing = host.consul.get(path);
        ensure(passing.as_array().is_some_and(|all| all.len() == 1), || {
            passing.to_string()
        })
    });
    quiet(&host);
    let before = ["plain", "checked"].map(|service| index(&host, service));
    let _ = (host.recorder.take_writes(), host.proxy.take_asked());
    sleep(soak(Duration::from_secs(30), Duration::from_secs(600)));
    let writes = host.recorder.take_writes();
    let report = format!("PUT /v1/agent/check/update/service:{}", host.id(&plain[4]));
    let decoded = |write: &String| write.replace("%3A", ":");
    let others: Vec<_> = writes
        .iter()
        .filter(|write| decoded(write) != report)
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let after = ["plain", "checked"].map(|service| index(&host, service));
    assert_eq!(before, after, "the servers were written to");
    assert_eq!(host.ids().len(), 5);
    drop(registrar);
}

/// The others are copies of one real container, which Docker is said to run too.
#[test]
fn one_start_among_two_hundred_costs_one_of_each() {
    let host = Host::start();
    let original = host.service("original", "original");
    host.proxy.multiply(&original.id, MANY - 1);
    let _registrar = host.registrar(&["--resync", "1h"]);
    assert_eq!(host.ids().len(), usize::from(MANY));
    one_start(&host);
}

/// The same where all are real.
#[test]
fn one_start_among_ten_costs_one_of_each() {
    let host = Host::start();
    let others: Vec<Container> = (0..10)
        .map(|number| host.service(&format!("other-{number}"), "other"))
        .collect();
    let _registrar = host.registrar(&["--resync", "1h"]);
    host.wait_for(LATE, &others.iter().collect::<Vec<_>>());
    one_start(&host);
}

fn one_start(host: &Host) {
    // What the first comparison left to do.
    quiet(host);
    let before = host.ids();
    let _ = (host.recorder.take_writes(), host.proxy.take_asked());
    // Whatever would come late of the first start has come when the second one is through.
    let mut expected = before;
    let starts = ["one", "two"].map(|name| {
        let container = host.service(name, name);
        expected.insert(host.id(&container));
        host.wait_for_ids(LATE, &expected);
        container
    });
    assert_eq!(host.recorder.take_writes(), [REGISTER; 2]);
    let asked = host.proxy.take_asked();
    let count = |is: &dyn Fn(&str) -> bool| asked.iter().filter(|path| is(path)).count();
    let lists = count(&|path| path == "/containers/json");
    let inspections = count(&|path| path.starts_with("/containers/") && path != "/containers/json");
    assert!(
        lists <= starts.len() && inspections <= starts.len(),
        "{asked:?}"
    );
}

/// A hundred services, of which somebody else has the IDs of ten, cost the agent next to nothing while nothing happens.
#[test]
fn many_at_rest_cost_next_to_nothing() {
    let host = Host::start();
    let original = host.service("original", "original");
    let seconds = soak(30, 60);
    let time = Duration::from_secs(seconds as u64);
    let (asked, busiest) = at_rest(&host, &original, time);
    assert!(
        asked < 2 * seconds && busiest < 10,
        "{asked} in {seconds} s, {busiest} in 5 s"
    );
}

/// The same where each has a HEALTHCHECK, of which the agent has to hear now and then: over as long as it takes until
/// all have been renewed.
#[test]
fn many_with_a_health_check_at_rest_cost_little() {
    let host = Host::start();
    let original = checked_every(&host, "original", "1s");
    wait_for_health(&original, "healthy");
    let (asked, _) = at_rest(&host, &original, Duration::from_secs(80));
    assert!((90..160).contains(&asked), "{asked} in 80 s");
    let path = "/v1/health/service/checked?passing";
    let passing = host.consul.get(path);
    assert_eq!(passing.as_array().map(Vec::len), Some(90), "{passing}");
}

/// How many requests a hundred services like this one cost the agent in a time in which nothing happens, and how many
/// in the busiest five seconds of it. Somebody else has the IDs of ten.
fn at_rest(host: &Host, original: &Container, time: Duration) -> (usize, usize) {
    const THEIRS: usize = 10;
    host.proxy.multiply(&original.id, 99);
    for copy in 0..THEIRS {
        let id = format!("{}:copy-{copy}:80", host_name());
        host.consul
            .agent_register(&json!({ "ID": id, "Name": "theirs", "Port": 1 }));
    }
    let registrar = host.registrar(&[]);
    let conflicts = || registrar.metric("portolan_register_conflicts");
    eventually(
        LATE,
        "all are registered, and those of others are left alone",
        || {
            let found = (host.ids().len(), conflicts());
            ensure(found == (100, THEIRS as f64), || format!("{found:?}"))
        },
    );
    quiet(host);
    let all = || host.recorder.requests();
    let (before, start) = (all(), Instant::now());
    let mut busiest = 0;
    let mut last = before;
    while start.elapsed() < time {
        sleep(Duration::from_secs(5));
        let now = all();
        busiest = busiest.max(now - last);
        last = now;
    }
    assert_eq!(conflicts(), THEIRS as f64);
    let asked = last - before;
    let _ = writeln!(
        stderr(),
        "figure: {asked} requests in {time:?} at rest, {busiest} in the busiest 5 s"
    );
    (asked, busiest)
}
