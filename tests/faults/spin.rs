//! Whatever fails and however often a name is asked for, a question costs Consul a few requests in a second
//! and no more.

use crate::{
    alone,
    asking::all_right,
    figure,
    lying::question,
    support::{
        directory,
        dns::Query,
        fake_consul::{FakeConsul, Lie},
        portolan::Launch,
        wire::rtype::A,
        write_file,
    },
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How long each failure is asked through.
const LASTING: Duration = Duration::from_secs(2);

/// Requests for one service in a second at most.
const MOST: usize = 3;

/// What a read of a service may come to.
fn failures() -> Vec<(&'static str, Lie)> {
    let filtered = "X-Consul-Results-Filtered-By-ACLs";
    vec![
        ("403", Lie::status(403, "Permission denied")),
        ("404", Lie::status(404, "not here")),
        ("429", Lie::status(429, "too many requests")),
        (
            "429 with Retry-After",
            Lie::status(429, "too many requests").header("Retry-After", "2"),
        ),
        ("500", Lie::status(500, "rpc error: EOF")),
        ("503", Lie::status(503, "no agent")),
        ("half a body", Lie::broken()),
        ("half of the JSON", Lie::cut()),
        ("hanging", Lie::stall(Duration::from_secs(60))),
        ("filtered", Lie::body("[]").header(filtered, "true")),
        ("no leader", Lie::body("[]").without_leader()),
        ("empty and not confirmed", Lie::body("[]")),
    ]
}

/// A service with a watch, one beyond the watches that has been read, and one that is asked for first while
/// it fails.
#[test]
fn no_question_costs_many_requests() {
    let _alone = alone();
    let mut worst = Vec::new();
    for (what, lie) in failures() {
        let fake = FakeConsul::start();
        for number in 0..20 {
            fake.set(&format!("s{number}"), &[&format!("10.5.{number}.1")]);
        }
        let files = directory();
        // So few that most services are beyond it.
        let text = "[consul]\nmax_watches = 32\n";
        let config = write_file(files.path(), "portolan.toml", text);
        let portolan = Launch::new("serve")
            .args(["--consul", &fake.url(), "--upstream", "none"])
            .args(["--config".into(), config.into_os_string()])
            .start();
        let known: Vec<_> = (0..12)
            .map(|number| {
                let name = format!("s{number}.service.consul");
                question(&name, &[&format!("10.5.{number}.1")])
            })
            .collect();
        all_right(portolan.dns(), &known, Duration::from_secs(10));
        fake.tell("/v1/health/service/*", usize::MAX, lie);
        let (start, cases) = (
            Instant::now(),
            [("watched", 0), ("beyond", 11), ("first", 19)],
        );
        thread::scope(|scope| {
            for (_, number) in cases {
                let query = Query::new(&format!("s{number}.service.consul"), A);
                let server = portolan.dns();
                scope.spawn(move || {
                    while start.elapsed() < LASTING {
                        // What is answered is for other tests.
                        drop(query.try_ask(server));
                        thread::sleep(Duration::from_millis(10));
                    }
                });
            }
        });
        let took = start.elapsed();
        for (case, number) in cases {
            let seen = fake.seen_at(&format!("/v1/health/service/s{number}"));
            let asked = seen.iter().filter(|request| request.at > start).count();
            worst.push((asked as f64 / took.as_secs_f64(), what, case));
        }
    }
    worst.sort_by(|one, other| other.0.total_cmp(&one.0));
    let (most, what, case) = worst[0];
    figure(&format!(
        "a question costs Consul {most:.1} requests in a second at most: {what}, {case}"
    ));
    let spinning: Vec<_> = worst
        .iter()
        .filter(|(rate, ..)| *rate > MOST as f64)
        .collect();
    assert!(spinning.is_empty(), "{spinning:?}");
}
