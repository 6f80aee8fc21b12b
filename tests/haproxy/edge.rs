//! An edge: `portolan haproxy` with the HAProxy that it runs, beside a Consul and a `portolan serve`
//! that HAProxy asks.

use crate::{
    backends::Backend,
    support::{
        consul::{Consul, instance},
        directory, eventually, free_ports, http, own_loopback,
        portolan::{self, Outcome, Portolan},
        process::Process,
        program, write_file,
    },
};
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Where the keys are.
pub(crate) const PREFIX: &str = "service/haproxy";

/// How long anything may take that takes a moment.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Consul, DNS, and where an HAProxy is to be.
pub(crate) struct Site {
    pub(crate) consul: Consul,
    pub(crate) dns: Portolan,
    pub(crate) directory: TempDir,
    /// Where HAProxy takes requests, and where its statistics are.
    pub(crate) http: SocketAddr,
    pub(crate) stats: SocketAddr,
    haproxy: PathBuf,
}

/// A running `portolan haproxy` of a site.
pub(crate) struct Edge {
    process: Process,
    admin: SocketAddr,
    socket: PathBuf,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(Consul::start())
    }

    /// Beside this Consul.
    pub(crate) fn with(consul: Consul) -> Self {
        let dns = Portolan::beside(&consul);
        let ip = own_loopback();
        let [http, stats] = free_ports(ip);
        Self {
            consul,
            dns,
            directory: directory(),
            http: (ip, http).into(),
            stats: (ip, stats).into(),
            haproxy: program("haproxy"),
        }
    }

    /// With another HAProxy than the system's.
    pub(crate) fn with_haproxy(mut self, haproxy: PathBuf) -> Self {
        self.haproxy = haproxy;
        self
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("m.sock")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("haproxy.cfg")
    }

    /// What is in haproxy.cfg; nothing if there is none.
    pub(crate) fn config(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap_or_default()
    }

    pub(crate) fn set_key(&self, key: &str, value: &str) {
        self.consul.set_key(&format!("{PREFIX}/{key}"), value);
    }

    /// Enters an instance in the catalog.
    pub(crate) fn register(&self, service: &str, tag: &str, backend: &Backend) {
        let (ip, port) = (backend.address.ip(), backend.address.port());
        let entry = json!({ "Service": service, "ID": backend.name, "Address": ip, "Port": port,
            "Tags": [tag] });
        self.consul.register(&instance("w", "127.0.0.1", &entry));
    }

    /// Enters many services of one node in the catalog, in transactions of 64, which is what Consul takes: one by one
    /// it would be the test.
    pub(crate) fn register_all(&self, services: &[Value]) {
        self.consul
            .register(&json!({ "Node": "w", "Address": "127.0.0.1" }));
        for some in services.chunks(64) {
            let set = |service: &Value| json!({ "Service": { "Verb": "set", "Node": "w", "Service": service } });
            let transaction: Vec<Value> = some.iter().map(set).collect();
            self.consul.put("/v1/txn", &Value::Array(transaction));
        }
    }

    /// Takes it off the catalog.
    pub(crate) fn deregister(&self, backend: &Backend) {
        self.consul.deregister("w", &backend.name);
    }

    /// A service with the tag, of one instance.
    pub(crate) fn service(&self, name: &str) -> Backend {
        let backend = Backend::start(name);
        self.register(name, "rest", &backend);
        backend
    }

    /// What `portolan haproxy` is given for this site.
    pub(crate) fn arguments(&self, more: &[&str]) -> Vec<OsString> {
        let toml = write_file(
            self.directory.path(),
            "portolan.toml",
            "[haproxy]\nheal_after = \"3s\"\nlinger = \"0s\"\nreload_pace = \"0s\"\n",
        );
        let mut arguments: Vec<OsString> = [
            "haproxy",
            "--consul",
            &self.consul.url(),
            "--resolver",
            &self.dns.dns().to_string(),
            "--bind",
            &self.http.to_string(),
            "--stats-bind",
            &self.stats.to_string(),
            "--admin",
            "127.0.0.1:0",
            "--log-format",
            "json",
        ]
        .map(OsString::from)
        .into();
        for (flag, path) in [
            ("--config", toml),
            ("--output", self.file()),
            ("--master-socket", self.socket()),
            ("--haproxy", self.haproxy.clone()),
        ] {
            if !more.contains(&flag) {
                arguments.extend([flag.into(), path.into_os_string()]);
            }
        }
        arguments.extend(more.iter().map(OsString::from));
        arguments
    }

    /// Runs `portolan haproxy` to its end.
    pub(crate) fn run(&self, more: &[&str]) -> Outcome {
        portolan::run_to_end(&self.arguments(more), &[])
    }

    /// Starts it, and waits until it is ready.
    pub(crate) fn start(&self) -> Edge {
        let edge = self.launch(&[]);
        edge.wait_until_ready();
        edge
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn launch(&self, more: &[&str]) -> Edge {
        let command = portolan::command(&self.arguments(more), &[]);
        self.launch_command(command)
    }

    /// The same with the command as it is.
    pub(crate) fn launch_command(&self, command: Command) -> Edge {
        let log = self.directory.path().join("portolan.log");
        let before = std::fs::metadata(&log).map_or(0, |log| log.len()) as usize;
        let mut process = Process::start("portolan haproxy", command, &log);
        let admin = eventually(SOON, "it says where its metrics are", || {
            let ended = process.ended();
            assert!(ended.is_none(), "it ended: {}", process.log());
            let events = portolan::events(process.log().get(before..).unwrap_or_default());
            let mut said = events
                .iter()
                .filter(|event| event["fields"]["message"] == "admin listening");
            let address = said.find_map(|event| event["fields"]["address"].as_str()?.parse().ok());
            address.ok_or_else(|| "nothing yet".to_owned())
        });
        Edge {
            process,
            admin,
            socket: self.socket(),
        }
    }

    /// `GET path` of HAProxy: the status, and the body.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, String), String> {
        let response = http::get(self.http, path)?;
        Ok((response.status, response.body))
    }

    /// Waits until HAProxy answers `path` with this body.
    pub(crate) fn answers(&self, path: &str, body: &str) {
        eventually(
            SOON,
            &format!("{path} is answered by {body}"),
            || match self.get(path)? {
                (200, found) if found == body => Ok(()),
                other => Err(format!("{other:?}")),
            },
        );
    }
}

