//! Follows directories of definition files.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::catalog::{Catalog, Layer};

use super::definition::{Definitions, Error, Host};
use super::directory::{Fingerprint, Origin, fingerprint, load};

/// How often the directories are looked at. Looking works on every file system and inside
/// containers, where notifications of changes do not arrive; a look at a few files costs
/// microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Definition files as a source of the catalog.
#[derive(Debug)]
pub struct Source {
    origins: Vec<Origin>,
    host: Host,
    layer: Arc<Layer>,
    seen: Fingerprint,
}

impl Source {
    /// Reads the files and publishes what they define.
    ///
    /// # Errors
    /// What is wrong with them; at the start there are no last good services.
    pub fn start(
        origins: Vec<Origin>,
        host: Host,
        catalog: &mut Catalog,
    ) -> Result<Self, Vec<Error>> {
        let seen = fingerprint(&origins);
        let definitions = load(&origins, &host)?;
        let layer = catalog.add_complete("files", &host.datacenter);
        let source = Self {
            origins,
            host,
            layer,
            seen,
        };
        source.publish(definitions);
        Ok(source)
    }

    fn publish(&self, definitions: Definitions) {
        let node = Arc::new(self.host.node());
        self.layer
            .local()
            .publish_all(definitions.into_services(), vec![node]);
    }

    /// Follows the files until the stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            // Reading a directory blocks; a slow file system must not hold up the runtime.
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(source) => self = source,
                Err(error) => {
                    warn!(%error, "no longer watching the service files; restart Portolan");
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        let now = fingerprint(&self.origins);
        if now == self.seen {
            return;
        }
        match load(&self.origins, &self.host) {
            Ok(definitions) => {
                info!(
                    services = definitions.services(),
                    instances = definitions.instances(),
                    "service files read again"
                );
                self.publish(definitions);
            }
            Err(errors) => {
                for error in errors {
                    warn!(%error, "service file refused; keeping the last good services");
                }
            }
        }
        // Also after an error: it is told once, and again when a file changes.
        self.seen = now;
    }
}
