//! Upstreams in trouble: the next one is asked, and the client hears of it only when all fail.

use crate::{
    ADDRESS, failing, good, portolan, silent,
    support::{
        dns::{self, Query},
        ensure, eventually,
        upstream::{self, Action, Upstream},
        wire::{rcode, rtype::A},
    },
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

#[test]
fn a_silent_first_upstream_is_not_in_the_way() {
    let (dead, alive) = (silent(), good());
    let portolan = portolan(&[&dead, &alive]);
    // Within what a client waits (dig 5 s, glibc 5 s), each time, for names never asked before.
    for n in 0..5 {
        let start = Instant::now();
        let reply = Query::new(&format!("n{n}.test"), A)
            .patience(Duration::from_secs(5))
            .ask(portolan.dns());
        assert_eq!(reply.data(), [ADDRESS.to_string()], "{}", reply.summary());
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_closed_first_upstream_is_not_in_the_way() {
    // A port that nobody listens on: the system says so at once, by ICMP.
    let closed = {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("a bound socket has an address")
    };
    let alive = good();
    let portolan = crate::support::portolan::Launch::new("serve")
        .args(["--consul", "none"])
        .args(["--upstream", &closed.to_string()])
        .args(["--upstream", &alive.address().to_string()])
        .start();
    let reply = dns::ask(portolan.dns(), "www.test", A);
    assert_eq!(reply.data(), [ADDRESS.to_string()], "{}", reply.summary());
}

#[test]
fn a_first_upstream_that_fails_is_passed_over() {
    for rcode in [
        ResponseCode::ServFail,
        ResponseCode::Refused,
        ResponseCode::NotImp,
        ResponseCode::FormErr,
    ] {
        let (bad, alive) = (failing(rcode), good());
        let portolan = portolan(&[&bad, &alive]);
        for n in 0..10 {
            let reply = dns::ask(portolan.dns(), &format!("n{n}.test"), A);
            assert_eq!(
                reply.rcode(),
                rcode::NOERROR,
                "{rcode}: {}",
                reply.summary()
            );
            assert_eq!(
                reply.data(),
                [ADDRESS.to_string()],
                "{rcode}: {}",
                reply.summary()
            );
        }
    }
}

/// NXDOMAIN is an answer, not a failure: nobody else is asked.
#[test]
fn nxdomain_is_final() {
    let first = Upstream::start(|query, _| upstream::negative(query, ResponseCode::NXDomain));
    let second = good();
    let portolan = portolan(&[&first, &second]);
    let reply = dns::ask(portolan.dns(), "absent.test", A);
    assert_eq!(reply.rcode(), rcode::NXDOMAIN, "{}", reply.summary());
    assert_eq!(
        second.count("absent.test.", RecordType::A),
        0,
        "{:?}",
        second.seen()
    );
}

#[test]
fn servfail_when_all_fail() {
    let (first, second) = (
        failing(ResponseCode::ServFail),
        failing(ResponseCode::Refused),
    );
    let portolan = portolan(&[&first, &second]);
    let reply = dns::ask(portolan.dns(), "www.test", A);
    assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
    assert!(reply.ra(), "{}", reply.summary());
    // Both were asked, and our own names do not care.
    assert!(!first.seen().is_empty() && !second.seen().is_empty());
    let own = dns::ask(portolan.dns(), "web.service.consul", A);
    assert_eq!(own.rcode(), rcode::NXDOMAIN, "{}", own.summary());
    assert!(own.aa(), "{}", own.summary());
    for upstream in [&first, &second] {
        let asked = upstream.seen();
        assert!(
            asked.iter().all(|seen| seen.name == "www.test."),
            "{asked:?}"
        );
    }
}

/// A failure may be remembered, to spare an upstream in trouble (RFC 9520), but for a moment only.
#[test]
fn a_failure_is_soon_forgotten() {
    let is_well = Arc::new(AtomicBool::new(false));
    let upstream = Upstream::start({
        let is_well = Arc::clone(&is_well);
        move |query, _| {
            if is_well.load(Ordering::Relaxed) {
                upstream::addresses(query, 300, &[ADDRESS])
            } else {
                upstream::failure(query, ResponseCode::ServFail)
            }
        }
    });
    let portolan = portolan(&[&upstream]);
    let reply = dns::ask(portolan.dns(), "www.test", A);
    assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
    is_well.store(true, Ordering::Relaxed);
    eventually(Duration::from_secs(3), "the upstream is well again", || {
        let reply = dns::ask(portolan.dns(), "www.test", A);
        ensure(reply.data() == [ADDRESS.to_string()], || reply.summary())
    });
}

/// One slow name does not hold up the others, over UDP nor over one TCP connection's neighbours.
#[test]
fn a_slow_name_does_not_hold_up_others() {
    let upstream = Upstream::start(|query, _| {
        let answer = upstream::addresses(query, 300, &[ADDRESS]);
        let name = upstream::question(query).name.to_ascii().to_lowercase();
        if name.starts_with("slow") {
            return Action::Delay(Duration::from_millis(1500), Box::new(answer));
        }
        answer
    });
    let portolan = portolan(&[&upstream]);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let patience = Duration::from_secs(8);
            Query::new("slow.test", A)
                .patience(patience)
                .ask(portolan.dns())
        });
        let start = Instant::now();
        for n in 0..20 {
            let reply = dns::ask(portolan.dns(), &format!("quick{n}.test"), A);
            assert_eq!(reply.data(), [ADDRESS.to_string()], "{}", reply.summary());
        }
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        let slow = slow.join().expect("the slow query");
        assert_eq!(slow.data(), [ADDRESS.to_string()], "{}", slow.summary());
    });
}

/// While a question waits for its upstream, a socket that has been filled to the brim is still read.
#[test]
fn a_full_socket_is_read_while_something_waits() {
    let upstream = silent();
    let portolan = crate::launch(&[&upstream])
        .config("[recursion]\nrecursor_timeout = \"4s\"\n")
        .args(["--workers", "1"])
        .start();
    let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    client.connect(portolan.dns()).expect("an address");
    client
        .send(&Query::new("waits.test", A).bytes())
        .expect("sending");
    let flood = Query::new("localhost", A).bytes();
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        // What the system does not take is part of a flood.
        let _ = client.send(&flood);
    }
    eventually(Duration::from_secs(2), "it answers after the flood", || {
        let query = Query::new("localhost", A).patience(Duration::from_millis(300));
        let reply = query.try_ask(portolan.dns())?;
        ensure(!reply.answers.is_empty(), || reply.summary())
    });
    assert_eq!(
        upstream.count("waits.test.", RecordType::A),
        upstream.seen().len()
    );
}
