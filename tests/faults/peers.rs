//! Cluster peers: what they export is there at once, what they do not is denied at once, and all of it costs Consul
//! little, however many there are.

use crate::{
    alone,
    asking::all_right,
    figure,
    lying::{beside, question},
    support::{
        dns::Query,
        ensure, eventually,
        fake_consul::{FakeConsul, Lie},
        wire::{
            rcode::{NOERROR, NXDOMAIN, SERVFAIL},
            rtype::{A, SRV},
        },
    },
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How soon what is new or gone shows.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_new_peer_and_a_new_export_are_there_at_once() {
    let _alone = alone();
    let fake = FakeConsul::start();
    fake.set("api", &["10.5.0.1"]);
    let portolan = beside(&fake);
    let rcode_of = |name: &str| Query::new(name, A).ask(portolan.dns()).rcode();
    let is = |name: &str, rcode: u16| {
        eventually(SOON, &format!("{name} is {rcode}"), || {
            let said = rcode_of(name);
            ensure(said == rcode, || format!("it is {said}"))
        });
    };
    is("api.service.consul", NOERROR);
    is("web.service.far.peer.consul", NXDOMAIN);
    fake.export("far", "web", "10.90.0.1");
    is("web.service.far.peer.consul", NOERROR);
    let srv = Query::new("web.service.far.peer.consul", SRV).ask(portolan.dns());
    assert_eq!(srv.data(), ["1 1 80 web-n.node.far.peer.consul."]);
    is("web-n.node.far.peer.consul", NOERROR);
    // What is ours is not the peer's, and neither is what nobody has.
    for absent in [
        "api.service.far.peer.consul",
        "nope.service.far.peer.consul",
        "n1.node.far.peer.consul",
    ] {
        let begun = Instant::now();
        assert_eq!(rcode_of(absent), NXDOMAIN, "{absent}");
        assert!(begun.elapsed() < SOON, "{absent}: {:?}", begun.elapsed());
    }
    fake.export("far", "db", "10.90.0.2");
    is("db.service.far.peer.consul", NOERROR);
    fake.withdraw("far", "db");
    is("db.service.far.peer.consul", NXDOMAIN);
    is("web.service.far.peer.consul", NOERROR);
}

/// A token that may not list peers may read their services all the same, and those show their nodes.
#[test]
fn peers_that_may_not_be_listed_are_asked_for_one_by_one() {
    let _alone = alone();
    let fake = FakeConsul::start();
    fake.set("api", &["10.5.0.1"]);
    fake.export("far", "web", "10.90.0.1");
    let refused = Lie::status(
        403,
        "Permission denied: token lacks permission 'peering:read'",
    );
    fake.tell("/v1/peerings", usize::MAX, refused);
    let portolan = beside(&fake);
    let known = [question("api.service.consul", &["10.5.0.1"])];
    all_right(portolan.dns(), &known, Duration::from_secs(5));
    let ask = |name: &str| Query::new(name, A).ask(portolan.dns());
    for (name, rcode) in [
        ("web.service.far.peer.consul", NOERROR),
        ("web-n.node.far.peer.consul", NOERROR),
        ("api.service.far.peer.consul", NXDOMAIN),
        ("web.service.other.peer.consul", NXDOMAIN),
        // There may be one that no service has shown.
        ("n1.node.far.peer.consul", SERVFAIL),
    ] {
        assert_eq!(ask(name).rcode(), rcode, "{name}");
    }
    let told = "the ACL token may not list cluster peers";
    assert_eq!(portolan.log().matches(told).count(), 1);
}

/// No list tells when the mesh has a name: it is there soon all the same, and as it is now.
#[test]
fn what_the_mesh_gets_is_there_soon() {
    const AFTER_ABSENCE: Duration = Duration::from_millis(2500);
    let _alone = alone();
    let fake = FakeConsul::start();
    fake.set("listed", &["10.5.0.1"]);
    let portolan = beside(&fake);
    let ask = |name: &str| Query::new(name, A).ask(portolan.dns());
    for (name, before) in [("route", NXDOMAIN), ("listed", NOERROR)] {
        let asked = format!("{name}.virtual.consul");
        eventually(AFTER_ABSENCE, &format!("{asked} is {before}"), || {
            let reply = ask(&asked);
            let holds = reply.rcode() == before && reply.answers.is_empty();
            ensure(holds, || reply.summary())
        });
        // Somebody remembers that from now on.
        let _remembered = ask(&asked);
        for address in ["240.0.0.1", "240.0.0.2"] {
            fake.set_virtual(name, address);
            let is_it = question(&asked, &[address]);
            eventually(AFTER_ABSENCE, &format!("{asked} is {address}"), || {
                is_it.ask(portolan.dns())
            });
        }
    }
}

/// A hundred peers that export a thousand services, and a thousand names that the mesh has and no service.
#[test]
fn many_peers_and_a_large_mesh_cost_little() {
    const PEERS: usize = 100;
    const EXPORTS: usize = 10;
    const NAMES: usize = 1000;
    const RESTING: Duration = Duration::from_secs(15);
    let _alone = alone();
    let fake = FakeConsul::start();
    let mut known = Vec::new();
    for peer in 0..PEERS {
        for service in 0..EXPORTS {
            let address = format!("10.{}.{peer}.{service}", 90 + service);
            fake.export(&format!("p{peer}"), &format!("s{service}"), &address);
            let name = format!("s{service}.service.p{peer}.peer.consul");
            known.push(question(&name, &[&address]));
        }
    }
    for number in 0..NAMES {
        let address = format!("240.0.{}.{}", number / 250, number % 250);
        fake.set_virtual(&format!("v{number}"), &address);
        known.push(question(&format!("v{number}.virtual.consul"), &[&address]));
    }
    let portolan = beside(&fake);
    let begun = Instant::now();
    // Those that the mesh alone has are read as fast as unknown names may be.
    for part in known.chunks(20) {
        all_right(portolan.dns(), part, Duration::from_secs(10));
    }
    let took = begun.elapsed();
    let most = fake.most_connections();
    let before = fake.seen().len();
    thread::sleep(RESTING);
    let reads = fake.seen().len() - before;
    let a_minute = reads as f64 * 60.0 / RESTING.as_secs_f64();
    figure(&format!(
        "{PEERS} peers with {} exports and {NAMES} names of the mesh: all asked in {:.1} s, {most} \
         connections at most, {a_minute:.0} reads a minute at rest",
        PEERS * EXPORTS,
        took.as_secs_f64()
    ));
    assert!(most <= 128, "{most} connections");
    // Each watch asks again every 30 s, and the probe once a second.
    assert!(a_minute <= 400.0, "{a_minute} reads a minute at rest");
}
