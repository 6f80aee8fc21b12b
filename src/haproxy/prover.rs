//! From what Consul says to a text that HAProxy takes. Where it takes none, the changes that it refuses are found out: the
//! values of keys, and services. They are left as they were, and named; everything else goes on.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::Settings;
use super::backends::Backends;
use super::claim::with_mark;
use super::inputs::Input;
use super::installed::Installed;
use super::metrics::{Metrics, Phase, count};
use super::process::Process;
use super::suspects::{Before, Refusals, Suspect, changed, halves, put, with_good};
use super::template::{Model, Template, TemplateError};
use super::values::{Texts, Values, any_value, builtin_value};

/// Proofs that are made in a row to find out what is refused, and how long they may take where a good configuration
/// runs meanwhile. What is not cleared by then is looked at the next time.
const PROOFS: usize = 64;
const PROVING: Duration = Duration::from_secs(5);

/// So many that are refused are few, and tried once more with all that is taken.
const FEW: usize = 8;

/// The key of the credentials for the statistics.
const AUTH: &str = "stats/auth";

/// Why there is no proof of a text.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unproven {
    /// The text, or the template that it is from, is wrong.
    #[error("{0}")]
    Refused(String),
    /// It could not be found out: the disk is full, or HAProxy cannot be run. It says nothing of any value.
    #[error("{0}")]
    Unknown(String),
    /// What is wrong is not all found yet.
    #[error("it is not found out yet which changes HAProxy refuses")]
    Part,
}

/// A text that HAProxy takes, and what it was made from.
pub(super) struct Proven {
    pub(super) text: String,
    /// What Consul says, but for what is refused.
    pub(super) input: Input,
    /// Services whose instances it asks for.
    pub(super) asked: BTreeSet<String>,
    /// There is more, which has yet to be looked at.
    pub(super) is_part: bool,
    values: Texts,
    backends: Backends,
}

/// What came of trying several changes.
struct Tried {
    proven: Proven,
    taken: Vec<Suspect>,
    refused: Vec<(Suspect, String)>,
    /// Those that were not looked at.
    left: Vec<Suspect>,
}

/// Makes texts, and finds out which HAProxy takes.
pub(super) struct Prover {
    settings: Settings,
    template: Template,
    values: Values,
    backends: Backends,
    /// What the running configuration was made from.
    good: Option<Input>,
    refused: Refusals,
    metrics: Metrics,
}

impl Prover {
    /// `saved` are the values that were good when another process ended.
    ///
    /// # Errors
    /// If the template is wrong.
    pub(super) fn new(
        settings: &Settings,
        saved: Option<Texts>,
        metrics: Metrics,
    ) -> Result<Self, TemplateError> {
        let rule = match settings.template {
            Some(_) => any_value,
            None => builtin_value,
        };
        Ok(Self {
            template: Template::read(settings.template.as_deref())?,
            values: Values::new(&settings.prefix, rule, saved.as_ref()),
            backends: Backends::new(settings.linger, settings.min_slots),
            good: None,
            refused: Refusals::default(),
            metrics,
            settings: settings.clone(),
        })
    }

    /// Reads the template again, and gives its name. What was refused in the one before it is tried in this one.
    ///
    /// # Errors
    /// If it is wrong; the one before it stays.
    pub(super) fn read_template(&mut self) -> Result<String, TemplateError> {
        self.template = Template::read(self.settings.template.as_deref())?;
        self.refused.forget();
        self.values.forget();
        Ok(self.template.to_string())
    }

    /// A proven text for this input. What breaks it is refused by name; `Err` has the words about what is wrong with
    /// the rest.
    pub(super) async fn prepare(
        &mut self,
        input: &Input,
        installed: &Installed,
        process: &Process,
    ) -> Result<Proven, Unproven> {
        let mut proven = match self.narrow(input, installed, process).await {
            // A backend that has lingered long enough may be asked for by name elsewhere in the template.
            Err(Unproven::Refused(words)) if self.backends.postpone(Instant::now()) => {
                warn!(
                    words,
                    "HAProxy takes no configuration without the backends of services that are gone; they stay, empty"
                );
                self.narrow(input, installed, process).await?
            }
            other => other?,
        };
        // Whether what is refused has changed is of interest still.
        proven.asked.extend(self.refused.names().cloned());
        Ok(proven)
    }

