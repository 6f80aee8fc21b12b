//! How far what we hold can be behind: an index cannot tell that its server is cut off, and a
//! blocking query cannot tell that its agent hangs, so that is asked on its own.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::{Ask, Mode, RequestError, Response, is_refusal};
use super::contact::{Contact, Context};
use super::throttle::Throttle;

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

/// The longest word of whoever refuses us that is passed on: somebody in front of Consul may send a page.
const LONGEST_WORD: usize = 80;

/// What keeps us from what Consul knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It cannot be asked, or has no leader.
    Away,
    /// It is there, and tells us nothing.
    Closed,
}

impl State {
    fn begins(self) -> &'static str {
        match self {
            Self::Away => "Consul is away; ",
            Self::Closed => "Consul is closed to us; ",
        }
    }

    fn lasts(self) -> &'static str {
        match self {
            Self::Away => "Consul is still away",
            Self::Closed => "Consul is still closed to us",
        }
    }
}

/// What is wrong with Consul, if it said this; and in words.
fn judge(said: &Result<Response, RequestError>, is_blind: bool) -> Option<(State, String)> {
    match said {
        Ok(response) if !response.known_leader => {
            Some((State::Away, "its servers have no leader".to_owned()))
        }
        Ok(_) if is_blind => {
            let why = "not even a node is visible: the ACL token is missing, or may not read nodes";
            Some((State::Closed, why.to_owned()))
        }
        Ok(_) => None,
        Err(RequestError::Status { status, body }) if is_refusal(*status) => {
            let word = match body.len() <= LONGEST_WORD && !body.contains(['<', '\n']) {
                true if !body.is_empty() => format!(": {body}"),
                _ => String::new(),
            };
            let why = format!("the ACL token is refused ({}){word}", status.as_u16());
            Some((State::Closed, why))
        }
        Err(RequestError::Status { status, .. } | RequestError::RateLimited { status, .. })
            if matches!(status.as_u16(), 502..=504) =>
        {
            let why = format!("Consul's load balancer answers {}", status.as_u16());
            Some((State::Away, why))
        }
        // It is there, and has an opinion of us.
        Err(RequestError::Status { status, .. }) if status.is_client_error() => None,
        Err(RequestError::RateLimited { .. }) => None,
        Err(error) => Some((State::Away, error.to_string())),
    }
}

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
        throttle: &context.throttle,
        ask: Ask::new(&["catalog", "service", "consul"]).in_scope(&context.scope_of(realm)),
        failures: 0,
        trouble: String::new(),
        told: None,
        moment: None,
    };
    loop {
        let asked = realm.versions().millis();
        let said = timeout(PATIENCE, context.get(&probe.ask, Mode::Probe)).await;
        let said = said.unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            Err(RequestError::Transport(format!("no answer in {seconds} s")))
        });
        let judged = judge(&said, contact.is_blind());
        context.resets.judge(judged.is_none());
        match judged {
            None => probe.is_good(asked),
            Some((state, trouble)) => probe.is_bad(state, trouble),
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
    throttle: &'a Throttle,
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
            realm.explain(None);
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
            self.throttle.forget();
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

    /// Consul cannot be asked, has no leader, or tells us nothing.
    fn is_bad(&mut self, state: State, trouble: String) {
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
                let begins = state.begins();
                warn!(%tried, trouble, failing_watches, "{begins}{served}");
                self.told = Some(Instant::now());
            }
            Some(told) if told.elapsed() >= LOG_EVERY => {
                let seconds = realm.stale_millis().unwrap_or_default() / 1000;
                warn!(%tried, trouble, seconds, "{}", state.lasts());
                self.told = Some(Instant::now());
            }
            _ => {}
        }
        if self.told.is_some() {
            let line = trouble.lines().next();
            realm.explain(line.map(str::to_owned));
        }
        self.trouble = trouble;
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    fn response(known_leader: bool) -> Result<Response, RequestError> {
        Ok(Response {
            index: Some(7),
            known_leader,
            filtered: false,
            body: b"[]".to_vec(),
        })
    }

    fn status(status: u16, body: &str) -> Result<Response, RequestError> {
        Err(RequestError::Status {
            status: StatusCode::from_u16(status).expect("a status"),
            body: body.to_owned(),
        })
    }

    fn limited(status: u16) -> Result<Response, RequestError> {
        Err(RequestError::RateLimited {
            status: StatusCode::from_u16(status).expect("a status"),
            wait: Duration::from_secs(1),
        })
    }

    /// Who answers is not for that reason well.
    #[test]
    fn what_is_wrong_with_consul() {
        let refused = RequestError::Transport("connection refused".to_owned());
        let page = "<html><body>Forbidden</body></html>";
        let away = |why| Some((State::Away, why));
        let closed = |why| Some((State::Closed, why));
        for (said, is_blind, expected) in [
            (response(true), false, None),
            (response(false), false, away("its servers have no leader")),
            (
                response(true),
                true,
                closed(
                    "not even a node is visible: the ACL token is missing, or may not read nodes",
                ),
            ),
            (
                status(403, "ACL not found"),
                false,
                closed("the ACL token is refused (403): ACL not found"),
            ),
            (
                status(403, page),
                false,
                closed("the ACL token is refused (403)"),
            ),
            (
                status(401, ""),
                false,
                closed("the ACL token is refused (401)"),
            ),
            (
                status(502, page),
                false,
                away("Consul's load balancer answers 502"),
            ),
            (
                limited(503),
                true,
                away("Consul's load balancer answers 503"),
            ),
            (
                status(503, "the next address is asked"),
                false,
                away("Consul's load balancer answers 503"),
            ),
            (
                status(504, ""),
                false,
                away("Consul's load balancer answers 504"),
            ),
            (
                status(500, "No cluster leader"),
                false,
                away("HTTP 500 Internal Server Error: No cluster leader"),
            ),
            (Err(refused), false, away("connection refused")),
            // It is busy, or of another kind, but it is there.
            (limited(429), false, None),
            (status(404, "no such thing"), false, None),
        ] {
            let judged = judge(&said, is_blind);
            let judged = judged.as_ref().map(|(state, why)| (*state, why.as_str()));
            assert_eq!(judged, expected, "{said:?}");
        }
    }
}
