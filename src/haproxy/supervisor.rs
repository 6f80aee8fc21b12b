//! The loop that keeps an HAProxy right, and the errands that end by themselves.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Settings;
use super::changes::Hold;
use super::claim::{Claim, ClaimError};
use super::inputs::{Feeds, Input};
use super::metrics::{Metrics, Report};
use super::names::Names;
use super::process::Process;
use super::quoting::hidden;
use super::rollout::Configuration;
use super::template::TemplateError;
use super::watchdog::{Verdict, Watchdog};

/// How often is looked at what Consul says.
const LOOK: Duration = Duration::from_millis(100);

/// How often is looked who is at HAProxy's socket, and how soon another HAProxy is tried after one that did not start.
const INSPECT: Duration = Duration::from_secs(1);
const REPLACE: Duration = Duration::from_secs(10);

/// How long an errand waits for what Consul says.
const WITHOUT_CONSUL: Duration = Duration::from_secs(12);

/// How long what is under way may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// The longest rest after an account of HAProxy's servers.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Why HAProxy cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The file or the socket is not ours to take.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The DNS library.
    #[error("cannot set up DNS: {0}")]
    Dns(#[from] hickory_resolver::net::NetError),
    /// HAProxy cannot be run.
    #[error("cannot run {}: {source}; install HAProxy or name it with --haproxy", program.display())]
    Program {
        /// What was to be run.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The one change that was asked for is not to be had.
    #[error("{0}")]
    Refused(String),
}

/// Keeps one HAProxy right: what it is to run on, whether it runs, and whether it holds what it should.
pub struct Supervisor {
    configuration: Configuration,
    process: Process,
    watchdog: Watchdog,
    /// When to look next whether HAProxy holds what it should.
    watch_at: Instant,
    /// When to look next who is at its socket.
    inspect_at: Instant,
    claim: Option<Claim>,
    stop_timeout: Duration,
    report: Report,
}

impl Supervisor {
    /// A supervisor that has started nothing yet.
    ///
    /// # Errors
    /// If the template is wrong, or there is no HAProxy to prove a configuration with.
    pub async fn new(
        settings: Settings,
        feeds: Feeds,
        metrics: Metrics,
        report: Report,
    ) -> Result<Self, Error> {
        let stop_timeout = settings.stop_timeout;
        let names = Names::new(settings.resolver)?;
        let watchdog = Watchdog::new(
            names.clone(),
            &settings.domain,
            settings.heal_after,
            metrics.clone(),
        );
        let process = Process::new(&settings, metrics.clone(), report.clone()).await;
        let process = process.map_err(|source| Error::Program {
            program: settings.program.clone(),
            source,
        })?;
        Ok(Self {
            configuration: Configuration::new(settings, feeds, names, metrics, report.clone())?,
            process,
            watchdog,
            watch_at: Instant::now(),
            inspect_at: Instant::now(),
            claim: None,
            stop_timeout,
            report,
        })
    }

    /// Takes the file and the socket, which nothing is written to before; `adopt` also a file that somebody else wrote.
    ///
    /// # Errors
    /// [`Error::Claim`].
    pub async fn claim(&mut self, adopt: bool) -> Result<(), Error> {
        // The socket first: whose HAProxy it is says more than whose file.
        self.process.is_free().await?;
        self.claim = Some(self.configuration.claim(adopt)?);
        Ok(())
    }

    /// Keeps it right until the stop, and then has it end: with the requests that are in flight,
    /// unless that takes too long or there is a `hurry`. The template is read anew at each `reread`.
    pub async fn keep(
        mut self,
        stop: CancellationToken,
        hurry: CancellationToken,
        reread: Arc<Notify>,
    ) {
        let reaping = self.process.reap();
        // A reload is let end: while HAProxy loads, a signal to it may be lost.
        let mut stopped = None;
        let too_late = async {
            stop.cancelled().await;
            stopped = Some(Instant::now());
            sleep(ENDING).await;
        };
        tokio::select! {
            biased;
            () = too_late => {}
            () = reaping => {}
            () = self.run(&stop, &reread) => {}
        }
        let taken = stopped.map_or(Duration::ZERO, |at| at.elapsed());
        let too_late = sleep(self.stop_timeout.saturating_sub(taken));
        let too_late = async {
            hurry.run_until_cancelled(too_late).await;
        };
        self.process.stop(too_late).await;
    }

    async fn run(&mut self, stop: &CancellationToken, reread: &Notify) {
        if self.process.begin().await {
            self.configuration.installed().take_over();
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.process.ended() => {}
                () = reread.notified() => self.configuration.read_template(),
                _ = looks.tick() => self.look().await,
            }
        }
    }

    async fn look(&mut self) {
        let (configuration, process) = (&mut self.configuration, &mut self.process);
        configuration.look(process).await;
        if process.is_due(Instant::now()) {
            configuration.start_again(process).await;
        } else if process.is_down() && !process.comes_back() {
            configuration.installed().start_on_last_good(process).await;
        }
        if Instant::now() >= self.inspect_at {
            let is_lost = process.has_lost_socket().await;
            if is_lost {
                configuration.replace(process).await;
            }
            self.inspect_at = Instant::now() + if is_lost { REPLACE } else { INSPECT };
        }
        if Instant::now() >= self.watch_at {
            self.watch().await;
        }
    }

    /// Looks whether HAProxy holds what it should.
    async fn watch(&mut self) {
        let begun = Instant::now();
        let account = self.process.account().await;
        if let (Ok(account), Some(mut known)) = (account, self.configuration.endpoints()) {
            let verdict = self.watchdog.look(&account, &mut known).await;
            self.configuration.installed().note_account(account, &known);
            if let Verdict::Heal(services) = verdict {
                warn!(
                    ?services,
                    "reloading HAProxy because its servers differ from Consul's"
                );
                self.configuration.heal(&mut self.process).await;
            }
        }
        // An account of very many servers takes time; that must not become all there is.
        let least = self.watchdog.after() / 4;
        let rest = least
            .min(Duration::from_millis(2500))
            .max((begun.elapsed() * 20).min(LONGEST_REST));
        self.watch_at = Instant::now() + rest;
    }

    /// Makes the file right once. An HAProxy that runs loads it.
    ///
    /// # Errors
    /// [`Error::Refused`], with the reason.
    pub async fn once(mut self) -> Result<(), Error> {
        // Nothing is started for a moment.
        self.process.leave_alone();
        if self.process.begin().await {
            self.configuration.installed().take_over();
        }
        loop {
            let input = self.wait_for_input().await?;
            match self.configuration.apply(&input, &mut self.process).await {
                Ok(()) => return Ok(()),
                Err(Hold::Waiting | Hold::Part | Hold::Paced(_)) => sleep(LOOK).await,
                Err(Hold::Unloaded) => {
                    info!("the file is written; no HAProxy runs to load it");
                    return Ok(());
                }
                Err(Hold::Refused | Hold::KeysRefused | Hold::Failed) => {
                    let problem = self.report.ready().unwrap_or_else(|problem| problem);
                    return Err(Error::Refused(problem));
                }
            }
        }
    }

    /// What is in the file, and what would be, if HAProxy takes it; both without their secrets.
    ///
    /// # Errors
    /// [`Error::Refused`], with the reason.
    pub async fn preview(mut self) -> Result<(String, String), Error> {
        let old = self.configuration.installed().text().unwrap_or_default();
        loop {
            let input = self.wait_for_input().await?;
            let text = self.configuration.preview(&input, &self.process).await;
            if let Some(text) = text.map_err(Error::Refused)? {
                return Ok((hidden(&old), hidden(&text)));
            }
            sleep(LOOK).await;
        }
    }

    /// # Errors
    /// [`Error::Refused`], if Consul says nothing for long.
    async fn wait_for_input(&mut self) -> Result<Input, Error> {
        let begun = Instant::now();
        loop {
            if let Some(input) = self.configuration.input() {
                return Ok(input);
            }
            if begun.elapsed() > WITHOUT_CONSUL {
                let seconds = WITHOUT_CONSUL.as_secs();
                return Err(Error::Refused(format!(
                    "Consul has not said within {seconds} s what there is; check --consul and the token"
                )));
            }
            sleep(LOOK).await;
        }
    }
}
