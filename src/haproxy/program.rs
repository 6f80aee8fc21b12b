//! The program: proving a configuration with it, starting it with a clean environment, what it says, and its end.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, timeout};
use tracing::{debug, error, info, warn};

use super::children::{Children, pid_of};
use super::master::complaints;

/// How long a configuration may take to be proven.
pub(super) const PROVING: Duration = Duration::from_secs(60);

/// What HAProxy sees of our environment, beside variables of its own name; and the one of those that is a secret of ours.
const PASSED: [&str; 7] = [
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "TMPDIR",
    "USER",
    "LD_LIBRARY_PATH",
];
const STATS_AUTH: &str = "HAPROXY_STATS_AUTH";

/// What HAProxy warns of at each reload, and at its end.
const ROUTINE: [&str; 8] = [
    "Reexecuting Master process",
    "Former worker",
    "exited with code 0 ",
    "exited with code 143 ",
    "stopped (cumulated conns",
    "Exiting Master process",
    "Stopping frontend",
    "Stopping proxy",
];

/// Lines of HAProxy that are remembered for telling why it failed.
const REMEMBERED: usize = 40;

/// How long it may take to end after SIGTERM.
const ENDING: Duration = Duration::from_secs(1);

/// Is it for HAProxy, and for templates, to see this variable of our environment?
pub(super) fn passes(name: &str) -> bool {
    let is_own = name.starts_with("HAPROXY_") && name != STATS_AUTH;
    is_own || name.starts_with("LC_") || PASSED.contains(&name)
}

/// The program and where it is given its socket.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) children: Children,
}

impl Program {
    /// The program with its environment: a configuration can read all that is in it, and whoever writes a key or a
    /// template is not to be told our secrets.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        let passed = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(passes));
        command.env_clear().envs(passed);
        command
    }

    /// Can it be run at all?
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn exists(&self) -> io::Result<()> {
        let mut command = self.command();
        command.arg("-v").stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = self.children.spawn(&mut command)?;
        let pid = child.id();
        let status = child.wait().await;
        self.children.ended(pid.unwrap_or_default());
        status.map(drop)
    }

    /// Is this a configuration that HAProxy takes? `Err` has HAProxy's own words.
    ///
    /// # Errors
    /// If HAProxy cannot be run.
    pub(super) async fn prove(&self, file: &Path) -> io::Result<Result<(), String>> {
        let mut command = self.command();
        command.arg("-c").arg("-f").arg(file);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let child = self.children.spawn(&mut command)?;
        let pid = child.id();
        let output = timeout(PROVING, child.wait_with_output()).await;
        if let Some(pid) = pid {
            self.children.ended(pid);
        }
        let Ok(output) = output else {
            let seconds = PROVING.as_secs();
            return Ok(Err(format!(
                "`haproxy -c` did not finish within {seconds} s"
            )));
        };
        let output = output?;
        let words = String::from_utf8_lossy(&output.stderr);
        debug!(file = %file.display(), %words, "checked by HAProxy");
        Ok(match output.status.success() {
            true => Ok(()),
            false => Err(complaints(&words)),
        })
    }

    /// The socket, as it is told to HAProxy.
    pub(super) fn socket_word(&self) -> String {
        format!("{},mode,600", self.socket.display())
    }

    /// Starts it on this file.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(&self, file: &Path) -> io::Result<Running> {
        let mut command = self.command();
        command
            .args(["-W", "-db", "-S", &self.socket_word(), "-f"])
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C in the terminal is for us; we end it in our own way.
            .process_group(0);
        let mut child = self.children.spawn(&mut command)?;
        let said = Said::default();
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(pass_on(stderr, said.clone()));
        }
        let pid = pid_of(&child);
        info!(pid = pid.map(Pid::as_raw), "HAProxy started");
        Ok(Running {
            child,
            pid,
            said,
            started: Instant::now(),
            children: self.children.clone(),
        })
    }
}

/// The last lines that HAProxy wrote.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Arc<Mutex<VecDeque<String>>>);

impl Said {
    fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == REMEMBERED {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// From now on, anew.
    pub(super) fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// What it complained of.
    pub(super) fn complaints(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        complaints(&Vec::from_iter(lines.iter().cloned()).join("\n"))
    }
}

/// HAProxy's lines become ours, as loud as it said them. Its standard output is passed on as it is:
/// that is where logs of requests go, if anywhere.
async fn pass_on(stderr: ChildStderr, said: Said) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = line.trim();
        match line {
            _ if line.is_empty() => continue,
            _ if line.starts_with("[ALERT]") => error!("HAProxy: {line}"),
            _ if line.starts_with("[WARNING]")
                && !ROUTINE.iter().any(|words| line.contains(words)) =>
            {
                warn!("HAProxy: {line}");
            }
            _ => info!("HAProxy: {line}"),
        }
        said.add(line.to_owned());
    }
}

/// A running HAProxy.
pub(super) struct Running {
    child: Child,
    pid: Option<Pid>,
    pub(super) said: Said,
    pub(super) started: Instant,
    pub(super) children: Children,
}

impl Running {
    /// The number of its master process.
    pub(super) fn number(&self) -> Option<u32> {
        u32::try_from(self.pid?.as_raw()).ok()
    }

    /// Is this its number?
    pub(super) fn is_master(&self, pid: u32) -> bool {
        self.number() == Some(pid)
    }

    /// Has it end with its last request, which nobody waits for.
    pub(super) fn retire(mut self: Box<Self>) {
        if let Some(pid) = self.pid {
            info!(
                pid = pid.as_raw(),
                "asking the previous HAProxy to end after its last requests"
            );
            let _ = kill(pid, Signal::SIGUSR1);
        }
        tokio::spawn(async move { drop(self.ended().await) });
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        if let Some(pid) = self.pid {
            self.children.ended(pid.as_raw().unsigned_abs());
        }
        status
    }

    /// Has it end once the requests in flight are done, and at the latest when `too_late` is over.
    pub(super) async fn stop(mut self, too_late: impl Future<Output = ()>) {
        let Some(pid) = self.pid else { return };
        // It may have ended by itself: then there is nothing to tell.
        let _ = kill(pid, Signal::SIGUSR1);
        tokio::select! {
            _ = self.ended() => {
                info!("HAProxy has ended, with all requests done");
                return;
            }
            () = too_late => {}
        }
        warn!("stopping HAProxy although requests are still in flight");
        let _ = kill(pid, Signal::SIGTERM);
        if timeout(ENDING, self.ended()).await.is_err() {
            let _ = killpg(pid, Signal::SIGKILL);
            drop(self.ended().await);
        }
    }
}

/// Lets go of an HAProxy that an earlier life of ours left behind, once ours has taken over.
pub(super) fn dismiss(master: u32) {
    let name = std::fs::read_to_string(format!("/proc/{master}/comm")).unwrap_or_default();
    let Ok(pid) = i32::try_from(master) else {
        return;
    };
    // In a container of its own it has another number here.
    if name.trim() == "haproxy" {
        info!(
            pid,
            "asking the previous HAProxy to end after its last requests"
        );
        let _ = kill(Pid::from_raw(pid), Signal::SIGUSR1);
    }
}
