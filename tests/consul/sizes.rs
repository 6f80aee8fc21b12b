//! Services with more instances than fit: what is left of the answer, and that it does not flap.

use crate::support::{
    consul::{Consul, instance},
    dns::Query,
    eventually,
    portolan::Portolan,
    wire::{
        Reply,
        rtype::{self, A, SRV},
    },
};
use serde_json::json;
use std::{collections::BTreeSet, net::Ipv4Addr, net::SocketAddr, time::Duration};

const INSTANCES: usize = 60;
const POLLS: usize = 20;

/// How a client asks: plain (512 bytes), with EDNS, over TCP.
#[derive(Debug, Clone, Copy)]
enum Way {
    Plain,
    Edns(u16),
    Tcp,
}

impl Way {
    fn query(self, name: &str, rtype: u16) -> Query {
        let query = Query::new(name, rtype);
        match self {
            Self::Plain => query,
            Self::Edns(size) => query.edns(size),
            Self::Tcp => query.edns(1232).tcp(),
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Plain => 512,
            // Sizes below 512 mean 512 (RFC 6891, 6.2.3).
            Self::Edns(size) => usize::from(size).max(512),
            Self::Tcp => 65_535,
        }
    }
}

/// `big` has addresses of its own, `wide` is on as many nodes.
fn start() -> (Consul, Portolan) {
    let consul = Consul::start();
    for n in 1..=INSTANCES {
        let big = json!({ "Service": "big", "ID": format!("big-{n}"), "Port": 8000 + n,
            "Address": format!("10.9.0.{n}") });
        consul.register(&instance(&format!("w{n}"), &format!("10.8.0.{n}"), &big));
        let wide = json!({ "Service": "wide", "Port": 80 });
        consul.register(&instance(&format!("w{n}"), &format!("10.8.0.{n}"), &wide));
    }
    let portolan = Portolan::beside(&consul);
    (consul, portolan)
}

fn set(reply: &Reply) -> BTreeSet<String> {
    reply.answers.iter().map(|r| r.data.clone()).collect()
}

/// The set that one client gets for `big`, when not all fit.
fn subset(server: SocketAddr, client: Ipv4Addr, rtype: u16) -> BTreeSet<String> {
    let query = Query::new("big.service.consul", rtype).from(client);
    let set = set(&query.ask(server));
    assert!(
        !set.is_empty() && set.len() < INSTANCES,
        "{} of {INSTANCES}",
        set.len()
    );
    set
}

