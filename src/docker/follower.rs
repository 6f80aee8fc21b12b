//! Follows what runs: one connection for events, and short requests for what they are about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::client::{Client, Error};
use super::container::{Container, Summary};
use super::containers::{Containers, Deregister, Snapshot};

/// Inspections that run at a time. One that hangs takes its time-out; the others go on.
const MAX_INSPECTIONS: usize = 16;

/// How long to wait before Docker is asked again after trouble: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(3);

/// After a contact that lasted this long the pauses are short again.
const GOOD_CONTACT: Duration = Duration::from_secs(10);

/// When a container could not be inspected, everything is looked at again after this, and if it
/// still cannot, after twice as long, up to the resync.
const RETRY: Duration = Duration::from_secs(2);

/// So many different troubles of one outage are told of, each of them once: the first, such as a reset connection,
/// need not be the one that says what is wrong.
const MAX_TOLD: usize = 8;

/// How often things are done.
#[derive(Debug, Clone)]
pub struct Follow {
    /// How often everything is listed, events or not. Default 30 s.
    pub resync: Duration,
    /// Whether containers that failed are looked for too.
    pub deregister: Deregister,
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            resync: Duration::from_secs(30),
            deregister: Deregister::Always,
        }
    }
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
    follow: Follow,
    containers: Containers,
    /// The first list, and what is in it, has been read.
    is_complete: bool,
    /// The present contact has told all there is.
    was_well: bool,
    /// What was told of since Docker was last well.
    told: Vec<Arc<str>>,
    view: watch::Sender<View>,
}

/// A request that has ended.
enum Done {
    Listed(Result<Vec<Summary>, Error>),
    Inspected(String, Result<Option<Arc<Container>>, Error>),
}

impl Follower {
    /// A follower, and where it publishes. The receiver is woken by every change and by nothing
    /// else.
    pub fn new(client: Client, follow: Follow) -> (Self, watch::Receiver<View>) {
        let (view, receiver) = watch::channel(View::default());
        let follower = Self {
            containers: Containers::new(follow.deregister),
            client,
            follow,
            is_complete: false,
            was_well: false,
            told: Vec::new(),
            view,
        };
        (follower, receiver)
    }

    /// Lists and inspects everything once, for `--once` and `--dry-run`.
    ///
    /// # Errors
    /// [`Error`] if Docker cannot be asked. A container that cannot be inspected is
    /// [`Snapshot::unknown`].
    pub async fn once(client: &Client, follow: &Follow) -> Result<Snapshot, Error> {
        let mut containers = Containers::new(follow.deregister);
        client.negotiate().await?;
        containers.listed(&client.list(containers.states()).await?);
        let mut requests = JoinSet::new();
        loop {
            inspect(client, &mut containers, &mut requests);
            match requests.join_next().await {
                Some(Ok(Done::Inspected(id, result))) => take(&mut containers, &id, result),
                Some(_) => {}
                None => return Ok(containers.snapshot()),
            }
        }
    }

