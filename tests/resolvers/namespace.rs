//! Network namespaces, with cables between them.

use crate::support::{ensure, eventually, process::Process, program};
use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

/// A network of its own, until it is dropped.
pub(crate) struct Namespace(Process);

impl Namespace {
    /// One in which there is loopback alone. `log` is a file for what goes wrong.
    pub(crate) fn new(log: &Path) -> Self {
        let mut command = Command::new(program("unshare"));
        command.args(["--net", "sh", "-c"]);
        command.arg("ip link set lo up && exec sleep infinity");
        let namespace = Self(Process::start("a namespace", command, log));
        eventually(Duration::from_secs(5), "it is there", || {
            let shown = namespace.run(&["ip", "-o", "link", "show", "up"]);
            let text = String::from_utf8_lossy(&shown.stdout).into_owned();
            let links = text.lines().count();
            ensure(links == 1 && text.contains("lo:"), || text)
        });
        namespace
    }

    /// A command in it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program("nsenter"));
        let pid = self.0.pid().to_string();
        command.args(["--target", &pid, "--net"]).args(words);
        command
    }

    /// Runs a command in it.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("running a command")
    }

    /// Runs commands of ip in it, which have to succeed.
    fn ip(&self, commands: &[&str]) {
        for command in commands {
            let words: Vec<&str> = command.split(' ').collect();
            let output = self.run(&words);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command}: {errors}");
        }
    }

    /// Lays a cable to another one: the ends are `v0` here, with the address `fe80::1`, and `v1` there, with
    /// `fe80::2`.
    pub(crate) fn connect(&self, other: &Self) {
        let pid = other.0.pid();
        self.ip(&[
            &format!("ip link add v0 type veth peer name v1 netns {pid}"),
            "ip -6 addr add fe80::1/64 dev v0 nodad",
            "ip link set v0 up",
        ]);
        other.ip(&[
            "ip -6 addr add fe80::2/64 dev v1 nodad",
            "ip link set v1 up",
        ]);
    }

    /// Takes the cable away.
    pub(crate) fn disconnect(&self) {
        self.ip(&["ip link delete v0"]);
    }
}
