//! HAProxy itself: proving a configuration; and its life as a child in master-worker mode: start, reload, end.

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

use super::Settings;
use super::children::{Children, pid_of};
use super::master::{Master, ReloadError, complaints};
use super::metrics::{Metrics, Phase, Report};

/// How often is looked whether it runs.
const LOOK: Duration = Duration::from_millis(50);

/// First and longest pause before it is started again, and after how long it counts as well.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const WELL_AFTER: Duration = Duration::from_secs(30);

/// Does HAProxy run, as far as that is ours to say?
enum Life {
    /// It does not; it is started again at this time, or by whoever has something to start it on.
    Down {
        /// When.
        again: Option<Instant>,
    },
    /// As our child.
    Up(Box<Running>),
    /// Somebody else starts and ends it.
    Elsewhere,
}

/// The one HAProxy that is kept.
pub(super) struct Process {
    life: Life,
    program: Program,
    master: Master,
    /// How long after an end it is started again.
    pause: Duration,
    /// The master process of an earlier life of ours.
    predecessor: Option<u32>,
    metrics: Metrics,
    report: Report,
}

impl Process {
    /// An HAProxy that is not started yet, or is not ours to start.
    ///
    /// # Errors
    /// What the system says, if the program cannot be run.
    pub(super) async fn new(
        settings: &Settings,
        metrics: Metrics,
        report: Report,
    ) -> io::Result<Self> {
        let program = Program {
            path: settings.program.clone(),
            socket: settings.master_socket.clone(),
            children: Children::default(),
        };
        program.exists().await?;
        Ok(Self {
            life: match settings.exec {
                true => Life::Down { again: None },
                false => Life::Elsewhere,
            },
            program,
            master: Master::new(&settings.master_socket),
            pause: FIRST_PAUSE,
            predecessor: None,
            metrics,
            report,
        })
    }

    /// From now on it is nobody's to start.
    pub(super) fn leave_alone(&mut self) {
        self.life = Life::Elsewhere;
    }

    /// What there is from before. True if it runs, and somebody else has started it.
    pub(super) async fn begin(&mut self) -> bool {
        let there = self.master.processes().await.ok();
        match self.life {
            Life::Elsewhere => {
                if there.is_some() {
                    self.set_up(true);
                }
                there.is_some()
            }
            Life::Down { .. } | Life::Up(_) => {
                self.predecessor = there.map(|processes| processes.master);
                false
            }
        }
    }

    /// Does it not run, although that is ours to see to?
    pub(super) fn is_down(&self) -> bool {
        matches!(self.life, Life::Down { .. })
    }

    /// Is it started again by itself?
    pub(super) fn comes_back(&self) -> bool {
        matches!(self.life, Life::Down { again: Some(_) })
    }

