//! Whose the socket and the file are: an HAProxy that somebody else started is sent nothing, and a file that somebody
//! else wrote is not lost.

use crate::{
    edge::{Edge, SOON, Site, ask, kill},
    scaling::haproxy_3,
    support::{ensure, eventually, process::Process, program, throughout},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// An HAProxy as somebody else runs it, with a file written by hand.
struct Foreign {
    process: Process,
    file: PathBuf,
    socket: PathBuf,
}

const BY_HAND: &str = "# written by hand\ndefaults\n    timeout connect 1s\n    timeout client 1s\n    \
    timeout server 1s\nfrontend theirs\n    mode http\n    bind unix@theirs.bind\n";

impl Foreign {
    fn start(haproxy: &Path, directory: &Path, socket: &Path) -> Self {
        let file = directory.join("theirs.cfg");
        fs::write(&file, BY_HAND).expect("written");
        let mut command = Command::new(haproxy);
        command.current_dir(directory);
        // As Debian's unit does.
        command
            .arg("-Ws")
            .arg("-f")
            .arg(&file)
            .arg("-S")
            .arg(socket);
        let process = Process::start("haproxy", command, &directory.join("theirs.log"));
        let foreign = Self {
            process,
            file,
            socket: socket.to_owned(),
        };
        eventually(SOON, "it runs", || {
            let processes = ask(&foreign.socket, "show proc")?;
            ensure(
                processes.contains(&format!("{} ", foreign.process.pid())),
                || processes,
            )
        });
        foreign
    }

    /// It runs as it did: with its first worker, and its file.
    fn is_untouched(&mut self) {
        assert!(self.process.ended().is_none(), "{}", self.process.log());
        let processes = ask(&self.socket, "show proc").expect("it answers");
        let master = processes
            .lines()
            .find(|line| line.contains(" master "))
            .expect("a master");
        let words: Vec<&str> = master.split_whitespace().collect();
        assert_eq!(
            (words[0], words[2]),
            (&*self.process.pid().to_string(), "0"),
            "{processes}"
        );
        assert_eq!(fs::read_to_string(&self.file).expect("there"), BY_HAND);
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.process.signal("TERM");
        self.process.wait(SOON);
    }
}

fn both() -> [PathBuf; 2] {
    [program("haproxy"), haproxy_3()]
}

/// One that runs there already is told of, and nothing else.
#[test]
fn an_haproxy_of_somebody_else_is_left_alone() {
    for haproxy in both() {
        let site = Site::new().with_haproxy(haproxy.clone());
        let _hello1 = site.service("hello1");
        let mut theirs = Foreign::start(&haproxy, site.directory.path(), &site.socket());
        let outcome = site.run(&[]);
        assert_eq!(outcome.code, Some(78), "{outcome:?}");
        let told = "that portolan has not started";
        assert!(outcome.stderr.contains(told), "{outcome:?}");
        assert_eq!(site.config(), "");
        theirs.is_untouched();
    }
}

/// One that comes later takes the socket; ours goes on, and loads again once it has the socket back.
#[test]
fn an_haproxy_that_takes_the_socket_is_sent_nothing() {
    for haproxy in both() {
        let site = Site::new().with_haproxy(haproxy.clone());
        let _hello1 = site.service("hello1");
        let edge = site.start();
        site.answers("/hello1/x", "hello1 /x");
        let mut theirs = Foreign::start(&haproxy, site.directory.path(), &site.socket());
        edge.says("another HAProxy (process");
        let _hello2 = site.service("hello2");
        // Its change is tried and held; requests are answered all the same.
        eventually(SOON, "the change is held", || {
            let failed = edge.metric("changes_total{outcome=\"failed\"}");
            ensure(failed > 0, || "not yet".to_owned())
        });
        for _ in 0..60 {
            let answer = site.get("/hello1/x").expect("an answer");
            assert_eq!(answer, (200, "hello1 /x".to_owned()));
        }
        theirs.is_untouched();
        drop(theirs);
        site.answers("/hello2/x", "hello2 /x");
        eventually(SOON, "nothing is wrong any more", || {
            let (_, body) = edge.ready()?;
            ensure(
                !body.contains("process") && !body.contains("removed"),
                || body,
            )
        });
    }
}

/// A socket that somebody removed is opened anew by another HAProxy, without a lost request.
#[test]
fn a_removed_socket_comes_back() {
    for haproxy in both() {
        let site = Site::new().with_haproxy(haproxy);
        let _hello1 = site.service("hello1");
        let edge = site.start();
        site.answers("/hello1/x", "hello1 /x");
        let before = edge.master().expect("a master");
        // From then on it is known what HAProxy holds, which the next one begins with.
        throughout(
            Duration::from_secs(2),
            Duration::from_millis(50),
            "it answers",
            || {
                let answer = site.get("/hello1/x")?;
                ensure(answer.0 == 200, || format!("{answer:?}"))
            },
        );
        let is_over = AtomicBool::new(false);
        let asked = thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut asked = 0_u32;
                while !is_over.load(Ordering::Relaxed) {
                    let answer = site.get("/hello1/x");
                    assert_eq!(answer, Ok((200, "hello1 /x".to_owned())), "after {asked}");
                    asked += 1;
                }
                asked
            });
            fs::remove_file(site.socket()).expect("removed");
            let comes_back = eventually_another(&edge, before);
            // A change after that is loaded.
            let _hello2 = site.service("hello2");
            let answers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                site.answers("/hello2/x", "hello2 /x");
                thread::sleep(Duration::from_millis(500));
            }));
            is_over.store(true, Ordering::Relaxed);
            let asked = asking.join().expect("no request failed");
            comes_back.expect("another master");
            answers.expect("the change is loaded");
            asked
        });
        assert!(asked > 50, "{asked}");
        let (status, body) = edge.ready().expect("an answer");
        assert!(status == 200 && !body.contains("removed"), "{body}");
        eventually(SOON, "the one before has ended", || {
            let stat = fs::read_to_string(format!("/proc/{before}/stat")).unwrap_or_default();
            ensure(stat.is_empty() || stat.contains(") Z"), || stat)
        });
    }
}

