//! The errands that end by themselves: one change, or only what it would be.

use tokio::time::sleep;
use tracing::info;

use super::apply::Outcome;
use super::inputs::World;
use super::supervisor::{Error, LOOK, Supervisor};

impl Supervisor {
    /// Makes the file right once. An HAProxy that runs loads it.
    ///
    /// # Errors
    /// [`Error::Refused`], with the reason.
    pub async fn once(mut self) -> Result<(), Error> {
        // Nothing is started for a moment.
        self.settings.exec = false;
        self.loaded = match self.master.processes().await {
            Ok(_) => self.target.read().ok().flatten(),
            Err(_) => None,
        };
        loop {
            let world = self.wait_for_world().await;
            match self.apply(&world).await {
                Outcome::Current => return Ok(()),
                Outcome::Waiting => sleep(LOOK).await,
                Outcome::Unloaded => {
                    info!("the file is written; no HAProxy runs to load it");
                    return Ok(());
                }
                Outcome::Refused | Outcome::KeysRefused => {
                    let problem = self.status.ready().unwrap_or_else(|problem| problem);
                    return Err(Error::Refused(problem));
                }
            }
        }
    }

    /// What is in the file, and what would be, if HAProxy takes it.
    ///
    /// # Errors
    /// [`Error::Refused`], with the reason.
    pub async fn preview(mut self) -> Result<(String, String), Error> {
        let old = self.target.read().ok().flatten().unwrap_or_default();
        loop {
            let world = self.wait_for_world().await;
            let proven = self.prepare(&world).await;
            let (text, asked) = proven.map_err(Error::Refused)?.into_parts();
            if !self.inputs.want(asked) {
                return Ok((old, text));
            }
            sleep(LOOK).await;
        }
    }

    async fn wait_for_world(&mut self) -> World {
        loop {
            if let Some(world) = self.inputs.look() {
                return world;
            }
            sleep(LOOK).await;
        }
    }
}
