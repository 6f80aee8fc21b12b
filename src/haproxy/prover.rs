//! From what Consul says to a text that HAProxy takes. Where it takes none, the changes that it refuses are found out: the
//! values of keys, and services. They are left as they were, and named; everything else goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::catalog::Service;
use crate::consul::TagsByName;

use super::Settings;
use super::backends::Backends;
use super::claim::with_mark;
use super::inputs::Input;
use super::installed::Installed;
use super::metrics::{Metrics, Phase};
use super::process::Process;
use super::template::{Model, Template, TemplateError};
use super::values::{Texts, Values, any_value, builtin_value};

/// Proofs that are made to find out what is refused. What is not cleared by then is refused.
const PROOFS: usize = 64;

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
    values: Texts,
    backends: Backends,
}

/// Something that has changed, and that HAProxy may not take.
#[derive(Debug, Clone)]
enum Suspect {
    Key(String),
    Service(String),
}

/// A service as it is in Consul, as far as a template can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    tags: Option<BTreeSet<String>>,
    instances: Option<Arc<Service>>,
}

impl Seen {
    fn of(input: &Input, name: &str) -> Self {
        Self {
            tags: input.services.get(name).cloned(),
            instances: input.instances.get(name).cloned(),
        }
    }
}

/// Makes texts, and finds out which HAProxy takes.
pub(super) struct Prover {
    settings: Settings,
    template: Template,
    values: Values,
    backends: Backends,
    /// What the running configuration was made from.
    good: Option<Input>,
    /// Services that are left as they were until they are others, and why.
    refused: BTreeMap<String, (Seen, String)>,
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
            refused: BTreeMap::new(),
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
        self.refused.clear();
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
        proven.asked.extend(self.refused.keys().cloned());
        Ok(proven)
    }

    async fn narrow(
        &mut self,
        input: &Input,
        installed: &Installed,
        process: &Process,
    ) -> Result<Proven, Unproven> {
        let values = self.values.read(&input.keys);
        let input = self.without_refused(input);
        let words = match self.prove(&input, &values, installed, process).await {
            Err(Unproven::Refused(words)) => words,
            other => return other,
        };
        let keys = self.values.changed(&values).into_iter().map(Suspect::Key);
        let services = self.changed(&input).into_iter().map(Suspect::Service);
        let suspects: Vec<Suspect> = keys.chain(services).collect();
        // If it is wrong without them, they are not to blame.
        let nothing = self.with(&input, &values, &[]);
        let mut proven = match self.prove(&nothing.0, &nothing.1, installed, process).await {
            Ok(proven) if !suspects.is_empty() => proven,
            Err(unknown @ Unproven::Unknown(_)) => return Err(unknown),
            _ => return Err(Unproven::Refused(words)),
        };
        let (mut taken, mut proofs, mut groups) = (Vec::new(), 0, halves(&suspects));
        while let Some(group) = groups.pop() {
            let trial = [&taken[..], &group[..]].concat();
            let (part, texts) = self.with(&input, &values, &trial);
            let verdict = match proofs < PROOFS {
                true => self.prove(&part, &texts, installed, process).await,
                false => Err(Unproven::Refused(words.clone())),
            };
            proofs += 1;
            match verdict {
                Ok(better) => (proven, taken) = (better, trial),
                Err(Unproven::Refused(_)) if group.len() > 1 && proofs < PROOFS => {
                    groups.extend(halves(&group));
                }
                Err(Unproven::Refused(words)) => {
                    for suspect in &group {
                        self.refuse(&input, suspect, &words);
                    }
                }
                Err(unknown) => return Err(unknown),
            }
        }
        Ok(proven)
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
        let model = Arc::new(Model {
            settings: self.settings.clone(),
            state_file: installed.state_file(),
            values: values.clone(),
            services: Arc::clone(&input.services),
            backends: backends.of(input, begun),
            instances: input.instances.clone(),
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

    /// What Consul says, but for services that have not changed since they were refused.
    fn without_refused(&mut self, input: &Input) -> Input {
        self.refused.retain(|service, (seen, _)| {
            let stays = Seen::of(input, service) == *seen;
            if !stays {
                info!(service, "the service has changed, and is tried");
            }
            stays
        });
        match self.refused.is_empty() {
            true => input.clone(),
            false => self.with_good(input, self.refused.keys()),
        }
    }

    fn refuse(&mut self, input: &Input, suspect: &Suspect, words: &str) {
        match suspect {
            Suspect::Key(key) => {
                let value = input.keys.get(&self.values.whole(key));
                let value = value.map_or(&[][..], Vec::as_slice);
                self.values.refuse(key, value, words.to_owned());
            }
            Suspect::Service(service) => {
                warn!(
                    service,
                    reason = words,
                    "HAProxy takes no configuration with this service as it is now; it stays as it was"
                );
                let refusal = (Seen::of(input, service), words.to_owned());
                self.refused.insert(service.clone(), refusal);
            }
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
            self.refuse(&proven.input, &Suspect::Key(key.clone()), words);
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
        let services = self.refused.iter();
        let services = services.map(|(name, (_, why))| format!("service {name}: {why}"));
        keys.into_iter().chain(services).collect()
    }

    /// The services whose backends are still there, but not they themselves.
    pub(super) fn gone(&self) -> impl Iterator<Item = &str> {
        self.backends.gone()
    }

    /// When the first of them goes too.
    pub(super) fn next(&self) -> Option<Instant> {
        self.backends.next()
    }
}

/// Two groups, of which the first is the last.
fn halves(group: &[Suspect]) -> Vec<Vec<Suspect>> {
    let (first, second) = group.split_at(group.len() / 2);
    let halves = [second, first].into_iter();
    halves
        .filter(|half| !half.is_empty())
        .map(<[Suspect]>::to_vec)
        .collect()
}

fn put<T>(map: &mut BTreeMap<String, T>, name: &str, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(name.to_owned(), value)),
        None => drop(map.remove(name)),
    }
}
