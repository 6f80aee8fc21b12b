//! Podman's Docker-compatible socket. Podman is not installed for this: `tests/run` unpacks it, and
//! all that it keeps is in a directory of the test. Its containers are in the host's network, so that
//! nothing on the host changes.

use crate::{
    support::{
        directory, docker::busybox_archive, eventually, portolan::Launch, process::Process, program,
    },
    world::{SOON, records},
};
use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Where `tests/run` unpacks it.
fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/programs/podman")
}

/// A Podman with everything of its own, and its service.
struct Podman {
    files: TempDir,
    service: Option<Process>,
}

impl Podman {
    fn start() -> Self {
        let files = directory();
        let root = unpacked();
        let path = |name: &str| files.path().join(name).display().to_string();
        let home = files.path().join(".config/containers");
        fs::create_dir_all(&home).expect("a directory for settings");
        let write = |name: &str, text: &str| {
            fs::write(home.join(name), text).expect("writing a file of the test");
        };
        write(
            "policy.json",
            r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
        );
        write("registries.conf", "unqualified-search-registries = []");
        write(
            "containers.conf",
            &format!(
                "[containers]\ndefault_sysctls = []\n[network]\nnetwork_config_dir = {:?}\n\
                 [engine]\nconmon_path = [{:?}]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\n\
                 events_logger = \"file\"\nlock_type = \"file\"\n[engine.runtimes]\nrunc = [{:?}]\n",
                path("net.d"),
                root.join("usr/bin/conmon"),
                program("runc"),
            ),
        );
        let mut podman = Self {
            files,
            service: None,
        };
        let socket = podman.files.path().join("podman.sock");
        let url = podman.url();
        let log = podman.files.path().join("service.log");
        let service = podman.command(&["system", "service", "--time=0", &url]);
        podman.service = Some(Process::start("Podman", service, &log));
        eventually(SOON * 5, "Podman answers", || {
            UnixStream::connect(&socket).map_err(|error| error.to_string())
        });
        podman
    }

    fn url(&self) -> String {
        format!("unix://{}", self.files.path().join("podman.sock").display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let root = unpacked();
        let binary = root.join("usr/bin/podman");
        assert!(
            binary.is_file(),
            "Podman is missing: run tests/run, it gets it"
        );
        let own = |name: &str| self.files.path().join(name);
        let mut command = Command::new(binary);
        command
            .env("HOME", self.files.path())
            .env("CONTAINERS_CONF", own(".config/containers/containers.conf"))
            .env("LD_LIBRARY_PATH", root.join("lib"))
            .env_remove("XDG_RUNTIME_DIR")
            .arg("--root")
            .arg(own("root"))
            .arg("--runroot")
            .arg(own("run"))
            .arg("--tmpdir")
            .arg(own("tmp"))
            .args(["--storage-driver", "vfs"])
            .args(arguments);
        command
    }

    fn podman(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().expect("running podman");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "podman {arguments:?}: {error}");
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // The containers outlive the service, and their mounts would outlive the directory.
        let _ = self
            .command(&["rm", "--all", "--force", "--time", "0"])
            .output();
    }
}

/// Its containers come and go like Docker's. (Its `stop` tells of no signal, so they go when they are
/// dead.)
#[test]
fn podmans_containers_are_served() {
    let podman = Podman::start();
    let archive = busybox_archive(&fs::canonicalize(podman.files.path()).expect("a directory"));
    podman.podman(&["import", &archive, "localhost/busybox"]);
    let portolan = Launch::new("serve")
        .args([
            "--consul",
            "none",
            "--upstream",
            "none",
            "--docker",
            &podman.url(),
        ])
        .start();
    let run = |name: &str, port: &str| {
        let port = format!("SERVICE_PORT={port}");
        podman.podman(&[
            "run",
            "--detach",
            "--init=false",
            "--network",
            "host",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=4096:4096",
            "--stop-signal",
            "KILL",
            "--name",
            name,
            "--env",
            "SERVICE_NAME=web",
            "--env",
            &port,
            "localhost/busybox",
            "sleep",
            "1000",
        ]);
    };
    let ports = |expected: &[&str]| {
        eventually(SOON, &format!("web is on the ports {expected:?}"), || {
            let records = records(portolan.dns(), "web", "SRV");
            let mut ports: Vec<&str> = records.iter().filter_map(|r| r.split(' ').nth(2)).collect();
            ports.sort_unstable();
            match ports == expected {
                true => Ok(()),
                false => Err(format!("{ports:?}")),
            }
        });
    };
    run("one", "8001");
    ports(&["8001"]);
    run("two", "8002");
    ports(&["8001", "8002"]);
    podman.podman(&["stop", "one"]);
    ports(&["8002"]);
    podman.podman(&["start", "one"]);
    ports(&["8001", "8002"]);
    podman.podman(&["rm", "--force", "--time", "0", "one", "two"]);
    ports(&[]);
}
