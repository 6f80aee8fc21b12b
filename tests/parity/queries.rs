//! Prepared queries: what the table of questions cannot ask, for it takes an ID, a place, or time.
//! (Failover is in `tests/federation`.)

use crate::{
    judge::Tally,
    portolan_beside,
    support::{
        consul::{Consul, Options, instance},
        dns::Query,
        ensure, eventually,
        portolan::Portolan,
        throughout,
        wire::rtype::{A, AAAA, ANY, SRV},
    },
    world::{ALT_DOMAIN, dns_config},
};
use serde_json::{Value, json};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

/// How long a result of `kept` is good.
const TTL: Duration = Duration::from_secs(3);

/// Whatever has to happen has happened by then, on the slowest machine.
const SOON: Duration = Duration::from_secs(30);

/// Clients that are nodes of the catalog, for `Near: "_ip"`: one beside each end of the world.
const WEST: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const EAST: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 2);

/// Four instances of `web`, from west to east.
const FROM_WEST: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];

fn start() -> (Consul, Portolan) {
    let consul = Consul::start_with(Options {
        extra: json!({ "alt_domain": ALT_DOMAIN, "dns_config": dns_config() }),
        ..Options::default()
    });
    for (n, address) in (1..).zip(FROM_WEST) {
        consul.register(&web(n, address));
    }
    let portolan = portolan_beside(&consul, &[]);
    (consul, portolan)
}

fn web(n: u8, address: &str) -> Value {
    let service = json!({ "Service": "web", "Port": 8000 + u16::from(n) });
    instance(&format!("n{n}"), address, &service)
}

/// Asks both in every way; every answer has to be Consul's.
fn same(what: &str, consul: &Consul, portolan: &Portolan, names: &[&str]) {
    let mut tally = Tally::default();
    for name in names {
        for rtype in [A, AAAA, SRV, ANY] {
            for query in [
                Query::new(name, rtype).edns(4096),
                Query::new(name, rtype).tcp(),
            ] {
                tally.ask(&query, &consul.dns(), portolan.dns());
            }
        }
    }
    tally.conclude(what);
}

#[test]
fn queries_are_known_by_name_and_by_id() {
    let (consul, portolan) = start();
    let fixed = consul.define_query(&json!({ "Name": "fixed", "Service": { "Service": "web" } }));
    consul.define_query(
        &json!({ "Name": "near-", "Service": { "Service": "${name.suffix}" },
        "Template": { "Type": "name_prefix_match" } }),
    );
    let id = format!("{fixed}.query.consul");
    let (upper, below) = (id.to_uppercase(), format!("x.{id}"));
    let names = [
        "fixed.query.consul",
        "near-web.query.dc1.consul",
        "near-no.query.consul",
    ];
    same(
        "queries",
        &consul,
        &portolan,
        &[&names[..], &[&id, &upper, &below]].concat(),
    );
    let by_id = Query::new(&id, A).ask(portolan.dns());
    assert_eq!(by_id.data(), FROM_WEST, "{}", by_id.summary());
}

/// Puts a node at this place, in milliseconds from the west end.
fn place(consul: &Consul, node: &str, milliseconds: u16) {
    let mut place = [0.0; 8];
    place[0] = f64::from(milliseconds) / 1000.0;
    consul.put(
        "/v1/coordinate/update",
        &json!({ "Node": node, "Segment": "", "Coord": { "Vec": place, "Error": 0.1,
            "Adjustment": 0.0, "Height": 0.00001 } }),
    );
}

/// The answer to A in the order in which it came.
fn in_order(reply: &crate::support::wire::Reply) -> Vec<String> {
    reply
        .answers
        .iter()
        .map(|record| record.data.clone())
        .collect()
}

