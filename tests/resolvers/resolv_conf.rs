//! The system's resolvers, as they change: in a mount namespace of its own, each on port 53 of an address of its own.

use crate::{
    namespace::Namespace,
    servers::Server,
    support::{
        directory,
        dns::Query,
        ensure, eventually, free_ports, own_loopback,
        process::Process,
        program,
        wire::{rcode, rtype::A},
        write_file,
    },
};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const NOT_READY: u16 = 14;

/// How soon a change counts.
const FOLLOWED: Duration = Duration::from_secs(2);

/// What the test allows for a machine that has other things to do.
const SOON: Duration = Duration::from_secs(15);

struct Scene {
    portolan: Process,
    dns: SocketAddr,
    file: PathBuf,
    _directory: TempDir,
}

impl Scene {
    /// Portolan that asks the system's resolvers, with this `resolv.conf`.
    fn start(text: &str) -> Self {
        let directory = directory();
        let file = write_file(directory.path(), "resolv.conf", text);
        let ip = own_loopback();
        let [port] = free_ports(ip);
        let dns = SocketAddr::from((ip, port));
        let script = format!(
            "mount --bind '{}' /etc/resolv.conf && exec '{}' serve --consul none --listen {dns} --admin none",
            file.display(),
            env!("CARGO_BIN_EXE_portolan")
        );
        let mut command = Command::new(program("unshare"));
        command.args(["--mount", "sh", "-c", &script]);
        let portolan = Process::start("Portolan", command, &directory.path().join("log"));
        let scene = Self {
            portolan,
            dns,
            file,
            _directory: directory,
        };
        eventually(SOON, "Portolan answers", || {
            let patience = Duration::from_millis(500);
            Query::new("localhost", A).patience(patience).try_ask(dns)
        });
        scene
    }

    /// Writes the file in place, and waits until this is what is said; tells how long that took.
    fn write(&self, text: &str, what: &str, number: &mut u32, said: &[&str]) {
        fs::write(&self.file, text).expect("the file");
        let start = Instant::now();
        eventually(SOON, what, || {
            *number += 1;
            let reply = Query::new(&format!("n{number}.far.example"), A).ask(self.dns);
            ensure(reply.data() == said, || {
                format!("{}\n{}", reply.summary(), self.portolan.log())
            })
        });
        let took = start.elapsed();
        println!("{what}: after {took:?}");
        if took > FOLLOWED {
            println!("that was longer than {FOLLOWED:?}");
        }
    }
}

/// dnsmasq on port 53 of an address of its own, which says this of every name.
fn resolver(says: &str) -> (Server, Ipv4Addr) {
    let ip = own_loopback();
    let more = format!("address=/far.example/{says}\n");
    (
        Server::dnsmasq_at((ip, 53).into(), "x.far.example", &more),
        ip,
    )
}

#[test]
fn the_systems_resolvers_are_followed() {
    let (_first, one) = resolver("192.0.2.1");
    let (_second, two) = resolver("192.0.2.2");
    // A machine that has no network yet.
    let scene = Scene::start("");
    let reply = Query::new("n0.far.example", A).edns(1232).ask(scene.dns);
    assert_eq!(reply.rcode(), rcode::SERVFAIL, "{}", reply.summary());
    assert!(reply.ra(), "recursion is not off: {}", reply.summary());
    assert_eq!(reply.extended_errors(), [NOT_READY], "{}", reply.summary());

    let number = &mut 0;
    scene.write(
        &format!("nameserver {one}\n"),
        "the first one is named",
        number,
        &["192.0.2.1"],
    );
    scene.write(
        &format!("search x\nnameserver {two}\n"),
        "another one is named",
        number,
        &["192.0.2.2"],
    );
    // Half of a file, nothing at all, and rubbish change nothing.
    for text in [
        "name",
        "",
        "nameserver\nnameserver nonsense\nnameserver fe80::1%none0\n",
    ] {
        fs::write(&scene.file, text).expect("the file");
        let until = Instant::now() + FOLLOWED;
        while Instant::now() < until {
            *number += 1;
            let reply = Query::new(&format!("n{number}.far.example"), A).ask(scene.dns);
            assert_eq!(reply.data(), ["192.0.2.2"], "{text:?}: {}", reply.summary());
        }
    }
    let log = scene.portolan.log();
    assert_eq!(
        log.matches("fe80::1%none0").count(),
        1,
        "it is told once: {log}"
    );
    let both = format!(
        "nameserver {}\nnameserver {one}\n",
        Ipv4Addr::new(127, 77, 7, 7)
    );
    scene.write(
        &both,
        "one that is not there, and the first",
        number,
        &["192.0.2.1"],
    );
    // What was known from others is known.
    let known = Query::new("n1.far.example", A).ask(scene.dns);
    assert_eq!(known.rcode(), rcode::NOERROR, "{}", known.summary());
}

/// A resolver with a link-local address is asked through the interface that is named, also when that goes and comes
/// again under another number; by flag, and by `resolv.conf`.
#[test]
fn a_link_local_resolver_is_asked_through_its_interface() {
    let directory = directory();
    let log = |name: &str| directory.path().join(name);
    let ours = Namespace::new(&log("ours"));
    let theirs = Namespace::new(&log("theirs"));
    ours.connect(&theirs);
    let resolver = |number: u32| {
        let mut command = theirs.command(&[
            "dnsmasq",
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--interface=v1",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
        ]);
        command.arg(format!("--address=/far.example/192.0.2.{number}"));
        Process::start("dnsmasq", command, &log("dnsmasq"))
    };
    let file = write_file(directory.path(), "resolv.conf", "nameserver fe80::2%v0\n");
    let serve = |port: u16, flags: &str| {
        let script = format!(
            "mount --bind '{}' /etc/resolv.conf && exec '{}' serve --consul none --listen \
             127.0.0.1:{port} --admin none {flags}",
            file.display(),
            env!("CARGO_BIN_EXE_portolan")
        );
        let words = [program("unshare"), program("sh")];
        let words = words.map(|path| path.display().to_string());
        let command = ours.command(&[&words[0], "--mount", &words[1], "-c", &script]);
        Process::start("Portolan", command, &log(&format!("portolan{port}")))
    };
    let portolans = [
        (5301, serve(5301, "--upstream fe80::2%v0")),
        (5302, serve(5302, "")),
    ];
    let answers = |name: &str, number: u32| {
        for (port, portolan) in &portolans {
            eventually(SOON, "an answer comes through the cable", || {
                let port = port.to_string();
                let words = [
                    "dig",
                    "@127.0.0.1",
                    "-p",
                    &port,
                    "+short",
                    "+tries=1",
                    name,
                    "A",
                ];
                let output = ours.run(&words);
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                ensure(said == format!("192.0.2.{number}\n"), || {
                    format!("{said}\n{}", portolan.log())
                })
            });
        }
    };
    let first = resolver(1);
    answers("one.far.example", 1);
    drop(first);
    ours.disconnect();
    // What is new has another number than what went.
    ours.run(&["ip", "link", "add", "other", "type", "dummy"]);
    ours.connect(&theirs);
    let _second = resolver(2);
    answers("two.far.example", 2);
}
