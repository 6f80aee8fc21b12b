//! What the watches of a realm share: the client, and our contact with Consul about the realm, which is what
//! its watches and the probe tell each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::catalog::{Realm, Scope, Unread};

use super::client::{Ask, Client, Mode, RequestError, Response};
use super::connections::Resets;
use super::failures::{Again, Failures, Line};
use super::metrics::Metrics;
use super::pace::{LONGEST_PAUSE, LONGEST_REST, random_fraction};
use super::throttle::Throttle;

/// A connection that is reset so soon after a request was sent was one too many.
const AT_ONCE: Duration = Duration::from_millis(500);

/// What the watches of a realm share.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) metrics: Metrics,
    /// The datacenter to name for the local one; `None` for the agent's own.
    pub(super) datacenter: Option<String>,
    /// Bytes that the lists of services and nodes may bring in a second.
    pub(super) list_rate: u32,
    /// The connections that Consul reset.
    pub(super) resets: Arc<Resets>,
    /// The pace of what can wait.
    pub(super) throttle: Arc<Throttle>,
    /// How it stands with Consul about this realm.
    pub(super) contact: Arc<Contact>,
}

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
        let asked = Instant::now();
        let result = self.client.get(ask, mode).await;
        match &result {
            Ok(_) => self.throttle.answered(),
            Err(RequestError::RateLimited { status, wait })
                if *status == StatusCode::TOO_MANY_REQUESTS =>
            {
                self.throttle.refused(*wait);
            }
            Err(RequestError::Reset(_)) if asked.elapsed() < AT_ONCE => self.resets.note(),
            Err(_) => {}
        }
        let outcome = result.as_ref().map_or_else(RequestError::kind, |_| "ok");
        self.metrics.request(outcome);
        result
    }
}

/// The contact about one realm. It lives for as long as somebody follows the realm.
#[derive(Debug)]
pub(super) struct Contact {
    realm: Arc<Realm>,
    /// Milliseconds on the catalog's clock at which Consul last was well.
    last_good: AtomicU64,
    /// Tells every watch that Consul is back: what they wait for may hang or be long overdue.
    revived: Notify,
    failures: Mutex<Failures>,
    /// Tells the probe that there is something to find out.
    suspected: Notify,
    /// How often Consul was well again: tells watches that pause after errors that it is time.
    recoveries: watch::Sender<u64>,
    sight: Mutex<Sight>,
    /// What cannot be read although Consul is well.
    unread: Mutex<BTreeMap<&'static str, Unread>>,
}

/// What our token lets us see. There is no Consul without a node: where not even one is visible, nothing
/// that is said of anything else is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// Nothing speaks against it.
    Good,
    /// Not one node is visible.
    Blind,
    /// They are again; the names that were read while they were not are to be read anew.
    Returning,
}

impl Sight {
    /// What the leader shows of the nodes. Where names are held that were read before, they are good.
    fn after_nodes(self, some: bool, holds_names: bool) -> Self {
        match (some, self) {
            (false, _) => Self::Blind,
            (true, Self::Blind) if !holds_names => Self::Returning,
            (true, Self::Returning) if !holds_names => Self::Returning,
            (true, _) => Self::Good,
        }
    }

    /// The names have been read.
    fn after_names(self) -> Self {
        match self {
            Self::Returning => Self::Good,
            other => other,
        }
    }
}

/// Over this time the watches that pause after errors come back.
const WAKING: Duration = Duration::from_millis(250);

impl Contact {
    /// The contact about a realm, with no trouble yet.
    pub(super) fn new(realm: Arc<Realm>) -> Self {
        Self {
            last_good: AtomicU64::new(realm.versions().millis()),
            realm,
            revived: Notify::new(),
            failures: Mutex::new(Failures::new()),
            suspected: Notify::new(),
            recoveries: watch::Sender::new(0),
            sight: Mutex::new(Sight::Good),
            unread: Mutex::default(),
        }
    }

