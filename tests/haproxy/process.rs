//! HAProxy as a child process.

use crate::{
    backends::Backend,
    edge::{SOON, Site, ask, kill},
    support::{ensure, eventually, portolan::command, program},
};
use std::{fs, net::TcpListener, process::Command, thread, time::Duration};

#[test]
fn haproxy_is_killed_and_comes_back() {
    let site = Site::new();
    site.set_key("maxconn", "500");
    let _hello1 = site.service("hello1");
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    let (config, master) = (site.config(), edge.master().expect("a master"));
    kill(&format!("-{master}"), "KILL");
    eventually(Duration::from_secs(2), "it is back", || {
        let now = edge.master()?;
        ensure(now != master, || "the old one".to_owned())?;
        let answer = site.get("/hello1/x")?;
        ensure(answer.0 == 200, || format!("{answer:?}"))
    });
    assert_eq!(site.config(), config);
    eventually(SOON, "it is ready again", || {
        let (status, body) = edge.ready()?;
        ensure(status == 200, || body)
    });
    assert_eq!(edge.info("Maxconn").as_deref(), Ok("500"));
    assert_eq!(edge.metric("restarts_total"), 1);
}

/// Waits until the slow request has come to the backend.
fn in_flight(backend: &Backend) {
    eventually(SOON, "the request is in flight", || {
        let asked = backend.asked();
        ensure(asked.iter().any(|path| path.starts_with("/slow/")), || {
            format!("{asked:?}")
        })
    });
}

#[test]
fn requests_in_flight_finish_at_the_end() {
    let site = Site::new();
    let hello1 = site.service("hello1");
    let mut edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    let (status, body) = thread::scope(|scope| {
        let slow = scope.spawn(|| site.get("/hello1/slow/4000").expect("an answer"));
        in_flight(&hello1);
        edge.signal("TERM");
        // It takes no new ones from then on, while the one in flight goes on.
        eventually(SOON, "nobody listens any more", || {
            let answer = site.get("/hello1/x");
            ensure(answer.is_err(), || format!("{answer:?}"))
        });
        assert!(!slow.is_finished(), "it was over before the end began");
        slow.join().expect("it does not panic")
    });
    assert_eq!((status, &*body), (200, "hello1 /slow/4000"));
    assert_eq!(edge.wait(SOON), Some(0));
    assert!(site.get("/hello1/x").is_err(), "nobody listens any more");
    assert!(ask(&site.socket(), "show proc").is_err());
}

/// Whoever does not want to wait for them says so twice.
#[test]
fn a_second_signal_does_not_wait() {
    let site = Site::new();
    let hello1 = site.service("hello1");
    let mut edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    thread::scope(|scope| {
        let slow = scope.spawn(|| site.get("/hello1/slow/20000"));
        in_flight(&hello1);
        edge.signal("TERM");
        eventually(SOON, "it has begun to end", || {
            let answer = site.get("/hello1/x");
            ensure(answer.is_err(), || format!("{answer:?}"))
        });
        assert!(!slow.is_finished(), "it waits for the one in flight");
        edge.signal("INT");
        assert_eq!(edge.wait(SOON), Some(0));
        let answer = slow.join().expect("it does not panic");
        assert!(answer.is_err(), "{answer:?}");
    });
    assert!(ask(&site.socket(), "show proc").is_err());
}

/// An HAProxy that a crash of ours left behind goes on, until the next one has taken over.
#[test]
fn an_haproxy_of_before_is_followed_by_another() {
    let site = Site::new();
    let _hello1 = site.service("hello1");
    let mut edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    let old = edge.master().expect("a master");
    edge.kill();
    site.answers("/hello1/x", "hello1 /x");
    let next = site.start();
    assert_ne!(next.master().expect("a master"), old);
    let old = format!("/proc/{old}");
    eventually(SOON, "the old one has ended", || {
        let status = fs::read_to_string(format!("{old}/stat")).unwrap_or_default();
        ensure(status.is_empty() || status.contains(") Z"), || status)
    });
    site.answers("/hello1/x", "hello1 /x");
}

