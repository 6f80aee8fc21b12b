//! Follows what runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Error};
use super::container::Container;
use super::settings::Deregister;

/// How often things are done.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How often everything is listed, events or not. Default 30 s.
    pub resync: Duration,
    /// Whether containers that failed are looked for too.
    pub deregister: Deregister,
}

/// A container that ended, with an error, and still exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// What it ended with.
    pub exit_code: i64,
}

/// What runs, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The containers that run and are not being stopped, sorted by name.
    pub containers: Vec<Arc<Container>>,
    /// Containers that run but could not be inspected, id to name: nothing is known about them,
    /// so whatever is registered for them is to stay.
    pub unknown: BTreeMap<String, String>,
    /// With [`Deregister::OnSuccess`]: containers that ended with an error, by id. Whatever is
    /// registered for them is to stay.
    pub failed: BTreeMap<String, Ended>,
}

/// What a [`Follower`] knows.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// What runs, as last known; `None` before the first list.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Why Docker cannot be reached now, if it cannot. The snapshot is then the last good one.
    pub trouble: Option<Arc<str>>,
}

/// Follows what runs.
#[derive(Debug)]
pub struct Follower {
    client: Client,
    pace: Pace,
    view: watch::Sender<View>,
}

impl Follower {
    /// A follower, and where it publishes. The receiver is woken by every change and by nothing
    /// else.
    pub fn new(client: Client, pace: Pace) -> (Self, watch::Receiver<View>) {
        let (view, receiver) = watch::channel(View::default());
        (Self { client, pace, view }, receiver)
    }

    /// Lists and inspects everything once, for `--once` and `--dry-run`.
    ///
    /// # Errors
    /// [`Error`] if Docker cannot be asked.
    pub async fn once(client: &Client, pace: &Pace) -> Result<Snapshot, Error> {
        let _ = (client, pace);
        Ok(Snapshot::default())
    }

    /// Follows until the stop. Trouble with Docker never ends it.
    pub async fn run(self, stop: CancellationToken) {
        let _ = (self.client, self.pace, self.view);
        stop.cancelled().await;
    }
}