    async fn narrow(
        &mut self,
        input: &Input,
        installed: &Installed,
        process: &Process,
    ) -> Result<Proven, Unproven> {
        let values = self.values.read(&input.keys);
        // Where nothing runs yet, what was found stays found until all is.
        let now = self.good.is_some().then(Instant::now);
        let resting = self.refused.resting(input, now);
        let input = &with_good(input, &self.good(), resting.iter());
        let words = match self.prove(input, &values, installed, process).await {
            Ok(proven) => {
                self.refused.clear(&resting);
                return Ok(proven);
            }
            Err(Unproven::Refused(words)) => words,
            Err(unknown) => return Err(unknown),
        };
        let about = About {
            input,
            values: &values,
            keys: self.values.changed(&values),
            services: changed(input, &self.good()),
            installed,
            process,
        };
        let keys: Vec<_> = about.keys.iter().cloned().map(Suspect::Key).collect();
        let services = about.services.iter().cloned();
        let services: Vec<_> = services.map(Suspect::Service).collect();
        // Keys first, with all services there: most of what a key can break is in their backends.
        if !keys.is_empty() {
            match self.prove_with(&about, &services).await {
                Ok(proven) => {
                    let tried = self.pick(&about, proven, services, keys).await?;
                    return Ok(self.settle(input, tried, &resting));
                }
                Err(Unproven::Refused(_)) => {}
                Err(unknown) => return Err(unknown),
            }
        }
        // If it is wrong without either, they are not to blame. There may be keys that it cannot do without.
        let mut base = Vec::new();
        let mut proof = self.prove_with(&about, &base).await;
        if matches!(proof, Err(Unproven::Refused(_))) && !keys.is_empty() {
            base.clone_from(&keys);
            proof = self.prove_with(&about, &base).await;
        }
        let proven = match proof {
            Ok(proven) if !services.is_empty() => proven,
            Err(unknown @ Unproven::Unknown(_)) => return Err(unknown),
            _ => return Err(Unproven::Refused(words)),
        };
        let is_without_keys = base.is_empty() && !keys.is_empty();
        let mut tried = self.pick(&about, proven, base, services.clone()).await?;
        // Where nothing is known to be good, what breaks most of the services that are used is something else.
        let is_known = self.good.is_some();
        let is_used = |suspect: &&Suspect| match suspect {
            Suspect::Key(_) => false,
            Suspect::Service(name) => input.instances.contains_key(name),
        };
        let used = services.iter().filter(is_used).count();
        if !is_known && tried.left.is_empty() && tried.refused.len() * 2 > used {
            return Err(Unproven::Refused(words));
        }
        if is_without_keys {
            let with_keys = [&tried.taken[..], &keys[..]].concat();
            match self.prove_with(&about, &with_keys).await {
                Ok(proven) => (tried.proven, tried.taken) = (proven, with_keys),
                Err(Unproven::Refused(_)) => {
                    let before = tried;
                    tried = self.pick(&about, before.proven, before.taken, keys).await?;
                    tried.refused.extend(before.refused);
                    tried.left.extend(before.left);
                }
                Err(unknown) => return Err(unknown),
            }
            // They were tried without the keys.
            self.try_once_more(&about, &mut tried).await?;
        }
        let is_part = !tried.left.is_empty();
        let proven = self.settle(input, tried, &resting);
        match is_part && !is_known {
            true => Err(Unproven::Part),
            false => Ok(proven),
        }
    }

    /// Adds to what is taken all of these that HAProxy takes as well.
    async fn pick(
        &self,
        about: &About<'_>,
        proven: Proven,
        taken: Vec<Suspect>,
        suspects: Vec<Suspect>,
    ) -> Result<Tried, Unproven> {
        let begun = Instant::now();
        let (mut proofs, mut groups) = (0, halves(&suspects));
        let mut tried = Tried {
            proven,
            taken,
            refused: Vec::new(),
            left: Vec::new(),
        };
        let mut is_any_decided = false;
        while let Some(group) = groups.pop() {
            let is_late = self.good.is_some() && is_any_decided && begun.elapsed() > PROVING;
            if proofs >= PROOFS || is_late {
                tried.left = groups.concat();
                tried.left.extend(group);
                break;
            }
            proofs += 1;
            let trial = [&tried.taken[..], &group[..]].concat();
            match self.prove_with(about, &trial).await {
                Ok(better) => {
                    (tried.proven, tried.taken) = (better, trial);
                    is_any_decided = true;
                }
                Err(Unproven::Refused(words)) => match &group[..] {
                    [suspect] => {
                        tried.refused.push((suspect.clone(), words));
                        is_any_decided = true;
                    }
                    group => groups.extend(halves(group)),
                },
                Err(unknown) => return Err(unknown),
            }
        }
        self.try_once_more(about, &mut tried).await?;
        Ok(tried)
    }

    /// What was refused may need what was taken after it.
    async fn try_once_more(&self, about: &About<'_>, tried: &mut Tried) -> Result<(), Unproven> {
        if tried.refused.len() > FEW || tried.taken.is_empty() {
            return Ok(());
        }
        for (suspect, words) in std::mem::take(&mut tried.refused) {
            let trial = [&tried.taken[..], std::slice::from_ref(&suspect)].concat();
            match self.prove_with(about, &trial).await {
                Ok(better) => (tried.proven, tried.taken) = (better, trial),
                Err(Unproven::Unknown(problem)) => return Err(Unproven::Unknown(problem)),
                Err(_) => tried.refused.push((suspect, words)),
            }
        }
        Ok(())
    }

    /// Refuses what was found to be wrong, beside those that were not tried.
    fn settle(&mut self, input: &Input, tried: Tried, resting: &BTreeSet<String>) -> Proven {
        let mut before = self.refused.clear(resting);
        for suspect in &tried.left {
            if let Suspect::Service(name) = suspect {
                self.refused.put_back(name, &mut before);
            }
        }
        for (suspect, words) in &tried.refused {
            self.refuse(input, suspect, words, &before);
        }
        Proven {
            is_part: !tried.left.is_empty(),
            ..tried.proven
        }
    }

