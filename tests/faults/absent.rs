//! Names that do not exist cost Consul nothing: what does not exist is known from the lists that are
//! always watched.

use crate::{
    alone,
    asking::Line,
    figure, is_full,
    lying::question,
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
    match number % 8 {
        0 => format!("absent{number}.service.consul"),
        1 => format!("tag.absent{number}.service.consul"),
        2 => format!("_absent{number}._tcp.service.consul"),
        3 => format!("absent{number}.node.consul"),
        4 => format!("absent{number}.connect.consul"),
        5 => format!("absent{number}.ingress.consul"),
        6 => format!("absent{number}.service.nowhere{number}.consul"),
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
                let query = Query::new(&absent(number), [A, SRV][number / 8 % 2]);
                match line.exchange(&query.bytes()) {
                    Ok(reply) if reply.rcode() == rcode::NXDOMAIN => {}
                    Ok(reply) => {
                        others.push(format!("{} {}", number % 8, rcode::name(reply.rcode())))
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
    let mut caused: Vec<&String> = paths
        .iter()
        .filter(|p| !ALWAYS.contains(&p.as_str()))
        .collect();
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

/// Who asks first, asks for all who come before the answer.
#[test]
fn fifty_who_ask_at_once_cost_one_read() {
    let _alone = alone();
    let fake = FakeConsul::start();
    fake.set("popular", &["10.6.0.1"]);
    let portolan = Launch::new("serve")
        .args(["--consul", &fake.url(), "--upstream", "none"])
        .start();
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
