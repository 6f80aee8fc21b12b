//! What is in HAProxy's file, and what it runs on: whatever fails, the two can be made one again. And what is written down
//! for the next of its processes, its servers, and of ours, the values that were good.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::Settings;
use super::account::{EMPTY, Endpoints, servers, timeless, to_keep};
use super::claim::{Claim, ClaimError, is_ours};
use super::file::Target;
use super::master::ReloadError;
use super::names::Names;
use super::process::Process;
use super::values::Texts;

/// How long Consul may take before HAProxy is started on what is in the file.
const WITHOUT_CONSUL: Duration = Duration::from_secs(2);

/// How soon something better is tried than what was in the file before us.
pub(super) const ON_EARLIER: Duration = Duration::from_secs(10);

/// The configuration of before, of now, and the servers in between.
pub(super) struct Installed {
    target: Target,
    /// HAProxy's servers, for the next of its processes.
    state: Target,
    /// What is in there, as far as we have written it, without its times.
    written: Option<String>,
    /// The values of keys that it runs on.
    values: Target,
    names: Names,
    domain: String,
    /// The text that HAProxy runs on.
    loaded: Option<String>,
    /// What was in the file before us, while nothing of ours has been loaded.
    earlier: Option<String>,
    /// What HAProxy last said of its servers.
    account: Option<String>,
    /// When to start HAProxy on what is in the file, if nothing better has come.
    last_good_at: Instant,
}

impl Installed {
    /// What `output` holds; HAProxy runs on nothing that we know of.
    pub(super) fn new(output: &Path, domain: &str, names: Names) -> Self {
        Self {
            target: Target::new(output),
            state: Target::new(&output.with_extension("state")),
            written: None,
            values: Target::own(&output.with_extension("values")),
            names,
            domain: domain.to_owned(),
            loaded: None,
            earlier: None,
            account: None,
            last_good_at: Instant::now() + WITHOUT_CONSUL,
        }
    }

