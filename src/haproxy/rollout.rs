//! A configuration on its way: from what Consul says to a text, to the proof of it, to its place, to what
//! HAProxy has loaded; or held back, and why.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info};

use super::Settings;
use super::account::{Asked, Endpoints, endpoints};
use super::backends::{Backends, backends_in};
use super::changes::{Due, Hold, LATEST, Pace, Rollout};
use super::claim::{Claim, ClaimError, with_mark};
use super::inputs::{Before, Feeds, Input, Inputs};
use super::installed::{Installed, ON_EARLIER};
use super::master::ReloadError;
use super::metrics::{Metrics, Phase, Report};
use super::names::Names;
use super::process::Process;
use super::template::{Model, Template, TemplateError};
use super::values::{Texts, Values, any_value, builtin_value};

/// How soon is tried again to load what is in the file, and at the latest what was refused: what was
/// wrong with it may pass, such as a full disk.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const LONGEST_REFUSAL: Duration = Duration::from_secs(60);

/// Keys that are tried one by one when a configuration is refused. With more of them at once all
/// that changed are refused.
const TRIED: usize = 16;

/// The key of the credentials for the statistics.
const AUTH: &str = "stats/auth";

/// Why there is no proof of a text.
#[derive(Debug, thiserror::Error)]
enum Unproven {
    /// The text, or the template that it is from, is wrong.
    #[error("{0}")]
    Refused(String),
    /// It could not be found out: the disk is full, or HAProxy cannot be run. It says nothing of any value.
    #[error("{0}")]
    Unknown(String),
}

/// A text that HAProxy takes, and what it was made from.
struct Proven {
    text: String,
    values: Texts,
    asked: BTreeSet<String>,
    backends: usize,
}

