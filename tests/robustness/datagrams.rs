//! Odd packets over UDP (and, where it matters, TCP).

use crate::{
    assert_answers, start,
    support::{
        dns::{Query, exchange_tcp, exchange_udp},
        portolan::Portolan,
        wire::{Reply, rcode, rtype::A},
    },
};
use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

const NAME: &str = "hello1.service.consul";

/// What comes back for these bytes, over UDP. Nothing is an answer too; it is the slow one.
fn udp(server: SocketAddr, bytes: &[u8]) -> Option<Reply> {
    let answer = exchange_udp(server, None, bytes, Duration::from_millis(300)).ok()?;
    Some(Reply::parse(&answer).unwrap_or_else(|error| panic!("{bytes:02x?}: {error}")))
}

/// A query with its header changed: counts of questions, answers, authority, additional.
fn with_counts(counts: [u16; 4]) -> Vec<u8> {
    let mut bytes = Query::new(NAME, A).bytes();
    for (place, count) in (4..).step_by(2).zip(counts) {
        bytes[place..place + 2].copy_from_slice(&count.to_be_bytes());
    }
    bytes
}

/// A header for one question, with these bytes for a question.
fn with_question(question: &[u8]) -> Vec<u8> {
    let mut bytes = Query::new(NAME, A).bytes();
    bytes.truncate(12);
    bytes.extend(question);
    bytes
}

fn assert_refused(portolan: &Portolan, what: &str, query: &Query, rcode: u16) {
    for query in [query.clone(), query.clone().tcp()] {
        let reply = query.ask(portolan.dns());
        assert_eq!(reply.rcode(), rcode, "{what}: {}", reply.summary());
        assert!(reply.answers.is_empty(), "{what}: {}", reply.summary());
    }
}

#[test]
fn what_we_do_not_do_is_refused() {
    let mut portolan = start();
    for (what, opcode) in [
        ("IQUERY", 1),
        ("STATUS", 2),
        ("NOTIFY", 4),
        ("UPDATE", 5),
        ("opcode 9", 9),
    ] {
        let query = Query::new(NAME, A).opcode(opcode);
        assert_refused(&portolan, what, &query, rcode::NOTIMP);
        assert_eq!(
            query.ask(portolan.dns()).opcode(),
            opcode,
            "{what}: the opcode comes back"
        );
    }
    for (what, class) in [("CHAOS", 3), ("HESIOD", 4), ("class 77", 77)] {
        assert_refused(
            &portolan,
            what,
            &Query::new(NAME, A).class(class),
            rcode::REFUSED,
        );
    }
    let version = Query::new(NAME, A).edns_version(1);
    assert_refused(&portolan, "EDNS version 1", &version, rcode::BADVERS);
    assert_answers(&mut portolan);
}

#[test]
fn broken_packets_get_formerr_or_nothing() {
    let mut portolan = start();
    let good = Query::new(NAME, A).bytes();
    let mut is_response = good.clone();
    is_response[2] |= 0x80;
    let long_name = [&[1, b'a'].repeat(130)[..], &[0, 0, 1, 0, 1]].concat();

    // No answer to what is no query: answering a response makes loops, and there is no ID to answer.
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("one byte", good[..1].to_vec()),
        ("eleven bytes", good[..11].to_vec()),
        ("a response", is_response),
    ] {
        let reply = udp(portolan.dns(), &bytes).map(|reply| reply.summary());
        assert_eq!(reply, None, "{what}");
    }

    for (what, bytes) in [
        ("no question", with_counts([0, 0, 0, 0])),
        ("two questions, one there", with_counts([2, 0, 0, 0])),
        (
            "two questions",
            [with_counts([2, 0, 0, 0]), Query::new(NAME, A).question()].concat(),
        ),
        ("65535 questions", with_counts([65_535, 0, 0, 0])),
        (
            "records that are not there",
            with_counts([1, 65_535, 65_535, 65_535]),
        ),
        ("an OPT that is not there", with_counts([1, 0, 0, 1])),
        ("nothing after the header", with_question(&[])),
        ("a name that ends early", with_question(&[5, b'h', b'e'])),
        ("a name without an end", with_question(&[1, b'a'])),
        ("no type", with_question(&[1, b'a', 0])),
        ("half a class", with_question(&[1, b'a', 0, 0, 1, 0])),
        (
            "a pointer to itself",
            with_question(&[0xc0, 12, 0, 1, 0, 1]),
        ),
        (
            "a pointer forwards",
            with_question(&[0xc0, 20, 0, 1, 0, 1, 0, 0, 0, 0]),
        ),
        (
            "a pointer past the end",
            with_question(&[0xff, 0xff, 0, 1, 0, 1]),
        ),
        (
            "a pointer to the header",
            with_question(&[0xc0, 4, 0, 1, 0, 1]),
        ),
        (
            "two pointers in a ring",
            with_question(&[0xc0, 14, 0xc0, 12, 0, 1, 0, 1]),
        ),
        (
            "a label of a forgotten kind",
            with_question(&[0x41, b'a', 0, 0, 1, 0, 1]),
        ),
        ("a name of 260 bytes", with_question(&long_name)),
    ] {
        if let Some(reply) = udp(portolan.dns(), &bytes) {
            assert_eq!(reply.rcode(), rcode::FORMERR, "{what}: {}", reply.summary());
            assert!(reply.is_response(), "{what}: QR is not set");
            // No amplification for those who send rubbish in somebody else's name.
            assert!(
                reply.wire.len() <= bytes.len().max(12),
                "{what}: {}",
                reply.summary()
            );
        }
    }
    assert_answers(&mut portolan);
}

/// Two of what may be there once.
#[test]
fn two_opt_records_are_a_mistake() {
    let portolan = start();
    let mut bytes = Query::new(NAME, A).edns(1232).bytes();
    let opt = bytes[bytes.len() - 11..].to_vec();
    bytes.extend(opt);
    bytes[11] = 2;
    let reply = udp(portolan.dns(), &bytes).expect("an answer");
    assert_eq!(reply.rcode(), rcode::FORMERR, "{}", reply.summary());
}

/// Every single-byte change of a good query, and every cut of it.
#[test]
fn mutated_queries_do_no_harm() {
    let mut portolan = start();
    let good = Query::new(NAME, A).edns(1232).bytes();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut sent = 0;
    let mut send = |bytes: &[u8]| {
        socket
            .send_to(bytes, portolan.dns())
            .expect("sending a datagram");
        sent += 1;
        // Now and then a good one, which waits until the flood is through: no datagram is to be
        // lost in a full socket buffer instead of being looked at.
        if sent % 64 == 0 {
            Query::new(NAME, A).ask(portolan.dns());
        }
    };
    for place in 0..good.len() {
        send(&good[..place]);
        for value in [0x00, 0x01, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
            let mut bytes = good.clone();
            bytes[place] = value;
            send(&bytes);
        }
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for length in 0..600 {
        let noise: Vec<u8> = (0..length)
            .map(|_| {
                // xorshift: the same noise in every run.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        send(&noise);
        // The same after a header that looks right, so that it is looked at.
        send(&[&good[..12], &noise].concat());
    }
    assert_answers(&mut portolan);
}

/// A datagram of the greatest size.
#[test]
fn a_huge_datagram_does_no_harm() {
    let mut portolan = start();
    let mut bytes = Query::new(NAME, A).bytes();
    bytes.resize(60_000, 0);
    udp(portolan.dns(), &bytes);
    // Over TCP as well.
    let _ = exchange_tcp(portolan.dns(), &bytes, Duration::from_millis(300));
    assert_answers(&mut portolan);
}