    /// Is it time to start it again? It is asked once.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        match &mut self.life {
            Life::Down { again } => again.take_if(|at| *at <= now).is_some(),
            Life::Up(_) | Life::Elsewhere => false,
        }
    }

    /// Is this a configuration that HAProxy takes? `Err` has HAProxy's own words.
    ///
    /// # Errors
    /// In words, if HAProxy cannot be run.
    pub(super) async fn prove(&self, file: &Path) -> Result<Result<(), String>, String> {
        let proven = self.program.prove(file).await;
        proven.map_err(|error| format!("cannot run {}: {error}", self.program.path.display()))
    }

    /// What it says it holds.
    ///
    /// # Errors
    /// If there is no HAProxy, or none that is well.
    pub(super) async fn account(&self) -> io::Result<String> {
        let account = self.master.servers_state().await;
        if let Life::Elsewhere = self.life {
            self.set_up(account.is_ok());
        }
        account
    }

    fn set_up(&self, is_up: bool) {
        self.report.set_up(is_up);
        self.metrics.up.set(is_up.into());
    }

    /// Starts it on the file, and waits until it runs.
    ///
    /// # Errors
    /// [`ReloadError`]; then it is started again by itself, unless the system would not start it.
    pub(super) async fn start(&mut self, file: &Path) -> Result<(), ReloadError> {
        let unreachable = |source| ReloadError::Unreachable {
            socket: self.program.socket.clone(),
            source,
        };
        let file = std::path::absolute(file).map_err(unreachable)?;
        // From now on it is ended with us, also when we are to stop before it runs.
        let started = self.program.start(&file).map_err(unreachable)?;
        self.life = Life::Up(Box::new(started));
        let begun = Instant::now();
        loop {
            let Life::Up(running) = &mut self.life else {
                return Err(ReloadError::Ended);
            };
            if let Ok(status) = timeout(LOOK, running.ended()).await {
                let status = status.map_or_else(|error| error.to_string(), |s| s.to_string());
                let words = format!("it ended with {status}: {}", running.said.complaints());
                self.go_down();
                return Err(ReloadError::Refused(words));
            }
            // One of before may still be at the socket.
            let processes = self.master.processes().await;
            let is_ours = processes
                .is_ok_and(|found| running.is_master(found.master) && !found.workers.is_empty());
            if is_ours {
                break;
            }
            // It may take as long as to check the same.
            if begun.elapsed() > PROVING {
                if let Life::Up(running) = self.go_down() {
                    running.stop(std::future::ready(())).await;
                }
                return Err(ReloadError::Silent);
            }
        }
        self.set_up(true);
        self.report.set_unstarted(None);
        if let Some(master) = self.predecessor.take() {
            dismiss(master);
        }
        Ok(())
    }

    /// It is started again after a pause, each longer than the one before. Gives the life of before.
    fn go_down(&mut self) -> Life {
        let again = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        std::mem::replace(&mut self.life, Life::Down { again })
    }

    /// Has it read its file anew, and waits for what comes of it.
    ///
    /// # Errors
    /// [`ReloadError`]; the processes of before go on.
    pub(super) async fn reload(&mut self) -> Result<(), ReloadError> {
        let begun = Instant::now();
        let result = match &mut self.life {
            Life::Up(running) => {
                running.said.forget();
                // The loop, which starts it again, sees its end once more.
                tokio::select! {
                    result = self.master.reload() => result,
                    _ = running.ended() => Err(ReloadError::Ended),
                }
            }
            Life::Down { .. } | Life::Elsewhere => self.master.reload().await,
        };
        let took = begun.elapsed();
        self.metrics.took(Phase::Reload, took);
        self.metrics.reload(result.is_ok());
        match result {
            Ok(()) => {
                info!(millis = took.as_millis(), "HAProxy reloaded");
                self.set_up(true);
                Ok(())
            }
            Err(ReloadError::Refused(words)) if words.is_empty() => {
                Err(ReloadError::Refused(match &self.life {
                    Life::Up(running) => running.said.complaints(),
                    Life::Down { .. } | Life::Elsewhere => "its log says why".to_owned(),
                }))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for its end, if it runs; then it is down.
    pub(super) async fn ended(&mut self) {
        let Life::Up(running) = &mut self.life else {
            return std::future::pending().await;
        };
        let status = running.ended().await;
        if running.started.elapsed() > WELL_AFTER {
            self.pause = FIRST_PAUSE;
        }
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        error!(
            status,
            said = running.said.complaints(),
            millis = self.pause.as_millis(),
            "HAProxy has exited unexpectedly; restarting it"
        );
        self.go_down();
        self.set_up(false);
    }

    /// Has it end once the requests in flight are done, and at the latest when `too_late` is over.
    pub(super) async fn stop(self, too_late: impl Future<Output = ()>) {
        if let Life::Up(running) = self.life {
            self.report.set_up(false);
            running.stop(too_late).await;
        }
    }

    /// Waits for the children of others for as long as it is run.
    pub(super) fn reap(&self) -> impl Future<Output = ()> + use<> {
        self.program.children.clone().reap()
    }
}

/// How long a configuration may take to be proven.
const PROVING: Duration = Duration::from_secs(60);

/// Lines of HAProxy that are remembered for telling why it failed.
const REMEMBERED: usize = 40;

/// How long it may take to end after SIGTERM.
const ENDING: Duration = Duration::from_secs(1);

/// The program and where it is given its socket.
#[derive(Debug, Clone)]
struct Program {
    path: PathBuf,
    socket: PathBuf,
    children: Children,
}

impl Program {
    /// Can it be run at all?
    ///
    /// # Errors
    /// What the system says.
    async fn exists(&self) -> io::Result<()> {
        let mut command = Command::new(&self.path);
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
    async fn prove(&self, file: &Path) -> io::Result<Result<(), String>> {
        let mut command = Command::new(&self.path);
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

    /// Starts it on this file.
    ///
    /// # Errors
    /// What the system says.
    fn start(&self, file: &Path) -> io::Result<Running> {
        let mut command = Command::new(&self.path);
        let socket = format!("{},mode,600", self.socket.display());
        command
            .args(["-W", "-db", "-S", &socket, "-f"])
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
struct Said(Arc<Mutex<VecDeque<String>>>);

impl Said {
    fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == REMEMBERED {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// From now on, anew.
    fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// What it complained of.
    fn complaints(&self) -> String {
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
            _ if line.starts_with("[WARNING]") => warn!("HAProxy: {line}"),
            _ => info!("HAProxy: {line}"),
        }
        said.add(line.to_owned());
    }
}

/// A running HAProxy.
struct Running {
    child: Child,
    pid: Option<Pid>,
    said: Said,
    started: Instant,
    children: Children,
}

impl Running {
    /// Is this its number?
    fn is_master(&self, pid: u32) -> bool {
        self.pid
            .is_some_and(|own| u32::try_from(own.as_raw()) == Ok(pid))
    }

    /// Waits for its end.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        if let Some(pid) = self.pid {
            self.children.ended(pid.as_raw().unsigned_abs());
        }
        status
    }

    /// Has it end once the requests in flight are done, and at the latest when `too_late` is over.
    async fn stop(mut self, too_late: impl Future<Output = ()>) {
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
fn dismiss(master: u32) {
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
