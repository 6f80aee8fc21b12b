//! HAProxy's life: it is started, and started again when it ends by itself.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::master::ReloadError;
use super::process::{PROVING, dismiss};
use super::supervisor::Supervisor;

/// How often is looked whether it runs.
const LOOK: Duration = Duration::from_millis(50);

/// How long HAProxy may take to start: as long as to check the same.
const STARTING: Duration = PROVING;

/// First and longest pause before it is started again, and after how long it counts as well.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const WELL_AFTER: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Starts HAProxy on the file, and waits until it runs.
    pub(super) async fn start(&mut self) -> Result<(), ReloadError> {
        let unreachable = |source| ReloadError::Unreachable {
            socket: self.settings.master_socket.clone(),
            source,
        };
        let file = std::path::absolute(self.target.path()).map_err(unreachable)?;
        let started = self.program.start(&file).map_err(unreachable)?;
        // From now on it is ended with us, also when we are to stop before it runs.
        let running = self.running.insert(started);
        let begun = Instant::now();
        loop {
            let ended = tokio::time::timeout(LOOK, running.ended()).await;
            if let Ok(status) = ended {
                let status = status.map_or_else(|error| error.to_string(), |s| s.to_string());
                let words = format!("it ended with {status}: {}", running.said.complaints());
                self.running = None;
                self.start_at = Some(Instant::now() + self.longer_pause());
                return Err(ReloadError::Refused(words));
            }
            // One of before may still be at the socket.
            let processes = self.master.processes().await;
            let is_ours = processes
                .is_ok_and(|found| running.is_master(found.master) && !found.workers.is_empty());
            if is_ours {
                break;
            }
            if begun.elapsed() > STARTING {
                if let Some(running) = self.running.take() {
                    running.stop(std::future::ready(())).await;
                }
                self.start_at = Some(Instant::now() + self.longer_pause());
                return Err(ReloadError::Silent);
            }
        }
        self.start_at = None;
        self.status.set_up(true);
        self.status.set_unstarted(None);
        self.metrics.up.set(1);
        if let Some(master) = self.predecessor.take() {
            dismiss(master);
        }
        Ok(())
    }

    fn longer_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    /// HAProxy has ended, which nobody asked it to.
    pub(super) fn ended(&mut self, status: io::Result<ExitStatus>) {
        let Some(running) = self.running.take() else {
            return;
        };
        if running.started.elapsed() > WELL_AFTER {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.longer_pause();
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        error!(
            status,
            said = running.said.complaints(),
            millis = pause.as_millis(),
            "HAProxy has ended by itself and is started again"
        );
        self.metrics.up.set(0);
        self.status.set_up(false);
        self.start_at = Some(Instant::now() + pause);
    }

    /// Starts HAProxy anew on what it ran on.
    pub(super) async fn start_again(&mut self) {
        if let Some(world) = self.world.clone() {
            self.write_state(&world);
        }
        self.metrics.restarts.inc();
        self.restore();
        match self.start().await {
            Ok(()) => {
                if self.loaded.is_none() {
                    // What is in the file is what was to be loaded.
                    self.loaded = self.target.read().ok().flatten();
                }
                self.again = Some(Instant::now());
            }
            Err(error) => {
                error!(%error, "HAProxy does not start");
                self.status.set_unstarted(Some(error.to_string()));
                if self.loaded.is_none() && self.start_on_earlier().await {
                    self.again = Some(Instant::now() + LONGEST_PAUSE);
                }
            }
        }
    }

    /// Before a text of ours is put in place for the first time.
    pub(super) fn remember_earlier(&mut self, ours: &str) {
        if self.loaded.is_none() && self.earlier.is_none() {
            self.earlier = self.target.read().ok().flatten();
            self.earlier.take_if(|earlier| earlier == ours);
        }
    }

    /// HAProxy takes the first text of ours and does not start on it: then on what was in the file
    /// before. If that fails too the cause is around it, and ours stays.
    pub(super) async fn start_on_earlier(&mut self) -> bool {
        let (Some(earlier), Ok(Some(ours))) = (self.earlier.clone(), self.target.read()) else {
            return false;
        };
        if let Err(error) = self.target.write_whole(&earlier) {
            error!(%error, "cannot put the configuration of before back");
            return false;
        }
        match self.start().await {
            Ok(()) => {
                warn!("HAProxy runs on the configuration of before");
                self.loaded = Some(earlier);
                true
            }
            Err(error) => {
                error!(%error, "HAProxy does not start on the configuration of before either");
                if let Err(error) = self.target.write_whole(&ours) {
                    error!(%error, "cannot put the new configuration back");
                }
                false
            }
        }
    }

    /// Puts what is loaded back in the file, if something else is in it.
    pub(super) fn restore(&self) {
        let Some(loaded) = &self.loaded else { return };
        if self
            .target
            .read()
            .is_ok_and(|text| text.as_ref() == Some(loaded))
        {
            return;
        }
        if let Err(error) = self.target.write_whole(loaded) {
            error!(%error, "cannot put the last good configuration back");
        }
    }

    /// Nothing better is to be had: HAProxy is started on what is in the file, if it takes that.
    pub(super) async fn start_on_last_good(&mut self) {
        self.last_good_at = Instant::now() + LONGEST_PAUSE;
        let Ok(Some(text)) = self.target.read() else {
            warn!("there is nothing to start HAProxy with: nothing from Consul, nothing of before");
            return;
        };
        match self.program.prove(self.target.path()).await {
            Ok(Ok(())) => {}
            Ok(Err(words)) => {
                error!(words, "the configuration of before is refused");
                return;
            }
            Err(error) => {
                error!(problem = self.cannot_run(&error), "HAProxy does not start");
                return;
            }
        }
        warn!("nothing from Consul yet: HAProxy starts with the configuration of before");
        match self.start().await {
            Ok(()) => self.loaded = Some(text),
            Err(error) => error!(%error, "HAProxy does not start"),
        }
    }
}
