//! The program under test.

use super::{directory, eventually, http, process::Process, write_file};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    net::SocketAddr,
    process::{Command, ExitStatus},
    time::Duration,
};
use tempfile::TempDir;

/// The environment that Portolan reads; a developer's own settings must not reach it.
const READ_BY_PORTOLAN: [&str; 3] = ["CONSUL_", "DOCKER_", "RUST_LOG"];

/// A `portolan` that is about to be started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    listen: String,
    config: Option<String>,
    wait_until_ready: bool,
}

impl Launch {
    /// `portolan COMMAND`, on ports that the system picks.
    pub(crate) fn new(command: &str) -> Self {
        Self {
            arguments: vec![command.into()],
            environment: Vec::new(),
            listen: "127.0.0.1:0".to_owned(),
            config: None,
            wait_until_ready: true,
        }
    }

    /// Adds arguments.
    pub(crate) fn args<A: Into<OsString>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens for DNS here instead of on a free port of 127.0.0.1.
    pub(crate) fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// Gives it this portolan.toml.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// Does not wait for `/ready`: for tests of a Portolan that has nothing to answer from.
    pub(crate) fn not_ready(mut self) -> Self {
        self.wait_until_ready = false;
        self
    }

    /// Starts it and learns its ports from its log.
    pub(crate) fn start(self) -> Portolan {
        let directory = directory();
        let mut arguments = self.arguments;
        if let Some(toml) = self.config {
            let file = write_file(directory.path(), "portolan.toml", &toml);
            arguments.extend(["--config".into(), file.into_os_string()]);
        }
        arguments.extend(["--listen", &self.listen, "--admin", "127.0.0.1:0"].map(OsString::from));
        arguments.extend(["--log-format", "json"].map(OsString::from));
        let command = command(&arguments, &self.environment);
        let mut process =
            Process::start("Portolan", command, &directory.path().join("portolan.log"));
        let what = "Portolan says where it listens";
        let (dns, admin) = eventually(Duration::from_secs(10), what, || {
            assert!(
                process.ended().is_none(),
                "Portolan ended instead of serving: {}",
                process.log()
            );
            let addresses = |message| addresses(&process.log(), message);
            let dns = *addresses("listening").first().ok_or("no `listening`")?;
            let admin = *addresses("admin listening")
                .first()
                .ok_or("no `admin listening`")?;
            Ok((dns, admin))
        });
        let portolan = Portolan {
            process,
            _directory: directory,
            dns,
            admin,
        };
        if self.wait_until_ready {
            portolan.wait_until_ready();
        }
        portolan
    }
}

/// A running `portolan serve` or `portolan dev`.
pub(crate) struct Portolan {
    process: Process,
    _directory: TempDir,
    dns: SocketAddr,
    admin: SocketAddr,
}

/// How a stopped Portolan ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) took: Duration,
    pub(crate) stderr: String,
}

impl Portolan {
    /// `portolan serve` beside this Consul, with no recursion.
    pub(crate) fn beside(consul: &super::consul::Consul) -> Self {
        Launch::new("serve")
            .args(["--consul", &consul.url(), "--upstream", "none"])
            .start()
    }

    /// Waits for a 200 from `/ready`.
    pub(crate) fn wait_until_ready(&self) {
        eventually(
            Duration::from_secs(10),
            "Portolan is ready",
            || match self.get("/ready")? {
                response if response.status == 200 => Ok(()),
                response => Err(format!("{response:?}")),
            },
        );
    }

    /// Where it answers DNS, over UDP and TCP.
    pub(crate) fn dns(&self) -> SocketAddr {
        self.dns
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `GET path` of the admin server.
    pub(crate) fn get(&self, path: &str) -> Result<http::Response, String> {
        http::get(self.admin, path)
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// A value in `/metrics`, by its name with its labels; 0 if there is none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.metrics().remove(name).unwrap_or_default()
    }

    /// All values in `/metrics`, by name with labels.
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let metrics = self
            .get("/metrics")
            .unwrap_or_else(|error| panic!("{error}"));
        let lines = metrics.body.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                let value = value.parse().expect("a metric is a number");
                Some((name.to_owned(), value))
            })
            .collect()
    }

    /// All that it wrote so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// Its log so far, as events.
    pub(crate) fn events(&self) -> Vec<Value> {
        events(&self.process.log())
    }

    /// Fails if it has ended; otherwise says nothing.
    pub(crate) fn assert_running(&mut self) {
        let ended = self.process.ended();
        assert!(ended.is_none(), "Portolan ended: {ended:?}");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        self.process.wait(within)
    }

    /// Asks it to stop with SIGTERM and waits for the end.
    pub(crate) fn stop(mut self) -> Ended {
        let start = std::time::Instant::now();
        self.process.signal("TERM");
        let status = self.process.wait(Duration::from_secs(10));
        Ended {
            status,
            took: start.elapsed(),
            stderr: self.process.log(),
        }
    }
}

/// What a `portolan` that ran to its end left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The line that explains a failure: the last that it wrote to stderr.
    pub(crate) fn last_line(&self) -> &str {
        let line = self.stderr.lines().rfind(|line| !line.trim().is_empty());
        line.unwrap_or_default()
    }
}

/// Runs `portolan` with exactly these arguments, for commands that end by themselves.
pub(crate) fn run_to_end<A: AsRef<std::ffi::OsStr>>(
    arguments: &[A],
    environment: &[(&str, &str)],
) -> Outcome {
    let arguments: Vec<OsString> = arguments.iter().map(|a| a.as_ref().to_owned()).collect();
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let mut child = command(&arguments, &environment)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starting portolan");
    // What it writes is a few lines, which the pipes hold until it has ended.
    let deadline = std::time::Instant::now() + Duration::from_secs(15);
    let mut gave_up = false;
    while child
        .try_wait()
        .expect("asking for an exit status")
        .is_none()
    {
        if std::time::Instant::now() > deadline {
            gave_up = true;
            // It may have ended just now; the wait below tells.
            let _ = child.kill();
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("the output of portolan");
    let outcome = Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(
        !gave_up,
        "`portolan` {arguments:?} did not end: {outcome:?}"
    );
    outcome
}

pub(crate) fn command(arguments: &[OsString], environment: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if READ_BY_PORTOLAN
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// The log lines that are JSON, as JSON.
fn events(log: &str) -> Vec<Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The addresses in the log events with this message.
pub(crate) fn addresses(log: &str, message: &str) -> Vec<SocketAddr> {
    events(log)
        .iter()
        .map(|event| &event["fields"])
        .filter(|fields| fields["message"] == message)
        .filter_map(|fields| fields["address"].as_str()?.parse().ok())
        .collect()
}
