//! One blocking query, asked again for as long as it lives (`api-docs/features/blocking`), and what
//! is believed of its answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Realm, Scope};

use super::client::Client;
use super::contact::{Contact, Standing};
use super::metrics::Metrics;
use super::pace::{Pace, random_fraction};
use super::request::{Ask, Mode, RequestError, Response};

/// How long Consul may hold a query with nothing new to say. Consul holds the connection of a query
/// that nobody waits for any more until this is over, and counts it among the client's; its own
/// default of five minutes would let a few restarts lock us out.
pub(super) const WAIT: Duration = Duration::from_secs(30);

/// The first wait of a watch; it doubles. A process that lived for a moment leaves little behind.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// For how long an answer that takes something away is doubted when the index went back: a server
/// that was restored or started anew may be about to learn the rest.
const DOUBT: Duration = Duration::from_secs(10);

/// How often a doubted answer is looked at again, at first and after a while.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const LOOK_LATER: Duration = Duration::from_millis(1500);

/// What a watch asks for, and what becomes of it.
pub(super) trait Subject {
    /// What to read.
    fn ask(&self) -> Ask;
    /// How fast.
    fn pace(&self) -> Pace;
    /// What a body says.
    type News: Send + Sync;
    /// Reads a body.
    fn read(body: &[u8]) -> serde_json::Result<Self::News>;
    /// Would publishing this take away something that is published?
    fn takes_away(&self, news: &Self::News) -> bool;
    /// Is it empty although something must be there? That is never believed unconfirmed.
    fn empties(&self, news: &Self::News) -> bool;
    /// What to ask the leader before an empty answer is believed.
    fn confirmation(&self) -> Ask;
    /// Does the leader's answer bear the emptiness out?
    fn confirms(&self, body: &[u8]) -> serde_json::Result<bool>;
    /// Publishes it.
    fn publish(&mut self, news: Self::News);
    /// Consul has answered, whether with news or not.
    fn confirmed(&mut self);
}

/// What the watches of a realm share.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) metrics: Metrics,
    /// The datacenter to name for the local one; `None` for the agent's own.
    pub(super) datacenter: Option<String>,
    /// How it stands with Consul about this realm.
    pub(super) contact: Arc<Contact>,
}

/// Over this time the watches come back after an outage.
const REVIVAL: Duration = Duration::from_millis(600);

impl Context {
    /// Publishes what a watch beside the catalog has learned, if it is not what was known.
    pub(super) fn publish<T: PartialEq>(&self, published: &watch::Sender<Option<Arc<T>>>, news: T) {
        let changed = published.send_if_modified(|known| {
            let changed = known.as_deref() != Some(&news);
            if changed {
                *known = Some(Arc::new(news));
            }
            changed
        });
        if changed {
            self.metrics.published.inc();
        }
    }

    /// The same for another realm.
    pub(super) fn about(&self, realm: &Arc<Realm>) -> Self {
        Self {
            contact: self.metrics.new_contact(realm),
            ..self.clone()
        }
    }

    /// The scope to name in requests for a realm: the agent's own datacenter needs no name.
    pub(super) fn scope_of(&self, realm: &Realm) -> Scope {
        let scope = realm.scope().clone();
        Scope {
            datacenter: scope.datacenter.or_else(|| self.datacenter.clone()),
            ..scope
        }
    }

    /// One request, counted.
    pub(super) async fn get(&self, ask: &Ask, mode: Mode) -> Result<Response, RequestError> {
        let result = self.client.get(ask, mode).await;
        let outcome = result.as_ref().map_or_else(RequestError::kind, |_| "ok");
        self.metrics.request(outcome);
        result
    }
}

/// Watches until the stop. Errors are retried for ever, further and further apart.
pub(super) async fn watch(context: Context, mut subject: impl Subject, stop: CancellationToken) {
    // A dropped request closes its connection, which is how Consul learns of it.
    let mut watch = Watch::new(&context, &mut subject);
    stop.run_until_cancelled(watch.run()).await;
}

/// Reads once and publishes what is believed: for services without a watch of their own.
pub(super) async fn refresh(
    context: &Context,
    subject: &mut impl Subject,
) -> Result<(), RequestError> {
    let mut watch = Watch::new(context, subject);
    watch.turn().await
}

/// The state of one watch.
struct Watch<'a, S> {
    context: &'a Context,
    subject: &'a mut S,
    ask: Ask,
    /// The index to ask beyond; 0 to read at once.
    index: u64,
    /// The highest index that was believed.
    highest: u64,
    /// The last body that was believed.
    last: Option<Vec<u8>>,
    /// Since when the answers have been doubted because the index went back.
    doubted: Option<Instant>,
    /// How long Consul may hold the next query.
    wait: Duration,
    /// Consul has asked not to be asked before, which holds whatever else happens.
    not_before: Option<Instant>,
}

impl<'a, S: Subject> Watch<'a, S> {
    fn new(context: &'a Context, subject: &'a mut S) -> Self {
        Self {
            context,
            ask: subject.ask(),
            subject,
            index: 0,
            highest: 0,
            last: None,
            doubted: None,
            wait: FIRST_WAIT,
            not_before: None,
        }
    }

