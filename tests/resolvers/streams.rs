//! TCP to upstreams, in front of which stands a real dnsdist: it closes after each answer, and it falls
//! silent.

use crate::{
    servers::{Server, portolan},
    support::{
        directory,
        dns::Query,
        portolan::Portolan,
        upstream::{self, Action, Transport, Upstream},
        wire::{rcode, rtype::A},
        write_file,
    },
};
use hickory_proto::rr::RecordType;
use std::{
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const ZONE: &str = "$TTL 0\n@ SOA ns h 1 3600 600 86400 0\n@ NS ns\nns A 127.0.0.1\n\
                    * A 192.0.2.1\n*.big A 192.0.2.2\n";

fn named(directory: &Path) -> Server {
    write_file(directory, "zone", ZONE);
    Server::named(directory, &[("far.example", "zone")])
}

/// dnsdist that answers `big.far.example` over UDP with TC alone.
fn dnsdist(named: &Server, more: &str) -> Server {
    let truncating = "local big = newSuffixMatchNode()\nbig:add(\"big.far.example.\")\n\
        addAction(AndRule({TCPRule(false), SuffixMatchNodeRule(big)}), TCAction())\n";
    Server::dnsdist(named.address, "far.example", &format!("{truncating}{more}"))
}

/// Asks so many different names at once; gives how many were answered.
fn parallel(portolan: &Portolan, prefix: &str, below: &str, number: usize) -> usize {
    thread::scope(|scope| {
        let asking: Vec<_> = (0..number)
            .map(|at| {
                scope.spawn(move || {
                    let name = format!("{prefix}-{at}.{below}");
                    let query = Query::new(&name, A).patience(Duration::from_secs(5));
                    query
                        .try_ask(portolan.dns())
                        .is_ok_and(|reply| reply.answers.len() == 1)
                })
            })
            .collect();
        asking
            .into_iter()
            .filter(|_| true)
            .map(|own| own.join().expect("asking"))
            .filter(|is| *is)
            .count()
    })
}

#[test]
fn an_upstream_that_closes_after_each_answer_answers_all() {
    let directory = directory();
    let named = named(directory.path());
    let dnsdist = dnsdist(&named, "setMaxTCPQueriesPerConnection(1)\n");
    let portolan = portolan(&[dnsdist.address]);
    for round in 0..10 {
        let answered = parallel(&portolan, &format!("r{round}"), "big.far.example", 60);
        assert_eq!(answered, 60, "round {round}: {:#?}", portolan.metrics());
    }
}

/// Stopped under load: somebody else is asked, and when it goes on, it is asked again.
#[test]
fn an_upstream_that_falls_silent_is_passed_by() {
    let directory = directory();
    let named = named(directory.path());
    let first = dnsdist(&named, "");
    let second = dnsdist(&named, "");
    let portolan = portolan(&[first.address, second.address]);
    // Connections are open, and in use.
    assert_eq!(parallel(&portolan, "before", "big.far.example", 60), 60);
    first.process.signal("STOP");
    for at in 0..5 {
        for below in ["far.example", "big.far.example"] {
            let start = Instant::now();
            assert_eq!(parallel(&portolan, &format!("stopped{at}"), below, 1), 1);
            let took = start.elapsed();
            assert!(took < Duration::from_millis(1500), "{took:?}");
        }
    }
    first.process.signal("CONT");
}

/// With nobody else to ask, the questions are answered as soon as it goes on.
#[test]
fn an_only_upstream_is_asked_as_soon_as_it_goes_on() {
    let directory = directory();
    let named = named(directory.path());
    let only = dnsdist(&named, "");
    let portolan = portolan(&[only.address]);
    assert_eq!(parallel(&portolan, "before", "big.far.example", 60), 60);
    only.process.signal("STOP");
    assert_eq!(parallel(&portolan, "stopped", "big.far.example", 60), 0);
    only.process.signal("CONT");
    for below in ["far.example", "big.far.example"] {
        let start = Instant::now();
        assert_eq!(parallel(&portolan, "after", below, 60), 60);
        let took = start.elapsed();
        assert!(took < Duration::from_millis(1500), "{took:?}");
    }
}

/// TC moves one question to TCP, not those after it.
#[test]
fn after_a_truncated_answer_the_next_questions_go_over_udp() {
    let directory = directory();
    let named = named(directory.path());
    let dnsdist = dnsdist(
        &named,
        "addAction(TCPRule(true), SpoofAction(\"192.0.2.99\"))\n",
    );
    let portolan = portolan(&[dnsdist.address]);
    let ask = |name: &str| {
        let reply = Query::new(name, A).ask(portolan.dns());
        reply.data()
    };
    assert_eq!(ask("one.big.far.example"), ["192.0.2.99"]);
    for at in 0..40 {
        assert_eq!(ask(&format!("n{at}.far.example")), ["192.0.2.1"]);
    }
    assert_eq!(ask("two.big.far.example"), ["192.0.2.99"]);
}

/// An upstream that answers others and breaks off this question is there, and means it: neither is it taken to be
/// starting anew, nor asked again and again.
#[test]
fn who_refuses_one_question_is_not_hammered() {
    let upstream = Upstream::start(|query, transport| {
        let name = upstream::question(query).name.to_string();
        match (name.starts_with("big"), transport) {
            (false, _) => upstream::addresses(query, 300, &[Ipv4Addr::new(192, 0, 2, 1)]),
            (true, Transport::Udp) => Action::Truncated,
            // The connection is closed.
            (true, Transport::Tcp) => Action::Silence,
        }
    });
    let portolan = portolan(&[upstream.address()]);
    let ask = |name: &str| {
        let query = Query::new(name, A).patience(Duration::from_secs(6));
        query.ask(portolan.dns())
    };
    for round in 0..3 {
        let other = ask(&format!("other{round}.far.example"));
        assert_eq!(other.answers.len(), 1, "{}", other.summary());
        let big = format!("big{round}.far.example");
        let reply = ask(&big);
        assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
        let asked = upstream.count(&format!("{big}."), RecordType::A);
        assert!(asked <= 10, "asked {asked} times");
    }
}
