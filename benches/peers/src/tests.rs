//! The instrument itself: it counts what is right, wrong and lost, at the pace it is told.

use crate::load::{Load, Pace};
use crate::measure::median;
use crate::question::{Asked, Question};
use hickory_proto::rr::RecordType;
use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

/// A server of a kind: what it makes of the so manieth query, if anything.
fn server(reply: impl Fn(u32, &mut Vec<u8>) -> bool + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("an address");
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        for number in 0.. {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                return;
            };
            let mut message = buffer[..length].to_vec();
            message[2] |= 0x80;
            if reply(number, &mut message) {
                let _ = socket.send_to(&message, peer);
            }
        }
    });
    address
}

fn question() -> Question {
    Question::new("web.service.consul.", RecordType::A, 1232)
}

fn run(server: SocketAddr, pace: Pace) -> crate::load::Outcome {
    let (asked, _) = Asked::probe(&question(), server).expect("a first reply");
    let load = Load {
        server,
        asked: &[asked],
        order: &[0],
        pace,
        sockets: 4,
        over_tcp: false,
    };
    load.run(Duration::from_millis(300)).expect("a load")
}

#[test]
fn the_rate_is_kept_whatever_the_server_does() {
    let outcome = run(server(|_, _| true), Pace::Rate(2000.0));
    assert_eq!((outcome.wrong, outcome.lost), (0, 0));
    assert!((300..700).contains(&outcome.answered), "{outcome:?}");
    let outcome = run(server(|number, _| number % 3 != 1), Pace::Rate(2000.0));
    let sent = outcome.answered + outcome.lost;
    assert!((300..700).contains(&sent), "{outcome:?}");
    assert!((sent / 3).abs_diff(outcome.lost) <= 1, "{outcome:?}");
}

#[test]
fn every_reply_is_followed_by_a_query_and_the_last_ones_are_waited_for() {
    let outcome = run(server(|_, _| true), Pace::Outstanding(8));
    assert_eq!((outcome.wrong, outcome.lost), (0, 0));
    assert!(outcome.answered > 100, "{outcome:?}");
}

#[test]
fn a_wrong_reply_is_no_answer() {
    let rcode = |number: u32, message: &mut Vec<u8>| {
        message[3] |= u8::from(number % 2 == 1) * 2;
        true
    };
    let outcome = run(server(rcode), Pace::Outstanding(1));
    assert!(outcome.answered.abs_diff(outcome.wrong) <= 1, "{outcome:?}");
}

#[test]
fn rcode_tc_answers_and_question_are_looked_at() {
    let (asked, _) = Asked::probe(&question(), server(|_, _| true)).expect("a reply");
    let mut right = asked.query.clone();
    right[2] |= 0x80;
    assert!(asked.is_answered_by(&right));
    for (at, bits) in [(2, 0x80), (2, 0x02), (3, 0x03), (7, 0x01), (14, 0x20)] {
        let mut wrong = right.clone();
        wrong[at] ^= bits;
        assert!(!asked.is_answered_by(&wrong), "byte {at}");
    }
    assert!(!asked.is_answered_by(&right[..20]));
    // The echo has to send as much as the server did.
    let echo = asked.for_echo();
    assert_eq!(echo.query[8..10], (asked.size as u16).to_be_bytes());
    assert!(!echo.is_answered_by(&[&right[..], &[0]].concat()));
}

#[test]
fn the_median_is_in_the_middle() {
    assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median([9.0]), 9.0);
}
