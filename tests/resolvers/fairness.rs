//! One client that floods, or holds what it can, and another one who only wants to know something.

use crate::{
    servers::{Server, launch},
    support::{
        directory,
        dns::{Query, connect_tcp_from, framed},
        ensure, eventually,
        portolan::Portolan,
        resources::memory,
        wire::{rcode, rtype::A},
        write_file,
    },
};
use std::{
    fmt::Write as _,
    io::Write as _,
    net::{Ipv4Addr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const ZONE: &str =
    "$TTL 3600\n@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n* A 192.0.2.1\n";

const FLOODER: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 2);

/// As long as clients wait: what is lost is not answered later.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks for 1,000 names a second that nobody has asked for before, and reads nothing, until it is told to stop.
fn flood(portolan: &Portolan, stop: &AtomicBool) {
    const EVERY: Duration = Duration::from_millis(10);
    let socket = UdpSocket::bind((FLOODER, 0)).expect("a socket");
    let (mut number, mut next) = (0, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..10 {
            number += 1;
            let query = Query::new(&format!("flood{number}.far.example"), A).bytes();
            // What the system does not take is lost, as with any flood.
            let _ = socket.send_to(&query, portolan.dns());
        }
        next += EVERY;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Ends the flood, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The other client gets all its answers, over UDP and over TCP, whatever limit the flood is at.
#[test]
fn a_flood_of_one_client_is_its_own_affair() {
    let directory = directory();
    write_file(directory.path(), "zone", ZONE);
    let named = Server::named(directory.path(), &[("far.example", "zone")]);
    let slow = Server::dnsdist(
        named.address,
        "far.example",
        "addAction(NotRule(QNameRule(\"far.example\")), DelayAction(700))\n",
    );
    // With the limits as they are, and where the full way is as narrow as the flood makes it.
    for config in ["", "[server]\nqueue_size = 100\n"] {
        let portolan = launch(&[slow.address]).config(config).start();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| flood(&portolan, &stop));
            let over = Over(&stop);
            // It is at its limit.
            let shed = "portolan_server_shed_total{reason=\"queue\"}";
            let refused = "portolan_recursion_shed_total";
            eventually(Duration::from_secs(10), "the flood is shed", || {
                let metrics = portolan.metrics();
                let sum = metrics.get(shed).unwrap_or(&0.0) + metrics.get(refused).unwrap_or(&0.0);
                ensure(sum > 0.0, || format!("{metrics:#?}"))
            });
            let ask = |number: usize| {
                let name = format!("other{number}.far.example");
                let query = Query::new(&name, A).from(OTHER).patience(PATIENCE);
                let query = match number % 3 {
                    0 => query.tcp(),
                    _ => query,
                };
                let reply = query.try_ask(portolan.dns());
                reply.is_ok_and(|reply| reply.data() == ["192.0.2.1"])
            };
            let asking: Vec<_> = (0..6)
                .map(|own| {
                    scope.spawn(move || (0..60).skip(own).step_by(6).filter(|at| ask(*at)).count())
                })
                .collect();
            let answered: usize = asking
                .into_iter()
                .map(|own| own.join().expect("asking"))
                .sum();
            drop(over);
            assert_eq!(answered, 60, "{config:?}: {:#?}", portolan.metrics());
        });
    }
}

/// Four addresses hold all places for connections, and say nothing.
#[test]
fn idle_connections_make_room() {
    let directory = directory();
    write_file(directory.path(), "zone", ZONE);
    let named = Server::named(directory.path(), &[("far.example", "zone")]);
    let portolan = launch(&[named.address]).start();
    let mut held: Vec<TcpStream> = Vec::new();
    for client in 1..=4 {
        let source = Ipv4Addr::new(127, 77, 1, client);
        for _ in 0..128 {
            held.push(
                connect_tcp_from(portolan.dns(), Some(source), PATIENCE).expect("a connection"),
            );
        }
    }
    let open = "portolan_server_tcp_connections";
    eventually(Duration::from_secs(10), "all places are taken", || {
        let now = portolan.metric(open);
        ensure(now == 512.0, || format!("{now}"))
    });
    for number in 0..5 {
        let start = Instant::now();
        let query = Query::new(&format!("n{number}.far.example"), A)
            .from(OTHER)
            .tcp();
        let reply = query.ask(portolan.dns());
        assert_eq!(reply.rcode(), rcode::NOERROR, "{}", reply.summary());
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }
    // Somebody gave a place up for each that came before the one before it was gone.
    let yielded = portolan.metric("portolan_server_shed_total{reason=\"idle_connections\"}");
    assert!((1.0..=5.0).contains(&yielded), "{yielded}");
    drop(held);
}

/// A client that asks for much, on many connections, and reads nothing of it.
#[test]
fn who_reads_nothing_costs_little() {
    const NAMES: usize = 300;
    const CONNECTIONS: usize = 128;
    let directory = directory();
    let mut zone = ZONE.replace("* A 192.0.2.1\n", "");
    for at in 0..3900_u32 {
        let _ = writeln!(zone, "* A {}", Ipv4Addr::from(0x0a00_0000 + at));
    }
    write_file(directory.path(), "zone", &zone);
    let named = Server::named(directory.path(), &[("far.example", "zone")]);
    let portolan = launch(&[named.address])
        .config("[recursion]\ncache = \"16MiB\"\n")
        .start();
    let one = |number: usize| Query::new(&format!("n{number}.far.example"), A).tcp();
    let large = one(0).ask(portolan.dns());
    assert_eq!(large.answers.len(), 3900, "it is a large answer");
    let before = memory(portolan.pid());
    let queries: Vec<u8> = (0..NAMES)
        .flat_map(|number| framed(&one(number).bytes()))
        .collect();
    let held: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream =
                connect_tcp_from(portolan.dns(), Some(FLOODER), PATIENCE).expect("a connection");
            stream.write_all(&queries).expect("300 questions are sent");
            stream
        })
        .collect();
    let (mut most, end) = (0, Instant::now() + Duration::from_secs(5));
    while Instant::now() < end {
        most = most.max(memory(portolan.pid()));
        thread::sleep(Duration::from_millis(20));
    }
    let grown = most.saturating_sub(before) >> 20;
    drop(held);
    let mut left = 0;
    eventually(Duration::from_secs(30), "it is as before", || {
        left = memory(portolan.pid()).saturating_sub(before) >> 20;
        let open = portolan.metric("portolan_server_tcp_connections");
        ensure(open == 0.0 && left <= 32, || {
            format!("{left} MiB more, {open} connections")
        })
    });
    println!(
        "{grown} MiB above {} MiB, and {left} when they are gone",
        before >> 20
    );
    assert!(grown <= 64, "{grown} MiB above {} MiB", before >> 20);
}
