//! One change, from what Consul says to what HAProxy has loaded.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::inputs::World;
use super::master::ReloadError;
use super::metrics::Step;
use super::state::{EMPTY, endpoints, to_keep};
use super::supervisor::Supervisor;
use super::template::Scene;
use super::values::Texts;

/// Keys that are tried one by one when a configuration is refused. With more of them at once all
/// that changed are refused.
const TRIED: usize = 16;

/// The key of the credentials for the statistics.
const AUTH: &str = "stats/auth";

/// A text that HAProxy takes, and what it was made from.
pub(super) struct Proven {
    pub(super) text: String,
    values: Texts,
    asked: BTreeSet<String>,
    backends: usize,
}

impl Proven {
    /// The text, and the services whose instances it was made from.
    pub(super) fn into_parts(self) -> (String, BTreeSet<String>) {
        (self.text, self.asked)
    }
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is loaded, or is what was loaded before.
    Current,
    /// Something that it asks for has to come first.
    Waiting,
    /// It is in the file, and HAProxy is not there to load it.
    Unloaded,
    /// It is not taken; what was before goes on.
    Refused,
    /// The same, for the sake of keys that are refused from now on.
    KeysRefused,
}

impl Supervisor {
    /// Makes what Consul says what HAProxy runs on.
    pub(super) async fn apply(&mut self, world: &World) -> Outcome {
        let outcome = match self.prepare(world).await {
            Ok(proven) if self.inputs.want(proven.asked.clone()) => Outcome::Waiting,
            Ok(proven) => self.install(world, proven).await,
            Err(words) => {
                self.fail(
                    "refused",
                    &format!("the new configuration is refused: {words}"),
                );
                Outcome::Refused
            }
        };
        let refusals: Vec<String> = self
            .values
            .refusals()
            .map(|(key, reason)| format!("{key}: {reason}"))
            .collect();
        let count = i64::try_from(refusals.len()).unwrap_or(i64::MAX);
        self.metrics.refused.set(count);
        self.status.set_refusals(refusals);
        outcome
    }