impl Edge {
    pub(crate) fn wait_until_ready(&self) {
        eventually(SOON, "it is ready", || match self.ready()? {
            (200, _) => Ok(()),
            other => Err(format!("{other:?}; {}", self.process.log())),
        });
    }

    /// What `/ready` says.
    pub(crate) fn ready(&self) -> Result<(u16, String), String> {
        let response = http::get(self.admin, "/ready")?;
        Ok((response.status, response.body))
    }

    /// Waits until `/ready` says this somewhere.
    pub(crate) fn says(&self, words: &str) -> (u16, String) {
        eventually(SOON, &format!("/ready says {words}"), || {
            let (status, body) = self.ready()?;
            match body.contains(words) {
                true => Ok((status, body)),
                false => Err(body),
            }
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A metric `portolan_haproxy_NAME` that counts; 0 if there is none.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        self.float(name) as u64
    }

    /// Any metric `portolan_haproxy_NAME`; 0 if there is none.
    pub(crate) fn float(&self, name: &str) -> f64 {
        self.any(&format!("portolan_haproxy_{name}"))
    }

    /// Any metric; 0 if there is none.
    pub(crate) fn any(&self, name: &str) -> f64 {
        let metrics = http::get(self.admin, "/metrics").expect("metrics").body;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Reloads so far, of which none may have failed.
    pub(crate) fn reloads(&self) -> u64 {
        assert_eq!(self.metric("reloads_total{outcome=\"failed\"}"), 0);
        self.metric("reloads_total{outcome=\"ok\"}")
    }

    /// Waits until there have been so many reloads.
    pub(crate) fn reloaded(&self, times: u64) {
        eventually(SOON, &format!("{times} reloads"), || match self.reloads() {
            reloads if reloads == times => Ok(()),
            reloads => Err(format!("{reloads}")),
        });
    }

    /// Asks HAProxy's master process.
    pub(crate) fn ask(&self, command: &str) -> Result<String, String> {
        ask(&self.socket, command)
    }

    /// A line of `show info` of the worker that takes requests.
    pub(crate) fn info(&self, name: &str) -> Result<String, String> {
        let info = self.ask("@1 show info")?;
        let prefix = format!("{name}: ");
        let value = info.lines().find_map(|line| line.strip_prefix(&prefix));
        value
            .map(str::to_owned)
            .ok_or_else(|| format!("no {name}: {info}"))
    }

    /// The master's process id, from `show proc`.
    pub(crate) fn master(&self) -> Result<u32, String> {
        let processes = self.ask("show proc")?;
        let row = processes.lines().find(|line| line.contains(" master "));
        row.and_then(|row| row.split_whitespace().next()?.parse().ok())
            .ok_or(processes)
    }

    /// Its log so far, as events.
    pub(crate) fn events(&self) -> Vec<Value> {
        portolan::events(&self.process.log())
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Ends it as a crash would; HAProxy stays.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Waits for its end: the exit code.
    pub(crate) fn wait(&mut self, within: Duration) -> Option<i32> {
        self.process.wait(within).code()
    }
}

/// What it started must not outlive it.
impl Drop for Edge {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.process.signal("TERM");
            let start = Instant::now();
            while self.process.ended().is_none() && start.elapsed() < Duration::from_secs(3) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.process.kill();
        for event in self.events() {
            if event["fields"]["message"] == "HAProxy started" {
                // Each began a process group; most have ended long since.
                kill(&format!("-{}", event["fields"]["pid"]), "KILL");
            }
        }
    }
}

/// Sends a signal to a process, or to a group of them by a number below zero.
pub(crate) fn kill(pid: &str, signal: &str) {
    // It may have ended in between, which is as good.
    let output = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {pid}")])
        .output();
    drop(output.expect("running sh"));
}

/// Asks a socket of HAProxy.
pub(crate) fn ask(socket: &PathBuf, command: &str) -> Result<String, String> {
    let mut answer = String::new();
    UnixStream::connect(socket)
        .and_then(|mut stream| {
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(format!("{command}\n").as_bytes())?;
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_to_string(&mut answer)
        })
        .map_err(|error| format!("{}: {error}", socket.display()))?;
    Ok(answer)
}
