//! Portolan is started while Consul is down: what it wrote before is what it answers from.

use crate::{
    alone,
    asking::{Question, all_right},
    figure,
    support::{
        consul::Consul,
        directory,
        dns::Query,
        ensure, eventually,
        portolan::{Launch, Portolan},
        wire::{
            rcode,
            rtype::{A, PTR},
        },
    },
    world::{Services, new_data},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// A start with Consul down may take this long until all names answer.
const WITHIN: Duration = Duration::from_secs(1);

/// Portolan beside the Consul at a URL, with its state in `state`.
pub(crate) fn launch(consul: &str, state: &Path) -> Launch {
    Launch::new("serve")
        .args(["--consul", consul, "--upstream", "none", "--state-dir"])
        .args([state])
}

/// A Consul with services, and a Portolan that has been asked for all of them.
fn start(state: &Path, count: usize) -> (Consul, Portolan, Vec<Question>) {
    let consul = Consul::start();
    let services = Services::new("s", count, 20);
    services.register(&consul);
    let portolan = launch(&consul.url(), state).start();
    let questions = services.questions();
    all_right(portolan.dns(), &questions, Duration::from_secs(30));
    (consul, portolan, questions)
}

/// The one file in which the state is.
fn state_file(state: &Path) -> PathBuf {
    let files: Vec<PathBuf> = fs::read_dir(state)
        .expect("the state directory")
        .map(|entry| entry.expect("an entry of the state directory").path())
        .collect();
    match files.as_slice() {
        [file] => file.clone(),
        files => panic!("not one file of state: {files:?}"),
    }
}

/// Starts Portolan with Consul down and gives how long it took until all names answered.
fn comes_up(consul: &Consul, state: &Path, questions: &[Question]) -> (Portolan, Duration) {
    let start = Instant::now();
    let portolan = launch(&consul.url(), state).not_ready().start();
    all_right(portolan.dns(), questions, Duration::from_secs(10));
    (portolan, start.elapsed())
}

#[test]
fn what_was_known_is_known_after_a_restart() {
    let _alone = alone();
    let state = directory();
    let (mut consul, portolan, questions) = start(state.path(), 200);
    new_data(&consul, portolan.dns(), "fresh", 1);
    let ended = portolan.stop();
    assert!(ended.status.success(), "{:?}", ended.status);
    let bytes = fs::metadata(state_file(state.path()))
        .expect("the state file")
        .len();
    consul.kill();
    let (portolan, took) = comes_up(&consul, state.path(), &questions);
    figure(&format!(
        "200 names answered {took:?} after a start with Consul down (at most {WITHIN:?}); the \
         state is {bytes} bytes"
    ));
    // A name that was known not to exist still does not, and a node is as well known as a service.
    let absent = Query::new("absent.service.consul", A).ask(portolan.dns());
    assert_eq!(absent.rcode(), rcode::NXDOMAIN, "{}", absent.summary());
    let node = Query::new("w.node.consul", A).ask(portolan.dns());
    assert_eq!(node.data(), ["10.9.9.9"], "{}", node.summary());
    // What is at an address is known as far as the services are; the others' names are somebody else's, and
    // nobody waits for a Consul that is away to say so.
    let own = Query::new("1.7.20.10.in-addr.arpa", PTR).ask(portolan.dns());
    assert_eq!(own.data(), ["s7.service.dc1.consul."], "{}", own.summary());
    let before = Instant::now();
    let foreign = Query::new("99.99.99.10.in-addr.arpa", PTR).ask(portolan.dns());
    assert_ne!(foreign.rcode(), rcode::SERVFAIL, "{}", foreign.summary());
    let waited = before.elapsed();
    assert!(waited < Duration::from_millis(250), "it took {waited:?}");
    consul.restart();
    consul.wait_until_ready();
    let late = new_data(&consul, portolan.dns(), "fresh", 2);
    assert!(
        late <= crate::world::NEW_DATA,
        "new data was seen after {late:?}"
    );
    all_right(portolan.dns(), &questions, WITHIN);
    assert!(took <= WITHIN, "it took {took:?} until all names answered");
}

#[test]
fn a_crash_loses_a_few_seconds_at_most() {
    let _alone = alone();
    let state = directory();
    let (mut consul, portolan, questions) = start(state.path(), 20);
    // The second write after all names were asked has begun after the first, so it has them all.
    for number in 1..=2 {
        let before = SystemTime::now();
        new_data(&consul, portolan.dns(), "fresh", number);
        eventually(Duration::from_secs(15), "the state is written", || {
            let files = fs::read_dir(state.path()).map_err(|error| error.to_string())?;
            let written = files
                .flatten()
                .filter_map(|file| file.metadata().ok()?.modified().ok());
            ensure(written.max() > Some(before), || {
                "nothing new yet".to_owned()
            })
        });
    }
    portolan.kill();
    consul.kill();
    let (_portolan, took) = comes_up(&consul, state.path(), &questions);
    figure(&format!(
        "after a crash 20 names answered {took:?} after a start with Consul down"
    ));
    assert!(took <= WITHIN, "it took {took:?} until all names answered");
}

/// Ways to damage a file.
fn damages(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let cut = |length: usize| (format!("cut to {length} bytes"), whole[..length].to_vec());
    let flipped = |at: usize| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0x10;
        (format!("a flipped bit at {at}"), bytes)
    };
    let length = whole.len();
    vec![
        cut(0),
        cut(length / 2),
        cut(length - 1),
        flipped(0),
        flipped(length / 3),
        flipped(length / 2),
        flipped(length - 1),
        (
            "something else".to_owned(),
            b"{\"not\": \"ours\"}\n".to_vec(),
        ),
    ]
}

