//! A great many services: all asked once on few connections, and then changing.

use crate::{
    alone,
    asking::{Asking, Failure, Line, Question, all_right},
    figure, is_full, percentile,
    support::{
        AtEnd,
        consul::Consul,
        portolan::Portolan,
        resources::{self, most_held},
        wire::rtype::A,
    },
    world::{NEW_DATA, Services, entry, json_of, new_data, register},
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const INSTANCES: usize = 10;

/// A start may take this long until all names answer.
const RESTARTED: Duration = Duration::from_secs(10);

/// Connections that Consul holds at most, at any time, and how many of them may be our own.
const CONNECTIONS: usize = 130;
const OWN: usize = 8;

/// Changes a second, and for how long.
const CHANGES: u32 = 100;
const CHANGING: Duration = Duration::from_secs(8);

/// A change of a name in use is right after this at most.
const CHANGED: Duration = Duration::from_secs(3);

/// How many names are in use while there are changes: more than there are connections.
const IN_USE: usize = 300;

/// The address of an instance; the generation tells a change from what was before it.
fn address(service: usize, instance: usize, generation: usize) -> Ipv4Addr {
    let number = u32::try_from(service * INSTANCES + instance).expect("a small number");
    let network = 16 * (1 + generation % 12);
    Ipv4Addr::from(u32::try_from(10 << 24 | network << 16).expect("an address") + number)
}

fn service(number: usize) -> String {
    format!("many{number}")
}

/// The question for a service whose first instance is of this generation.
fn question(number: usize, generation: usize) -> Question {
    let mut answer: Vec<String> = (0..INSTANCES)
        .map(|which| address(number, which, if which == 0 { generation } else { 0 }).to_string())
        .collect();
    answer.sort();
    Question {
        name: format!("{}.service.consul", service(number)),
        rtype: A,
        answer,
    }
}

/// Registers the services of these numbers, from several threads.
fn fill(consul: &Consul, numbers: std::ops::Range<usize>) {
    let all: Vec<_> = numbers
        .flat_map(|number| {
            (0..INSTANCES)
                .map(move |which| json_of(&service(number), which, address(number, which, 0), 80))
        })
        .collect();
    thread::scope(|scope| {
        for some in all.chunks(all.len().div_ceil(4)) {
            scope.spawn(move || register(consul.http(), some));
        }
    });
}

/// Asks each question once, from several threads at a time; gives what was wrong.
fn ask_all(server: SocketAddr, questions: &[Question]) -> Vec<String> {
    let wrong = Mutex::new(Vec::new());
    let note = &|what| wrong.lock().expect("no thread panics").push(what);
    thread::scope(|scope| {
        for some in questions.chunks(questions.len().div_ceil(4)) {
            scope.spawn(move || {
                let mut line = Line::new(server, false);
                for question in some {
                    let (took, judged) = line.ask(question);
                    if let Err(Failure::Wrong(what) | Failure::Missing(what)) = judged {
                        note(format!("{what} after {took:?}"));
                    }
                }
            });
        }
    });
    wrong.into_inner().expect("no thread panics")
}

/// In another order each time the tests are compiled would help nobody: the same shuffle always.
fn shuffled(count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).collect();
    numbers.sort_by_key(|number| (*number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    numbers
}

/// Changes of services in use, and how late each was right.
#[derive(Default)]
struct Changes {
    /// What is not right yet: by service the generation, and when Consul had taken it.
    pending: BTreeMap<usize, (usize, Instant)>,
    lags: Vec<Duration>,
}

/// Changes names in use for a while, with somebody who asks for all of them round and round, and gives
/// how late each change was right, and what Portolan used in that time.
fn change(consul: &Consul, portolan: &Portolan) -> (Vec<Duration>, Duration, Duration) {
    let (changes, done) = (Mutex::new(Changes::default()), AtomicBool::new(false));
    let lock = || changes.lock().expect("no thread panics");
    let server = portolan.dns();
    let (used, took) = thread::scope(|scope| {
        let _end = AtEnd(&done);
        scope.spawn(|| use_all(server, &done));
        // What asking alone costs is no cost of changes.
        let quiet = spent(portolan, Duration::from_secs(3));
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) || !lock().pending.is_empty() {
                check(server, &changes);
                thread::sleep(Duration::from_millis(5));
            }
        });
        let (start, cpu) = (Instant::now(), resources::cpu(portolan.pid()));
        let total = CHANGES * u32::try_from(CHANGING.as_secs()).expect("a few seconds");
        for number in 0..total {
            let target = (number as usize * 7) % IN_USE;
            let generation = 1 + number as usize / IN_USE;
            let address = address(target, 0, generation);
            consul.register(&entry(&json_of(&service(target), 0, address, 80)));
            lock().pending.insert(target, (generation, Instant::now()));
            let due = Duration::from_secs(1) / CHANGES * number;
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let took = start.elapsed();
        let used = resources::cpu(portolan.pid()) - cpu;
        let share = quiet.as_secs_f64() / 3.0 * took.as_secs_f64();
        (used.saturating_sub(Duration::from_secs_f64(share)), took)
    });
    let mut lags = changes.into_inner().expect("no thread panics").lags;
    lags.sort();
    (lags, used, took)
}

