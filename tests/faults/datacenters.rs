//! The list of datacenters is believed like everything else: what is new at once, what is missing when it
//! stays so; and names that clients make up cost next to nothing.

use crate::{
    alone,
    asking::{Line, all_right},
    figure,
    lying::{beside, question},
    support::{
        dns::Query,
        ensure, eventually,
        fake_consul::{FakeConsul, Lie},
        portolan::Portolan,
        throughout,
        wire::{rcode, rtype::A},
    },
};
use std::{
    thread,
    time::{Duration, Instant},
};

const LIST: &str = "/v1/catalog/datacenters";
const THERE: &str = "web.service.dc2.consul";

/// A question for an unknown datacenter has the list read again, once a second at most.
const A_WHILE: Duration = Duration::from_millis(1200);

/// Whatever has to happen has happened by then, on the slowest machine.
const SOON: Duration = Duration::from_secs(20);

/// A Consul with one service, which its other datacenters have as well.
fn start(list: &str) -> (FakeConsul, Portolan) {
    let fake = FakeConsul::start();
    fake.set("web", &["10.6.0.1"]);
    fake.tell(LIST, usize::MAX, Lie::body(list));
    let portolan = beside(&fake);
    let web = [question("web.service.consul", &["10.6.0.1"])];
    all_right(portolan.dns(), &web, SOON);
    (fake, portolan)
}

fn reads(fake: &FakeConsul) -> usize {
    fake.seen_at(LIST).len()
}

/// Asks for a datacenter that there never was.
fn made_up(portolan: &Portolan) -> Result<(), String> {
    let reply = Query::new("web.service.dc9.consul", A).try_ask(portolan.dns())?;
    ensure(reply.rcode() == rcode::NXDOMAIN, || reply.summary())
}

#[test]
fn a_datacenter_that_is_missing_is_doubted() {
    let _alone = alone();
    let both = "[\"dc1\",\"dc2\"]";
    let (fake, portolan) = start(both);
    let there = question(THERE, &["10.6.0.1"]);
    all_right(portolan.dns(), &[question(THERE, &["10.6.0.1"])], SOON);
    // What an agent says that has not found the servers of other datacenters yet.
    let lies = [
        ("only itself", Lie::body("[\"dc1\"]")),
        ("nothing", Lie::body("[]")),
        ("all but itself", Lie::body("[\"dc3\"]")),
        ("null", Lie::body("null")),
        ("an error", Lie::status(500, "rpc error: EOF")),
    ];
    for (what, lie) in lies {
        fake.repent();
        fake.tell(LIST, usize::MAX, lie);
        let before = reads(&fake);
        throughout(
            Duration::from_secs(6),
            Duration::from_millis(50),
            what,
            || {
                made_up(&portolan)?;
                there.ask(portolan.dns())
            },
        );
        let heard = reads(&fake) - before;
        assert!(heard >= 2, "{what}: it was heard {heard} times");
        // The truth again, for long enough to be heard.
        fake.repent();
        fake.tell(LIST, usize::MAX, Lie::body(both));
        thread::sleep(A_WHILE);
        made_up(&portolan).unwrap_or_else(|error| panic!("{error}"));
    }
    // If it stays so, it is the truth.
    fake.repent();
    fake.tell(LIST, usize::MAX, Lie::body("[\"dc1\"]"));
    let start = Instant::now();
    eventually(Duration::from_secs(60), "the datacenter is gone", || {
        made_up(&portolan)?;
        let reply = Query::new(THERE, A).try_ask(portolan.dns())?;
        ensure(reply.rcode() == rcode::NXDOMAIN, || reply.summary())
    });
    let took = start.elapsed();
    figure(&format!(
        "a datacenter that was no longer listed was believed gone after {took:?}"
    ));
    assert!(took >= Duration::from_secs(10), "{took:?}");
    let log = portolan.log();
    assert!(log.contains("it is gone from Consul"), "{log}");
}