#[test]
fn the_nearest_comes_first() {
    let (consul, portolan) = start();
    for (node, address) in [("west", WEST), ("east", EAST)] {
        consul.register(&json!({ "Node": node, "Address": address.to_string() }));
    }
    consul.define_query(&json!({ "Name": "by-ip",
        "Service": { "Service": "web", "Near": "_ip" } }));
    consul.define_query(&json!({ "Name": "by-agent",
        "Service": { "Service": "web", "Near": "_agent" } }));
    consul.define_query(&json!({ "Name": "by-node",
        "Service": { "Service": "web", "Near": "n4" } }));
    for (node, milliseconds) in [
        ("west", 0),
        ("n1", 10),
        ("n2", 20),
        ("n3", 30),
        ("n4", 40),
        ("east", 50),
    ] {
        place(&consul, node, milliseconds);
    }
    // The agent is in the west: it moves itself now and then, so it is put back.
    let from_east: Vec<&str> = FROM_WEST.into_iter().rev().collect();
    let by_ip = Query::new("by-ip.query.consul", A).edns(4096);
    let by_agent = Query::new("by-agent.query.consul", A).edns(4096);
    let expected = [
        (
            "from the west",
            by_ip.clone().from(WEST),
            FROM_WEST.to_vec(),
        ),
        ("from the east", by_ip.clone().from(EAST), from_east.clone()),
        (
            "for a client in the west",
            by_ip.clone().on_behalf_of(WEST),
            FROM_WEST.to_vec(),
        ),
        (
            "for a client in the east",
            by_ip.clone().on_behalf_of(EAST),
            from_east.clone(),
        ),
        (
            "for the west, from the east",
            by_ip.from(EAST).on_behalf_of(WEST),
            FROM_WEST.to_vec(),
        ),
        (
            "near a node",
            Query::new("by-node.query.consul", A).edns(4096),
            from_east,
        ),
        ("near the agent", by_agent, FROM_WEST.to_vec()),
    ];
    // Consul takes places over every 5 s or so.
    for (what, query, wanted) in &expected {
        eventually(SOON, &format!("Consul's order {what}"), || {
            place(&consul, consul.node(), 0);
            // Until then the order is another one each time.
            (0..6).try_for_each(|_| {
                let theirs = in_order(&query.ask(consul.dns()));
                ensure(theirs == *wanted, || format!("{theirs:?}"))
            })
        });
    }
    let mut wrong = Vec::new();
    for (what, query, wanted) in &expected {
        let (theirs, ours) = (query.ask(consul.dns()), query.ask(portolan.dns()));
        if in_order(&ours) != *wanted {
            wrong.push(format!(
                "{what}: {}\n    not {}",
                ours.summary(),
                theirs.summary()
            ));
        }
        // The answer is for this client's network alone, and says so, as Consul's.
        let options = |reply: &crate::support::wire::Reply| reply.opt().map(|opt| opt.data.clone());
        if options(&ours) != options(&theirs) {
            let (ours, theirs) = (options(&ours), options(&theirs));
            wrong.push(format!("{what}: options {ours:?}, not {theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_result_is_kept_for_its_ttl() {
    let (consul, portolan) = start();
    consul.define_query(&json!({ "Name": "kept", "Service": { "Service": "web" },
        "DNS": { "TTL": "3s" } }));
    let query = Query::new("kept.query.consul", A).edns(4096);
    let asked = Instant::now();
    let first = query.ask(portolan.dns());
    let theirs = query.ask(consul.dns());
    assert_eq!(first.data(), FROM_WEST, "{}", first.summary());
    for reply in [&first, &theirs] {
        let good = reply.answers.iter().all(|record| record.ttl == 3);
        assert!(good, "another TTL: {}", reply.summary());
    }
    consul.register(&web(5, "10.0.0.5"));
    assert_eq!(
        query.ask(consul.dns()).answers.len(),
        5,
        "Consul knows of the fifth"
    );
    let mut kept = 0;
    eventually(SOON, "the next result is served", || {
        let now = query.ask(portolan.dns());
        if now.answers.len() == 5 {
            return Ok(());
        }
        assert_eq!(now.data(), first.data(), "{}", now.summary());
        kept += 1;
        Err(now.summary())
    });
    // The result was made after the question for it came.
    assert!(asked.elapsed() >= TTL, "another one too early");
    assert!(kept > 0, "it was not kept at all");
}

#[test]
fn a_result_outlives_consul() {
    let (consul, portolan) = start();
    consul.define_query(&json!({ "Name": "lasting", "Service": { "Service": "web" } }));
    let (a, srv) = ("lasting.query.consul", "LASTING.query.consul");
    let queries = [Query::new(a, A), Query::new(srv, SRV)];
    let before = queries
        .clone()
        .map(|query| query.ask(portolan.dns()).data());
    assert_eq!(before[0], FROM_WEST);
    consul.pause();
    let ask = || {
        // The client's own patience is a second: longer, and it takes it for a lost packet.
        let now = queries
            .clone()
            .map(|query| query.ask(portolan.dns()).data());
        ensure(now == before, || format!("{now:?}"))
    };
    throughout(
        Duration::from_secs(8),
        Duration::from_millis(100),
        "what the query found before",
        ask,
    );
    // Once it is known that there is nobody to wait for, nobody waits.
    eventually(SOON, "nobody waits for Consul any more", || {
        let counts = || portolan.metric("portolan_server_answer_seconds_count{way=\"in_full\"}");
        let waited = counts();
        ask()?;
        ensure(counts() == waited, || "an answer was waited for".to_owned())
    });
    consul.resume();
    consul.wait_until_ready();
    consul.register(&web(5, "10.0.0.5"));
    eventually(SOON, "the result is current again", || {
        let now = queries[0].ask(portolan.dns());
        ensure(now.answers.len() == 5, || now.summary())
    });
}
