//! Memory for what upstreams say: bounded in bytes, and what is in use stays.

use crate::{
    servers::{Server, launch},
    support::{
        directory,
        dns::{Query, exchange_udp},
        resources::memory,
        soak,
        upstream::{self, Upstream},
        wire::rtype::A,
        write_file,
    },
};
use std::{fmt::Write as _, net::Ipv4Addr, thread, time::Duration};

/// What `recursion.cache` is in these tests, in bytes.
const CACHE: u64 = 64 << 20;

/// 3,000 names of 4,000 addresses each would be 3 GB, were each kept as it is.
#[test]
fn large_answers_stay_within_the_bound() {
    const ADDRESSES: u32 = 4000;
    let names: u64 = soak(600, 3000);
    let directory = directory();
    let mut zone =
        "$TTL 86400\n@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n".to_owned();
    for at in 0..ADDRESSES {
        let _ = writeln!(zone, "* A {}", Ipv4Addr::from(0x0a00_0000 + at));
    }
    write_file(directory.path(), "zone", &zone);
    let named = Server::named(directory.path(), &[("far.example", "zone")]);
    let portolan = launch(&[named.address])
        .config("[recursion]\ncache = \"64MiB\"\n")
        .start();
    let ask = |at: u64| {
        let query = Query::new(&format!("n{at}.far.example"), A).tcp();
        let reply = query.patience(Duration::from_secs(10)).ask(portolan.dns());
        let found = reply.answers.len();
        assert_eq!(found, ADDRESSES as usize, "{at}: {:#?}", portolan.metrics());
    };
    // What it takes to answer one at all is not the cache's.
    for at in 0..8 {
        ask(at);
    }
    let idle = memory(portolan.pid());
    let mut most = 0;
    for at in 8..names {
        ask(at);
        most = most.max(memory(portolan.pid()));
    }
    let grown = most.saturating_sub(idle);
    println!(
        "{names} names: {} MiB above the {} MiB before",
        grown >> 20,
        idle >> 20
    );
    assert!(grown <= CACHE / 10 * 12, "{} MiB", grown >> 20);
}

/// Names that are asked for once do not push out those that are in use.
#[test]
fn a_flood_of_names_leaves_what_is_in_use() {
    const HOT: usize = 1000;
    let random: usize = soak(100_000, 1_000_000);
    let upstream = Upstream::start(|query, _| {
        upstream::addresses(query, 86_400, &[Ipv4Addr::new(192, 0, 2, 1)])
    });
    // As much smaller as there are fewer names.
    let cache = CACHE * random as u64 / 1_000_000;
    let portolan = launch(&[upstream.address()])
        .config(&format!("[recursion]\ncache = \"{cache}\"\n"))
        .start();
    let server = portolan.dns();
    let hot = |at: usize| format!("hot{at}.example.net");
    let ask = |name: &str| {
        let query = Query::new(name, A).bytes();
        exchange_udp(server, None, &query, Duration::from_secs(5)).expect("an answer");
    };
    (0..HOT).for_each(|at| ask(&hot(at)));
    (0..HOT).for_each(|at| ask(&hot(at)));
    let first = upstream.seen().len();
    thread::scope(|scope| {
        for worker in 0..4 {
            scope.spawn(move || {
                for at in (worker..random).step_by(4) {
                    ask(&format!("x{at}.example.net"));
                    if at % 20 < 4 {
                        ask(&hot(at / 20 % HOT));
                    }
                }
            });
        }
    });
    let seen = upstream.seen();
    let again = seen[first..]
        .iter()
        .filter(|seen| seen.name.starts_with("hot"))
        .count();
    let asked = random / 5;
    println!("{again} of {asked} hot questions went to the upstream again");
    assert!(again * 20 < asked, "{again} of {asked}");
}