    /// The nodes have been looked at: is there one?
    pub(super) fn saw_nodes(&self, some: bool) {
        let holds_names = self.realm.is_ready();
        let was = self.see(|sight| sight.after_nodes(some, holds_names));
        if was == Sight::Blind && self.sight() == Sight::Returning {
            self.revive();
        }
    }

    /// The names have been read, and are believed.
    pub(super) fn saw_names(&self) {
        self.see(Sight::after_names);
    }

    /// Is there something that we should see, and do not?
    pub(super) fn is_blind(&self) -> bool {
        self.sight() != Sight::Good
    }

    fn sight(&self) -> Sight {
        *self.sight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what it was before.
    fn see(&self, next: impl FnOnce(Sight) -> Sight) -> Sight {
        let mut sight = self.sight.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next(*sight);
        std::mem::replace(&mut sight, next)
    }

    /// What everything is found by cannot be read, for this reason, or can.
    fn note_reading(&self, what: &'static str, failure: Option<&RequestError>) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            None => drop(unread.remove(what)),
            Some(error) => {
                let since = self.realm.versions().millis();
                let why = String::new();
                let entry = unread.entry(what).or_insert(Unread { what, since, why });
                entry.why = error.to_string();
            }
        }
        let oldest = unread.values().min_by_key(|unread| unread.since);
        self.realm.set_unread(oldest.cloned());
    }

    /// What it is about.
    pub(super) fn realm(&self) -> &Arc<Realm> {
        &self.realm
    }

    /// Consul was well at this moment, so that what it had told us was current.
    pub(super) fn note_good(&self, asked: u64) {
        self.last_good.store(asked, Ordering::Relaxed);
    }

    /// Milliseconds on the catalog's clock at which Consul last was well; before the first time,
    /// at which it was first asked.
    pub(super) fn last_good(&self) -> u64 {
        self.last_good.load(Ordering::Relaxed)
    }

    /// For how many milliseconds what we hold has not been confirmed to be current.
    pub(super) fn age(&self) -> u64 {
        let age = self
            .realm
            .versions()
            .millis()
            .saturating_sub(self.last_good());
        age.max(self.stale())
    }

    /// For how many milliseconds Consul has been away, or has not let us read what everything is found by.
    pub(super) fn stale(&self) -> u64 {
        // What an earlier life left on disk is older than this contact.
        let away = self.realm.stale_millis().unwrap_or_default();
        let unread = self.realm.unread().map_or(0, |(_, millis)| millis);
        away.max(unread)
    }

    /// Has every watch read anew.
    pub(super) fn revive(&self) {
        self.revived.notify_waiters();
    }

    /// Waits until everything is to be read anew.
    pub(super) async fn revived(&self) {
        self.revived.notified().await;
    }

    /// Waits until a watch has failed, or has an answer in the midst of trouble: is that its own
    /// affair, or Consul's?
    pub(super) async fn suspected(&self) {
        self.suspected.notified().await;
    }

    /// How many watches have no good answer.
    pub(super) fn failing(&self) -> usize {
        self.failures().failing()
    }

    /// Consul itself is in trouble, which the log says once for all watches.
    pub(super) fn begin_trouble(&self) {
        self.failures().begin();
    }

    /// Consul is well again: wakes the watches that pause after errors. Those that wait for news
    /// are left alone, since Consul would go on to hold what they let go. Gives how many watches
    /// failed meanwhile.
    pub(super) fn end_trouble(&self) -> usize {
        let failed = self.failures().end(Instant::now());
        self.recoveries.send_modify(|times| *times += 1);
        failed
    }