#[test]
fn an_answer_is_cut_to_size_in_good_order() {
    let (_consul, portolan) = start();
    let ways = [
        Way::Plain,
        Way::Edns(100),
        Way::Edns(512),
        Way::Edns(513),
        Way::Edns(1232),
        Way::Edns(2048),
        Way::Edns(4096),
        Way::Edns(8192),
        Way::Tcp,
    ];
    let mut wrong = Vec::new();
    for name in ["big.service.consul", "wide.service.consul"] {
        for rtype in [A, SRV] {
            for way in ways {
                let reply = way.query(name, rtype).ask(portolan.dns());
                for problem in problems(&reply, way, rtype) {
                    let kind = rtype::name(rtype);
                    wrong.push(format!(
                        "{name} {kind} {way:?}: {problem}: {}",
                        reply.summary()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with an answer about 60 instances.
fn problems(reply: &Reply, way: Way, rtype: u16) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |holds: bool, what: String| {
        if !holds {
            problems.push(what);
        }
    };
    let answers = reply.answers.len();
    let cut = answers < INSTANCES;
    check(
        reply.wire.len() <= way.limit(),
        format!("{} bytes", reply.wire.len()),
    );
    check(
        reply.tc() == (cut && rtype == SRV),
        format!("TC is {} with {answers} answers", reply.tc()),
    );
    let opt = reply.additional.iter().position(|r| r.rtype == rtype::OPT);
    let expected = match way {
        Way::Plain => None,
        _ => Some(reply.additional.len().wrapping_sub(1)),
    };
    check(opt == expected, format!("OPT is at {opt:?}"));

    // An A record takes 16 bytes, an SRV with its address some 45 to 60.
    let at_least = match (rtype, way.limit()) {
        (A, 512 | 513) => 28,
        (A, _) => INSTANCES,
        (_, 512 | 513) => 6,
        (_, 1232) => 18,
        (_, 2048) => 30,
        _ => INSTANCES,
    };
    check(answers >= at_least, format!("only {answers} answers"));

    let glue: Vec<_> = reply.glue().collect();
    if rtype == SRV {
        // One address per SRV, in the order of the SRV. Without all of them only when every SRV is
        // there: then the client can ask for the rest.
        let complete = cut || way.limit() >= 4096;
        check(
            !complete || glue.len() == answers,
            format!("{} addresses for {answers} SRV", glue.len()),
        );
        let in_order = glue
            .iter()
            .zip(&reply.answers)
            .all(|(glue, srv)| glue.rtype == A && glue.name == srv.word(3));
        check(
            in_order,
            "the addresses are not in the order of the SRV".to_owned(),
        );
    } else {
        check(
            glue.is_empty(),
            "an A answer with more in Additional".to_owned(),
        );
    }
    problems
}

#[test]
fn the_set_does_not_flap() {
    let (_consul, portolan) = start();
    for rtype in [A, SRV] {
        for way in [
            Way::Plain,
            Way::Edns(512),
            Way::Edns(1232),
            Way::Edns(4096),
            Way::Tcp,
        ] {
            let query = way.query("big.service.consul", rtype);
            let first = set(&query.ask(portolan.dns()));
            for _ in 1..POLLS {
                let again = set(&query.ask(portolan.dns()));
                let kind = rtype::name(rtype);
                assert_eq!(
                    first, again,
                    "{kind} {way:?}: the set changed with no change in Consul"
                );
            }
        }
    }
}

/// Plain clients take the first address: it has to be a different one each time or so.
#[test]
fn the_order_rotates_when_all_fit() {
    let (_consul, portolan) = start();
    let query = Query::new("big.service.consul", A).edns(4096);
    let first = |_| query.ask(portolan.dns()).answers[0].data.clone();
    let firsts: BTreeSet<String> = (0..POLLS).map(first).collect();
    assert!(firsts.len() > 2, "always {firsts:?} first");
}

#[test]
fn clients_get_different_subsets_and_replicas_agree() {
    let (consul, portolan) = start();
    let replica = Portolan::beside(&consul);
    for rtype in [A, SRV] {
        let clients = (1..=8).map(|n| Ipv4Addr::new(127, 0, 0, n));
        let mut all = BTreeSet::new();
        let mut different = BTreeSet::new();
        for client in clients {
            let here = subset(portolan.dns(), client, rtype);
            let there = subset(replica.dns(), client, rtype);
            assert_eq!(here, there, "two replicas, one client, two sets");
            all.extend(here.clone());
            different.insert(here);
        }
        assert!(
            different.len() > 4,
            "8 clients get only {} sets",
            different.len()
        );
        let kind = rtype::name(rtype);
        assert!(
            all.len() > 24,
            "8 clients reach only {} instances by {kind}",
            all.len()
        );
    }
}

#[test]
fn one_instance_moves_one_record() {
    let (consul, portolan) = start();
    let client = Ipv4Addr::LOCALHOST;
    for rtype in [A, SRV] {
        let before = subset(portolan.dns(), client, rtype);
        // One that this client has: it goes, and one that it did not have comes.
        let gone = before.iter().next().expect("a subset is not empty").clone();
        let number: usize = match rtype {
            A => gone.rsplit('.').next().and_then(|last| last.parse().ok()),
            _ => gone
                .split(' ')
                .nth(2)
                .and_then(|port| port.parse().ok())
                .map(|p: usize| p - 8000),
        }
        .unwrap_or_else(|| panic!("which instance is {gone}?"));
        consul.deregister(&format!("w{number}"), &format!("big-{number}"));
        let after = eventually(Duration::from_secs(3), "the instance is gone", || {
            let after = subset(portolan.dns(), client, rtype);
            if after.contains(&gone) {
                return Err(format!("{gone} is still there"));
            }
            Ok(after)
        });
        let (left, came): (Vec<_>, Vec<_>) = (
            before.difference(&after).collect(),
            after.difference(&before).collect(),
        );
        assert_eq!(left, [&gone], "others left with it");
        assert!(
            came.len() <= 1,
            "{} came for one that left: {came:?}",
            came.len()
        );
    }
}
