//! How old an answer may be is said, and can be bounded.

use crate::{
    alone,
    asking::{Question, all_right},
    figure,
    lying::question,
    support::{
        consul::Consul,
        dns::Query,
        ensure, eventually,
        fake_consul::{FakeConsul, Lie},
        portolan::{Launch, Portolan},
        wire::{rcode, rtype::A},
    },
    world::{Services, new_data},
};
use std::time::{Duration, Instant};

/// Whatever has to happen has happened by then, on the slowest machine; how soon it did is a figure.
const SOON: Duration = Duration::from_secs(30);

/// The extended error that says "stale answer" (RFC 8914).
const STALE_ANSWER: u16 = 3;

fn start(extra: &str) -> (Consul, Portolan, Vec<Question>) {
    let consul = Consul::start();
    let services = Services::new("s", 20, 20);
    services.register(&consul);
    let portolan = Launch::new("serve")
        .args(["--consul", &consul.url(), "--upstream", "none"])
        .config(&format!("[consul]\n{extra}\n"))
        .start();
    let questions = services.questions();
    all_right(portolan.dns(), &questions, Duration::from_secs(30));
    new_data(&consul, portolan.dns(), "fresh", 1);
    (consul, portolan, questions)
}

/// Waits until replies about this name are marked as stale, or no longer are.
fn wait_until_stale(portolan: &Portolan, name: &str, stale: bool, within: Duration) {
    let what = format!("{name} is marked as stale: {stale}");
    eventually(within, &what, || {
        let reply = Query::new(name, A).edns(1232).try_ask(portolan.dns())?;
        let codes = reply.extended_errors();
        ensure(codes.contains(&STALE_ANSWER) == stale, || {
            format!("extended errors {codes:?}: {}", reply.summary())
        })
    });
}

