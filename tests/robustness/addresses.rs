//! Listening on every address, on both families, and with nothing to answer from.

use crate::{
    assert_answers,
    support::{
        dns::{self, Query},
        free_ports, own_loopback,
        portolan::Launch,
        upstream::{self, Upstream},
        wire::{rcode, rtype::A},
    },
};
use std::net::{Ipv4Addr, SocketAddr};

const NAME: &str = "hello1.service.consul";

/// An answer has to come from the address that was asked: HAProxy, like every careful client, does not
/// see any other. On a wildcard listener the system would pick the source by itself.
#[test]
fn a_wildcard_listener_answers_from_the_address_asked() {
    let portolan = Launch::new("dev")
        .args(["--upstream", "none"])
        .listen("0.0.0.0:0")
        .start();
    let port = portolan.dns().port();
    for last in [1, 2, 77] {
        let server = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
        // Twice: the second answer may take another way through the server than the first.
        for _ in 0..2 {
            let query = Query::new(NAME, A).from(Ipv4Addr::new(127, 0, 0, 9));
            let reply = query.ask(server);
            assert!(!reply.answers.is_empty(), "{server}: {}", reply.summary());
            assert!(
                !query.tcp().ask(server).answers.is_empty(),
                "{server} over TCP"
            );
        }
    }
}

#[test]
fn ipv6_is_answered() {
    for listen in ["[::1]:0", "[::]:0"] {
        let portolan = Launch::new("dev")
            .args(["--upstream", "none"])
            .listen(listen)
            .start();
        let port = portolan.dns().port();
        let server = SocketAddr::new("::1".parse().expect("an address"), port);
        for query in [
            Query::new(NAME, A),
            Query::new(NAME, A),
            Query::new(NAME, A).tcp(),
        ] {
            let reply = query.ask(server);
            assert!(!reply.answers.is_empty(), "{listen}: {}", reply.summary());
        }
    }
}

/// Consul has not been reached yet: nothing is known, and nothing is said to be absent.
#[test]
fn without_consul_names_are_not_denied() {
    let upstream =
        Upstream::start(|query, _| upstream::addresses(query, 300, &[Ipv4Addr::new(192, 0, 2, 7)]));
    let ip = own_loopback();
    let [port] = free_ports(ip);
    let portolan = Launch::new("serve")
        .args(["--consul", &format!("http://{ip}:{port}")])
        .args(["--upstream", &upstream.address().to_string()])
        .not_ready()
        .start();
    for name in [
        "web.service.consul",
        "n1.node.consul",
        "_web._tcp.service.consul",
    ] {
        let reply = dns::ask(portolan.dns(), name, A);
        assert_eq!(
            reply.rcode(),
            rcode::SERVFAIL,
            "{name}: {}",
            reply.summary()
        );
    }
    // What needs no Consul is answered all the same.
    let reply = dns::ask(portolan.dns(), "www.test", A);
    assert_eq!(reply.data(), ["192.0.2.7"], "{}", reply.summary());

    let ready = portolan.get("/ready").expect("an answer");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(
        ready.body.to_lowercase().contains("consul"),
        "which part? {ready:?}"
    );
    let health = portolan.get("/healthz").expect("an answer");
    assert_eq!(health.status, 200, "{health:?}");
}

/// Many clients at once, each with its own questions: nobody gets another's answer.
#[test]
fn many_clients_at_once() {
    let mut portolan = Launch::new("dev").args(["--upstream", "none"]).start();
    let server = portolan.dns();
    std::thread::scope(|scope| {
        for client in 0..16 {
            scope.spawn(move || {
                for n in 0..100 {
                    let query = match (client + n) % 4 {
                        0 => Query::new(NAME, A),
                        1 => Query::new("HELLO2.service.consul", A).edns(1232),
                        2 => Query::new("nope.service.consul", A),
                        _ => Query::new("db.service.consul", A).tcp(),
                    };
                    // Checks ID and question.
                    query.ask(server);
                }
            });
        }
    });
    assert_answers(&mut portolan);
}
