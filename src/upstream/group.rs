//! One question to several upstreams: who is asked when, and what each one's behaviour means.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout_at};

use crate::dns::{ExtendedError, Query, Rcode, Response};

use super::health::{self, Answered, Health, Patience};
use super::metrics::Outcome;
use super::{Failure, Upstream};

/// In which order upstreams that are well are asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// As they are listed: the first gets everything while it is well.
    #[default]
    Sequential,
    /// In a new random order for every question.
    Random,
}

/// How several upstreams are asked.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// In which order.
    pub strategy: Strategy,
    /// How long one may take for one question.
    pub timeout: Duration,
    /// Letters of questions in random case, which replies have to keep.
    pub random_case: bool,
    /// After how long without an answer the next one is asked as well. The first good answer wins.
    pub hedge_after: Duration,
}

/// Upstreams that know the same names.
pub struct Group {
    upstreams: Vec<Arc<Upstream>>,
    settings: Settings,
}

/// How long the pauses are for a question that is refused by who starts anew, the first one and those that follow at
/// most.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LATER_LOOK: Duration = Duration::from_millis(200);

type Asking<'a> = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send + 'a>>;

/// A question on its way to one upstream.
struct Entrant<'a> {
    upstream: &'a Upstream,
    sent: Instant,
    asking: Option<Asking<'a>>,
    /// It said that something is wrong. With the name or with itself: that shows when another upstream
    /// answers.
    is_suspect: bool,
}

impl Group {
    /// Upstreams in their order, which may be in other groups as well.
    pub fn new(upstreams: Vec<Arc<Upstream>>, mut settings: Settings) -> Self {
        settings.hedge_after = settings.hedge_after.min(settings.timeout);
        Self {
            upstreams,
            settings,
        }
    }

    /// Asks one upstream after the other until one has an answer: the next one at once when one failed,
    /// and beside it when one is slow. Those that start anew are waited for. Dropping it aborts what is still running.
    ///
    /// # Errors
    /// What the upstreams say of it, if none has an answer until `by`.
    pub async fn ask(&self, query: &Query, by: Instant) -> Result<Response, Vec<ExtendedError>> {
        let (mut patience, mut pause) = (None, FIRST_LOOK);
        loop {
            let asked = Instant::now();
            match self.race(query, by).await {
                Ok(response) => return Ok(response),
                Err(lost) => {
                    let now = Instant::now();
                    let patience = patience.get_or_insert_with(|| Patience::new(now));
                    let is_over = now + pause >= by || !patience.lasts(self.last(), asked, now);
                    if !lost.is_refused || is_over {
                        return Err(lost.errors);
                    }
                    // In a place of its own, or every question would have to make room for it.
                    Box::pin(sleep(pause)).await;
                    pause = (pause * 2).min(LATER_LOOK);
                }
            }
        }
    }

    /// The last answer that one of them gave.
    fn last(&self) -> Option<Answered> {
        let answered = |own: &Arc<Upstream>| own.with(|memory| memory.answered);
        let all = self.upstreams.iter().filter_map(answered);
        all.max_by_key(|own| own.at)
    }

    async fn race(&self, query: &Query, by: Instant) -> Result<Response, Lost> {
        if let [only] = &self.upstreams[..] {
            return self.alone(only, query, by).await;
        }
        let order = self.order();
        let mut waiting = order.iter().filter_map(|&index| self.upstreams.get(index));
        let mut entrants: Vec<Entrant<'_>> = Vec::with_capacity(1);
        let mut lost = Lost {
            errors: Vec::new(),
            is_refused: true,
        };
        let mut is_hedge = false;
        loop {
            if let Some(upstream) = waiting.next() {
                if is_hedge {
                    upstream.counts.hedge();
                }
                entrants.push(self.start(upstream, query, by));
            }
            let now = Instant::now();
            let has_more = entrants.len() < order.len();
            let until = if has_more {
                (now + self.settings.hedge_after).min(by)
            } else {
                by
            };
            is_hedge = false;
            match timeout_at(until.into(), next(&mut entrants)).await {
                Ok(Some((number, Ok(response)))) => {
                    won(&entrants, number, &response, self.settings.hedge_after);
                    return Ok(response);
                }
                Ok(Some((number, Err(failure)))) => {
                    ExtendedError::add(&mut lost.errors, failure.errors());
                    if let Some(entrant) = entrants.get_mut(number) {
                        lost.is_refused &= is_refusal(entrant.upstream, entrant.sent, &failure);
                        entrant.is_suspect = failure.may_be_the_name();
                        failed(entrant.upstream, entrant.sent, &failure);
                    }
                }
                // All have failed, or the time is up.
                Ok(None) => return Err(lost),
                Err(_) if until == by => return Err(lost),
                Err(_) => is_hedge = true,
            }
        }
    }

    /// Has it been found out that none of them answers? The next question to each is but a probe.
    pub fn rest(&self) -> bool {
        self.upstreams
            .iter()
            .all(|own| own.with(|memory| memory.health.rests()))
    }

