//! `portolan register` under test.

use super::{
    directory, eventually, http,
    portolan::{Ended, addresses, command},
    process::Process,
};
use serde_json::Value;
use std::{
    ffi::OsString,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A running registrar.
pub(crate) struct Registrar {
    process: Process,
    _directory: TempDir,
    admin: SocketAddr,
}

impl Registrar {
    /// Starts one with these flags, and waits for nothing but its admin server.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let directory = directory();
        let mut arguments: Vec<OsString> = vec!["register".into()];
        arguments.extend(flags.iter().map(OsString::from));
        arguments.extend(["--admin", "127.0.0.1:0", "--log-format", "json"].map(OsString::from));
        let command = command(&arguments, &[]);
        let log = directory.path().join("registrar.log");
        let mut process = Process::start("portolan register", command, &log);
        let what = "the registrar says where its admin server is";
        let admin = eventually(Duration::from_secs(10), what, || {
            let ended = process.ended();
            assert!(ended.is_none(), "it ended: {}", process.log());
            let addresses = addresses(&process.log(), "admin listening");
            addresses
                .first()
                .copied()
                .ok_or_else(|| "nothing".to_owned())
        });
        Self {
            process,
            _directory: directory,
            admin,
        }
    }

    /// Where its admin server is, for `--admin`.
    pub(crate) fn admin(&self) -> String {
        self.admin.to_string()
    }

    /// `GET path` of the admin server.
    pub(crate) fn get(&self, path: &str) -> Result<http::Response, String> {
        http::get(self.admin, path)
    }

    /// Waits for a 200 from `/ready`.
    pub(crate) fn wait_until_ready(&self) {
        let what = "the registrar is ready";
        eventually(Duration::from_secs(10), what, || {
            match self.get("/ready")? {
                response if response.status == 200 => Ok(()),
                response => Err(format!("{response:?}")),
            }
        });
    }

    /// A value in `/metrics`, by its name with its labels; 0 if there is none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self
            .get("/metrics")
            .unwrap_or_else(|error| panic!("{error}"));
        let value = metrics
            .body
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a metric is a number"))
    }

    /// Log events with this message.
    pub(crate) fn events(&self, message: &str) -> Vec<Value> {
        let log = self.process.log();
        let events = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        events
            .filter(|event: &Value| event["fields"]["message"] == message)
            .collect()
    }

    /// All that it wrote so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// Asks it to stop with SIGTERM and waits for the end.
    pub(crate) fn stop(mut self) -> Ended {
        let start = Instant::now();
        self.process.signal("TERM");
        let status = self.process.wait(Duration::from_secs(10));
        Ended {
            status,
            took: start.elapsed(),
            stderr: self.process.log(),
        }
    }
}
