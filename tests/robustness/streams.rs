//! Odd TCP clients.

use crate::{
    assert_answers, start,
    support::{
        dns::{PATIENCE, Query, connect_tcp, framed, read_framed},
        portolan::Portolan,
        wire::{Reply, rtype::A, rtype::SRV},
    },
};
use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

const NAME: &str = "hello1.service.consul";

fn connect(portolan: &Portolan) -> TcpStream {
    connect_tcp(portolan.dns(), PATIENCE).expect("a TCP connection")
}

fn send(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("sending");
}

#[test]
fn lengths_that_lie_do_no_harm() {
    let mut portolan = start();
    let query = Query::new(NAME, A).bytes();
    let mut open = Vec::new();
    for promised in [0_u16, 1, 11, 12, 30, 65_535] {
        // More promised than sent, and left open; then less promised than sent, and closed. The
        // server may close at once, so what we still write may be refused.
        let mut stream = connect(&portolan);
        let _ = stream.write_all(&promised.to_be_bytes());
        let _ = stream.write_all(&query);
        open.push(stream);
        let mut stream = connect(&portolan);
        let _ = stream.write_all(&promised.to_be_bytes());
        let _ = stream.write_all(&query);
        let _ = stream.shutdown(Shutdown::Write);
    }
    assert_answers(&mut portolan);
}

#[test]
fn half_written_queries_do_not_hold_up_others() {
    let mut portolan = start();
    let whole = framed(&Query::new(NAME, A).bytes());
    let mut open = Vec::new();
    for length in 0..whole.len() {
        let mut stream = connect(&portolan);
        send(&mut stream, &whole[..length]);
        open.push((stream, length));
    }
    assert_answers(&mut portolan);

    // The rest comes late, byte by byte, and is answered.
    let (mut stream, length) = open.swap_remove(1);
    for byte in &whole[length..] {
        send(&mut stream, &[*byte]);
    }
    let reply = read_framed(&mut stream).expect("an answer to a slow writer");
    let reply = Reply::parse(&reply).expect("a good message");
    assert!(!reply.answers.is_empty(), "{}", reply.summary());
    assert_answers(&mut portolan);
}

/// A query that has begun has five seconds to arrive, however often a byte of it does.
#[test]
fn a_query_that_trickles_is_waited_for_no_longer_than_one_that_stalls() {
    let portolan = start();
    let whole = framed(&Query::new(NAME, A).bytes());
    let mut stream = connect(&portolan);
    let pause = Duration::from_millis(500);
    stream.set_read_timeout(Some(pause)).expect("a timeout");
    let begun = Instant::now();
    let is_over = whole.iter().any(|byte| {
        let is_refused = stream.write_all(&[*byte]).is_err();
        // Nothing comes as long as the server waits.
        let is_closed = match stream.read(&mut [0; 64]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        is_refused || is_closed
    });
    let took = begun.elapsed();
    assert!(is_over, "answered after {took:?}");
    let expected = Duration::from_secs(4)..Duration::from_secs(8);
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn a_hundred_queries_in_one_go() {
    let portolan = start();
    let mut stream = connect(&portolan);
    let queries: Vec<Query> = (0..100)
        .map(|n| match n % 4 {
            0 => Query::new(NAME, A),
            1 => Query::new("db.service.consul", SRV).edns(1232),
            2 => Query::new("nope.service.consul", A),
            _ => Query::new("localhost", A),
        })
        .collect();
    let all: Vec<u8> = queries
        .iter()
        .flat_map(|query| framed(&query.bytes()))
        .collect();
    send(&mut stream, &all);
    let mut missing: BTreeSet<Vec<u8>> = queries.iter().map(|q| q.bytes()[..2].to_vec()).collect();
    while !missing.is_empty() {
        let bytes = read_framed(&mut stream)
            .unwrap_or_else(|error| panic!("{} answers are missing: {error}", missing.len()));
        let reply = Reply::parse(&bytes).expect("a good message");
        // In any order, each once, each with its own question.
        let id = reply.id.to_be_bytes().to_vec();
        assert!(
            missing.remove(&id),
            "an ID that is not awaited: {}",
            reply.summary()
        );
        let asked = queries.iter().find(|query| query.bytes()[..2] == id);
        let question = asked.map(Query::question);
        assert_eq!(
            Some(&reply.question),
            question.as_ref(),
            "{}",
            reply.summary()
        );
    }
}

/// A client that is done writing still gets what it asked for.
#[test]
fn a_closed_write_side_still_gets_its_answers() {
    let portolan = start();
    let mut stream = connect(&portolan);
    for _ in 0..3 {
        send(&mut stream, &framed(&Query::new(NAME, A).bytes()));
    }
    stream.shutdown(Shutdown::Write).expect("closing our side");
    for n in 0..3 {
        let reply = read_framed(&mut stream).unwrap_or_else(|error| panic!("answer {n}: {error}"));
        let reply = Reply::parse(&reply).expect("a good message");
        assert!(!reply.answers.is_empty(), "{}", reply.summary());
    }
    let mut rest = Vec::new();
    stream
        .read_to_end(&mut rest)
        .expect("the server closes its side as well");
    assert!(rest.is_empty(), "more than was asked for: {rest:02x?}");
}

/// Clients that ask and never read, and clients that go away at once.
#[test]
fn clients_that_never_read_do_no_harm() {
    let mut portolan = start();
    let query = framed(&Query::new("db.service.consul", SRV).bytes());
    let many = query.repeat(2000);
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut stream = connect(&portolan);
        stream.set_nonblocking(true).expect("a socket option");
        // As much as the server takes: it may well stop reading from somebody who does not.
        let _ = stream.write(&many);
        open.push(stream);
        drop(connect(&portolan));
    }
    assert_answers(&mut portolan);
}