    /// Is it time to find out whether one of them, that did not answer, does?
    pub fn want_probe(&self, now: Instant) -> bool {
        let wants = |health: &Health| health.rests() && health.is_well(now);
        let mut upstreams = self.upstreams.iter();
        upstreams.any(|own| own.with(|memory| wants(&memory.health)))
    }

    /// Has one of them answered again, since then, that did not for a while?
    pub fn have_recovered_since(&self, since: Instant) -> bool {
        let mut recovered = self
            .upstreams
            .iter()
            .filter_map(|own| own.with(|memory| memory.recovered));
        recovered.any(|at| at > since)
    }

    fn start<'a>(&self, upstream: &'a Upstream, query: &'a Query, by: Instant) -> Entrant<'a> {
        let sent = Instant::now();
        upstream.note_asked(sent);
        let by = by.min(sent + self.settings.timeout);
        Entrant {
            upstream,
            sent,
            asking: Some(Box::pin(upstream.ask(query, self.settings.random_case, by))),
            is_suspect: false,
        }
    }

    /// Where there is nobody to choose from, and nobody to wait for.
    async fn alone(
        &self,
        upstream: &Upstream,
        query: &Query,
        by: Instant,
    ) -> Result<Response, Lost> {
        let sent = Instant::now();
        upstream.note_asked(sent);
        let by = by.min(sent + self.settings.timeout);
        match upstream.ask(query, self.settings.random_case, by).await {
            Ok(response) => {
                let now = Instant::now();
                answered(
                    upstream,
                    &response,
                    now.saturating_duration_since(sent),
                    now,
                );
                Ok(response)
            }
            Err(failure) => {
                let is_refused = is_refusal(upstream, sent, &failure);
                failed(upstream, sent, &failure);
                let errors = failure.errors().to_vec();
                Err(Lost { errors, is_refused })
            }
        }
    }

    fn order(&self) -> Vec<usize> {
        let health: Vec<Health> = self.upstreams.iter().map(|own| own.health()).collect();
        let chance = rand::random();
        health::order(&health, self.settings.strategy, Instant::now(), chance)
    }
}

/// What there is to say when nobody has an answer.
struct Lost {
    errors: Vec<ExtendedError>,
    /// Everybody was asked, and nobody is as far as to hear it.
    is_refused: bool,
}

/// Is that somebody who is not there? Or who is there again, but has not read its zones yet.
fn is_refusal(upstream: &Upstream, sent: Instant, failure: &Failure) -> bool {
    match failure {
        Failure::Network => true,
        Failure::Rcode(..) => upstream.is_away(sent),
        _ => false,
    }
}

/// The next that is done, by its number; `None` if none is running.
async fn next(entrants: &mut [Entrant<'_>]) -> Option<(usize, Result<Response, Failure>)> {
    poll_fn(|context| {
        let mut is_running = false;
        for (number, entrant) in entrants.iter_mut().enumerate() {
            let Some(asking) = &mut entrant.asking else {
                continue;
            };
            is_running = true;
            if let Poll::Ready(said) = asking.as_mut().poll(context) {
                entrant.asking = None;
                return Poll::Ready(Some((number, said)));
            }
        }
        if is_running {
            Poll::Pending
        } else {
            Poll::Ready(None)
        }
    })
    .await
}

/// An upstream failed the question that was sent then. An error that it sent is held against it only if another one
/// answers the same question; or a broken domain would make every upstream look broken.
fn failed(upstream: &Upstream, sent: Instant, failure: &Failure) {
    if let Failure::Untrusted(why) = failure {
        upstream.tell_distrust(why);
    }
    upstream.counts.query(Outcome::from(failure));
    tracing::debug!(upstream = %upstream.address, ?failure, "no answer");
    if !failure.may_be_the_name() {
        upstream.note_failure(sent, Instant::now());
    }
    if *failure == Failure::Network {
        upstream.note_absence();
    }
}

/// An upstream answered after so long.
fn answered(upstream: &Upstream, response: &Response, took: Duration, now: Instant) {
    upstream.counts.query(match response.rcode {
        Rcode::NXDOMAIN => Outcome::NxDomain,
        _ => Outcome::NoError,
    });
    upstream.counts.latency(took);
    upstream.note_success(took, now);
}

/// An upstream answered. That tells about the others, too.
fn won(entrants: &[Entrant<'_>], winner: usize, response: &Response, hedge_after: Duration) {
    let now = Instant::now();
    for (number, entrant) in entrants.iter().enumerate() {
        let upstream = entrant.upstream;
        let took = now.saturating_duration_since(entrant.sent);
        if number == winner {
            answered(upstream, response, took, now);
        } else if entrant.is_suspect {
            upstream.note_failure(entrant.sent, now);
        } else if entrant.asking.is_some() {
            upstream.counts.query(Outcome::Overtaken);
            // One that had the start and was overtaken is slow or dead. It is not waited for, so this is
            // how a dead upstream is found out.
            if took >= hedge_after {
                upstream.note_failure(entrant.sent, now);
            }
        }
    }
}
