//! Everything at once.

use crate::{
    support::{
        docker::{Container, Docker, docker},
        ensure, eventually,
        registrar::Registrar,
        throughout,
    },
    world::{Host, SOON},
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    thread::{scope, sleep},
    time::{Duration, Instant},
};

const RESYNC: [&str; 2] = ["--resync", "10s"];

/// One resync, and a moment for this machine.
const WITHIN: Duration = Duration::from_secs(11);

/// For how long Docker's API is away.
const CUT: Duration = Duration::from_secs(30);

/// Someone else's services, which come back by their own means.
const THEIRS: [&str; 2] = ["theirs", "other-owner"];

fn register_theirs(host: &Host) {
    for (id, meta) in THEIRS
        .iter()
        .zip([json!({}), json!({ "portolan-owner": "you" })])
    {
        // Consul takes any number for a port, and so must we.
        let service = json!({ "ID": id, "Name": "theirs", "Port": 70_000, "Meta": meta });
        host.consul.agent_register(&service);
    }
}

/// What there should be: theirs, and what is ours of these.
fn expected(host: &Host, running: &[&Container]) -> BTreeSet<String> {
    let ours = running.iter().map(|container| host.id(container));
    ours.chain(THEIRS.map(str::to_owned)).collect()
}

fn start(docker: &Docker, numbers: std::ops::Range<usize>) -> Vec<Container> {
    let container = |number: usize| {
        let variable = format!("SERVICE_NAME=s{}", number % 3);
        let options = ["-e", &variable, "-p", ":80"];
        docker.sleeper(&format!("c{number}"), &options)
    };
    numbers.map(container).collect()
}

/// The registrar is killed again and again while twenty containers start and ten stop; in the midst
/// of it Docker's API goes away for half a minute and Consul's agent comes back with nothing.
#[test]
fn killed_cut_off_and_forgotten_at_once() {
    let mut host = Host::start();
    let mut registrar = host.registrar(&RESYNC);
    register_theirs(&host);
    let engine = &host.docker;
    let (stopped, running) = scope(|scope| {
        let happening = scope.spawn(|| {
            let first = start(engine, 0..10);
            let second = start(engine, 10..20);
            for container in &first {
                docker(&["kill", &container.id]).expect("it ends");
            }
            (first, second)
        });
        let (proxy, consul) = (host.proxy.url(), host.recorder.url());
        let flags = ["--docker", &proxy, "--consul", &consul];
        let flags = [&flags[..], &RESYNC].concat();
        let mut again = || {
            sleep(Duration::from_millis(700));
            let next = Registrar::start(&flags);
            std::mem::replace(&mut registrar, next).kill();
        };
        // Some of them are registered, and some of those will be gone.
        again();
        again();
        host.proxy.cut();
        let cut = Instant::now();
        again();
        host.consul.restart_empty();
        while !happening.is_finished() || cut.elapsed() < CUT {
            again();
        }
        happening.join().expect("no panic")
    });
    host.consul.wait_until_ready();
    register_theirs(&host);
    assert_eq!(host.ids(), expected(&host, &[]), "nobody knows what runs");
    assert_eq!(registrar.get("/ready").expect("an answer").status, 503);

    host.proxy.heal();
    let wanted = expected(&host, &running.iter().collect::<Vec<_>>());
    host.wait_for_ids(WITHIN, &wanted);
    let node = format!("/v1/catalog/node/{}", host.consul.node());
    eventually(Duration::from_secs(5), "the catalog has the same", || {
        let catalog = host.consul.get(&node);
        let services = catalog["Services"].as_object().expect("services by ID");
        let ids = services.keys().filter(|id| *id != "consul");
        let ids: BTreeSet<String> = ids.cloned().collect();
        ensure(ids == wanted, || format!("{ids:?}"))
    });
    registrar.wait_until_ready();
    drop(stopped);
}

/// What is registered stays while nothing is known of what runs, also for a new registrar; then
/// what went meanwhile goes, and what came comes.
#[test]
fn a_docker_that_is_away_is_no_empty_host() {
    let host = Host::start();
    let registrar = host.registrar(&RESYNC);
    register_theirs(&host);
    let containers = start(&host.docker, 0..3);
    let before = expected(&host, &containers.iter().collect::<Vec<_>>());
    host.wait_for_ids(SOON, &before);

    host.proxy.cut();
    docker(&["kill", &containers[0].id]).expect("it ends");
    let late = start(&host.docker, 3..4);
    let stays = |during: u64| {
        let (during, every) = (Duration::from_secs(during), Duration::from_millis(200));
        throughout(during, every, "all stays", || {
            let ids = host.ids();
            ensure(ids == before, || format!("{ids:?}"))
        });
    };
    stays(2);
    registrar.kill();
    let registrar = host.launch(&RESYNC);
    stays(3);
    assert_eq!(registrar.get("/ready").expect("an answer").status, 503);

    host.proxy.heal();
    let after = expected(&host, &[&containers[1], &containers[2], &late[0]]);
    host.wait_for_ids(WITHIN, &after);
}
