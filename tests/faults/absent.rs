//! Names that do not exist cost Consul nothing: what does not exist is known from the lists that are
//! always watched. Of what only the mesh could know there is no list: that costs what unknown names may.

use crate::{
    alone,
    asking::Line,
    figure, is_full,
    lying::{beside, question},
    support::{
        consul::Consul,
        dns::Query,
        eventually,
        fake_consul::{FakeConsul, Lie},
        portolan::Launch,
        recorder::Recorder,
        wire::{
            rcode,
            rtype::{A, SRV},
        },
    },
    world::{Services, new_data},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// What is read again and again whatever is asked: the lists, what cannot be watched, and the service
/// that is watched here because it exists.
const ALWAYS: [&str; 8] = [
    "/v1/catalog/services",
    "/v1/catalog/nodes",
    "/v1/catalog/datacenters",
    "/v1/catalog/service/consul",
    "/v1/peerings",
    "/v1/agent/self",
    "/v1/health/service/fresh",
    "/v1/health/service/new1",
];

/// Requests that all of these may cost in a second.
const OF_LISTS: usize = 10;

/// An absent name of every kind that a catalog can tell by itself.
fn absent(number: usize) -> String {
    match number % 6 {
        0 => format!("absent{number}.service.consul"),
        1 => format!("tag.absent{number}.service.consul"),
        2 => format!("_absent{number}._tcp.service.consul"),
        3 => format!("absent{number}.node.consul"),
        4 => format!("absent{number}.service.nowhere{number}.consul"),
        // What a search domain makes of a name from outside.
        _ => format!("www{number}.example.com.service.consul"),
    }
}

/// Asks for absent names from several threads; gives how many answers were not NXDOMAIN, by rcode.
fn flood(server: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    const THREADS: usize = 4;
    let mut others = BTreeMap::new();
    thread::scope(|scope| {
        let ask = |thread: usize| {
            let mut line = Line::new(server, false);
            let mut others = Vec::new();
            for number in (thread..count).step_by(THREADS) {
                let query = Query::new(&absent(number), [A, SRV][number / 6 % 2]);
                match line.exchange(&query.bytes()) {
                    Ok(reply) if reply.rcode() == rcode::NXDOMAIN => {}
                    Ok(reply) => {
                        others.push(format!("{} {}", number % 6, rcode::name(reply.rcode())))
                    }
                    Err(error) => others.push(error),
                }
            }
            others
        };
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || ask(n))).collect();
        for thread in threads {
            for other in thread.join().expect("asking does not panic") {
                *others.entry(other).or_default() += 1;
            }
        }
    });
    others
}

/// What was read beside that.
fn caused(paths: &[String]) -> Vec<&String> {
    let paths = paths.iter();
    paths
        .filter(|path| !ALWAYS.contains(&path.as_str()))
        .collect()
}

#[test]
fn absent_names_cost_consul_nothing() {
    let _alone = alone();
    let count = if is_full() { 100_000 } else { 20_000 };
    let consul = Consul::start();
    Services::new("s", 20, 20).register(&consul);
    let recorder = Recorder::before(consul.http());
    let portolan = Launch::new("serve")
        .args(["--consul", &recorder.url(), "--upstream", "none"])
        .start();
    new_data(&consul, portolan.dns(), "fresh", 1);
    let before = recorder.paths().len();
    let counted = || portolan.metric("portolan_sources_consul_requests_total{outcome=\"ok\"}");
    let (start, counted_before) = (Instant::now(), counted());
    let others = flood(portolan.dns(), count);
    let took = start.elapsed();
    let paths = recorder.paths().split_off(before);
    let mut caused = caused(&paths);
    let requests = counted() - counted_before;
    figure(&format!(
        "{count} absent names in {took:?} caused {} requests to Consul, beside {} of the lists \
         ({requests} counted)",
        caused.len(),
        paths.len() - caused.len()
    ));
    let number = caused.len();
    caused.truncate(3);
    assert_eq!(number, 0, "requests such as {caused:?}");
    let most = OF_LISTS * (1 + took.as_secs() as usize);
    assert!(
        paths.len() <= most,
        "{} requests for the lists",
        paths.len()
    );
    assert!(others.is_empty(), "not NXDOMAIN: {others:?}");
    // And it is as well as before.
    let late = new_data(&consul, portolan.dns(), "fresh", 2);
    assert!(
        late < Duration::from_secs(2),
        "new data was seen after {late:?}"
    );
}

