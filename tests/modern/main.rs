//! Portolan beside a Consul 1.16.4 that was recorded: its HTTP answers are replayed to Portolan, and Portolan's
//! answers are held against those of its DNS.

#[path = "../parity/deviations/mod.rs"]
mod deviations;
#[path = "../parity/domains.rs"]
mod domains;
#[path = "../parity/judge.rs"]
mod judge;
#[path = "../parity/model.rs"]
mod model;
mod outside;
mod recorded;
mod replay;
#[path = "../support/mod.rs"]
mod support;

use judge::{Tally, own_labels};
use recorded::{Recording, World};
use replay::Replay;
use serde_json::json;
use support::{
    compare::wrong_by_itself,
    dns::Query,
    portolan::{Launch, Portolan},
    wire::{rcode, rtype},
};

/// What the agents had for a second domain.
mod world {
    pub(crate) const ALT_DOMAIN: &str = "sd.example.org";
}

/// Portolan beside a world, with the settings of the agent that was asked.
fn portolan_beside(world: &Replay, token: &str, upstream: &str) -> Portolan {
    Launch::new("serve")
        .args(["--consul", &world.url(), "--from-agent"])
        .args(["--upstream", upstream])
        .env("CONSUL_HTTP_TOKEN", token)
        .start()
}

/// Asks all questions of a world.
fn ask_all(recording: &Recording, name: &str, token: &str, tally: &mut Tally) {
    let world = recording.world(name);
    let upstream = outside::start(&recording.outside);
    // Only the agents of the first world had a recursor.
    let upstream = match name {
        "dc1" => upstream.address().to_string(),
        _ => "none".to_owned(),
    };
    let replay = Replay::of(world.reads.clone());
    let portolan = portolan_beside(&replay, token, &upstream);
    let mut unanswered = 0;
    for asked in &world.asked {
        let query = asked.query();
        if asked.is_answered() {
            tally.ask(&query, world, portolan.dns());
            continue;
        }
        // Consul cannot pack its own answer, and sends nothing.
        unanswered += 1;
        let ours = query.ask(portolan.dns());
        // A node whose name is no label has no name at its address: that may be somebody else's.
        if own_labels(&query.name).is_some() {
            let wrong = wrong_by_itself(&query, &ours);
            assert_eq!(wrong, Vec::<String>::new(), "{query}");
            assert_eq!(ours.rcode(), rcode::NOERROR, "{query}: {}", ours.summary());
        }
    }
    println!("{unanswered:7} answers in {name} where Consul sends nothing");
}

/// A datacenter with a peer and a mesh, another one that is joined to it, and one where a token may see a part.
#[test]
fn answers_are_a_modern_consuls() {
    let recording = Recording::read();
    let mut tally = Tally::default();
    for (world, token) in [
        ("dc1", ""),
        ("dc2", ""),
        ("acl-dns", "22222222-2222-2222-2222-222222222222"),
    ] {
        ask_all(&recording, world, token, &mut tally);
    }
    tally.conclude("modern");
    tally.has_seen_all(true);
}

/// What a 2.1 tells beside: a gateway with two listeners, one of which leads to `web`.
#[test]
fn an_api_gateway_answers_at_its_listener() {
    let recording = Recording::read();
    let world = recording.world("dc1");
    let bound = |service: &str, port: u16| {
        json!({ "Gateway": { "Name": "apigw" }, "Service": { "Name": service },
            "GatewayKind": "api-gateway", "Port": port })
    };
    let mut reads = world.reads.clone();
    let read = reads
        .iter_mut()
        .find(|read| read.path == "/v1/catalog/gateway-services/apigw")
        .expect("it was recorded");
    read.body = json!([bound("web", 9091), bound("web", 9091), bound("api", 9090)]);
    let replay = Replay::of(reads);
    let portolan = portolan_beside(&replay, "", "none");
    let ask = |name: &str, rtype: u16| Query::new(name, rtype).ask(portolan.dns());
    for name in ["web.api-gateway.consul", "web.api-gateway.dc1.consul"] {
        assert_eq!(ask(name, rtype::A).data(), ["10.0.0.3", "10.7.2.2"]);
        let mut srv = ask(name, rtype::SRV).data();
        srv.sort();
        let targets = ["0a070202.addr", "n3.node"];
        assert_eq!(
            srv,
            targets.map(|target| format!("1 1 9091 {target}.dc1.consul."))
        );
    }
    let api = ask("api.api-gateway.consul", rtype::SRV).data();
    assert!(
        api.iter().all(|srv| srv.starts_with("1 1 9090 ")),
        "{api:?}"
    );
    for name in [
        "plain.api-gateway.consul",
        "nope.api-gateway.consul",
        "web.api-gateway.far.peer.consul",
    ] {
        assert_eq!(ask(name, rtype::A).rcode(), rcode::NXDOMAIN, "{name}");
    }
    // It answers for what it leads to, whatever else there is of that name.
    assert_eq!(
        ask("apigw.service.consul", rtype::A).rcode(),
        rcode::NOERROR
    );
}

/// The questions are all there.
#[test]
fn the_recording_is_whole() {
    let recording = Recording::read();
    let sizes: Vec<usize> = recording.worlds.iter().map(|w| w.asked.len()).collect();
    assert_eq!(sizes, [3879, 216, 153]);
    let answered = |world: &World| {
        world
            .asked
            .iter()
            .filter(|asked| asked.is_answered())
            .count()
    };
    assert_eq!(recording.worlds.iter().map(answered).sum::<usize>(), 4214);
}