    async fn prove_with(&self, about: &About<'_>, taken: &[Suspect]) -> Result<Proven, Unproven> {
        let (input, texts) = self.with(about, taken);
        self.prove(&input, &texts, about.installed, about.process)
            .await
    }

    /// Renders and checks. What is loaded already needs no check.
    async fn prove(
        &self,
        input: &Input,
        values: &Texts,
        installed: &Installed,
        process: &Process,
    ) -> Result<Proven, Unproven> {
        let begun = Instant::now();
        // Only what is put in place counts.
        let mut backends = self.backends.clone();
        // A service that has gone has none, whatever was last known of it.
        let mut instances = input.instances.clone();
        instances.retain(|name, _| input.services.contains_key(name));
        let model = Arc::new(Model {
            settings: self.settings.clone(),
            state_file: installed.state_file(),
            values: values.clone(),
            services: Arc::clone(&input.services),
            backends: backends.of(input, begun),
            instances,
            lacks_auth: input.keys.contains_key(&self.values.whole(AUTH))
                && !values.contains_key(AUTH),
        });
        let rendered = self.template.render(&model);
        let rendered = rendered.map_err(|error| Unproven::Refused(error.to_string()))?;
        self.metrics.took(Phase::Render, begun.elapsed());
        let proven = Proven {
            text: with_mark(rendered.text),
            input: input.clone(),
            asked: rendered.asked,
            is_part: false,
            values: values.clone(),
            backends,
        };
        if installed.is_loaded(&proven.text) {
            return Ok(proven);
        }
        let begun = Instant::now();
        let verdict = installed.prove(&proven.text, process).await;
        let verdict = verdict.map_err(Unproven::Unknown)?;
        let took = begun.elapsed();
        self.metrics.took(Phase::Check, took);
        debug!(millis = took.as_millis(), "checked");
        verdict.map(|()| proven).map_err(Unproven::Refused)
    }

    /// What Consul says and the values, with these of the changes alone.
    fn with(&self, about: &About<'_>, taken: &[Suspect]) -> (Input, Texts) {
        let mut keys: BTreeSet<&String> = about.keys.iter().collect();
        let mut services: BTreeSet<&String> = about.services.iter().collect();
        for suspect in taken {
            match suspect {
                Suspect::Key(key) => keys.remove(key),
                Suspect::Service(name) => services.remove(name),
            };
        }
        let mut texts = about.values.clone();
        for key in keys {
            put(&mut texts, key, self.values.good().get(key).cloned());
        }
        let input = with_good(about.input, &self.good(), services.into_iter());
        (input, texts)
    }

    /// What the running configuration was made from; nothing, if nothing is known of it.
    fn good(&self) -> Cow<'_, Input> {
        match &self.good {
            Some(good) => Cow::Borrowed(good),
            None => Cow::Owned(Input::default()),
        }
    }

    fn refuse(&mut self, input: &Input, suspect: &Suspect, words: &str, before: &Before) {
        match suspect {
            Suspect::Key(key) => {
                let value = input.keys.get(&self.values.whole(key));
                let value = value.map_or(&[][..], Vec::as_slice);
                self.values.refuse(key, value, words.to_owned());
            }
            Suspect::Service(service) => self.refused.add(input, service, words, before),
        }
    }

    /// HAProxy does not load what it was proven to take: the values that changed are refused for that. False if none
    /// did, or there were none before that are known to be good.
    pub(super) fn blame(&mut self, proven: &Proven, words: &str) -> bool {
        if !self.values.has_good() {
            return false;
        }
        let changed = self.values.changed(&proven.values);
        for key in &changed {
            let key = Suspect::Key(key.clone());
            self.refuse(&proven.input, &key, words, &Before::new());
        }
        !changed.is_empty()
    }

    /// HAProxy runs on this. Gives the values that are good now, by their whole keys.
    pub(super) fn adopt(&mut self, proven: Proven) -> Texts {
        self.values.adopt(proven.values);
        self.backends = proven.backends;
        self.good = Some(proven.input);
        self.values.to_save()
    }

    /// What is refused, and why, in words.
    pub(super) fn refusals(&self) -> Vec<String> {
        let keys = self.values.refusals();
        let keys: Vec<String> = keys.map(|(key, why)| format!("{key}: {why}")).collect();
        self.metrics.refused.set(count(keys.len()));
        self.metrics.refused_services.set(count(self.refused.len()));
        keys.into_iter().chain(self.refused.in_words()).collect()
    }

    /// The services whose backends are still there, but not they themselves.
    pub(super) fn gone(&self) -> impl Iterator<Item = &str> {
        self.backends.gone()
    }

    /// When the first of them goes too, or something that is refused is tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.refused.next(), self.backends.next()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// What proofs are about: what Consul says, and what of it has changed.
struct About<'a> {
    input: &'a Input,
    values: &'a Texts,
    keys: Vec<String>,
    services: BTreeSet<String>,
    installed: &'a Installed,
    process: &'a Process,
}
