//! A Consul that fails, refuses or stalls for a while: it is asked ever less, as it wishes, and what
//! was known is answered meanwhile.

use crate::{
    alone,
    asking::{Question, all_right},
    figure, is_full,
    lying::{Scene, outcome, question},
    support::{ensure, eventually, fake_consul::Lie},
    world::{NEW_DATA, stale_seconds},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// What is asked every second to see whether Consul is well.
const PROBE: &str = "/v1/catalog/service/consul";

/// A minute in the long form.
fn while_it_lasts(short: u64) -> Duration {
    Duration::from_secs(if is_full() { 60 } else { short })
}

#[test]
fn errors_are_waited_out() {
    let _alone = alone();
    let scene = Scene::start();
    let asking = scene.ask("500");
    let (start, before) = (Instant::now(), scene.fake.seen().len());
    scene
        .fake
        .tell("/v1/*", usize::MAX, Lie::status(500, "No cluster leader"));
    let lasting = while_it_lasts(4);
    while start.elapsed() < lasting {
        asking.rounds(1);
    }
    let requests = scene.fake.seen().len() - before;
    scene.fake.repent();
    let late = scene.new_data(1);
    asking.flawless("20 names and a node while Consul fails");
    // Two lists, and the watches of 22 services; each asks at 50 ms, 100 ms, 200 ms ... and then once
    // in a few seconds.
    let most = 24 * (8 + lasting.as_secs() as usize / 2);
    figure(&format!(
        "{requests} requests in {lasting:?} of errors (at most {most}); new data was seen within \
         {late:?} after them"
    ));
    assert!(requests <= most, "{requests} requests in {lasting:?}");
    assert!(late <= NEW_DATA, "new data was seen after {late:?}");
}

/// Watches that were refused for long ask seldom. What ends their trouble wakes them, however short the
/// last of it was: too short to be an outage.
#[test]
fn a_short_trouble_leaves_no_watch_asleep() {
    const SERVICES: u8 = 40;
    let _alone = alone();
    let scene = Scene::of(SERVICES.into());
    let endings = [
        ("errors", "/v1/*", Lie::status(500, "No cluster leader")),
        ("an election", PROBE, Lie::truth(200).without_leader()),
    ];
    for (number, (what, path, lie)) in (1..).zip(endings) {
        let rpc = Lie::status(500, "rpc error: EOF");
        scene.fake.tell("/v1/health/service/*", usize::MAX, rpc);
        thread::sleep(Duration::from_secs(8));
        // From one good probe on, so that at most one of those that come every second fails.
        let probes = scene.fake.seen_at(PROBE).len();
        eventually(Duration::from_secs(5), "the next probe", || {
            let now = scene.fake.seen_at(PROBE).len();
            ensure(now > probes, || format!("{now} so far"))
        });
        scene.fake.tell(path, usize::MAX, lie);
        thread::sleep(Duration::from_millis(1500));
        scene.fake.repent();
        let questions: Vec<Question> = (0..SERVICES)
            .map(|service| {
                let address = format!("10.7.{number}.{service}");
                scene.fake.set(&format!("s{service}"), &[&address]);
                question(&format!("s{service}.service.consul"), &[&address])
            })
            .collect();
        let late = all_right(scene.portolan.dns(), &questions, Duration::from_secs(30));
        assert_eq!(stale_seconds(&scene.portolan), 0.0, "{what} was no outage");
        let told = scene.portolan.log();
        assert!(!told.contains("Consul is away"), "{what} was no outage");
        figure(&format!(
            "{SERVICES} names that were refused for long had new data within {late:?} of the end of \
             {what} (at most {NEW_DATA:?})"
        ));
        assert!(late <= NEW_DATA, "new data was seen after {late:?}");
    }
}

#[test]
fn retry_after_is_honoured() {
    let _alone = alone();
    let scene = Scene::start();
    let asking = scene.ask("429 and 503");
    let before = scene.portolan.metric(&outcome("rate_limited"));
    let refusals = [
        ("/v1/health/service/s3", 429),
        ("/v1/health/service/s4", 503),
        ("/v1/catalog/services", 429),
    ];
    for (path, status) in refusals {
        let refusal = Lie::status(status, "rate limit reached").header("Retry-After", "2");
        scene.fake.tell(path, 1, refusal);
    }
    // The end of a short trouble, which wakes those who wait by themselves, does not wake them.
    let trouble = Lie::status(500, "No cluster leader");
    scene.fake.tell(PROBE, 1, trouble);
    // A watch that had been waiting there was told at that moment, and asks again when it may.
    let told = Instant::now();
    for (path, status) in refusals {
        let what = format!("{path} is asked for again after {status}");
        let again = eventually(Duration::from_secs(10), &what, || {
            let seen = scene.fake.seen_at(path);
            let after = seen.iter().find(|request| request.at > told);
            after
                .map(|request| request.at)
                .ok_or_else(|| "not yet".to_owned())
        });
        let pause = again.duration_since(told);
        figure(&format!(
            "{path} was asked for again {pause:?} after {status} with Retry-After: 2"
        ));
        let allowed = Duration::from_millis(1900)..Duration::from_secs(5);
        assert!(allowed.contains(&pause), "{path}: {pause:?} after {status}");
    }
    let counted = scene.portolan.metric(&outcome("rate_limited")) - before;
    assert!(counted >= 2.0, "{counted} were counted as rate limits");
    asking.flawless("20 names and a node while Consul refuses");
    let failed = scene.portolan.metric(&outcome("server_error"));
    assert!(failed >= 1.0, "the probe did not fail meanwhile");
    let late = scene.new_data(1);
    assert!(late <= NEW_DATA, "new data was seen after {late:?}");
}

/// `request_limits` in enforcing mode, as Consul 1.16 has them: nothing is lost, and what is new comes through.
#[test]
fn a_rate_limit_lets_new_names_through() {
    const RATE: f64 = 5.0;
    let _alone = alone();
    let scene = Scene::start();
    let asking = scene.ask("limited");
    scene.fake.limit(RATE);
    let (start, before) = (Instant::now(), scene.fake.seen().len());
    let mut latest = Duration::ZERO;
    for number in 0..6 {
        // One by one: each costs some reads of the five.
        thread::sleep(Duration::from_secs(2));
        let (name, address) = (format!("limited{number}"), format!("10.6.2.{number}"));
        scene.fake.set(&name, &[&address]);
        let new = [question(&format!("{name}.service.consul"), &[&address])];
        latest = latest.max(all_right(
            scene.portolan.dns(),
            &new,
            Duration::from_secs(30),
        ));
    }
    let requests = scene.fake.seen().len() - before;
    let seconds = start.elapsed().as_secs_f64();
    asking.flawless("20 names and a node while Consul limits the rate");
    figure(&format!(
        "a new service was right within {latest:?} at {RATE} reads a second; {:.1} requests a second",
        requests as f64 / seconds
    ));
    assert!(
        latest <= Duration::from_secs(2),
        "a new service took {latest:?}"
    );
    let most = 2.0 * RATE * seconds;
    assert!(
        requests as f64 <= most,
        "{requests} requests in {seconds:.0} s"
    );
    scene.fake.repent();
    // What was refused last has been told to wait for a second, and what can wait comes after that.
    let late = scene.new_data(1);
    assert!(late <= 4 * NEW_DATA, "new data was seen after {late:?}");
}

#[test]
fn stalls_are_sat_out() {
    let _alone = alone();
    let scene = Scene::start();
    let mut asking = scene.ask("before");
    asking.rounds(10);
    asking.phase("stalls");
    let stall = Duration::from_secs(if is_full() { 10 } else { 3 });
    let (start, told) = (Instant::now(), scene.fake.told());
    scene.fake.tell("/v1/*", usize::MAX, Lie::stall(stall));
    scene.told(told);
    let lasting = while_it_lasts(4);
    while start.elapsed() < lasting {
        asking.rounds(1);
    }
    scene.fake.repent();
    let late = scene.new_data(1);
    let phases = asking.flawless("20 names and a node while Consul stalls");
    figure(&format!(
        "new data was seen {late:?} after the last stall of {stall:?} began"
    ));
    // The last one that began has to end first.
    assert!(late <= stall + NEW_DATA, "new data was seen after {late:?}");
    let slowest = phases.iter().filter_map(|phase| phase.times.last()).max();
    let quick = slowest.is_some_and(|slowest| *slowest < Duration::from_millis(500));
    ensure(quick, || format!("an answer took {slowest:?}")).expect("no answer waits for Consul");
}
