//! A configuration on its way: from what Consul says and a proven text of it to its place, to what HAProxy has loaded; or
//! held back, and why.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info};

use super::Settings;
use super::account::{Asked, Endpoints, endpoints};
use super::backends::backends_in;
use super::changes::{Due, Hold, LATEST, Pace, Rollout};
use super::claim::{Claim, ClaimError};
use super::inputs::{Before, Feeds, Input, Inputs};
use super::installed::{Installed, ON_EARLIER};
use super::master::ReloadError;
use super::metrics::{Metrics, Report, count};
use super::names::Names;
use super::process::Process;
use super::prover::{Proven, Prover, Unproven};
use super::template::TemplateError;

/// How soon is tried again to load what is in the file, and at the latest what was refused: what was
/// wrong with it may pass, such as a full disk.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const LONGEST_REFUSAL: Duration = Duration::from_secs(60);

/// The one configuration that is kept.
pub(super) struct Configuration {
    rollout: Rollout<Input>,
    settings: Settings,
    inputs: Inputs,
    prover: Prover,
    pace: Pace,
    installed: Installed,
    /// What Consul last said that was taken up.
    taken: Option<Input>,
    /// How long until what is refused is tried again.
    refusal: Duration,
    metrics: Metrics,
    report: Report,
}

impl Configuration {
    /// A configuration of which nothing is known yet.
    ///
    /// # Errors
    /// If the template is wrong.
    pub(super) fn new(
        settings: Settings,
        feeds: Feeds,
        names: Names,
        metrics: Metrics,
        report: Report,
    ) -> Result<Self, TemplateError> {
        let installed = Installed::new(&settings.output, &settings.domain, names);
        let text = installed.text().unwrap_or_default();
        let before = Before::of(&text, settings.template.is_some());
        let (tag, doubt) = (&settings.tag, settings.doubt);
        Ok(Self {
            rollout: Rollout::Current,
            inputs: Inputs::new(feeds, tag, doubt, before, metrics.clone()),
            prover: Prover::new(&settings, installed.saved_values(), metrics.clone())?,
            pace: Pace::new(settings.reload_pace, Instant::now()),
            installed,
            taken: None,
            refusal: TRY_AGAIN,
            metrics,
            report,
            settings,
        })
    }

    /// What is in HAProxy's file, and what it runs on.
    pub(super) fn installed(&mut self) -> &mut Installed {
        &mut self.installed
    }