    /// A proven text for this world. Values that break it are refused, with their keys; `Err` has the
    /// words about what is wrong with the rest.
    pub(super) async fn prepare(&mut self, world: &World) -> Result<Proven, String> {
        let values = self.values.read(&world.keys);
        let words = match self.prove(world, &values).await {
            Ok(proven) => return Ok(proven),
            Err(words) => words,
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
        let mut proven = match self.prove(world, &trial).await {
            Ok(proven) if !changed.is_empty() => proven,
            _ => return Err(words),
        };
        for (number, key) in changed.iter().enumerate() {
            let mut with = proven.values.clone();
            with.extend(values.get(key).map(|value| (key.clone(), value.clone())));
            let verdict = match number < TRIED {
                true => self.prove(world, &with).await,
                false => Err(words.clone()),
            };
            match verdict {
                Ok(better) => proven = better,
                Err(words) => self.refuse(world, key, words),
            }
        }
        Ok(proven)
    }

    fn refuse(&mut self, world: &World, key: &str, words: String) {
        let value = world.keys.get(&self.values.whole(key));
        self.values
            .refuse(key, value.map_or(&[], Vec::as_slice), words);
    }

    /// Renders and checks. What is loaded already needs no check.
    async fn prove(&mut self, world: &World, values: &Texts) -> Result<Proven, String> {
        let begun = Instant::now();
        let sizes = world.tagged.iter().map(|name| {
            let service = world.instances.get(name);
            let instances = service.map_or(0, |service| service.instances().len());
            (name.as_str(), instances)
        });
        let scene = Arc::new(Scene {
            frame: self.frame.clone(),
            values: values.clone(),
            services: Arc::clone(&world.services),
            slots: self.slots.of(sizes, self.settings.min_slots),
            instances: world.instances.clone(),
            lacks_auth: world.keys.contains_key(&self.values.whole(AUTH))
                && !values.contains_key(AUTH),
        });
        let rendered = self.template.render(&scene);
        let rendered = rendered.map_err(|error| error.to_string())?;
        self.metrics.took(Step::Render, begun.elapsed());
        let proven = Proven {
            text: rendered.text,
            values: values.clone(),
            asked: rendered.asked,
            backends: world.tagged.len(),
        };
        if self.loaded.as_ref() == Some(&proven.text) {
            return Ok(proven);
        }
        let begun = Instant::now();
        self.target
            .propose(&proven.text)
            .map_err(|error| self.cannot_write(&error))?;
        let verdict = self.program.prove(&self.target.candidate()).await;
        // It was only there to be proven.
        self.target.withdraw();
        let verdict = verdict.map_err(|error| self.cannot_run(&error))?;
        let took = begun.elapsed();
        self.metrics.took(Step::Check, took);
        debug!(millis = took.as_millis(), "checked");
        verdict.map(|()| proven)
    }

    /// Puts a proven text in place, unless it is there and loaded.
    async fn install(&mut self, world: &World, proven: Proven) -> Outcome {
        let is_loaded = self.loaded.as_ref() == Some(&proven.text);
        if is_loaded {
            // Something that was not loaded may be in the file.
            self.restore();
        } else {
            self.remember_earlier(&proven.text);
            let written = self.target.propose(&proven.text);
            if let Err(error) = written.and_then(|()| self.target.replace()) {
                let problem = self.cannot_write(&error);
                self.fail("failed", &problem);
                return Outcome::Refused;
            }
            if let Err(refused) = self.load(world).await {
                return self.not_loaded(world, &proven, refused).await;
            }
        }
        self.metrics
            .change(if is_loaded { "unchanged" } else { "applied" });
        self.loaded = Some(proven.text);
        self.earlier = None;
        self.values.adopt(proven.values);
        self.status.set_problem(None);
        self.status.is_current(proven.backends);
        let backends = i64::try_from(proven.backends).unwrap_or(i64::MAX);
        self.metrics.backends.set(backends);
        Outcome::Current
    }

    /// HAProxy does not run on what is in the file now.
    async fn not_loaded(&mut self, world: &World, proven: &Proven, why: ReloadError) -> Outcome {
        if let ReloadError::Unreachable { .. } = why {
            self.fail("failed", &why.to_string());
            return Outcome::Unloaded;
        }
        // A start or a reload must not find what has been refused.
        self.restore();
        // `haproxy -c` cannot tell everything, such as whether there is enough memory. What keeps it
        // from starting is more likely to be around it, such as a port that is taken; and without
        // values that were good, there is nothing that could be put in the place of these.
        let is_told = matches!(why, ReloadError::Refused(_)) && self.values.has_good();
        let mut outcome = Outcome::Refused;
        if is_told && (self.running.is_some() || !self.settings.exec) {
            for key in self.values.changed(&proven.values) {
                self.refuse(world, &key, why.to_string());
                outcome = Outcome::KeysRefused;
            }
        }
        self.fail("failed", &why.to_string());
        if self.settings.exec && self.running.is_none() && self.loaded.is_none() {
            self.start_on_earlier().await;
        }
        outcome
    }

    /// Has HAProxy run on what is in the file.
    async fn load(&mut self, world: &World) -> Result<(), ReloadError> {
        if self.settings.exec && self.running.is_none() {
            self.account = self.account_of_servers().await;
            self.write_state(world);
            return self.start().await;
        }
        self.reload(world).await
    }

    /// Reloads, with the servers that HAProxy holds now, but for those that Consul no longer has.
    pub(super) async fn reload(&mut self, world: &World) -> Result<(), ReloadError> {
        let begun = Instant::now();
        self.account = self.account_of_servers().await;
        self.write_state(world);
        if let Some(running) = &self.running {
            running.said.forget();
        }
        let result = match &mut self.running {
            // The loop, which starts it again, sees its end once more.
            Some(running) => tokio::select! {
                result = self.master.reload() => result,
                _ = running.ended() => Err(ReloadError::Ended),
            },
            None => self.master.reload().await,
        };
        let took = begun.elapsed();
        self.metrics.took(Step::Reload, took);
        self.metrics.reload(result.is_ok());
        match result {
            Ok(()) => {
                info!(millis = took.as_millis(), "HAProxy reloaded");
                self.status.set_up(true);
                self.metrics.up.set(1);
                Ok(())
            }
            Err(ReloadError::Refused(words)) if words.is_empty() => {
                let said = self
                    .running
                    .as_ref()
                    .map(|running| running.said.complaints());
                let said = said.unwrap_or_else(|| "its log says why".to_owned());
                Err(ReloadError::Refused(said))
            }
            Err(error) => Err(error),
        }
    }

    /// What HAProxy says it holds; of before, if it says nothing now.
    async fn account_of_servers(&mut self) -> Option<String> {
        let account = self.master.servers_state().await;
        account.ok().or_else(|| self.account.take())
    }

    /// Writes down what the next process is to start with.
    pub(super) fn write_state(&self, world: &World) {
        let state = match &self.account {
            Some(account) => to_keep(account, &endpoints(&world.instances), &self.frame.domain),
            None => EMPTY.to_owned(),
        };
        if let Err(error) = self.state.write_whole(&state) {
            warn!(file = %self.state.path().display(), %error, "cannot write HAProxy's servers down");
        }
    }

    fn fail(&mut self, outcome: &'static str, problem: &str) {
        error!(problem, "what runs stays as it is");
        self.metrics.change(outcome);
        self.status.set_problem(Some(problem.to_owned()));
    }

    fn cannot_write(&self, error: &io::Error) -> String {
        format!("cannot write {}: {error}", self.target.path().display())
    }

    pub(super) fn cannot_run(&self, error: &io::Error) -> String {
        format!("cannot run {}: {error}", self.settings.program.display())
    }
}