/// Asks for every name in use about three times a second.
fn use_all(server: SocketAddr, done: &AtomicBool) {
    let mut line = Line::new(server, false);
    let questions: Vec<Question> = (0..IN_USE).map(|number| question(number, 0)).collect();
    for question in questions.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            return;
        }
        // What it answers is judged elsewhere.
        let _ = line.ask(question);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Asks for what is not right yet. What stays wrong for long is given up, at that lag.
fn check(server: SocketAddr, changes: &Mutex<Changes>) {
    let lock = || changes.lock().expect("no thread panics");
    let mut line = Line::new(server, false);
    let pending = lock().pending.clone();
    for (number, (generation, since)) in pending {
        let right = line.ask(&question(number, generation)).1.is_ok();
        let lag = since.elapsed();
        let mut changes = lock();
        // It may have been changed again meanwhile: then that counts from its own moment on.
        let same = changes
            .pending
            .get(&number)
            .is_some_and(|(now, _)| *now == generation);
        if same && (right || lag > 4 * CHANGED) {
            changes.pending.remove(&number);
            changes.lags.push(lag);
        }
    }
}

/// Processor time that Portolan uses in this time.
fn spent(portolan: &Portolan, during: Duration) -> Duration {
    let before = resources::cpu(portolan.pid());
    thread::sleep(during);
    resources::cpu(portolan.pid()) - before
}

/// Asks for all there are, and then changes some; gives the processor time of 100 changes.
fn measure(consul: &Consul, portolan: &Portolan, count: usize) -> Duration {
    let (memory, cpu) = (
        resources::memory(portolan.pid()),
        resources::cpu(portolan.pid()),
    );
    let questions: Vec<Question> = shuffled(count)
        .into_iter()
        .map(|n| question(n, 0))
        .collect();
    let start = Instant::now();
    let (wrong, most) = most_held(consul.http(), || ask_all(portolan.dns(), &questions));
    let took = start.elapsed();
    let memory = resources::memory(portolan.pid()).saturating_sub(memory) / count as u64;
    let cpu = (resources::cpu(portolan.pid()) - cpu) / count as u32;
    let quiet = spent(portolan, Duration::from_secs(3)) / 3;
    figure(&format!(
        "{count} services of {INSTANCES} asked once in {took:?}: {} wrong or missing, {most} \
         connections at most, {memory} bytes and {cpu:?} of processor time per service, then \
         {quiet:?} per second with nothing to do",
        wrong.len()
    ));

    let ((lags, used, during), most_then) = most_held(consul.http(), || change(consul, portolan));
    let per_hundred = used * 100 / (CHANGES * CHANGING.as_secs() as u32);
    figure(&format!(
        "{count} services, {IN_USE} in use, {CHANGES} changes/s for {during:?}: right after p50 \
         {:?} p99 {:?} at most {:?}, {most_then} connections at most, {per_hundred:?} of processor \
         time per 100 changes",
        percentile(&lags, 50),
        percentile(&lags, 99),
        lags.last()
    ));
    let examples = &wrong[..wrong.len().min(3)];
    assert!(
        wrong.is_empty(),
        "{} of {count} wrong or missing: {examples:?}",
        wrong.len()
    );
    let most = most.max(most_then);
    assert_few(most);
    let late = lags.iter().filter(|lag| **lag > CHANGED).count();
    assert_eq!(
        late,
        0,
        "{late} of {} changes were not right within {CHANGED:?}",
        lags.len()
    );
    per_hundred
}