    /// Takes the file and the socket of these settings; `adopt` also a file that somebody else wrote.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub(super) fn claim(&self, settings: &Settings, adopt: bool) -> Result<Claim, ClaimError> {
        Claim::take(settings, &self.target, adopt)
    }

    /// HAProxy runs on the file, as far as anybody knows.
    pub(super) fn take_over(&mut self) {
        self.loaded = self.text();
    }

    /// What is in the file.
    pub(super) fn text(&self) -> Option<String> {
        self.target.read().ok().flatten()
    }

    /// Where a new process of HAProxy finds its servers.
    pub(super) fn state_file(&self) -> PathBuf {
        let path = self.state.path();
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    }

    /// Is this what HAProxy runs on?
    pub(super) fn is_loaded(&self, text: &str) -> bool {
        self.loaded.as_deref() == Some(text)
    }

    /// Does HAProxy take this? `Err` within has HAProxy's own words.
    ///
    /// # Errors
    /// In words, if that cannot be found out.
    pub(super) async fn prove(
        &self,
        text: &str,
        process: &Process,
    ) -> Result<Result<(), String>, String> {
        let proposed = self.target.propose(text);
        proposed.map_err(|error| self.cannot_write(&error))?;
        let verdict = process.prove(&self.target.candidate()).await;
        // It was only there to be proven.
        self.target.withdraw();
        verdict
    }

    /// Puts a proven text in the file.
    ///
    /// # Errors
    /// In words; then the file is as it was.
    pub(super) fn put(&mut self, text: &str) -> Result<(), String> {
        if self.loaded.is_none() && self.earlier.is_none() {
            self.earlier = self.text();
            self.earlier.take_if(|earlier| earlier == text);
        }
        self.keep_what_others_wrote();
        let written = self.target.propose(text);
        let written = written.and_then(|()| self.target.replace());
        written.map_err(|error| self.cannot_write(&error))
    }

    /// Has HAProxy run on the file, with the servers that it holds now, but for those that are gone: `known` are the
    /// instances that Consul has.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub(super) async fn load(
        &mut self,
        known: Endpoints,
        process: &mut Process,
    ) -> Result<(), ReloadError> {
        // Of before, if it says nothing now.
        let account = process.account().await;
        self.account = account.ok().or_else(|| self.account.take());
        self.write_state(known).await;
        match process.is_down() {
            true => process.start(self.target.path()).await,
            false => process.reload().await,
        }
    }

    /// HAProxy runs on this.
    pub(super) fn adopt(&mut self, text: String) {
        self.loaded = Some(text);
        self.earlier = None;
    }

    /// HAProxy has said what it holds, and DNS what there is. Whoever else has it load its file is to find that, and
    /// nothing older.
    pub(super) fn note_account(&mut self, account: String, known: &Endpoints) {
        self.put_state(to_keep(&account, &servers(&account, &self.domain), known));
        self.account = Some(account);
    }

    /// Writes down what the next process is to start with.
    async fn write_state(&mut self, mut known: Endpoints) {
        let state = match &self.account {
            Some(account) => {
                let servers = servers(account, &self.domain);
                self.names.complete(&servers, &mut known).await;
                to_keep(account, &servers, &known)
            }
            None => EMPTY.to_owned(),
        };
        self.put_state(state);
    }

    fn put_state(&mut self, state: String) {
        let timeless = timeless(&state);
        if self.written.as_ref() == Some(&timeless) {
            return;
        }
        match self.state.write_whole(&state) {
            Ok(()) => self.written = Some(timeless),
            Err(error) => {
                warn!(file = %self.state.path().display(), %error, "cannot save HAProxy's server state; its next process starts with empty slots");
            }
        }
    }

    /// The values that were good when a process of ours last ran.
    pub(super) fn saved_values(&self) -> Option<Texts> {
        let text = self.values.read();
        let text = text.unwrap_or_else(|error| {
            self.tell_values(&error);
            None
        })?;
        let values = serde_json::from_str(&text);
        values.map_err(|error| self.tell_values(&error)).ok()
    }

    /// Keeps the values that HAProxy runs on.
    pub(super) fn save_values(&self, values: &Texts) {
        let text = serde_json::to_string_pretty(values).unwrap_or_default() + "\n";
        if self
            .values
            .read()
            .is_ok_and(|there| there.as_ref() == Some(&text))
        {
            return;
        }
        if let Err(error) = self.values.write_whole(&text) {
            self.tell_values(&error);
        }
    }

    fn tell_values(&self, error: &dyn std::fmt::Display) {
        let file = self.values.path().display();
        warn!(%file, %error, "the values of keys that were last accepted cannot be kept; after a restart a wrong one falls to its default");
    }

    /// Starts HAProxy anew on what it ran on, with the servers of then.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub(super) async fn start_again(
        &mut self,
        known: Option<Endpoints>,
        process: &mut Process,
    ) -> Result<(), ReloadError> {
        if let Some(known) = known {
            self.write_state(known).await;
        }
        self.restore();
        process.start(self.target.path()).await?;
        if self.loaded.is_none() {
            // What is in the file is what was to be loaded.
            self.loaded = self.text();
        }
        Ok(())
    }

    /// If nothing better is to be had, HAProxy is started on what is in the file, if it takes that.
    pub(super) async fn start_on_last_good(&mut self, process: &mut Process) {
        if Instant::now() < self.last_good_at {
            return;
        }
        self.last_good_at = Instant::now() + ON_EARLIER;
        let Some(text) = self.text() else {
            warn!(
                "HAProxy is not started: Consul has not answered yet, and there is no configuration file from before"
            );
            return;
        };
        match process.prove(self.target.path()).await {
            Ok(Ok(())) => {}
            Ok(Err(words)) => {
                error!(words, "HAProxy rejects the configuration file from before");
                return;
            }
            Err(problem) => {
                error!(problem, "HAProxy does not start");
                return;
            }
        }
        warn!(
            "Consul has not answered yet: starting HAProxy with the configuration file from before"
        );
        // Its servers may be of yesterday. DNS may know more, and if it does not answer they are all there is.
        self.account = self.state.read().ok().flatten();
        self.write_state(Endpoints::new()).await;
        match process.start(self.target.path()).await {
            Ok(()) => self.loaded = Some(text),
            Err(error) => error!(%error, "HAProxy does not start"),
        }
    }

    /// HAProxy takes the first text of ours and does not start on it: then on what was in the file
    /// before. If that fails too the cause is around it, and ours stays. False if it does not run on that.
    pub(super) async fn start_on_earlier(&mut self, process: &mut Process) -> bool {
        if self.loaded.is_some() {
            return false;
        }
        let (Some(earlier), Ok(Some(ours))) = (self.earlier.clone(), self.target.read()) else {
            return false;
        };
        if let Err(error) = self.target.write_whole(&earlier) {
            error!(%error, "cannot restore the previous configuration");
            return false;
        }
        match process.start(self.target.path()).await {
            Ok(()) => {
                warn!("HAProxy runs on the previous configuration");
                self.loaded = Some(earlier);
                true
            }
            Err(error) => {
                error!(%error, "HAProxy does not start on the previous configuration either");
                if let Err(error) = self.target.write_whole(&ours) {
                    error!(%error, "cannot write the new configuration again");
                }
                false
            }
        }
    }

    /// Puts what is loaded back in the file, if something else is in it.
    pub(super) fn restore(&self) {
        let Some(loaded) = &self.loaded else { return };
        let there = self.target.read();
        if there.is_ok_and(|text| text.as_ref() == Some(loaded)) {
            return;
        }
        self.keep_what_others_wrote();
        if let Err(error) = self.target.write_whole(loaded) {
            error!(%error, "cannot restore the last good configuration");
        }
    }

    /// Somebody may have written the file since we did.
    fn keep_what_others_wrote(&self) {
        let text = self.text().unwrap_or_default();
        if is_ours(&text) || self.is_loaded(&text) {
            return;
        }
        let file = self.target.path().display();
        match self.target.keep_original() {
            Ok(()) => warn!(
                %file,
                "somebody else has written this file; it is kept beside it as .before-portolan, and replaced"
            ),
            Err(error) => {
                error!(%file, %error, "cannot keep what somebody else wrote in this file")
            }
        }
    }

    fn cannot_write(&self, error: &io::Error) -> String {
        format!("cannot write {}: {error}", self.target.path().display())
    }
}