/// Names that only the mesh could have are asked for directly, as often as `consul.unknown_rate` allows; who comes
/// too often waits for a moment, and hears SERVFAIL.
#[test]
fn made_up_names_of_the_mesh_cost_what_unknown_names_may() {
    const LASTING: Duration = Duration::from_secs(5);
    let _alone = alone();
    let fake = FakeConsul::start();
    fake.set("known", &["10.6.0.1"]);
    let portolan = beside(&fake);
    let known = question("known.service.consul", &["10.6.0.1"]);
    eventually(Duration::from_secs(5), "it is known", || {
        known.ask(portolan.dns())
    });
    let (start, server) = (Instant::now(), portolan.dns());
    let slowest = thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in 0.. {
                    if start.elapsed() > LASTING {
                        break;
                    }
                    let form = ["connect", "ingress", "virtual"][number % 3];
                    let name = format!("junk{thread}-{number}.{form}.consul");
                    let said = Query::new(&name, A).ask(server).rcode();
                    assert!(
                        matches!(said, rcode::NXDOMAIN | rcode::SERVFAIL),
                        "{name}: {said}"
                    );
                }
            });
        }
        let mut slowest = Duration::ZERO;
        while start.elapsed() < LASTING {
            let before = Instant::now();
            assert_eq!(known.ask(server), Ok(()), "a known name beside junk");
            slowest = slowest.max(before.elapsed());
            thread::sleep(Duration::from_millis(20));
        }
        slowest
    });
    let seconds = start.elapsed().as_secs_f64();
    let seen = fake.seen();
    let of_junk = seen.iter().filter(|seen| seen.path.contains("junk"));
    let caused = of_junk.count();
    figure(&format!(
        "names of the mesh that were made up for {seconds:.1} s cost {caused} requests; a known name took \
         {slowest:?} at most"
    ));
    assert!(caused as f64 <= 50.0 * seconds + 20.0, "{caused} requests");
    assert!(caused > 20, "only {caused} requests");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}

/// Who asks first, asks for all who come before the answer.
#[test]
fn fifty_who_ask_at_once_cost_one_read() {
    let _alone = alone();
    let fake = FakeConsul::start();
    fake.set("popular", &["10.6.0.1"]);
    let portolan = beside(&fake);
    let path = "/v1/health/service/popular";
    // Long enough for all to have come.
    fake.tell(path, 1, Lie::stall(Duration::from_millis(500)));
    let popular = question("popular.service.consul", &["10.6.0.1"]);
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = || popular.ask(portolan.dns());
        let mut threads: Vec<_> = (0..25).map(|_| scope.spawn(ask)).collect();
        // The others while it is being read.
        eventually(Duration::from_secs(2), "the read has begun", || {
            if fake.seen_at(path).is_empty() {
                return Err("Consul has seen none".to_owned());
            }
            Ok(())
        });
        threads.extend((0..25).map(|_| scope.spawn(ask)));
        let answers = threads.into_iter().map(|thread| thread.join());
        answers
            .map(|answer| answer.expect("asking does not panic"))
            .collect()
    });
    let wrong = answers.iter().find(|answer| answer.is_err());
    assert_eq!(wrong, None, "one of fifty answers");
    let reads = fake.seen_at(path);
    let reads = reads
        .iter()
        .filter(|request| request.index.is_none())
        .count();
    figure(&format!(
        "fifty first questions for one name cost {reads} reads of Consul"
    ));
    assert_eq!(reads, 1, "reads for one name");
}

/// Who asks first for something whose first read fails waits for the second.
#[test]
fn what_fails_once_is_answered_all_the_same() {
    let _alone = alone();
    let fake = FakeConsul::start();
    let lies = [
        Lie::status(500, "rpc error: EOF"),
        Lie::status(503, "no agent"),
        Lie::broken(),
        Lie::cut(),
        Lie::body("<html>"),
    ];
    for number in 0..lies.len() {
        fake.set(&format!("f{number}"), &["10.6.0.1"]);
    }
    let portolan = beside(&fake);
    for (number, lie) in lies.into_iter().enumerate() {
        for (path, name) in [
            (
                format!("/v1/health/service/f{number}"),
                format!("f{number}.service.consul"),
            ),
            (
                format!("/v1/query/f{number}/execute"),
                format!("f{number}.query.consul"),
            ),
        ] {
            fake.tell(&path, 1, lie.clone());
            let asked = question(&name, &["10.6.0.1"]);
            assert_eq!(asked.ask(portolan.dns()), Ok(()), "{name}, {lie:?}");
        }
    }
}

/// Names that no path of Consul's API can have: neither they are asked for nor what would be left of them in a URL.
#[test]
fn what_consul_cannot_be_asked_for_is_not() {
    let _alone = alone();
    let consul = Consul::start();
    let odd = ["tab\tx", "line\nx", "wide\u{200b}x", "hard\u{a0}x"];
    for name in odd.into_iter().chain(["tabx"]) {
        consul
            .agent_register(&json!({ "ID": "id-of-".to_owned() + name, "Name": name, "Port": 80 }));
    }
    let recorder = Recorder::before(consul.http());
    let portolan = Launch::new("serve")
        .args(["--consul", &recorder.url(), "--upstream", "none"])
        .start();
    new_data(&consul, portolan.dns(), "fresh", 1);
    let before = recorder.paths().len();
    for name in odd {
        for name in [
            format!("{name}.service.consul"),
            format!("tag.{name}.service.consul"),
            format!("{name}.query.consul"),
            format!("{name}.connect.consul"),
            format!("{name}.node.consul"),
        ] {
            for _ in 0..5 {
                let reply = Query::new(&name, A).ask(portolan.dns());
                assert_eq!(
                    reply.rcode(),
                    rcode::NXDOMAIN,
                    "{name:?}: {}",
                    reply.summary()
                );
            }
        }
    }
    let paths = recorder.paths().split_off(before);
    let caused = caused(&paths);
    assert!(caused.is_empty(), "{caused:?}");
    let reply = Query::new("tabx.service.consul", A).ask(portolan.dns());
    assert_eq!(reply.answers.len(), 1, "{}", reply.summary());
    assert!(
        portolan
            .log()
            .contains("API cannot be asked for services of these names")
    );
}