/// The figures in what `/ready` says of Consul.
fn ages(portolan: &Portolan) -> Vec<u64> {
    let ready = portolan.get("/ready").expect("/ready answers").body;
    let line = ready.lines().find(|line| line.contains("onsul"));
    let line = line.unwrap_or_else(|| panic!("/ready says nothing of Consul: {ready:?}"));
    let digits = |c: char| !c.is_ascii_digit();
    line.split(digits)
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[test]
fn stale_answers_say_so() {
    let _alone = alone();
    let (mut consul, portolan, questions) = start("");
    let kinds = [
        "s1.service.consul",
        "absent.service.consul",
        "w.node.consul",
    ];
    for name in kinds {
        wait_until_stale(&portolan, name, false, SOON);
    }
    let down = Instant::now();
    consul.kill();
    for name in kinds {
        wait_until_stale(&portolan, name, true, SOON);
    }
    let marked = down.elapsed();
    // Who does not speak EDNS gets the answer as ever.
    let plain = Query::new("s1.service.consul", A).ask(portolan.dns());
    assert!(plain.additional.is_empty(), "{}", plain.summary());
    assert_eq!(plain.rcode(), rcode::NOERROR, "{}", plain.summary());
    all_right(portolan.dns(), &questions, Duration::from_secs(30));
    // The age is in /ready, which is well as long as names are answered, and it grows.
    let before = ages(&portolan);
    eventually(SOON, "/ready says how old it is", || {
        let now = ages(&portolan);
        let grown = now.len() == before.len() && now.iter().zip(&before).any(|(n, b)| n > b);
        ensure(grown, || format!("{now:?} after {before:?}"))
    });
    assert_eq!(portolan.get("/ready").expect("/ready answers").status, 200);
    let least = down.elapsed().as_secs_f64();
    for what in ["index_age", "stale"] {
        let series = format!("portolan_sources_consul_{what}_seconds{{datacenter=\"dc1\"}}");
        let age = portolan.metric(&series);
        assert!(age >= least - 0.5, "{series} {age} after {least} s");
    }

    consul.restart();
    consul.wait_until_ready();
    let back = Instant::now();
    for name in kinds {
        wait_until_stale(&portolan, name, false, SOON);
    }
    let unmarked = back.elapsed();
    figure(&format!(
        "answers were marked as stale {marked:?} after Consul's end, and no longer {unmarked:?} \
         after it was back"
    ));
}

#[test]
fn staleness_can_be_bounded() {
    let _alone = alone();
    let (mut consul, portolan, questions) = start("max_stale = \"2s\"");
    let down = Instant::now();
    consul.kill();
    // Right until then, and SERVFAIL from then on: never another answer.
    let first = &questions[0];
    let too_old = || {
        let reply = Query::new(&first.name, A)
            .edns(1232)
            .try_ask(portolan.dns())?;
        if reply.rcode() == rcode::SERVFAIL {
            return Ok(());
        }
        let summary = reply.summary();
        assert!(first.judge(Ok(reply)).is_ok(), "{summary}");
        Err(summary)
    };
    eventually(SOON, "what is too old is not answered", too_old);
    let bounded = down.elapsed();
    // It is what is too old that is refused, and nothing else. A service may be found too old just before it
    // shows that Consul is away, so what counts is when Consul last confirmed what is held.
    let age = portolan.metric("portolan_sources_consul_index_age_seconds{datacenter=\"dc1\"}");
    assert!(age >= 2.0, "refused when it was {age} s old");
    for name in ["absent.service.consul", "w.node.consul"] {
        let reply = Query::new(name, A).ask(portolan.dns());
        assert_eq!(
            reply.rcode(),
            rcode::SERVFAIL,
            "{name}: {}",
            reply.summary()
        );
    }
    assert_ne!(portolan.get("/ready").expect("/ready answers").status, 200);
    consul.restart();
    consul.wait_until_ready();
    let back = all_right(portolan.dns(), &questions, SOON);
    figure(&format!(
        "with max_stale 2 s SERVFAIL came {bounded:?} after Consul's end, and right answers \
         {back:?} after it was back"
    ));
}

/// What fails alone is old alone: its answers say so, nobody else's do, and it goes after its own time.
#[test]
fn what_fails_alone_ages_alone() {
    const LONG: usize = 100_000;
    let _alone = alone();
    let fake = FakeConsul::start();
    fake.set("one", &["10.5.0.1"]);
    fake.set("two", &["10.5.0.2"]);
    let serve = |config: &str| {
        let portolan = Launch::new("serve")
            .args(["--consul", &fake.url(), "--upstream", "none"])
            .config(config)
            .start();
        let known = [
            question("one.service.consul", &["10.5.0.1"]),
            question("two.service.consul", &["10.5.0.2"]),
            question("n1.node.consul", &["10.0.0.1"]),
            question("one.query.consul", &["10.5.0.1"]),
        ];
        all_right(portolan.dns(), &known, Duration::from_secs(10));
        (portolan, known)
    };
    let (portolan, known) = serve("");
    let names = [
        "one.service.consul",
        "two.service.consul",
        "n1.node.consul",
        "one.query.consul",
    ];
    let error = || Lie::status(500, "rpc error");
    for (path, lie, old) in [
        ("/v1/health/service/one", error(), names[0]),
        ("/v1/health/service/one", Lie::body("<html>"), names[0]),
        ("/v1/health/service/one", Lie::cut(), names[0]),
        (
            "/v1/health/service/one",
            Lie::status(403, "Permission denied"),
            names[0],
        ),
        ("/v1/catalog/nodes", error(), names[2]),
        ("/v1/catalog/nodes", Lie::body("<html>"), names[2]),
        ("/v1/query/one/execute", error(), names[3]),
        ("/v1/query/one/execute", Lie::body("<html>"), names[3]),
    ] {
        fake.tell(path, LONG, lie);
        wait_until_stale(&portolan, old, true, SOON);
        for name in names {
            wait_until_stale(&portolan, name, name == old, SOON);
        }
        let failing =
            portolan.metric("portolan_sources_consul_watches_failing{datacenter=\"dc1\"}");
        // A prepared query is executed, and not watched.
        let watches = if old == names[3] { 0.0 } else { 1.0 };
        assert_eq!(failing, watches, "watches that fail: {path}");
        for known in &known {
            assert_eq!(known.ask(portolan.dns()), Ok(()), "{path}");
        }
        fake.repent();
        wait_until_stale(&portolan, old, false, SOON);
    }
    drop(portolan);

    let (portolan, _known) = serve("[consul]\nmax_stale = \"3s\"\n");
    let rcode_of = |name: &str| Query::new(name, A).ask(portolan.dns()).rcode();
    for (path, old) in [
        ("/v1/health/service/one", names[0]),
        ("/v1/query/one/execute", names[3]),
    ] {
        fake.tell(path, LONG, error());
        eventually(SOON, "it is too old", || {
            let rcode = rcode_of(old);
            ensure(rcode == rcode::SERVFAIL, || format!("rcode {rcode}"))
        });
        assert_eq!(rcode_of(names[1]), rcode::NOERROR);
        fake.repent();
        eventually(SOON, "it is current again", || {
            let rcode = rcode_of(old);
            ensure(rcode == rcode::NOERROR, || format!("rcode {rcode}"))
        });
    }
}