/// As the first process of a container, it is the parent of every orphan.
#[test]
fn the_first_process_leaves_no_zombies() {
    let site = Site::new();
    let _hello1 = site.service("hello1");
    let inner = command(&site.arguments(&[]), &[]);
    let mut outer = Command::new(program("unshare"));
    outer.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !is_root() {
        outer.arg("--map-root-user");
    }
    outer.arg(inner.get_program()).args(inner.get_args());
    let edge = site.launch_command(outer);
    edge.wait_until_ready();
    site.answers("/hello1/x", "hello1 /x");
    let mine = children_of(&format!("{}", edge.pid()));
    let first = mine
        .first()
        .expect("the first process of the namespace")
        .clone();
    // An orphan: its parent ends before it does, so that it becomes the first process's.
    let status = Command::new(program("nsenter"))
        .args([
            "--target",
            &first,
            "--pid",
            "--mount",
            "sh",
            "-c",
            "(sleep 0.3; exit 3) & exit 0",
        ])
        .status()
        .expect("running nsenter");
    assert!(status.success());
    // And HAProxy's own, when its master is killed.
    let haproxy = children_of(&first)
        .into_iter()
        .find(|pid| name_of(pid) == "haproxy");
    kill(&haproxy.expect("an HAProxy"), "KILL");
    thread::sleep(Duration::from_millis(600));
    site.answers("/hello1/x", "hello1 /x");
    eventually(SOON, "there is no zombie", || {
        let zombies: Vec<String> = children_of(&first)
            .into_iter()
            .filter(|pid| stat(pid).contains(") Z "))
            .collect();
        ensure(zombies.is_empty(), || format!("{zombies:?}"))
    });
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn stat(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()
}

fn name_of(pid: &str) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

fn children_of(pid: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let all = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let parent = |pid: &String| {
        let stat = stat(pid);
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_whitespace().nth(1).map(str::to_owned)
    };
    all.filter(|child| parent(child).as_deref() == Some(pid))
        .collect()
}

/// One that runs elsewhere is managed through its socket, and is left as it is at the end.
#[test]
fn an_haproxy_elsewhere() {
    let site = Site::new();
    let _hello1 = site.service("hello1");
    let mut edge = site.launch(&["--no-exec"]);
    // It is not there yet: the file is written all the same, for it to start with.
    eventually(SOON, "the file is written", || {
        ensure(site.config().contains("backend hello1"), || site.config())
    });
    let (status, body) = edge.ready().expect("an answer");
    assert_eq!(status, 503, "{body}");
    let socket = format!("{},mode,600", site.socket().display());
    let mut haproxy = Command::new(program("haproxy"));
    haproxy
        .args(["-W", "-db", "-S", &socket, "-f"])
        .arg(site.file());
    let log = site.directory.path().join("haproxy.log");
    let haproxy = crate::support::process::Process::start("HAProxy", haproxy, &log);
    let haproxy = Elsewhere(haproxy);
    site.answers("/hello1/x", "hello1 /x");
    edge.wait_until_ready();

    let hello2: Backend = site.service("hello2");
    site.answers("/hello2/x", "hello2 /x");
    site.set_key("maxconn", "321");
    eventually(SOON, "it is loaded", || {
        ensure(edge.info("Maxconn")? == "321", || "not yet".to_owned())
    });
    edge.signal("TERM");
    assert_eq!(edge.wait(SOON), Some(0));
    site.answers("/hello2/x", "hello2 /x");
    drop((haproxy, hello2));
}

/// An HAProxy of the test's own, whose workers must end with it.
struct Elsewhere(crate::support::process::Process);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if self.0.ended().is_none() {
            self.0.signal("TERM");
            self.0.wait(SOON);
        }
    }
}

/// A port that is taken is nobody's fault in Consul: it is tried again until it is free.
#[test]
fn a_port_that_is_taken() {
    let site = Site::new();
    site.set_key("maxconn", "500");
    let _hello1 = site.service("hello1");
    let taken = TcpListener::bind(site.http).expect("it is free");
    let edge = site.launch(&[]);
    let (status, body) = edge.says("cannot bind socket");
    assert_eq!(status, 503, "{body}");
    assert_eq!(edge.metric("refused_keys"), 0, "{body}");
    drop(taken);
    site.answers("/hello1/x", "hello1 /x");
    eventually(SOON, "it is ready, with nothing to say against it", || {
        let (status, body) = edge.ready()?;
        ensure(
            status == 200 && body.contains("haproxy: 1 backends\n"),
            || body,
        )
    });
    assert_eq!(edge.info("Maxconn").as_deref(), Ok("500"));
}