fn assert_few(most: usize) {
    let allowed = CONNECTIONS + OWN;
    assert!(
        most <= allowed,
        "Consul held {most} connections, at most {allowed}"
    );
}

/// Three crowds of names after each other, each as large as there are connections. A blocking query
/// that is given up stays with Consul until its wait is over, and Consul counts it for as long: at 200
/// it refuses everybody at that address.
#[test]
fn a_crowd_that_moves_on_leaves_nothing_behind() {
    let _alone = alone();
    let consul = Consul::start();
    let services = Services::new("s", 330, 20);
    services.register(&consul);
    let portolan = Portolan::beside(&consul);
    let questions = services.questions();
    let ((), most) = most_held(consul.http(), || {
        for (number, crowd) in questions.chunks(questions.len() / 3).enumerate() {
            all_right(portolan.dns(), crowd, Duration::from_secs(30));
            let asking = Asking::start(portolan.dns(), crowd, "asking");
            // Longer than a service counts as in use.
            let (start, lasting) = (Instant::now(), Duration::from_secs(12));
            while start.elapsed() < lasting {
                asking.rounds(1);
            }
            asking.flawless(&format!("crowd {number}"));
        }
    });
    let transport = "portolan_sources_consul_requests_total{outcome=\"transport\"}";
    let refused = portolan.metric(transport);
    figure(&format!(
        "three crowds of 110 names after each other: Consul held {most} connections at most and \
         refused {refused}"
    ));
    assert_few(most);
    let late = new_data(&consul, portolan.dns(), "s1", 9);
    assert!(late <= NEW_DATA, "new data was seen after {late:?}");
}

/// What a Portolan that was killed had asked for stays with Consul as well. The next one, and the one
/// after it, must not be refused for that.
#[test]
fn restarts_lock_nobody_out() {
    let _alone = alone();
    let consul = Consul::start();
    let services = Services::new("s", 130, 20);
    services.register(&consul);
    let questions = services.questions();
    let mut slowest = Duration::ZERO;
    let ((), most) = most_held(consul.http(), || {
        for number in 1..=4 {
            let portolan = Portolan::beside(&consul);
            // Asked twice, so that none is a passing question.
            for _ in 0..2 {
                slowest = slowest.max(all_right(portolan.dns(), &questions, RESTARTED));
            }
            let late = new_data(&consul, portolan.dns(), "s1", 100 + number);
            assert!(late <= NEW_DATA, "start {number}: new data after {late:?}");
            // As it was, for the next.
            consul.deregister("w", &format!("s1-{}", 100 + number));
            all_right(portolan.dns(), &questions, RESTARTED);
            portolan.kill();
        }
    });
    figure(&format!(
        "four starts with 130 names in use: {slowest:?} at most until all answered, Consul held \
         {most} connections at most"
    ));
}

#[test]
fn many_services_cost_few_connections() {
    let _alone = alone();
    let consul = Consul::start();
    fill(&consul, 0..1000);
    let portolan = Portolan::beside(&consul);
    let with_few = measure(&consul, &portolan, 1000);
    if !is_full() {
        return;
    }
    drop(portolan);
    // The changes are undone first: each question has its first answer again.
    fill(&consul, 0..10_000);
    let portolan = Portolan::beside(&consul);
    let with_many = measure(&consul, &portolan, 10_000);
    figure(&format!(
        "100 changes cost {with_few:?} with 1 000 services and {with_many:?} with 10 000"
    ));
    // Ten times the catalog; what is proportional to it would be ten times as much.
    assert!(
        with_many <= with_few * 3,
        "{with_many:?} with 10 000, {with_few:?} with 1 000"
    );
}
