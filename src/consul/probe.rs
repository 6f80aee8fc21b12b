//! How far what we hold can be behind: an index cannot tell that its server is cut off, and a
//! blocking query cannot tell that its agent hangs, so that is asked on its own.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::{Ask, Mode, RequestError};
use super::contact::{Contact, Context};

/// How often is asked.
const EVERY: Duration = Duration::from_secs(1);

/// How long after a watch has failed is asked: by then those that fail with it have failed as well.
/// And how often is asked until it is an outage: many watches pause until the trouble is over.
const SOON: Duration = Duration::from_millis(250);

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(1);

/// Failures in a row, and milliseconds since the last good answer, that make an outage. Less may
/// be an election, a restart, or a machine that is short of breath.
const FAILURES: u32 = 2;
const OUTAGE: u64 = 2000;

/// How often the age is logged during an outage, and at most that there was a moment of trouble.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Marks the realm stale while its servers cannot be reached or have no leader, and fresh when
/// they can. The log says so once for all watches.
pub(super) async fn follow(context: Context, stop: CancellationToken) {
    stop.run_until_cancelled(run(context)).await;
}

async fn run(context: Context) {
    let contact = &context.contact;
    let realm = contact.realm();
    let mut probe = Probe {
        contact,
        ask: Ask::new(&["catalog", "service", "consul"]).in_scope(&context.scope_of(realm)),
        failures: 0,
        trouble: String::new(),
        told: None,
        moment: None,
    };
    loop {
        let asked = realm.versions().millis();
        let trouble = match timeout(PATIENCE, context.get(&probe.ask, Mode::Stale)).await {
            Ok(Ok(response)) if response.known_leader => None,
            Ok(Ok(_)) => Some("its servers have no leader".to_owned()),
            // It is there, and has an opinion of us.
            Ok(Err(RequestError::Status { status, .. })) if status.is_client_error() => None,
            Ok(Err(RequestError::RateLimited { .. })) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer in {} s", PATIENCE.as_secs())),
        };
        context.resets.judge(trouble.is_none());
        match trouble {
            None => probe.is_good(asked),
            Some(trouble) => probe.is_bad(trouble),
        }
        tokio::select! {
            () = sleep(probe.pause()) => {}
            () = contact.suspected() => sleep(SOON).await,
        }
    }
}

/// What the probe has seen.
struct Probe<'a> {
    contact: &'a Contact,
    ask: Ask,
    /// In a row.
    failures: u32,
    /// The last of them.
    trouble: String,
    /// When the log last said that Consul is away; `None` while it has not.
    told: Option<Instant>,
    /// When it last said that Consul was away for a moment.
    moment: Option<Instant>,
}

impl Probe<'_> {
    /// Consul was well when it was asked.
    fn is_good(&mut self, asked: u64) {
        let (contact, realm) = (self.contact, self.contact.realm());
        contact.note_good(asked);
        if std::mem::take(&mut self.failures) == 0 {
            contact.tell_failures();
        } else {
            let failing_watches = contact.end_trouble();
            let (tried, trouble) = (&self.ask, &self.trouble);
            let is_due = |told: Instant| told.elapsed() >= LOG_EVERY;
            if self.told.is_none() && failing_watches > 0 && self.moment.is_none_or(is_due) {
                warn!(%tried, trouble, failing_watches, "Consul was away for a moment");
                self.moment = Some(Instant::now());
            }
        }
        if let Some(age) = realm.stale_millis().filter(|_| realm.is_ready()) {
            self.told = None;
            realm.mark_fresh();
            contact.revive();
            info!(
                seconds = age / 1000,
                "Consul is back; what is served is current again"
            );
        }
    }

    /// The time until it is asked again.
    fn pause(&self) -> Duration {
        if self.failures > 0 && self.told.is_none() {
            SOON
        } else {
            EVERY
        }
    }

    fn is_outage(&self) -> bool {
        let silence = self
            .contact
            .realm()
            .versions()
            .millis()
            .saturating_sub(self.contact.last_good());
        self.failures >= FAILURES && silence >= OUTAGE
    }

    /// Consul cannot be asked, or has no leader.
    fn is_bad(&mut self, trouble: String) {
        let (contact, realm, tried) = (self.contact, self.contact.realm(), &self.ask);
        self.failures += 1;
        contact.begin_trouble();
        match self.told {
            None if self.is_outage() => {
                realm.mark_stale(contact.last_good());
                let failing_watches = contact.failing();
                let served = if realm.is_ready() {
                    "the last known good is served"
                } else {
                    "nothing is known yet"
                };
                warn!(%tried, trouble, failing_watches, "Consul is away; {served}");
                self.told = Some(Instant::now());
            }
            Some(told) if told.elapsed() >= LOG_EVERY => {
                let seconds = realm.stale_millis().unwrap_or_default() / 1000;
                warn!(%tried, trouble, seconds, "Consul is still away");
                self.told = Some(Instant::now());
            }
            _ => {}
        }
        self.trouble = trouble;
    }
}