/// Waits for another master process at the socket.
fn eventually_another(edge: &Edge, before: u32) -> Result<u32, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(SOON, "another master", || {
            let now = edge.master()?;
            ensure(now != before, || "the one before".to_owned())?;
            Ok(now)
        })
    }))
    .map_err(|_| "it did not come".to_owned())
}

/// A crash of ours, after a reload: the HAProxy that it left behind is known again.
#[test]
fn what_a_crash_left_behind_is_known() {
    for haproxy in both() {
        let site = Site::new().with_haproxy(haproxy);
        let _hello1 = site.service("hello1");
        let mut edge = site.start();
        site.answers("/hello1/x", "hello1 /x");
        let _hello2 = site.service("hello2");
        edge.reloaded(1);
        let before = edge.master().expect("a master");
        edge.kill();
        let next = site.start();
        assert_ne!(next.master().expect("a master"), before);
        site.answers("/hello2/x", "hello2 /x");
        kill(&before.to_string(), "KILL");
    }
}

#[test]
fn one_portolan_keeps_one_haproxy() {
    let site = Site::new();
    let _hello1 = site.service("hello1");
    let edge = site.start();
    let master = edge.master().expect("a master");
    let elsewhere = site
        .directory
        .path()
        .join("other.cfg")
        .display()
        .to_string();
    for more in [&[][..], &["--output", &elsewhere]] {
        let outcome = site.run(more);
        assert_eq!(outcome.code, Some(78), "{outcome:?}");
        let told = "another `portolan haproxy` keeps";
        assert!(outcome.stderr.contains(told), "{outcome:?}");
    }
    assert_eq!(edge.master(), Ok(master));
    site.answers("/hello1/x", "hello1 /x");
    // A dry run writes nothing, and is in nobody's way.
    assert_eq!(site.run(&["--dry-run"]).code, Some(0));
}

/// What somebody wrote by hand is refused, or kept for good.
#[test]
fn a_file_written_by_hand_is_not_lost() {
    let site = Site::new();
    let _hello1 = site.service("hello1");
    fs::write(site.file(), BY_HAND).expect("written");
    for more in [&[][..], &["--once"]] {
        let outcome = site.run(more);
        assert_eq!(outcome.code, Some(78), "{outcome:?}");
        assert!(outcome.stderr.contains("--adopt-config"), "{outcome:?}");
        assert_eq!(site.config(), BY_HAND);
    }
    let edge = site.launch(&["--adopt-config"]);
    site.answers("/hello1/x", "hello1 /x");
    let kept = |name: &str| {
        let path = site.directory.path().join(name);
        fs::read_to_string(path).unwrap_or_default()
    };
    for service in ["hello2", "hello3"] {
        let _backend = site.service(service);
        site.answers(&format!("/{service}/x"), &format!("{service} /x"));
    }
    assert_eq!(kept("haproxy.cfg.before-portolan"), BY_HAND);
    // Written by hand while we run: it is kept as well, beside the first.
    let later = BY_HAND.replace("1s", "2s");
    fs::write(site.file(), &later).expect("written");
    let _hello4 = site.service("hello4");
    site.answers("/hello4/x", "hello4 /x");
    assert_eq!(kept("haproxy.cfg.before-portolan"), BY_HAND);
    assert_eq!(kept("haproxy.cfg.before-portolan.1"), later);
    assert!(site.config().starts_with("# Written by portolan"));
    // The next start knows its own.
    drop(edge);
    let edge = site.start();
    site.answers("/hello1/x", "hello1 /x");
    drop(edge);
}
