//! The system's resolvers, as they change: in a mount namespace of its own, each on port 53 of an address of its own.

use crate::{
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
