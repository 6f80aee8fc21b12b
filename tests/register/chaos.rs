//! Everything at once.

use crate::{
    support::{
        docker::{Container, docker},
        ensure, eventually,
    },
    world::Host,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    thread::{scope, sleep},
    time::{Duration, Instant},
};

const RESYNC: &str = "10s";

/// For how long Docker's API is away.
const CUT: Duration = Duration::from_secs(30);

/// Someone else's services, which come back by their own means.
fn register_theirs(host: &Host) {
    for (id, meta) in [
        ("theirs", json!({})),
        ("other-owner", json!({ "portolan-owner": "you" })),
    ] {
        host.consul
            .agent_register(&json!({ "ID": id, "Name": "theirs", "Port": 1, "Meta": meta }));
    }
}

#[test]
fn killed_cut_off_and_forgotten_at_once() {
    let mut host = Host::start();
    let flags = ["--resync", RESYNC];
    let mut registrar = host.registrar(&flags);
    register_theirs(&host);
    let start = |range: std::ops::Range<usize>| -> Vec<Container> {
        range
            .map(|number| host.service(&format!("c{number}"), &format!("s{}", number % 3)))
            .collect()
    };
    let theirs = ["theirs", "other-owner"].map(str::to_owned);
    let expected = |running: &[&Container]| -> BTreeSet<String> {
        let ours = running.iter().map(|container| host.id(container));
        ours.chain(theirs.clone()).collect()
    };

    // Killed again and again while twenty start and ten of them stop.
    let containers = scope(|scope| {
        let starting = scope.spawn(|| {
            let first = start(0..10);
            let second = start(10..20);
            for container in &first {
                docker(&["kill", &container.id]).expect("it ends");
            }
            (first, second)
        });
        while !starting.is_finished() {
            sleep(Duration::from_millis(700));
            std::mem::replace(&mut registrar, host.launch(&flags)).kill();
        }
        starting.join().expect("no panic")
    });
    let (stopped, running) = containers;
    let running: Vec<&Container> = running.iter().collect();
    host.wait_for_ids(Duration::from_secs(12), &expected(&running));

    // Docker is away, and what was registered stays; then containers come and go unseen.
    host.proxy.cut();
    let cut = Instant::now();
    for container in &running[..5] {
        docker(&["kill", &container.id]).expect("it ends");
    }
    for container in &stopped[..5] {
        container.tell("start");
    }
    registrar.kill();
    let registrar = host.launch(&flags);
    assert_eq!(
        host.ids(),
        expected(&running),
        "an unknown host is no empty host"
    );
    let ready = registrar.get("/ready").expect("an answer");
    assert_eq!(ready.status, 503, "{ready:?}");
    // Consul's agent comes back with nothing, twice: what it had for us, and for others.
    let consul_http = host.consul.http();
    let _ = consul_http;
    let again: Vec<&Container> = stopped[..5]
        .iter()
        .chain(running[5..].iter().copied())
        .collect();
    let wanted = expected(&again);
    let ghosts = host.ids();
    assert!(!ghosts.is_subset(&wanted));
    let host = &mut host;
    host.consul.restart_empty();
    host.consul.wait_until_ready();
    register_theirs(host);
    let theirs: BTreeSet<String> = theirs.into();
    assert_eq!(host.ids(), theirs);
    sleep(CUT.saturating_sub(cut.elapsed()));
    assert_eq!(host.ids(), theirs, "nothing is known of what runs");

    host.proxy.heal();
    host.wait_for_ids(Duration::from_secs(11), &wanted);
    let catalog = host
        .consul
        .get(&format!("/v1/catalog/node/{}", host.consul.node()));
    let services = catalog["Services"].as_object().expect("services by ID");
    eventually(Duration::from_secs(5), "the catalog has the same", || {
        let in_catalog: BTreeSet<String> = services
            .keys()
            .filter(|id| *id != "consul")
            .cloned()
            .collect();
        ensure(in_catalog == wanted, || format!("{in_catalog:?}"))
    });
    registrar.wait_until_ready();
}