    /// Consul itself is well: what watches have failed with is told in the log.
    pub(super) fn tell_failures(&self) {
        let lines = self.failures().tell(Instant::now());
        for line in lines {
            let (Line::One { is_over, .. } | Line::Many { is_over, .. }) = line;
            match line {
                Line::One { path, error, .. } => {
                    warn!(
                        path,
                        error, "no usable answer from Consul; keeping what is known"
                    );
                }
                Line::Many {
                    watches,
                    path,
                    error,
                    ..
                } => warn!(
                    watches,
                    path,
                    error,
                    "no usable answer from Consul to many watches, such as this one; keeping what is known"
                ),
            }
            if is_over {
                info!("Consul has answered since");
            }
        }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one watch stands with Consul. What it fails with is for the log to say later, when it is
/// known whether it failed alone.
#[derive(Debug)]
pub(super) struct WatchHandle {
    contact: Arc<Contact>,
    /// What the watch asks for.
    path: String,
    /// What that is in words, if everything else is found by it.
    what: Option<&'static str>,
    is_failing: bool,
    recoveries: watch::Receiver<u64>,
}

impl WatchHandle {
    /// `what` it asks for is said where everything else is found by that.
    pub(super) fn new(contact: &Arc<Contact>, ask: &Ask, what: Option<&'static str>) -> Self {
        Self {
            contact: Arc::clone(contact),
            path: ask.to_string(),
            what,
            is_failing: false,
            recoveries: contact.recoveries.subscribe(),
        }
    }

    /// It asks now: what ends from now on may have spoiled the answer.
    pub(super) fn begin(&mut self) {
        self.recoveries.mark_unchanged();
    }

    /// Pauses after an error, until Consul is well again at most. True if that cut it short.
    pub(super) async fn rest(&mut self, pause: Duration) -> bool {
        let recovered = timeout(pause, self.recoveries.changed()).await.is_ok();
        if recovered {
            // Not all at once.
            sleep(WAKING.mul_f64(random_fraction())).await;
        }
        recovered
    }

    /// The longest pause after this error.
    pub(super) fn longest_pause(&self, error: &RequestError) -> Duration {
        let is_refusal = matches!(
            error,
            RequestError::Status { status, .. } if status.is_client_error()
        );
        if is_refusal || self.contact.failures().is_common() {
            LONGEST_REST
        } else {
            LONGEST_PAUSE
        }
    }

    /// It has a good answer.
    pub(super) fn answered(&mut self) {
        if !std::mem::take(&mut self.is_failing) {
            return;
        }
        self.note_reading(None);
        let path = &self.path;
        let (again, is_common) = {
            let mut failures = self.contact.failures();
            (failures.answered(path), failures.is_common())
        };
        if is_common {
            self.contact.suspected.notify_one();
        }
        match again {
            Again::Quiet => debug!(path, "Consul answers again"),
            Again::One => info!(path, "Consul answers again"),
            Again::Many => info!("Consul answers all watches again"),
        }
    }

    fn note_reading(&self, failure: Option<&RequestError>) {
        if let Some(what) = self.what {
            self.contact.note_reading(what, failure);
        }
    }

    /// It has none.
    pub(super) fn failed(&mut self, error: &RequestError) {
        self.is_failing = true;
        self.note_reading(Some(error));
        let path = &self.path;
        debug!(path, %error, "no usable answer from Consul");
        let is_news = self.contact.failures().failed(path, error, Instant::now());
        if is_news {
            self.contact.suspected.notify_one();
        }
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        if self.is_failing {
            self.contact.failures().forget(&self.path);
            self.note_reading(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that were read by a token that sees no node are not believed beside nodes that came later.
    #[test]
    fn what_is_seen() {
        use Sight::{Blind, Good, Returning};
        for (before, some, holds_names, after) in [
            (Good, true, false, Good),
            (Good, true, true, Good),
            (Good, false, false, Blind),
            (Good, false, true, Blind),
            (Blind, false, false, Blind),
            (Blind, true, false, Returning),
            (Blind, true, true, Good),
            (Returning, true, false, Returning),
            (Returning, true, true, Good),
            (Returning, false, false, Blind),
        ] {
            assert_eq!(before.after_nodes(some, holds_names), after, "{before:?}");
        }
        for (before, after) in [(Good, Good), (Blind, Blind), (Returning, Good)] {
            assert_eq!(before.after_names(), after);
        }
    }
}