/// The one configuration that is kept.
pub(super) struct Configuration {
    rollout: Rollout<Input>,
    settings: Settings,
    inputs: Inputs,
    template: Template,
    values: Values,
    backends: Backends,
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
        let template = Template::read(settings.template.as_deref())?;
        let rule = match settings.template {
            Some(_) => any_value,
            None => builtin_value,
        };
        let installed = Installed::new(&settings.output, &settings.domain, names);
        let text = installed.text().unwrap_or_default();
        let before = Before::of(&text, settings.template.is_some());
        let (tag, doubt) = (&settings.tag, settings.doubt);
        Ok(Self {
            rollout: Rollout::Current,
            inputs: Inputs::new(feeds, tag, doubt, before, metrics.clone()),
            template,
            values: Values::new(&settings.prefix, rule, installed.saved_values().as_ref()),
            backends: Backends::new(settings.linger, settings.min_slots),
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
                if let Some(next) = self.backends.next() {
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
            Err(Hold::Unloaded) => TRY_AGAIN,
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
        let result = match self.prepare(input, process).await {
            Ok(proven) if self.inputs.want(proven.asked.clone()) => Err(Hold::Waiting),
            Ok(proven) => self.install(input, proven, process).await,
            Err(Unproven::Refused(words)) => {
                let problem = format!("the new configuration is refused: {words}");
                self.fail("refused", &problem);
                Err(Hold::Refused)
            }
            Err(Unproven::Unknown(problem)) => {
                self.fail("failed", &problem);
                Err(Hold::Unloaded)
            }
        };
        let refusals: Vec<String> = self
            .values
            .refusals()
            .map(|(key, reason)| format!("{key}: {reason}"))
            .collect();
        let count = i64::try_from(refusals.len()).unwrap_or(i64::MAX);
        self.metrics.refused.set(count);
        self.report.set_refusals(refusals);
        let count = i64::try_from(input.left_out.len()).unwrap_or(i64::MAX);
        self.metrics.left_out.set(count);
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
        let proven = self.prepare(input, process).await;
        let proven = proven.map_err(|why| why.to_string())?;
        Ok(match self.inputs.want(proven.asked) {
            true => None,
            false => Some(proven.text),
        })
    }

    /// A proven text for this input. Values that break it are refused, with their keys; `Err` has the
    /// words about what is wrong with the rest.
    async fn prepare(&mut self, input: &Input, process: &Process) -> Result<Proven, Unproven> {
        let values = self.values.read(&input.keys);
        let words = match self.prove(input, &values, process).await {
            Ok(proven) => return Ok(proven),
            Err(Unproven::Refused(words)) => words,
            Err(unknown) => return Err(unknown),
        };
        let changed = self.values.changed(&values);
        let mut trial = values.clone();
        for key in &changed {
            match self.values.good().get(key) {
                Some(good) => trial.insert(key.clone(), good.clone()),
                None => trial.remove(key),
            };
        }
        // If it is wrong without them, they are not to blame.
        let mut proven = match self.prove(input, &trial, process).await {
            Ok(proven) if !changed.is_empty() => proven,
            Err(unknown @ Unproven::Unknown(_)) => return Err(unknown),
            _ => return Err(Unproven::Refused(words)),
        };
        for (number, key) in changed.iter().enumerate() {
            let mut with = proven.values.clone();
            with.extend(values.get(key).map(|value| (key.clone(), value.clone())));
            let verdict = match number < TRIED {
                true => self.prove(input, &with, process).await,
                false => Err(Unproven::Refused(words.clone())),
            };
            match verdict {
                Ok(better) => proven = better,
                Err(Unproven::Refused(words)) => self.refuse(input, key, words),
                Err(unknown) => return Err(unknown),
            }
        }
        Ok(proven)
    }

    fn refuse(&mut self, input: &Input, key: &str, words: String) {
        let value = input.keys.get(&self.values.whole(key));
        let value = value.map_or(&[][..], Vec::as_slice);
        self.values.refuse(key, value, words);
    }

    /// Renders and checks. What is loaded already needs no check.
    async fn prove(
        &mut self,
        input: &Input,
        values: &Texts,
        process: &Process,
    ) -> Result<Proven, Unproven> {
        let begun = Instant::now();
        let model = Arc::new(Model {
            settings: self.settings.clone(),
            state_file: self.installed.state_file(),
            values: values.clone(),
            services: Arc::clone(&input.services),
            backends: self.backends.of(input, Instant::now()),
            instances: input.instances.clone(),
            lacks_auth: input.keys.contains_key(&self.values.whole(AUTH))
                && !values.contains_key(AUTH),
        });
        let rendered = self.template.render(&model);
        let rendered = rendered.map_err(|error| Unproven::Refused(error.to_string()))?;
        self.metrics.took(Phase::Render, begun.elapsed());
        let proven = Proven {
            backends: backends_in(&rendered.text),
            text: with_mark(rendered.text),
            values: values.clone(),
            asked: rendered.asked,
        };
        if self.installed.is_loaded(&proven.text) {
            return Ok(proven);
        }
        let begun = Instant::now();
        let verdict = self.installed.prove(&proven.text, process).await;
        let verdict = verdict.map_err(Unproven::Unknown)?;
        let took = begun.elapsed();
        self.metrics.took(Phase::Check, took);
        debug!(millis = took.as_millis(), "checked");
        verdict.map(|()| proven).map_err(Unproven::Refused)
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
            if !process.is_down() {
                self.pace(Instant::now())?;
            }
            if let Err(problem) = self.installed.put(&proven.text) {
                self.fail("failed", &problem);
                return Err(Hold::Unloaded);
            }
            if let Err(why) = self.installed.load(self.known(input), process).await {
                return Err(self.not_loaded(input, &proven, why, process).await);
            }
        }
        let change = if is_loaded { "unchanged" } else { "applied" };
        self.metrics.change(change);
        self.installed.adopt(proven.text);
        self.values.adopt(proven.values);
        self.installed.save_values(&self.values.to_save());
        self.report.set_problem(None);
        self.report.is_current(proven.backends);
        let backends = i64::try_from(proven.backends).unwrap_or(i64::MAX);
        self.metrics.backends.set(backends);
        Ok(())
    }

    /// Is there a reload now?
    fn pace(&mut self, now: Instant) -> Result<(), Hold> {
        let wait = self.pace.wait(now);
        if wait.is_zero() {
            self.pace.take(now);
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
        input: &Input,
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
        // from starting is more likely to be around it, such as a port that is taken; and without
        // values that were good, there is nothing that could be put in the place of these.
        let is_told = matches!(why, ReloadError::Refused(_)) && self.values.has_good();
        let mut hold = Hold::Refused;
        if is_told && !process.is_down() {
            for key in self.values.changed(&proven.values) {
                self.refuse(input, &key, why.to_string());
                hold = Hold::KeysRefused;
            }
        }
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
        self.pace.take(Instant::now());
        if let Err(error) = self.installed.load(self.known(&input), process).await {
            error!(%error, "the reload failed; the watchdog tries again later");
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
        for gone in self.backends.gone() {
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
        match Template::read(self.settings.template.as_deref()) {
            Ok(template) => {
                info!(%template, "template read again");
                self.template = template;
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
