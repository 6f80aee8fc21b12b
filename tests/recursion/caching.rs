//! Answers, negative answers, the cache, and the step from UDP to TCP.

use crate::{
    ADDRESS, good, launch, portolan,
    support::{
        dns::{self, Query},
        upstream::{self, Action, Transport, Upstream},
        wire::{
            rcode,
            rtype::{A, AAAA, SOA},
        },
    },
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

#[test]
fn an_answer_is_passed_on() {
    let upstream = good();
    let portolan = portolan(&[&upstream]);
    for query in [
        Query::new("wWw.ExAmPlE.test", A),
        Query::new("www.example.test", A).edns(1232),
        Query::new("www.example.test", A).tcp(),
    ] {
        let reply = query.ask(portolan.dns());
        assert_eq!(reply.rcode(), rcode::NOERROR, "{}", reply.summary());
        assert_eq!(reply.data(), [ADDRESS.to_string()], "{}", reply.summary());
        assert_eq!(reply.question, query.question(), "the client's own case");
        assert!(
            reply.ra() && reply.rd() && !reply.aa(),
            "{}",
            reply.summary()
        );
    }
}

#[test]
fn the_second_time_comes_from_the_cache() {
    let upstream = good();
    let portolan = portolan(&[&upstream]);
    let first = dns::ask(portolan.dns(), "cached.test", A);
    let second = dns::ask(portolan.dns(), "CACHED.test", A);
    assert_eq!(first.data(), second.data());
    assert!(second.answers[0].ttl <= 300, "{}", second.summary());
    assert_eq!(
        upstream.count("cached.test.", RecordType::A),
        1,
        "{:?}",
        upstream.seen()
    );
}

/// NXDOMAIN and NODATA, each with the SOA that lets a client cache it, each asked for once.
#[test]
fn negative_answers_are_passed_on_and_cached() {
    let upstream = Upstream::start(|query, _| {
        let name = upstream::question(query).name.to_ascii().to_lowercase();
        if name.starts_with("absent") {
            upstream::negative(query, ResponseCode::NXDomain)
        } else {
            upstream::negative(query, ResponseCode::NoError)
        }
    });
    let portolan = portolan(&[&upstream]);
    for (name, rtype, rcode) in [
        ("absent.test", A, rcode::NXDOMAIN),
        ("present.test", AAAA, rcode::NOERROR),
    ] {
        for _ in 0..2 {
            let reply = dns::ask(portolan.dns(), name, rtype);
            assert_eq!(reply.rcode(), rcode, "{name}: {}", reply.summary());
            assert!(reply.answers.is_empty(), "{name}: {}", reply.summary());
            let soa = reply.authority.iter().filter(|r| r.rtype == SOA).count();
            assert_eq!(soa, 1, "{name}: {}", reply.summary());
        }
    }
    assert_eq!(
        upstream.count("absent.test.", RecordType::A),
        1,
        "{:?}",
        upstream.seen()
    );
    assert_eq!(
        upstream.count("present.test.", RecordType::AAAA),
        1,
        "{:?}",
        upstream.seen()
    );
}

/// An upstream that cuts its UDP answer is asked again over TCP; the client notices nothing, unless
/// the answer is too big for the client as well.
#[test]
fn a_cut_answer_is_fetched_over_tcp() {
    let all: Vec<Ipv4Addr> = (1..=60).map(|n| Ipv4Addr::new(192, 0, 2, n)).collect();
    let upstream = Upstream::start(move |query, transport| match transport {
        Transport::Udp => Action::Truncated,
        Transport::Tcp => upstream::addresses(query, 300, &all),
    });
    let portolan = portolan(&[&upstream]);
    let name = "big.test";

    let whole = Query::new(name, A).edns(1232).ask(portolan.dns());
    assert_eq!(whole.answers.len(), 60, "{}", whole.summary());
    assert!(!whole.tc(), "{}", whole.summary());
    let transports: Vec<_> = upstream.seen().iter().map(|seen| seen.transport).collect();
    assert!(transports.contains(&Transport::Tcp), "{transports:?}");

    let cut = Query::new(name, A).ask(portolan.dns());
    assert!(cut.tc(), "60 A records in 512 bytes: {}", cut.summary());
    assert!(cut.wire.len() <= 512, "{} bytes", cut.wire.len());
    let over_tcp = Query::new(name, A).tcp().ask(portolan.dns());
    assert_eq!(over_tcp.answers.len(), 60, "{}", over_tcp.summary());
}

/// The Internet's answers stay at 1232 bytes over UDP, whatever the client says it could take.
#[test]
fn udp_answers_are_not_bigger_than_1232() {
    let all: Vec<Ipv4Addr> = (1..=120).map(|n| Ipv4Addr::new(192, 0, 2, n)).collect();
    let upstream = Upstream::start(move |query, transport| match transport {
        Transport::Udp => Action::Truncated,
        Transport::Tcp => upstream::addresses(query, 300, &all),
    });
    let portolan = portolan(&[&upstream]);
    let reply = Query::new("bigger.test", A).edns(4096).ask(portolan.dns());
    assert!(reply.wire.len() <= 1232, "{} bytes", reply.wire.len());
    assert!(reply.tc(), "{}", reply.summary());
    let whole = Query::new("bigger.test", A)
        .edns(4096)
        .tcp()
        .ask(portolan.dns());
    assert_eq!(whole.answers.len(), 120, "{}", whole.summary());
}

/// With random case the upstream sees letters of both kinds, and the client its own.
#[test]
fn questions_go_out_in_random_case() {
    let names: Arc<Mutex<Vec<String>>> = Arc::default();
    let upstream = Upstream::start({
        let names = Arc::clone(&names);
        move |query, _| {
            let name = upstream::question(query).name.to_ascii();
            names.lock().expect("no panic").push(name.clone());
            if !name.starts_with(|first: char| "lL".contains(first)) {
                return upstream::addresses(query, 300, &[ADDRESS]);
            }
            // One that does not keep the case.
            let Action::Answer(mut reply) = upstream::addresses(query, 300, &[ADDRESS]) else {
                unreachable!("it is an answer")
            };
            reply.queries[0].set_name(upstream::question(query).name.to_lowercase());
            Action::Answer(reply)
        }
    });
    let portolan = launch(&[&upstream])
        .config("[recursion]\nrandom_case = true\n")
        .start();
    let name = "wWw.a-rather-long-name.example.org";
    let reply = dns::ask(portolan.dns(), name, A);
    assert_eq!(reply.data(), [ADDRESS.to_string()], "{}", reply.summary());
    let query = Query::new(name, A);
    assert_eq!(reply.question, query.question(), "the client's own case");
    let seen = names.lock().expect("no panic").concat();
    let has = |is: fn(char) -> bool| seen.chars().filter(|own| is(*own)).count() > 3;
    assert!(has(|own| own.is_ascii_uppercase()), "{seen}");
    assert!(has(|own| own.is_ascii_lowercase()), "{seen}");
    // That is no reply to what was asked.
    let query = Query::new("lost.a-rather-long-name.example.org", A);
    let reply = query.patience(Duration::from_secs(8)).ask(portolan.dns());
    assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
}