    /// Takes the file and the socket; `adopt` also a file that somebody else wrote.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub(super) fn claim(&self, adopt: bool) -> Result<Claim, ClaimError> {
        self.installed.claim(&self.settings, adopt)
    }

    /// What Consul says now; `None` while it has not said enough to begin with.
    pub(super) fn input(&mut self) -> Option<Input> {
        self.inputs.look()
    }

    /// Takes up what Consul says, if it is time.
    pub(super) async fn look(&mut self, process: &mut Process) {
        let now = Instant::now();
        let latest = self.inputs.look();
        if let Some(input) = latest.clone() {
            let taken = self.taken.as_ref().map(|taken| taken.print);
            self.rollout.see(input.print, input, taken, now);
        }
        let due = match self.rollout.due(now) {
            None => None,
            Some(Due::Change(input)) => {
                self.refusal = TRY_AGAIN;
                Some(input)
            }
            Some(Due::Again) => latest.or_else(|| self.taken.clone()),
        };
        if let Some(input) = due {
            let result = self.apply(&input, process).await;
            self.taken = Some(input);
            self.settle(result, process);
        }
    }

    fn settle(&mut self, result: Result<(), Hold>, process: &Process) {
        let pause = match result {
            Ok(()) => {
                self.refusal = TRY_AGAIN;
                if let Some(next) = self.prover.next() {
                    self.rollout.hold(next);
                }
                return;
            }
            // A start that failed is tried again by itself.
            Err(Hold::Refused) if process.comes_back() => return,
            Err(Hold::Refused) => {
                let pause = self.refusal;
                self.refusal = (pause * 2).min(LONGEST_REFUSAL);
                pause
            }
            Err(Hold::Unloaded | Hold::Failed | Hold::Part) => TRY_AGAIN,
            // What comes is seen as a change of its own, or else after a while.
            Err(Hold::Waiting) => LATEST,
            // The rest of it is not held up by them.
            Err(Hold::KeysRefused) => Duration::ZERO,
            Err(Hold::Paced(pause)) => pause,
        };
        self.try_again(pause);
    }

    fn try_again(&mut self, pause: Duration) {
        self.rollout.hold(Instant::now() + pause);
    }

    /// Makes what Consul says what HAProxy runs on.
    ///
    /// # Errors
    /// [`Hold`], and what runs stays as it is.
    pub(super) async fn apply(&mut self, input: &Input, process: &mut Process) -> Result<(), Hold> {
        let proof = self.prover.prepare(input, &self.installed, process).await;
        let result = match proof {
            Ok(proven) if self.inputs.want(proven.asked.clone()) => Err(Hold::Waiting),
            Ok(proven) => self.install(input, proven, process).await,
            Err(Unproven::Refused(words)) => {
                let problem = format!("the new configuration is refused: {words}");
                self.fail("refused", &problem);
                Err(Hold::Refused)
            }
            Err(Unproven::Part) => Err(Hold::Part),
            Err(Unproven::Unknown(problem)) => {
                self.fail("failed", &problem);
                Err(Hold::Failed)
            }
        };
        self.report.set_refusals(self.prover.refusals());
        self.metrics.left_out.set(count(input.left_out.len()));
        self.report.set_left_out(&input.left_out);
        result
    }

    /// The text that would be put in place; `None` while something that it asks for has to come first.
    ///
    /// # Errors
    /// What HAProxy says against it.
    pub(super) async fn preview(
        &mut self,
        input: &Input,
        process: &Process,
    ) -> Result<Option<String>, String> {
        let proven = self.prover.prepare(input, &self.installed, process).await;
        let proven = proven.map_err(|why| why.to_string())?;
        Ok(match self.inputs.want(proven.asked) {
            true => None,
            false => Some(proven.text),
        })
    }

    /// Puts a proven text in place, unless it is there and loaded.
    async fn install(
        &mut self,
        input: &Input,
        proven: Proven,
        process: &mut Process,
    ) -> Result<(), Hold> {
        let is_loaded = self.installed.is_loaded(&proven.text);
        if is_loaded {
            // Something that was not loaded may be in the file.
            self.installed.restore();
        } else {
            let is_reload = !process.is_down();
            if is_reload {
                self.pace(Instant::now())?;
            }
            if let Err(problem) = self.installed.put(&proven.text) {
                self.fail("failed", &problem);
                return Err(Hold::Failed);
            }
            let loaded = self.installed.load(self.known(input), process).await;
            if is_reload && matches!(loaded, Ok(()) | Err(ReloadError::Silent)) {
                self.pace.take(Instant::now());
            }
            if let Err(why) = loaded {
                return Err(self.not_loaded(&proven, why, process).await);
            }
        }
        let change = if is_loaded { "unchanged" } else { "applied" };
        self.metrics.change(change);
        self.report.set_problem(None);
        let backends = backends_in(&proven.text);
        self.report.is_current(backends);
        self.metrics.backends.set(count(backends));
        self.installed.adopt(proven.text.clone());
        let is_part = proven.is_part;
        let good = self.prover.adopt(proven);
        self.installed.save_values(&good);
        if is_part {
            return Err(Hold::Part);
        }
        Ok(())
    }

    /// May there be a reload now?
    fn pace(&self, now: Instant) -> Result<(), Hold> {
        let wait = self.pace.wait(now);
        if wait.is_zero() {
            return Ok(());
        }
        let problem = format!(
            "a change waits {:.0} s for its reload, as there have been many (haproxy.reload_pace)",
            wait.as_secs_f64().ceil()
        );
        info!("{problem}");
        self.report.set_problem(Some(problem));
        Err(Hold::Paced(wait))
    }

    /// HAProxy does not run on what is in the file now.
    async fn not_loaded(
        &mut self,
        proven: &Proven,
        why: ReloadError,
        process: &mut Process,
    ) -> Hold {
        if let ReloadError::Unreachable { .. } | ReloadError::Foreign { .. } = why {
            self.fail("failed", &why.to_string());
            return Hold::Unloaded;
        }
        // A start or a reload must not find what has been refused.
        self.installed.restore();
        // `haproxy -c` cannot tell everything, such as whether there is enough memory. What keeps it
        // from starting is more likely to be around it, such as a port that is taken.
        let is_told = matches!(why, ReloadError::Refused(_)) && !process.is_down();
        let hold = match is_told && self.prover.blame(proven, &why.to_string()) {
            true => Hold::KeysRefused,
            false => Hold::Refused,
        };
        self.fail("failed", &why.to_string());
        if process.is_down() {
            self.installed.start_on_earlier(process).await;
        }
        hold
    }

    /// Has HAProxy learn its servers anew: it holds others than Consul has.
    pub(super) async fn heal(&mut self, process: &mut Process) {
        let Some(input) = self.inputs.look().or_else(|| self.taken.clone()) else {
            return;
        };
        self.installed.restore();
        match self.installed.load(self.known(&input), process).await {
            Ok(()) => self.pace.take(Instant::now()),
            Err(error) => error!(%error, "the reload failed; the watchdog tries again later"),
        }
    }

    /// The endpoints that Consul has now, not those that were last made something of: instances come and
    /// go by DNS. `None` before anything was taken up.
    pub(super) fn endpoints(&mut self) -> Option<Endpoints> {
        let taken = self.taken.clone()?;
        let input = self.inputs.look().unwrap_or(taken);
        Some(self.known(&input))
    }

    /// The endpoints that this input has. What has gone is known to have none.
    fn known(&self, input: &Input) -> Endpoints {
        let domain = &self.settings.domain;
        let mut known = endpoints(&input.instances, domain);
        let gone = self.prover.gone();
        for gone in gone.filter(|gone| !input.services.contains_key(*gone)) {
            known.insert(Asked::of_service(gone, domain), HashSet::new());
        }
        known
    }

    /// Starts HAProxy anew on what it ran on.
    pub(super) async fn start_again(&mut self, process: &mut Process) {
        self.metrics.restarts.inc();
        let known = self.taken.as_ref().map(|taken| self.known(taken));
        match self.installed.start_again(known, process).await {
            Ok(()) => self.try_again(Duration::ZERO),
            Err(error) => {
                error!(%error, "HAProxy does not start");
                self.report.set_unstarted(Some(error.to_string()));
                if self.installed.start_on_earlier(process).await {
                    self.try_again(ON_EARLIER);
                }
            }
        }
    }

    /// Starts another HAProxy in the place of one that cannot be told anything any more, which goes on until then.
    pub(super) async fn replace(&mut self, process: &mut Process) {
        self.metrics.restarts.inc();
        let known = self.taken.as_ref().map(|taken| self.known(taken));
        match self.installed.start_again(known, process).await {
            Ok(()) => self.try_again(Duration::ZERO),
            Err(error) => {
                error!(%error, "cannot start another HAProxy; the one that runs goes on as it is")
            }
        }
    }

    /// The operator has changed the template.
    pub(super) fn read_template(&mut self) {
        match self.prover.read_template() {
            Ok(template) => {
                info!(template, "template read again");
                self.try_again(Duration::ZERO);
            }
            Err(error) => error!(%error, "template refused; keeping the one before it"),
        }
    }

    fn fail(&mut self, outcome: &'static str, problem: &str) {
        error!(
            problem,
            "the change is not applied; HAProxy keeps running as it was"
        );
        self.metrics.change(outcome);
        self.report.set_problem(Some(problem.to_owned()));
    }
}
