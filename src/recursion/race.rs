//! One question against several upstreams: who is asked when, and what each one's behaviour means.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::{Query, ResponseCode};
use tokio::task::JoinSet;

use super::Recursor;
use super::health::{self, Health};
use super::reply::{Failure, Reply};
use super::upstream::Upstream;

/// A question on its way to one upstream.
struct Entrant {
    upstream: Arc<Upstream>,
    sent: Instant,
    state: State,
}

#[derive(PartialEq)]
enum State {
    /// Nothing has come back.
    Running,
    /// It said that something is wrong. With the name or with itself: that shows when another
    /// upstream answers.
    Suspect,
    /// Its failure has been noted.
    Out,
}

impl Recursor {
    /// Asks one upstream after the other until one has an answer: the next one at once when one
    /// failed, and beside it when one is slow. `None` if all failed.
    ///
    /// Dropping it, or its end, aborts what is still running.
    pub(super) async fn race(&self, query: &Query) -> Option<Reply> {
        let order = self.order();
        let mut waiting = order.iter().filter_map(|&index| self.upstreams.get(index));
        let mut entrants: Vec<Entrant> = Vec::with_capacity(order.len());
        let mut running: JoinSet<(usize, Result<Reply, Failure>)> = JoinSet::new();
        let mut is_hedge = false;
        loop {
            if let Some(upstream) = waiting.next() {
                let sent = Instant::now();
                upstream.note_asked(sent);
                if is_hedge {
                    self.metrics.hedge(upstream.address);
                }
                let (number, query) = (entrants.len(), query.clone());
                let asked = Arc::clone(upstream);
                running.spawn(async move { (number, asked.ask(&query).await) });
                entrants.push(Entrant {
                    upstream: Arc::clone(upstream),
                    sent,
                    state: State::Running,
                });
            }
            is_hedge = false;
            let more = entrants.len() < order.len();
            tokio::select! {
                done = running.join_next() => match done? {
                    Ok((number, Ok(reply))) => {
                        self.won(&entrants, number, &reply);
                        return Some(reply);
                    }
                    Ok((number, Err(failure))) => {
                        if let Some(entrant) = entrants.get_mut(number) {
                            self.lost(entrant, failure);
                        }
                    }
                    Err(error) => tracing::error!(%error, "a query to an upstream ended unexpectedly"),
                },
                () = tokio::time::sleep(self.settings.hedge_after), if more => is_hedge = true,
            }
        }
    }

    /// An upstream failed. An error that it sent is held against it only if another one answers
    /// the same question; or a broken domain would make every upstream look broken.
    fn lost(&self, entrant: &mut Entrant, failure: Failure) {
        let upstream = &entrant.upstream;
        self.metrics.query(upstream.address, failure.label());
        tracing::debug!(upstream = %upstream.address, outcome = failure.label(), "no answer");
        if failure.may_be_the_name() {
            entrant.state = State::Suspect;
        } else {
            entrant.state = State::Out;
            self.note_failure(entrant);
        }
    }

    /// An upstream answered. That tells about the others, too.
    fn won(&self, entrants: &[Entrant], winner: usize, reply: &Reply) {
        let now = Instant::now();
        for (number, entrant) in entrants.iter().enumerate() {
            let address = entrant.upstream.address;
            let took = now.saturating_duration_since(entrant.sent);
            if number == winner {
                let outcome = match reply.rcode {
                    ResponseCode::NXDomain => "nxdomain",
                    _ => "noerror",
                };
                self.metrics.query(address, outcome);
                self.metrics.latency(address, took);
                let is_well = entrant.upstream.note_success(now);
                self.metrics.healthy(address, is_well);
            } else if entrant.state == State::Suspect {
                self.note_failure(entrant);
            } else if entrant.state == State::Running {
                self.metrics.query(address, "overtaken");
                // One that had the start and was overtaken is slow or dead. It is not waited for,
                // so this is how a dead upstream is found out.
                if took >= self.settings.hedge_after {
                    self.note_failure(entrant);
                }
            }
        }
    }

    fn note_failure(&self, entrant: &Entrant) {
        let upstream = &entrant.upstream;
        let now = Instant::now();
        let was_well = upstream.health().is_well(now);
        let is_well = upstream.note_failure(entrant.sent, now);
        self.metrics.healthy(upstream.address, is_well);
        if was_well && !is_well {
            tracing::warn!(upstream = %upstream.address, "this upstream keeps failing and is asked last from now on");
        }
    }

    fn order(&self) -> Vec<usize> {
        let health: Vec<Health> = self.upstreams.iter().map(|u| u.health()).collect();
        // The keys of the standard library's hasher are the source of chance at hand.
        let chance = RandomState::new().build_hasher().finish();
        health::order(
            &health,
            self.settings.recursor_strategy,
            Instant::now(),
            chance,
        )
    }
}
