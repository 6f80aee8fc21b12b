//! The lists of all services and nodes are read within a budget, however often they change; and what they do
//! not have yet is there at once all the same.

use crate::{
    alone,
    asking::all_right,
    figure,
    lying::{beside, question},
    percentile,
    support::{
        dns::Query,
        ensure, eventually,
        fake_consul::{FakeConsul, Lie},
        portolan::{Launch, Portolan},
        wire::{rcode, rtype::A},
    },
};
use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

const NAMES: &str = "/v1/catalog/services";
const NODES: &str = "/v1/catalog/nodes";

/// So many services are too much for a budget of a kilobyte in a second.
const SERVICES: usize = 300;

/// A new name has to be right within this time, on a machine that does other things as well.
const AT_ONCE: Duration = Duration::from_millis(250);

/// Two or three names in this time are less than may be asked for.
const APART: Duration = Duration::from_millis(100);

/// A Portolan whose lists may bring so little that they are behind nearly always.
fn behind(fake: &FakeConsul) -> Portolan {
    for number in 0..SERVICES {
        let address = format!("10.5.{}.{}", number / 250, number % 250);
        fake.set(&format!("s{number}"), &[&address]);
    }
    for number in 2..60 {
        fake.set_node(&format!("n{number}"), &format!("10.0.1.{number}"));
    }
    let portolan = Launch::new("serve")
        .args(["--consul", &fake.url(), "--upstream", "none"])
        .config("[consul]\nlist_rate = 1000\n")
        .start();
    let known = [question("s0.service.consul", &["10.5.0.0"])];
    all_right(portolan.dns(), &known, Duration::from_secs(10));
    portolan
}

/// Something that nobody asks for changes ten times a second meanwhile.
fn in_a_storm<T>(fake: &FakeConsul, during: impl FnOnce() -> T) -> T {
    let (stop, stopped) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let tenth = Duration::from_millis(100);
            let mut number = 0_u8;
            while stopped.recv_timeout(tenth) == Err(RecvTimeoutError::Timeout) {
                number = number.wrapping_add(1);
                fake.set("unasked", &[&format!("10.7.0.{number}")]);
                fake.set_node("unasked", &format!("10.7.1.{number}"));
            }
        });
        let came = during();
        drop(stop);
        came
    })
}

#[test]
fn lists_cost_what_they_may_and_new_names_are_there_at_once() {
    let _alone = alone();
    let fake = FakeConsul::start();
    let portolan = behind(&fake);
    let server = portolan.dns();
    let (start, mut appeared, mut vanished) = (Instant::now(), Vec::new(), Vec::new());
    in_a_storm(&fake, || {
        for number in 0..20 {
            // New names come more slowly than names beyond the lists may be asked for: what that bounds is
            // for the other test.
            thread::sleep(APART);
            let (name, address) = (format!("new{number}"), format!("10.6.0.{number}"));
            let asked = format!("{name}.service.consul");
            fake.set(&name, &[&address]);
            appeared.push(all_right(
                server,
                &[question(&asked, &[&address])],
                Duration::from_secs(5),
            ));
            if number % 2 == 0 {
                fake.remove(&name);
                vanished.push(all_right(
                    server,
                    &[question(&asked, &[])],
                    Duration::from_secs(5),
                ));
            }
            let (name, address) = (format!("host{number}"), format!("10.6.1.{number}"));
            fake.set_node(&name, &address);
            let node = [question(&format!("{name}.node.consul"), &[&address])];
            appeared.push(all_right(server, &node, Duration::from_secs(5)));
        }
        // Long enough for lists that are read with every change to show.
        thread::sleep(Duration::from_secs(5).saturating_sub(start.elapsed()));
    });
    let seconds = start.elapsed().as_secs_f64();
    let lists = [NAMES, NODES].map(|path| {
        let seen = fake.seen_at(path);
        seen.iter().filter(|request| request.at > start).count()
    });
    appeared.sort();
    vanished.sort();
    figure(&format!(
        "{lists:?} reads of the lists in {seconds:.0} s of ten changes a second; new names were right \
         after {:?} (median), {:?} (p99); gone ones after {:?}, {:?}",
        percentile(&appeared, 50),
        percentile(&appeared, 99),
        percentile(&vanished, 50),
        percentile(&vanished, 99),
    ));
    for reads in lists {
        assert!(
            reads as f64 <= 2.0 + seconds,
            "{reads} reads in {seconds} s"
        );
    }
    assert!(percentile(&appeared, 90) <= AT_ONCE, "{appeared:?}");
    assert!(percentile(&vanished, 90) <= AT_ONCE, "{vanished:?}");
}

