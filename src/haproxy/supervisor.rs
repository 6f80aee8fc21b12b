//! The loop that keeps an HAProxy right.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Settings;
use super::apply::Outcome;
use super::children::Children;
use super::file::Target;
use super::inputs::{Before, Feeds, Inputs, World};
use super::life;
use super::master::Master;
use super::metrics::Metrics;
use super::process::{Program, Running};
use super::slots::Slots;
use super::state::endpoints;
use super::status::Status;
use super::template::{Frame, Template, TemplateError};
use super::values::{Values, any_value, builtin_value};
use super::watchdog::{Verdict, Watchdog};

/// How often is looked at what Consul says.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// A change is taken when there has been none for this long, and at the latest after that.
const QUIET: Duration = Duration::from_millis(250);
const LATEST: Duration = Duration::from_secs(2);

/// How long Consul may take before HAProxy is started on what is in the file.
const WITHOUT_CONSUL: Duration = Duration::from_secs(2);

/// How long what is under way may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// How soon is tried again to load what is in the file, and at the latest what was refused: what was
/// wrong with it may pass, such as a full disk.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const LONGEST_REFUSAL: Duration = Duration::from_secs(60);

/// The longest rest after an account of HAProxy's servers.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Why HAProxy cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The DNS library.
    #[error("cannot set up DNS: {0}")]
    Dns(#[from] hickory_resolver::net::NetError),
    /// HAProxy cannot be run.
    #[error("cannot run {}: {source}; install HAProxy or name it with --haproxy", program.display())]
    Program {
        /// What was to be run.
        program: std::path::PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The one change that was asked for is not to be had.
    #[error("{0}")]
    Refused(String),
}

/// Keeps one HAProxy right.
pub struct Supervisor {
    pub(super) settings: Settings,
    pub(super) frame: Frame,
    pub(super) template: Template,
    pub(super) inputs: Inputs,
    pub(super) values: Values,
    pub(super) slots: Slots,
    pub(super) target: Target,
    /// HAProxy's servers, for the next of its processes.
    pub(super) state: Target,
    pub(super) program: Program,
    pub(super) master: Master,
    pub(super) running: Option<Running>,
    /// The text that HAProxy runs on.
    pub(super) loaded: Option<String>,
    /// What was in the file before us, while nothing of ours has been loaded.
    pub(super) earlier: Option<String>,
    /// What HAProxy last said of its servers.
    pub(super) account: Option<String>,
    pub(super) metrics: Metrics,
    pub(super) status: Status,
    watchdog: Watchdog,
    children: Children,
    /// What Consul last said that was taken up.
    pub(super) world: Option<World>,
    pending: Option<Pending>,
    /// How long until what is refused is tried again.
    refusal: Duration,
    /// When to try again to load what is in the file.
    pub(super) again: Option<Instant>,
    /// When to start HAProxy anew, after it has ended.
    pub(super) start_at: Option<Instant>,
    /// When to start it on what is in the file, if nothing better has come.
    pub(super) last_good_at: Instant,
    pub(super) pause: Duration,
    look_at: Instant,
    /// The master process of an earlier life of ours.
    pub(super) predecessor: Option<u32>,
}

/// A change that is not taken yet.
struct Pending {
    world: World,
    first: Instant,
    last: Instant,
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
        status: Status,
    ) -> Result<Self, Error> {
        let template = Template::read(settings.template.as_deref())?;
        let rule = match settings.template {
            Some(_) => any_value,
            None => builtin_value,
        };
        let target = Target::new(&settings.output);
        let text = target.read().ok().flatten().unwrap_or_default();
        let before = before(&text, settings.template.is_some());
        let state_file = settings.output.with_extension("state");
        let children = Children::default();
        let program = Program {
            path: settings.program.clone(),
            socket: settings.master_socket.clone(),
            children: children.clone(),
        };
        program.exists().await.map_err(|source| Error::Program {
            program: settings.program.clone(),
            source,
        })?;
        let watchdog = Watchdog::new(
            settings.resolver,
            &settings.domain,
            settings.heal_after,
            metrics.clone(),
        )?;
        Ok(Self {
            frame: Frame {
                prefix: settings.prefix.clone(),
                tag: settings.tag.clone(),
                domain: settings.domain.clone(),
                resolver: settings.resolver,
                bind: settings.bind,
                stats_bind: settings.stats_bind,
                stats_auth: settings
                    .stats_auth
                    .as_ref()
                    .map(|auth| auth.expose().to_owned()),
                state_file: std::path::absolute(&state_file).unwrap_or_else(|_| state_file.clone()),
            },
            template,
            inputs: Inputs::new(
                feeds,
                &settings.tag,
                settings.doubt,
                before,
                metrics.clone(),
            ),
            values: Values::new(&settings.prefix, rule),
            slots: Slots::default(),
            target,
            state: Target::new(&state_file),
            program,
            master: Master::new(&settings.master_socket),
            running: None,
            loaded: None,
            earlier: None,
            account: None,
            metrics,
            status,
            watchdog,
            children,
            world: None,
            pending: None,
            refusal: TRY_AGAIN,
            again: None,
            start_at: None,
            last_good_at: Instant::now() + WITHOUT_CONSUL,
            pause: life::FIRST_PAUSE,
            look_at: Instant::now(),
            predecessor: None,
            settings,
        })
    }

    /// Keeps it right until the stop, and then has it end: with the requests that are in flight,
    /// unless that takes too long or there is a `hurry`. The template is read anew at each `reread`.
    pub async fn keep(
        mut self,
        stop: CancellationToken,
        hurry: CancellationToken,
        reread: Arc<Notify>,
    ) {
        let reaping = self.children.clone().reap();
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
        if let Some(running) = self.running.take() {
            self.status.set_up(false);
            let taken = stopped.map_or(Duration::ZERO, |at| at.elapsed());
            let too_late = sleep(self.settings.stop_timeout.saturating_sub(taken));
            let too_late = async {
                hurry.run_until_cancelled(too_late).await;
            };
            running.stop(too_late).await;
        }
    }

    async fn run(&mut self, stop: &CancellationToken, reread: &Notify) {
        self.begin().await;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                status = end_of(&mut self.running) => self.ended(status),
                () = reread.notified() => self.read_template(),
                _ = looks.tick() => self.look().await,
            }
        }
    }

    /// What there is from before.
    async fn begin(&mut self) {
        let there = self.master.processes().await.ok();
        if self.settings.exec {
            self.predecessor = there.map(|processes| processes.master);
        } else if there.is_some() {
            // It runs on the file, as far as anybody knows.
            self.loaded = self.target.read().ok().flatten();
            self.status.set_up(true);
            self.metrics.up.set(1);
        }
    }

    async fn look(&mut self) {
        let now = Instant::now();
        let latest = self.inputs.look();
        if let Some(world) = latest.clone() {
            let seen = self.pending.as_ref().map(|pending| &pending.world);
            let seen = seen.or(self.world.as_ref()).map(|world| world.print);
            if seen != Some(world.print) {
                let first = self.pending.as_ref().map_or(now, |pending| pending.first);
                self.pending = Some(Pending {
                    world,
                    first,
                    last: now,
                });
            }
        }
        let is_ripe = |pending: &mut Pending| {
            now.duration_since(pending.last) >= QUIET || now.duration_since(pending.first) >= LATEST
        };
        if let Some(pending) = self.pending.take_if(is_ripe) {
            self.refusal = TRY_AGAIN;
            self.take(pending.world).await;
        } else if self.again.take_if(|at| *at <= now).is_some()
            && let Some(world) = latest.or_else(|| self.world.clone())
        {
            self.take(world).await;
        }
        if self.settings.exec && self.running.is_none() {
            if self.start_at.take_if(|at| *at <= now).is_some() {
                self.start_again().await;
            } else if self.start_at.is_none() && self.last_good_at <= now {
                self.start_on_last_good().await;
            }
        }
        if now >= self.look_at {
            self.watch().await;
        }
    }

    async fn take(&mut self, world: World) {
        let outcome = self.apply(&world).await;
        self.again = match outcome {
            Outcome::Unloaded => Some(Instant::now() + TRY_AGAIN),
            // What comes is seen as a change of its own, or else after a while.
            Outcome::Waiting => Some(Instant::now() + LATEST),
            // The rest of it is not held up by them.
            Outcome::KeysRefused => Some(Instant::now()),
            // A start that failed is tried again by itself.
            Outcome::Refused if self.start_at.is_some() => None,
            Outcome::Refused => {
                let pause = self.refusal;
                self.refusal = (pause * 2).min(LONGEST_REFUSAL);
                Some(Instant::now() + pause)
            }
            Outcome::Current => {
                self.refusal = TRY_AGAIN;
                None
            }
        };
        self.world = Some(world);
    }

    /// Looks whether HAProxy holds what it should.
    async fn watch(&mut self) {
        let begun = Instant::now();
        let account = self.master.servers_state().await;
        if !self.settings.exec {
            self.status.set_up(account.is_ok());
            self.metrics.up.set(account.is_ok().into());
        }
        if let (Ok(account), Some(world)) = (account, self.world.clone()) {
            // What Consul says now, not what was last made of it: instances come and go by DNS.
            let known = endpoints(
                &self
                    .inputs
                    .look()
                    .unwrap_or_else(|| world.clone())
                    .instances,
            );
            let verdict = self.watchdog.look(&account, &known).await;
            self.account = Some(account);
            if let Verdict::Heal(services) = verdict {
                warn!(
                    ?services,
                    "HAProxy is reloaded so that it learns its servers anew"
                );
                let world = self.inputs.look().unwrap_or(world);
                self.restore();
                if let Err(error) = self.reload(&world).await {
                    error!(%error, "that did not work");
                }
            }
        }
        // An account of very many servers takes time; that must not become all there is.
        let least = self.watchdog.after() / 4;
        let rest = least
            .min(Duration::from_millis(2500))
            .max((begun.elapsed() * 20).min(LONGEST_REST));
        self.look_at = Instant::now() + rest;
    }

    /// The operator has changed the template.
    fn read_template(&mut self) {
        match Template::read(self.settings.template.as_deref()) {
            Ok(template) => {
                info!(%template, "template read again");
                self.template = template;
                self.again = Some(Instant::now());
            }
            Err(error) => error!(%error, "template refused; the one before it stays"),
        }
    }
}

/// What the file of before was made from. The template in the program has a backend of its own.
fn before(text: &str, has_template: bool) -> Before {
    let mut backends = text.lines().filter(|line| line.starts_with("backend "));
    match backends.any(|line| !line.starts_with("backend portolan:")) {
        false => Before::Nothing,
        true if has_template => Before::Any,
        true => Before::Tagged,
    }
}

/// Waits for the end of an HAProxy, if there is one.
async fn end_of(running: &mut Option<Running>) -> io::Result<ExitStatus> {
    match running {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}