    /// Follows until the stop. Trouble with Docker never ends it.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let start = Instant::now();
            let error = match self.contact().await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            self.containers.interrupted();
            if std::mem::take(&mut self.was_well) {
                // Whatever ended it may be over: a proxy that cuts idle streams, for one.
                debug!(%error, "contact to Docker ended");
            } else {
                self.in_trouble(&error);
            }
            if start.elapsed() >= GOOD_CONTACT {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// One contact to Docker, until it breaks.
    async fn contact(&mut self) -> Result<std::convert::Infallible, Error> {
        let version = self.client.negotiate().await?;
        // Before the list, so that nothing falls between the two.
        let mut events = self.client.events().await?;
        debug!(version, "contact to Docker");
        let mut requests = JoinSet::new();
        let mut is_listed = false;
        let mut is_listing = false;
        let mut next_list = Instant::now();
        let (mut retry, mut has_failed) = (RETRY, false);
        loop {
            inspect(&self.client, &mut self.containers, &mut requests);
            if is_listed && self.containers.is_settled() {
                (self.is_complete, self.was_well) = (true, true);
                self.well();
                if !has_failed {
                    retry = RETRY;
                }
            }
            self.publish();
            let now = Instant::now();
            if !is_listing && next_list <= now {
                (is_listing, has_failed) = (true, false);
                next_list = now + self.follow.resync;
                let (client, states) = (self.client.clone(), self.containers.states());
                requests.spawn(async move { Done::Listed(client.list(states).await) });
            }
            let wake = match (self.containers.next_reprieve(), is_listing) {
                (Some(reprieve), false) => reprieve.min(next_list),
                (Some(reprieve), true) => reprieve,
                (None, false) => next_list,
                (None, true) => now + self.follow.resync,
            };
            tokio::select! {
                event = events.next() => {
                    if self.containers.event(event?, Instant::now()) {
                        self.client.metrics.events.inc();
                    }
                }
                Some(done) = requests.join_next() => match done {
                    Ok(Done::Listed(list)) => {
                        is_listing = false;
                        self.containers.listed(&list?);
                        is_listed = true;
                    }
                    Ok(Done::Inspected(id, result)) => {
                        if result.is_err() && !has_failed {
                            has_failed = true;
                            next_list = next_list.min(Instant::now() + retry);
                            retry = (retry * 2).min(self.follow.resync);
                        }
                        take(&mut self.containers, &id, result);
                    }
                    Err(error) => return Err(Error::Transport(error.to_string())),
                },
                () = tokio::time::sleep_until(wake.into()) => self.containers.reprieve(Instant::now()),
            }
        }
    }

    /// Tells what changed. Before the first list has been read to its end there is nothing to tell.
    fn publish(&self) {
        if !self.is_complete {
            return;
        }
        let snapshot = self.containers.snapshot();
        let metrics = &self.client.metrics;
        metrics.containers.set(length(snapshot.containers.len()));
        metrics.unknown.set(length(snapshot.unknown.len()));
        self.view.send_if_modified(|view| {
            if view.snapshot.as_deref() == Some(&snapshot) {
                return false;
            }
            view.snapshot = Some(Arc::new(snapshot));
            true
        });
    }

    fn in_trouble(&mut self, error: &Error) {
        self.client.metrics.connected.set(0);
        let trouble: Arc<str> = error.to_string().into();
        if self.told.len() < MAX_TOLD && !self.told.contains(&trouble) {
            self.told.push(Arc::clone(&trouble));
            let address = self.client.address();
            warn!(%error, address, "cannot reach Docker; keeping what is known");
        }
        self.view.send_if_modified(|view| {
            let is_new = view.trouble.as_ref() != Some(&trouble);
            view.trouble = Some(trouble);
            is_new
        });
    }

    fn well(&mut self) {
        self.client.metrics.connected.set(1);
        self.told.clear();
        self.view.send_if_modified(|view| {
            let was_in_trouble = view.trouble.take().is_some();
            if was_in_trouble {
                info!(address = self.client.address(), "Docker answers again");
            }
            was_in_trouble
        });
    }
}

/// Starts the inspections that are due.
fn inspect(client: &Client, containers: &mut Containers, requests: &mut JoinSet<Done>) {
    while let Some(id) = containers.next_to_inspect(MAX_INSPECTIONS) {
        let client = client.clone();
        requests.spawn(async move {
            let result = client.inspect(&id).await.map(|found| found.map(Arc::new));
            Done::Inspected(id, result)
        });
    }
}

fn take(containers: &mut Containers, id: &str, result: Result<Option<Arc<Container>>, Error>) {
    match result {
        Ok(container) => containers.inspected(id, container),
        Err(error) => {
            warn!(container = id, %error, "cannot inspect the container; keeping what is known of it");
            containers.not_inspected(id);
        }
    }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