#[test]
fn a_damaged_state_is_set_aside() {
    let _alone = alone();
    let state = directory();
    let (mut consul, portolan, questions) = start(state.path(), 20);
    portolan.stop();
    consul.kill();
    let file = state_file(state.path());
    let whole = fs::read(&file).expect("the state file");
    let name = file.file_name().expect("a name").to_owned();
    let mut last = None;
    for (how, damaged) in damages(&whole) {
        // A directory of its own, so that what is set aside is seen.
        let place = directory();
        fs::write(place.path().join(&name), &damaged).expect("writing a damaged state");
        let portolan = launch(&consul.url(), place.path()).not_ready().start();
        let reply = Query::new(&questions[0].name, A).ask(portolan.dns());
        assert_eq!(reply.rcode(), rcode::SERVFAIL, "{how}: {}", reply.summary());
        assert_ne!(portolan.get("/ready").expect("/ready").status, 200, "{how}");
        let warned = portolan.events().iter().any(|event| {
            event["level"] == "WARN" && event.to_string().contains(&*name.to_string_lossy())
        });
        assert!(warned, "{how}: no warning names the file");
        assert_aside(place.path(), &name.to_string_lossy(), &damaged, &how);
        last = Some((portolan, place));
    }
    // The last of them is as good as any other once Consul is back.
    let (portolan, _place) = last.expect("a damage");
    consul.restart();
    consul.wait_until_ready();
    let took = all_right(portolan.dns(), &questions, Duration::from_secs(10));
    figure(&format!(
        "without its state 20 names answered {took:?} after Consul was back"
    ));
}

/// The damaged file is still there, under its name with something after it.
fn assert_aside(place: &Path, name: &str, damaged: &[u8], how: &str) {
    let entries = fs::read_dir(place).expect("the state directory");
    let names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let aside = names
        .iter()
        .find(|found| found.starts_with(name) && found.as_str() != name);
    let aside = aside.unwrap_or_else(|| panic!("{how}: not set aside, only {names:?}"));
    let kept = fs::read(place.join(aside)).expect("what was set aside");
    assert!(kept == damaged, "{how}: {aside} is not what was there");
}
