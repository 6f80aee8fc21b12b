//! Row 7 of section 8: recursion as a resolver does it, where Consul only relays.

use crate::{
    section8::only_ours,
    support::{
        consul::{Consul, Options},
        dns::Query,
        ensure,
        portolan::{Launch, Portolan},
        upstream::{self, Action, Transport, Upstream},
        wire::rtype::A,
    },
};
use hickory_proto::rr::RecordType;
use serde_json::json;
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

/// Sooner than Consul gives up its first recursor, which is after 2 s.
const SOON: Duration = Duration::from_millis(1500);

/// How many questions a dead upstream may delay.
const QUESTIONS: u8 = 4;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Portolan with its own defaults beside `consul`, with these upstreams.
pub(crate) fn portolan(consul: &Consul, upstreams: &[SocketAddr]) -> Portolan {
    let upstreams = upstreams
        .iter()
        .flat_map(|address| ["--upstream".to_owned(), address.to_string()]);
    Launch::new("serve")
        .args(["--consul".to_owned(), consul.url()])
        .args(upstreams)
        .start()
}

/// Both servers with these upstreams.
fn both(upstreams: &[SocketAddr]) -> (Consul, Portolan) {
    let recursors: Vec<String> = upstreams.iter().map(SocketAddr::to_string).collect();
    let consul = Consul::start_with(Options {
        extra: json!({ "recursors": recursors }),
        ..Options::default()
    });
    let portolan = portolan(&consul, upstreams);
    (consul, portolan)
}

fn good() -> Upstream {
    Upstream::start(|query, _| upstream::addresses(query, 300, &[ADDRESS]))
}

/// Asks, and wants the address that every good upstream gives.
fn is_answered(name: &str, server: SocketAddr) -> Result<(), String> {
    let query = Query::new(name, A).patience(Duration::from_secs(6));
    let reply = query.try_ask(server)?;
    ensure(reply.data() == [ADDRESS.to_string()], || reply.summary())
}

#[test]
fn row_7_what_is_cut_over_udp_is_asked_for_over_tcp() {
    let cuts = Upstream::start(|query, transport| match transport {
        Transport::Udp => Action::Truncated,
        Transport::Tcp => upstream::addresses(query, 300, &[ADDRESS]),
    });
    let (consul, portolan) = both(&[cuts.address()]);
    only_ours("TCP after TC", portolan.dns(), consul.dns(), |server| {
        is_answered("big.example.com", server)
    });
}

#[test]
fn row_7_answers_are_remembered() {
    let upstream = good();
    let (consul, portolan) = both(&[upstream.address()]);
    only_ours("a cache", portolan.dns(), consul.dns(), |server| {
        let before = upstream.count("www.example.com.", RecordType::A);
        for _ in 0..3 {
            is_answered("www.example.com", server)?;
        }
        let asked = upstream.count("www.example.com.", RecordType::A) - before;
        ensure(asked == 1, || format!("asked the upstream {asked} times"))
    });
}

#[test]
fn row_7_a_dead_upstream_costs_little_and_is_remembered() {
    let dead = Upstream::start(|_, _| Action::Silence);
    let upstream = good();
    let (consul, portolan) = both(&[dead.address(), upstream.address()]);
    only_ours(
        "soon answered by the second",
        portolan.dns(),
        consul.dns(),
        |server| {
            let start = Instant::now();
            is_answered("first.example.com", server)?;
            let took = start.elapsed();
            ensure(took < SOON, || format!("took {took:?}"))
        },
    );
    only_ours(
        "at last not asked any more",
        portolan.dns(),
        consul.dns(),
        |server| {
            let mut took = Duration::MAX;
            for n in 0..QUESTIONS {
                let start = Instant::now();
                is_answered(&format!("n{n}.example.com"), server)?;
                took = start.elapsed();
                if took < Duration::from_millis(100) {
                    return Ok(());
                }
            }
            Err(format!("the last took {took:?}"))
        },
    );
}

#[test]
fn row_7_who_does_not_ask_for_recursion_gets_none() {
    let upstream = good();
    let (consul, portolan) = both(&[upstream.address()]);
    only_ours("RD is 0", portolan.dns(), consul.dns(), |server| {
        let before = upstream.seen().len();
        Query::new("nobody.example.com", A)
            .no_recursion()
            .ask(server);
        let asked = upstream.seen().len() - before;
        ensure(asked == 0, || format!("asked the upstream {asked} times"))
    });
}