#[test]
fn a_new_datacenter_is_known_at_once() {
    let _alone = alone();
    let (fake, portolan) = start("[\"dc1\"]");
    let query = Query::new(THERE, A);
    // It does not exist, however often it is asked for, and from memory as well.
    throughout(A_WHILE, Duration::from_millis(20), "it is absent", || {
        let reply = query.try_ask(portolan.dns())?;
        ensure(reply.rcode() == rcode::NXDOMAIN, || reply.summary())
    });
    fake.repent();
    fake.tell(LIST, usize::MAX, Lie::body("[\"dc1\",\"dc2\"]"));
    let start = Instant::now();
    eventually(
        Duration::from_secs(2),
        "the new datacenter is known",
        || {
            let reply = query.try_ask(portolan.dns())?;
            ensure(reply.data() == ["10.6.0.1"], || reply.summary())
        },
    );
    figure(&format!(
        "a new datacenter was known after {:?}",
        start.elapsed()
    ));

    // Where nobody has asked for a while, the first answer is the right one.
    fake.repent();
    fake.tell(LIST, usize::MAX, Lie::body("[\"dc1\",\"dc2\",\"dc3\"]"));
    thread::sleep(A_WHILE);
    let reply = Query::new("web.service.dc3.consul", A).ask(portolan.dns());
    assert_eq!(reply.data(), ["10.6.0.1"], "{}", reply.summary());
}

/// Who asks first, asks for all who come before the answer.
#[test]
fn fifty_who_ask_for_a_new_datacenter_cost_one_read() {
    let _alone = alone();
    let (fake, portolan) = start("[\"dc1\"]");
    thread::sleep(A_WHILE);
    fake.repent();
    let both = Lie::body("[\"dc1\",\"dc2\"]").slowly(Duration::from_millis(500));
    fake.tell(LIST, usize::MAX, both);
    let before = reads(&fake);
    let there = question(THERE, &["10.6.0.1"]);
    thread::scope(|scope| {
        let asking: Vec<_> = (0..50)
            .map(|_| scope.spawn(|| there.ask(portolan.dns())))
            .collect();
        for asked in asking {
            let answer = asked.join().expect("asking does not panic");
            answer.expect("they wait for the list");
        }
    });
    assert_eq!(reads(&fake) - before, 1, "reads of the list");
}

/// Clients make up names as they like, whatever Consul says of its list.
#[test]
fn made_up_datacenters_cost_a_read_a_second() {
    let _alone = alone();
    const THREADS: usize = 4;
    const LASTING: Duration = Duration::from_secs(4);
    let lies = [
        ("a list", Lie::body("[\"dc1\"]")),
        ("an error", Lie::status(500, "rpc error: EOF")),
        ("a refusal", Lie::status(403, "Permission denied")),
        ("no list", Lie::body("[]")),
        (
            "429",
            Lie::status(429, "too many requests").header("Retry-After", "3"),
        ),
    ];
    for (what, lie) in lies {
        let (fake, portolan) = start("[\"dc1\"]");
        fake.repent();
        fake.tell(LIST, usize::MAX, lie);
        let (start, before) = (Instant::now(), reads(&fake));
        let asked: usize = thread::scope(|scope| {
            let ask = |thread: usize| {
                let mut line = Line::new(portolan.dns(), false);
                let mut asked = 0;
                while start.elapsed() < LASTING {
                    let name = format!("web.service.junk-{thread}-{asked}.consul");
                    let reply = line.exchange(&Query::new(&name, A).bytes());
                    let reply = reply.unwrap_or_else(|error| panic!("{error}"));
                    assert_eq!(reply.rcode(), rcode::NXDOMAIN, "{}", reply.summary());
                    asked += 1;
                }
                asked
            };
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || ask(n))).collect();
            let asked = threads.into_iter().map(|t| t.join());
            asked
                .map(|asked| asked.expect("asking does not panic"))
                .sum()
        });
        let (took, reads) = (start.elapsed(), reads(&fake) - before);
        figure(&format!(
            "{asked} names in made-up datacenters cost {reads} reads in {took:?} of {what}"
        ));
        let most = 1 + took.as_secs() as usize;
        assert!(reads <= most, "{what}: {reads} reads in {took:?}");
        assert!(asked > 1000, "{what}: {asked} were answered");
    }
}
