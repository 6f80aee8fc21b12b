//! From what Consul says to a text that HAProxy takes. Where it takes none, the changes that it refuses are found out: the
//! values of keys, and services. They are left as they were, and named; everything else goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use crate::consul::TagsByName;

use super::Settings;
use super::backends::Backends;
use super::claim::with_mark;
use super::inputs::Input;
use super::installed::Installed;
use super::metrics::{Metrics, Phase};
use super::process::Process;
use super::suspects::{Before, Refusals, Seen, Suspect, halves};
use super::template::{Model, Template, TemplateError};
use super::values::{Texts, Values, any_value, builtin_value};

/// Proofs that are made in a row to find out what is refused, and how long they may take where a good configuration
/// runs meanwhile. What is not cleared by then is looked at the next time.
const PROOFS: usize = 64;
const PROVING: Duration = Duration::from_secs(5);

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
    left: bool,
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
        let mut proven = self.narrow(input, installed, process).await?;
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
        let resting = self.refused.resting(input, Instant::now());
        let input = &self.with_good(input, resting.iter());
        let words = match self.prove(input, &values, installed, process).await {
            Ok(proven) => {
                self.refused.clear(&resting);
                return Ok(proven);
            }
            Err(Unproven::Refused(words)) => words,
            Err(unknown) => return Err(unknown),
        };
        let keys: Vec<_> = self.values.changed(&values);
        let keys: Vec<_> = keys.into_iter().map(Suspect::Key).collect();
        let services: Vec<_> = self
            .changed(input)
            .into_iter()
            .map(Suspect::Service)
            .collect();
        let about = About {
            input,
            values: &values,
            installed,
            process,
        };
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
        // If it is wrong without either, they are not to blame.
        let proven = match self.prove_with(&about, &[]).await {
            Ok(proven) if !services.is_empty() => proven,
            Err(unknown @ Unproven::Unknown(_)) => return Err(unknown),
            _ => return Err(Unproven::Refused(words)),
        };
        let all = services.len();
        let mut tried = self.pick(&about, proven, Vec::new(), services).await?;
        // Where nothing is known to be good, what breaks most of them is something else.
        let is_known = self.good.is_some();
        if !is_known && (tried.taken.is_empty() || tried.refused.len() * 2 > all) {
            return Err(Unproven::Refused(words));
        }
        let with_keys = [&tried.taken[..], &keys[..]].concat();
        match self.prove_with(&about, &with_keys).await {
            Ok(proven) => tried.proven = proven,
            Err(Unproven::Refused(_)) => {
                let before = tried;
                tried = self.pick(&about, before.proven, before.taken, keys).await?;
                tried.refused.extend(before.refused);
                tried.left |= before.left;
            }
            Err(unknown) => return Err(unknown),
        }
        let is_part = tried.left;
        let proven = self.settle(input, tried, &resting);
        match is_part && !is_known {
            true => Err(Unproven::Refused(words)),
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
            left: false,
        };
        while let Some(group) = groups.pop() {
            let is_late = self.good.is_some() && begun.elapsed() > PROVING;
            if proofs >= PROOFS || is_late {
                tried.left = true;
                break;
            }
            proofs += 1;
            let trial = [&tried.taken[..], &group[..]].concat();
            match self.prove_with(about, &trial).await {
                Ok(better) => (tried.proven, tried.taken) = (better, trial),
                Err(Unproven::Refused(words)) => match &group[..] {
                    [suspect] => tried.refused.push((suspect.clone(), words)),
                    group => groups.extend(halves(group)),
                },
                Err(unknown) => return Err(unknown),
            }
        }
        Ok(tried)
    }

    /// Refuses what was found to be wrong, beside those that were not tried.
    fn settle(&mut self, input: &Input, tried: Tried, resting: &BTreeSet<String>) -> Proven {
        let before = self.refused.clear(resting);
        for (suspect, words) in &tried.refused {
            self.refuse(input, suspect, words, &before);
        }
        Proven {
            is_part: tried.left,
            ..tried.proven
        }
    }

    async fn prove_with(&self, about: &About<'_>, taken: &[Suspect]) -> Result<Proven, Unproven> {
        let (input, texts) = self.with(about.input, about.values, taken);
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
    fn with(&self, input: &Input, values: &Texts, taken: &[Suspect]) -> (Input, Texts) {
        let is_taken = |key: &str| {
            let mut keys = taken.iter();
            keys.any(|own| matches!(own, Suspect::Key(own) if own == key))
        };
        let mut texts = values.clone();
        for key in self.values.changed(values) {
            match self.values.good().get(&key) {
                _ if is_taken(&key) => {}
                Some(good) => drop(texts.insert(key, good.clone())),
                None => drop(texts.remove(&key)),
            }
        }
        let mut left = self.changed(input);
        for suspect in taken {
            if let Suspect::Service(name) = suspect {
                left.remove(name);
            }
        }
        (self.with_good(input, left.iter()), texts)
    }

    /// The services that are others than in the running configuration, or new, or gone.
    fn changed(&self, input: &Input) -> BTreeSet<String> {
        let nothing = Input::default();
        let good = self.good.as_ref().unwrap_or(&nothing);
        let of = |input: &Input| -> BTreeSet<String> {
            let instances = input.instances.keys();
            input.services.keys().chain(instances).cloned().collect()
        };
        let mut names = of(input);
        names.extend(of(good));
        names.retain(|name| Seen::of(input, name) != Seen::of(good, name));
        names
    }

    /// What Consul says, but these services as they are in the running configuration.
    fn with_good<'a>(&self, input: &Input, names: impl Iterator<Item = &'a String>) -> Input {
        let nothing = Input::default();
        let good = self.good.as_ref().unwrap_or(&nothing);
        let mut services = TagsByName::clone(&input.services);
        let (mut tagged, mut instances) = (
            BTreeSet::from_iter(input.tagged.iter().cloned()),
            input.instances.clone(),
        );
        for name in names {
            let seen = Seen::of(good, name);
            put(&mut services, name, seen.tags);
            put(&mut instances, name, seen.instances);
            match good.tagged.contains(name) {
                true => tagged.insert(name.clone()),
                false => tagged.remove(name),
            };
        }
        Input {
            services: Arc::new(services),
            tagged: tagged.into_iter().collect(),
            instances,
            ..input.clone()
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
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
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

/// What a proof is about.
struct About<'a> {
    input: &'a Input,
    values: &'a Texts,
    installed: &'a Installed,
    process: &'a Process,
}

fn put<T>(map: &mut BTreeMap<String, T>, name: &str, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(name.to_owned(), value)),
        None => drop(map.remove(name)),
    }
}