/// Junk costs Consul what the operator allows, the same name again and again nothing, and known names no time.
#[test]
fn junk_beyond_the_lists_is_bounded() {
    let _alone = alone();
    let fake = FakeConsul::start();
    let portolan = behind(&fake);
    let (server, start) = (portolan.dns(), Instant::now());
    let (mut asked, mut known) = (0, Vec::new());
    let slow = Duration::from_secs(1);
    in_a_storm(&fake, || {
        while start.elapsed() < Duration::from_secs(5) {
            asked += 1;
            // What search domains make of names from outside, in between.
            let junk = match asked % 4 {
                0 => format!("junk{asked}.example.com.service.consul"),
                1 => format!("junk{asked}.node.consul"),
                _ => format!("junk{asked}.service.consul"),
            };
            let reply = Query::new(&junk, A).patience(slow).ask(server);
            assert_eq!(
                reply.rcode(),
                rcode::NXDOMAIN,
                "{junk}: {}",
                reply.summary()
            );
            if asked % 16 == 0 {
                let before = Instant::now();
                let right = question("s0.service.consul", &["10.5.0.0"]).ask(server);
                assert_eq!(right, Ok(()), "a known name beside junk");
                known.push(before.elapsed());
            }
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let seen = fake.seen();
    let mut caused: Vec<&str> = seen
        .iter()
        .filter(|request| request.at > start && request.index.is_none())
        .map(|request| request.path.as_str())
        .filter(|path| path.contains("junk") || path.ends_with("/com"))
        .collect();
    let of_search_domains = caused.iter().filter(|path| path.ends_with("/com")).count();
    known.sort();
    figure(&format!(
        "{asked} absent names in {seconds:.1} s cost {} requests, {of_search_domains} of them for search \
         domains; a known name took {:?} (p99)",
        caused.len(),
        percentile(&known, 99)
    ));
    let number = caused.len();
    assert!(number as f64 <= 50.0 * seconds + 20.0, "{number} requests");
    assert!(
        number >= 20,
        "nothing beyond the lists was asked for: {caused:?}"
    );
    assert!(
        of_search_domains as f64 <= seconds + 2.0,
        "{of_search_domains} for `com`"
    );
    caused.sort_unstable();
    caused.dedup();
    assert!(
        caused.len() + of_search_domains > number,
        "a name was asked for twice"
    );
    let refused = "portolan_sources_consul_unknown_refused_total";
    eventually(
        Duration::from_secs(10),
        "what was refused is counted",
        || {
            let counted = portolan.metric(refused);
            ensure(counted > 0.0, || format!("{counted} of {asked}"))
        },
    );
    assert!(percentile(&known, 90) <= AT_ONCE, "{known:?}");
}

/// A Consul that elects keeps the first reads waiting: that is no price, and the lists follow all the same.
#[test]
fn lists_that_had_to_wait_for_a_leader_are_followed() {
    let _alone = alone();
    let fake = FakeConsul::start();
    fake.set("s0", &["10.5.0.0"]);
    let election = Duration::from_secs(3);
    for path in [NAMES, NODES] {
        fake.tell(path, 1, Lie::stall(election));
    }
    let portolan = beside(&fake);
    let known = [question("s0.service.consul", &["10.5.0.0"])];
    all_right(portolan.dns(), &known, Duration::from_secs(10));
    assert_eq!(fake.told(), 2, "reads that waited");
    for path in [NAMES, NODES] {
        let reads = || fake.seen_at(path).len();
        let before = reads();
        fake.set("s1", &["10.5.0.1"]);
        fake.set_node("n2", "10.0.0.2");
        eventually(Duration::from_secs(2), "the list is read again", || {
            ensure(reads() > before, || format!("{path}: {before} reads"))
        });
    }
}