    async fn run(&mut self) {
        let mut pace = self.subject.pace();
        let mut standing = Standing::new(&self.context.contact, &self.ask);
        loop {
            let contact = Arc::clone(&self.context.contact);
            tokio::select! {
                () = self.step(&mut pace, &mut standing) => {}
                () = contact.revived() => {
                    self.index = 0;
                    pace.start_anew();
                    sleep(REVIVAL.mul_f64(random_fraction())).await;
                }
            }
        }
    }

    /// One request, its consequences, and the pause after it.
    async fn step(&mut self, pace: &mut Pace, standing: &mut Standing) {
        if let Some(until) = self.not_before {
            sleep_until(until).await;
            self.not_before = None;
        }
        standing.begin();
        match self.turn().await {
            Ok(()) => {
                standing.answered();
                let pause = pace.after_success();
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
            Err(error) => {
                standing.failed(&error);
                let pause = pace.after_failure(standing.longest_pause(&error));
                let pause = match error {
                    RequestError::Suspect(_) => pause.clamp(LOOK_AGAIN, LOOK_LATER),
                    RequestError::RateLimited { wait, .. } => {
                        // Many are asked to wait for the same time, and must not come together.
                        let wait = wait.mul_f64(1.0 + random_fraction() / 10.0);
                        self.not_before = Some(Instant::now() + wait);
                        wait + pause
                    }
                    _ => pause,
                };
                if !matches!(error, RequestError::Suspect(_)) {
                    // A query that blocks would leave open for long whether all is well again.
                    self.index = 0;
                }
                if standing.rest(pause).await {
                    pace.start_anew();
                }
            }
        }
    }

    /// One request and its consequences.
    async fn turn(&mut self) -> Result<(), RequestError> {
        let mode = if self.index == 0 {
            Mode::Stale
        } else {
            // Watches that began together must not end together.
            let wait = self.wait.mul_f64(0.9 + random_fraction() / 10.0);
            self.wait = (self.wait * 2).min(WAIT);
            let index = self.index;
            Mode::Blocking { index, wait }
        };
        let response = self.context.get(&self.ask, mode).await?;
        let arrived = Instant::now();
        if self.last.as_ref() != Some(&response.body) {
            let news = self.read(&response)?;
            self.doubt(&response, &news).await?;
            self.subject.publish(news);
            self.context
                .metrics
                .lag
                .observe(arrived.elapsed().as_secs_f64());
            self.note_index(response.index);
            self.last = Some(response.body);
        } else {
            if response.index.is_some_and(|index| index < self.highest) {
                // It went back, but says the same: there is nothing to doubt.
                self.context.metrics.suspect("index");
                self.doubted = Some(arrived);
            }
            self.note_index(response.index);
        }
        self.subject.confirmed();
        match response.index {
            Some(_) => Ok(()),
            // Without an index there is nothing to wait for: read it again after a while.
            None => Err(RequestError::Suspect("it has no index")),
        }
    }

    /// The index to ask beyond next: never of an error, never 0, and from the start again when it
    /// went back (a restored snapshot, another server).
    fn note_index(&mut self, returned: Option<u64>) {
        match returned {
            Some(index) if index >= self.highest => {
                self.index = index.max(1);
                self.highest = index;
                self.doubted = None;
            }
            Some(index) if self.doubted.is_some() => {
                // It stayed back for long enough: this is how things are now.
                self.index = index.max(1);
                self.highest = index;
                self.doubted = None;
            }
            _ => self.index = 0,
        }
    }

    fn read(&self, response: &Response) -> Result<S::News, RequestError> {
        S::read(&response.body)
            .inspect_err(|_| self.context.metrics.suspect("body"))
            .map_err(RequestError::from)
    }

    /// Decides whether news is believed; an error if it is not.
    async fn doubt(&mut self, response: &Response, news: &S::News) -> Result<(), RequestError> {
        let metrics = &self.context.metrics;
        let takes_away = self.subject.takes_away(news);
        let went_back = response.index.is_some_and(|index| index < self.highest);
        if went_back && self.doubted.is_none() {
            metrics.suspect("index");
        }
        if response.filtered && takes_away {
            metrics.suspect("filtered");
            return Err(RequestError::Suspect("the token may not see all of it"));
        }
        if !response.known_leader && takes_away {
            metrics.suspect("leader");
            self.index = 0;
            return Err(RequestError::Suspect("its server knows no leader"));
        }
        if went_back {
            let since = *self.doubted.get_or_insert_with(Instant::now);
            if takes_away && since.elapsed() < DOUBT {
                self.index = 0;
                return Err(RequestError::Suspect("its index went back"));
            }
        }
        if !self.subject.empties(news) {
            return Ok(());
        }
        // What became empty at once is only believed if the leader bears it out. Without a leader,
        // or with a token that has lost its rights, what was known stays.
        metrics.suspect("empty");
        self.index = 0;
        let leader = self
            .context
            .get(&self.subject.confirmation(), Mode::Leader)
            .await?;
        if leader.filtered {
            metrics.suspect("filtered");
            return Err(RequestError::Suspect("the token may not see all of it"));
        }
        let confirmed = self
            .subject
            .confirms(&leader.body)
            .inspect_err(|_| metrics.suspect("body"))?;
        if confirmed {
            Ok(())
        } else {
            Err(RequestError::Suspect(
                "it is empty, and should not be; has the ACL token lost its rights?",
            ))
        }
    }
}
