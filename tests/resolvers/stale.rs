//! Names that stay known while the upstream is away, and hot names that are never waited for.

use crate::{
    servers::{Server, portolan},
    support::{
        directory,
        dns::Query,
        ensure, eventually, soak,
        wire::{Reply, rcode, rtype::A},
        write_file,
    },
};
use std::{
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Names of the zone that are known when the upstream goes. Some are aliases: they run down, and where they
/// lead to does not.
const NAMES: usize = 1000;

const ZONE: &str = "$TTL 2\n@ SOA ns h 1 3600 600 86400 2\n@ NS ns\nns A 127.0.0.1\n\
                    * A 192.0.2.1\n*.alias CNAME target\ntarget 3600 A 192.0.2.2\n\
                    hot 10 A 192.0.2.3\n";

const STALE_ANSWER: u16 = 3;

/// What waits for an upstream waits for 1.8 s; what does not is far from it on any machine.
const AT_ONCE: Duration = Duration::from_secs(1);

fn named_at(address: Option<SocketAddr>, directory: &Path) -> Server {
    let zones = [("far.example", "zone")];
    write_file(directory, "zone", ZONE);
    match address {
        Some(address) => Server::named_at(address, directory, &zones),
        None => Server::named(directory, &zones),
    }
}

/// One in ten is an alias; every other asks for signatures.
fn query(number: usize) -> Query {
    let below = match number % 10 {
        0 => "alias.far.example",
        _ => "far.example",
    };
    let query = Query::new(&format!("n{number}.{below}"), A).patience(Duration::from_secs(8));
    match number % 2 {
        0 => query.edns(1232),
        _ => query.dnssec_ok(),
    }
}

fn is_right(number: usize, reply: &Reply) -> bool {
    let last = reply.answers.last().map(|record| record.data.as_str());
    let expected = match number % 10 {
        0 => "192.0.2.2",
        _ => "192.0.2.1",
    };
    reply.rcode() == rcode::NOERROR && last == Some(expected)
}

/// Asks for all names; gives the longest that one took, and how many were marked as stale.
fn ask_all(server: SocketAddr, names: usize) -> (Duration, usize) {
    let (mut longest, mut stale) = (Duration::ZERO, 0);
    for number in 0..names {
        let start = Instant::now();
        let reply = query(number).ask(server);
        longest = longest.max(start.elapsed());
        assert!(is_right(number, &reply), "{number}: {}", reply.summary());
        if reply.extended_errors().contains(&STALE_ANSWER) {
            // An alias that has run down leads to an address that has not.
            assert_eq!(reply.answers[0].ttl, 30, "{number}: {}", reply.summary());
            assert_eq!(
                number % 10 == 0,
                reply.answers.last().expect("one").ttl > 30
            );
            stale += 1;
        }
    }
    (longest, stale)
}

/// `go` takes named away; `back` gives its address an answer again.
fn away(what: &str, go: impl FnOnce(&mut Server), back: impl FnOnce(Server, &Path) -> Server) {
    let directory = directory();
    let mut named = named_at(None, directory.path());
    let portolan = portolan(&[named.address]);
    let unbound = Server::unbound(
        named.address,
        "  module-config: \"iterator\"\n  serve-expired: yes\n  serve-expired-client-timeout: 1800\n",
    );
    // Unbound is here for a figure, and slow: it gets a few of the names.
    let few = 5;
    let (_, stale) = ask_all(portolan.dns(), NAMES);
    assert_eq!(stale, 0);
    ask_all(unbound.address, few);

    go(&mut named);
    // What is known runs down, and the upstream is found out: three questions get no answer.
    let healthy = format!(
        "portolan_recursion_upstream_healthy{{upstream=\"{}\"}}",
        named.address
    );
    let mut number = 0;
    eventually(Duration::from_secs(30), "the upstream rests", || {
        number += 1;
        let reply = query(number).ask(portolan.dns());
        assert!(is_right(number, &reply), "{number}: {}", reply.summary());
        let healthy = portolan.metric(&healthy);
        ensure(healthy == 0.0, || format!("{:#?}", portolan.metrics()))
    });
    eventually(Duration::from_secs(30), "the last one has run down", || {
        let reply = query(NAMES - 1).ask(portolan.dns());
        ensure(reply.extended_errors().contains(&STALE_ANSWER), || {
            reply.summary()
        })
    });
    let (longest, stale) = ask_all(portolan.dns(), NAMES);
    assert_eq!(stale, NAMES, "{what}");
    assert!(longest < AT_ONCE, "{what}: {longest:?}");
    let (of_unbound, _) = ask_all(unbound.address, few);
    println!(
        "named {what}: {NAMES} stale names, the slowest in {longest:?}; Unbound's in {of_unbound:?}"
    );

    let named = back(named, directory.path());
    let since = Instant::now();
    eventually(Duration::from_secs(30), "everything is fresh again", || {
        let (_, stale) = ask_all(portolan.dns(), NAMES);
        ensure(stale == 0, || format!("{stale} are stale"))
    });
    println!(
        "named {what}: all fresh {:?} after its return",
        since.elapsed()
    );
    drop(named);
}

#[test]
fn known_names_outlive_an_upstream_that_is_killed() {
    away(
        "killed",
        |named| named.process.kill(),
        |named, directory| named_at(Some(named.address), directory),
    );
}

#[test]
fn known_names_outlive_an_upstream_that_falls_silent() {
    away(
        "stopped",
        |named| named.process.signal("STOP"),
        |named, _| {
            named.process.signal("CONT");
            named
        },
    );
}

/// A name that is asked for all the time is asked of the upstream shortly before its TTL is over, once.
#[test]
fn a_hot_name_is_never_waited_for() {
    let seconds: u32 = soak(30, 60);
    let directory = directory();
    let named = named_at(None, directory.path());
    let portolan = portolan(&[named.address]);
    let (begin, every) = (Instant::now(), Duration::from_millis(500));
    // Twice a second: once is not often enough to meet the last tenth of ten seconds each time.
    for turn in 0..2 * seconds {
        let due = begin + turn * every;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let start = Instant::now();
        let reply = Query::new("hot.far.example", A).ask(portolan.dns());
        assert_eq!(reply.data(), ["192.0.2.3"], "{}", reply.summary());
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    }
    let log = named.process.log();
    let asked = log
        .lines()
        .filter(|line| line.contains("query: hot.far.example"))
        .count();
    println!("asked twice a second for {seconds} s, named was asked {asked} times");
    // A TTL of 10 s: every 9 s, or a little later.
    let (least, most) = (1 + (seconds - 1) / 10, 1 + seconds / 9);
    assert!(
        (least..=most).contains(&(asked as u32)),
        "{asked} times:\n{log}"
    );
    assert!(portolan.metric("portolan_recursion_refreshes_total") >= f64::from(least - 1));
}
