//! The socket of HAProxy's master process (`management.txt`, "Master CLI"), and what is said there: of its
//! processes, and (as it is) of its servers.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

/// How long HAProxy may take to answer, and to load a configuration.
const PATIENCE: Duration = Duration::from_secs(5);
const LOADING: Duration = Duration::from_secs(60);

/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// The master process behind a socket.
#[derive(Debug, Clone)]
pub(super) struct Master {
    socket: PathBuf,
}

/// What `show proc` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Processes {
    /// The master.
    pub(super) master: u32,
    /// Reloads since it began.
    reloads: u64,
    /// Reloads that failed since the last that did not.
    failed: u64,
    /// The workers that take requests.
    pub(super) workers: BTreeSet<u32>,
}

/// Why a configuration is not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// There is nobody at the socket.
    #[error("no HAProxy answers at {}: {source}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    /// Somebody else's HAProxy is at the socket.
    #[error("another HAProxy (process {pid}) has taken {}; stop it, or choose another --master-socket", socket.display())]
    Foreign { socket: PathBuf, pid: u32 },
    /// HAProxy refuses it, in its own words as far as it says them here.
    #[error("HAProxy refuses to load the new configuration: {0}")]
    Refused(String),
    /// HAProxy does not say how it went.
    #[error("HAProxy did not say within {} s whether it has loaded the new configuration", LOADING.as_secs())]
    Silent,
    /// It is gone.
    #[error("HAProxy ended while it loaded the new configuration")]
    Ended,
}

impl Master {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// One command and its answer.
    async fn ask(&self, command: &str, within: Duration) -> io::Result<String> {
        let exchange = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(command.as_bytes()).await?;
            stream.write_all(b"\n").await?;
            // It closes when it has answered what came before our end.
            stream.shutdown().await?;
            let mut answer = Vec::new();
            stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        match timeout(within, exchange).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        }
    }

    /// The processes.
    ///
    /// # Errors
    /// If there is no HAProxy, or none that is well.
    pub(super) async fn processes(&self) -> io::Result<Processes> {
        let answer = self.ask("show proc", PATIENCE).await?;
        let strange = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "this socket does not belong to an HAProxy master process; check --master-socket",
            )
        };
        processes(&answer).ok_or_else(strange)
    }

    /// The account of the servers, from the worker that takes requests.
    ///
    /// # Errors
    /// If there is no HAProxy, or none that is well.
    pub(super) async fn servers_state(&self) -> io::Result<String> {
        let answer = self.ask("@1 show servers state", PATIENCE).await?;
        match answer.starts_with('1') {
            true => Ok(answer),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, answer)),
        }
    }

    /// Has HAProxy read its file anew, and waits for what comes of it; if `own` is said, only the one with that number.
    ///
    /// # Errors
    /// [`ReloadError`]; the processes of before go on.
    pub(super) async fn reload(&self, own: Option<u32>) -> Result<(), ReloadError> {
        let unreachable = |source| ReloadError::Unreachable {
            socket: self.socket.clone(),
            source,
        };
        let before = self.processes().await.map_err(unreachable)?;
        if own.is_some_and(|own| own != before.master) {
            return Err(ReloadError::Foreign {
                socket: self.socket.clone(),
                pid: before.master,
            });
        }
        // From 2.7 on it answers when it is done; before, it lets go at once and says nothing.
        let answer = self.ask("reload", LOADING).await.unwrap_or_default();
        if answer.starts_with("Success=1") {
            return Ok(());
        }
        if let Some(rest) = answer.strip_prefix("Success=0") {
            let words = rest.trim_start_matches(['\n', '-']);
            return Err(ReloadError::Refused(complaints(words)));
        }
        let start = Instant::now();
        while start.elapsed() < LOADING {
            // While it loads there is nobody at the socket.
            match self.processes().await {
                Ok(now) if now.reloads > before.reloads && now.failed > 0 => {
                    return Err(ReloadError::Refused(String::new()));
                }
                Ok(now) if now.reloads > before.reloads && now.workers != before.workers => {
                    return Ok(());
                }
                _ => sleep(LOOK).await,
            }
        }
        Err(ReloadError::Silent)
    }
}

fn processes(answer: &str) -> Option<Processes> {
    let mut found = Processes::default();
    let mut section = "";
    for line in answer.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            section = title;
            continue;
        }
        let row: Vec<&str> = line.split_whitespace().collect();
        let Some(pid) = row.first().and_then(|pid| pid.parse().ok()) else {
            continue;
        };
        match (row.get(1), section) {
            (Some(&"master"), _) => {
                found.master = pid;
                found.reloads = row.get(2)?.parse().ok()?;
                let failed = row.get(4).map(|failed| failed.trim_end_matches(']'));
                found.failed = failed.and_then(|failed| failed.parse().ok()).unwrap_or(0);
            }
            (Some(&"worker"), "workers") => {
                found.workers.insert(pid);
            }
            _ => {}
        }
    }
    (found.master != 0).then_some(found)
}

/// What HAProxy complains of in its log lines: its alerts, else its last lines.
pub(super) fn complaints(words: &str) -> String {
    let lines = || words.lines().map(str::trim).filter(|line| !line.is_empty());
    let alerts: Vec<&str> = lines().filter(|line| line.contains("[ALERT]")).collect();
    let all: Vec<&str> = lines().collect();
    let shown = match alerts.is_empty() {
        true => &all[all.len().saturating_sub(5)..],
        false => &alerts[..alerts.len().min(10)],
    };
    shown.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn show_proc_is_read() {
        let answer = "#<PID>          <type>          <reloads>       <uptime>        <version>\n\
            26813           master          3 [failed: 1]   0d00h00m15s     2.6.12-1+deb12u4\n\
            # workers\n\
            26887           worker          1               0d00h00m01s     2.6.12-1+deb12u4\n\
            # old workers\n\
            26800           worker          2               0d00h00m09s     2.6.12-1+deb12u4\n\
            # programs\n\n";
        let expected = Processes {
            master: 26813,
            reloads: 3,
            failed: 1,
            workers: BTreeSet::from([26887]),
        };
        assert_eq!(processes(answer), Some(expected));
        assert_eq!(processes("Unknown command"), None);
    }

    #[test]
    fn alerts_go_before_the_rest() {
        let words = "[NOTICE] a\n[ALERT] (1) : b\n[WARNING] c\n[ALERT] (1) : d\n";
        assert_eq!(complaints(words), "[ALERT] (1) : b; [ALERT] (1) : d");
        assert_eq!(complaints("x\ny\n"), "x; y");
        assert_eq!(complaints(""), "");
    }
}
