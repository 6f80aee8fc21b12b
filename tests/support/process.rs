//! A program under test: its output goes to a file, it is killed on drop, and its log is shown when
//! the test that owns it fails.

use super::eventually;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

/// How much of a log a failing test shows: the end is what matters, and Consul talks a lot.
const SHOWN_LINES: usize = 60;

/// A running program.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with its output and errors in the file `log`, which is appended to, so that
    /// a restarted program keeps its history.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Self {
        command.stdin(Stdio::null()).stdout(log_file(log));
        Self::start_as_it_is(name, command, log)
    }

    /// The same, but standard input and output are as `command` has them; only errors are logged.
    pub(crate) fn start_as_it_is(name: &str, mut command: Command, log: &Path) -> Self {
        let child = command
            .stderr(log_file(log))
            .spawn()
            .unwrap_or_else(|error| panic!("starting {name} ({command:?}): {error}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            ended: None,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote so far.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("asking for an exit status");
        }
        self.ended
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(within, &what, || {
            self.ended().ok_or_else(|| "it still runs".to_owned())
        })
    }

    /// Sends a signal by name: `TERM`, `HUP`, `STOP`, `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        assert!(self.ended.is_none(), "{} has already ended", self.name);
        // The shell's own `kill`: present everywhere, and sending signals ourselves needs `unsafe`.
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", self.pid())])
            .status()
            .expect("running sh");
        assert!(
            status.success(),
            "could not send SIG{signal} to {}",
            self.name
        );
    }

    /// Ends it the hard way.
    pub(crate) fn kill(&mut self) {
        if self.ended().is_none() {
            // It may have ended in between: then there is nothing to kill, which is as good.
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }
}

fn log_file(log: &Path) -> File {
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("the log file of a program")
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!(
                "---- the last {} of {} log lines of {}:\n{}\n----",
                shown.len(),
                lines.len(),
                self.name,
                shown.join("\n"),
            );
        }
    }
}
