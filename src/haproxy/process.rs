//! The life of HAProxy as a child in master-worker mode: start, reload, another in its place, end.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{error, info};

use super::Settings;
use super::children::Children;
use super::claim::{ClaimError, was_ours};
use super::master::{Master, ReloadError};
use super::metrics::{Metrics, Phase, Report};
use super::program::{PROVING, Program, Running, dismiss};

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

/// Who answers at the socket that our child has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtSocket {
    /// Our child.
    Ours,
    /// Nobody, at the last look: somebody has removed it.
    Nobody,
    /// Another HAProxy, with this number.
    Other(u32),
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
    /// Who is at the socket of our child.
    at_socket: AtSocket,
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
            at_socket: AtSocket::Ours,
            metrics,
            report,
        })
    }

    /// From now on it is nobody's to start.
    pub(super) fn leave_alone(&mut self) {
        self.life = Life::Elsewhere;
    }

    /// Is nobody at the socket, or one whom an earlier life of ours has started?
    ///
    /// # Errors
    /// [`ClaimError::Foreign`].
    pub(super) async fn is_free(&self) -> Result<(), ClaimError> {
        match (&self.life, self.master.processes().await) {
            (Life::Down { .. }, Ok(found))
                if !was_ours(found.master, &self.program.socket_word()) =>
            {
                Err(ClaimError::Foreign {
                    socket: self.program.socket.clone(),
                    pid: found.master,
                })
            }
            _ => Ok(()),
        }
    }

    /// Looks who is at the socket of our child. True if nobody is, again: then it can be told nothing any more.
    pub(super) async fn has_lost_socket(&mut self) -> bool {
        let Life::Up(running) = &self.life else {
            return false;
        };
        let before = self.at_socket;
        self.at_socket = match self.master.processes().await {
            Ok(found) if running.is_master(found.master) => AtSocket::Ours,
            Ok(found) => AtSocket::Other(found.master),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AtSocket::Nobody,
                // It may be busy.
                _ => before,
            },
        };
        let socket = self.program.socket.display();
        let problem = match self.at_socket {
            AtSocket::Ours => None,
            AtSocket::Nobody => Some(format!(
                "the socket {socket} has been removed: another HAProxy takes over from the one that runs"
            )),
            AtSocket::Other(pid) => Some(format!(
                "another HAProxy (process {pid}) has taken {socket}: stop it, or choose another --master-socket"
            )),
        };
        if before != self.at_socket
            && let Some(problem) = &problem
        {
            error!("{problem}");
        }
        self.report.set_socket(problem);
        before == AtSocket::Nobody && self.at_socket == AtSocket::Nobody
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
        if self.at_socket != AtSocket::Ours {
            return Err(io::ErrorKind::NotConnected.into());
        }
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

    /// Starts it on the file, and waits until it runs. One that runs goes on until then, and ends with its last request.
    ///
    /// # Errors
    /// [`ReloadError`]; then the one of before goes on, or it is started again by itself, unless the system would not
    /// start it.
    pub(super) async fn start(&mut self, file: &Path) -> Result<(), ReloadError> {
        let unreachable = |source| ReloadError::Unreachable {
            socket: self.program.socket.clone(),
            source,
        };
        let file = std::path::absolute(file).map_err(unreachable)?;
        // From now on it is ended with us, also when we are to stop before it runs.
        let started = self.program.start(&file).map_err(unreachable)?;
        let before = std::mem::replace(&mut self.life, Life::Up(Box::new(started)));
        let begun = self.begin_to_run().await;
        match (begun, before) {
            (Ok(()), before) => {
                if let Life::Up(before) = before {
                    before.retire();
                }
            }
            (Err(error), before @ Life::Up(_)) => {
                self.life = before;
                return Err(error);
            }
            (Err(error), _) => return Err(error),
        }
        self.at_socket = AtSocket::Ours;
        self.report.set_socket(None);
        self.set_up(true);
        self.report.set_unstarted(None);
        if let Some(master) = self.predecessor.take() {
            dismiss(master);
        }
        Ok(())
    }

    /// Waits until our child answers at its socket.
    async fn begin_to_run(&mut self) -> Result<(), ReloadError> {
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
                return Ok(());
            }
            // It may take as long as to check the same.
            if begun.elapsed() > PROVING {
                if let Life::Up(running) = self.go_down() {
                    running.stop(std::future::ready(())).await;
                }
                return Err(ReloadError::Silent);
            }
        }
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
                let own = running.number();
                // The loop, which starts it again, sees its end once more.
                tokio::select! {
                    result = self.master.reload(own) => result,
                    _ = running.ended() => Err(ReloadError::Ended),
                }
            }
            Life::Down { .. } | Life::Elsewhere => self.master.reload(None).await,
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
