//! What can wait is asked for more slowly where Consul limits the rate of reads (`limits.request_limits` of
//! 1.16), so that what somebody waits for gets through.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The time between two requests that can wait, after the first refusal, and at most; it doubles with each.
const FIRST_GAP: Duration = Duration::from_millis(100);
const LONGEST_GAP: Duration = Duration::from_secs(2);

/// Refusals within this time of one that counted say the same.
const ONE_REFUSAL: Duration = Duration::from_millis(500);

/// After so long without one, it is half as long after every answer, and ends below the shortest. Until then
/// there is room for what cannot wait.
const CALM: Duration = Duration::from_secs(2);
const SHORTEST_GAP: Duration = Duration::from_millis(25);

/// So much longer than who was refused waits what can wait.
const HEAD_START: Duration = Duration::from_millis(500);

/// Who waits looks this often whether there still is a reason to.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The pace of what can wait.
#[derive(Debug)]
pub(super) struct Throttle(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Zero while Consul refuses nothing.
    gap: Duration,
    /// When the next may be sent.
    next: Instant,
    /// When a refusal last counted.
    refused: Option<Instant>,
    /// Until then, nothing that can wait is sent: whoever was refused comes before.
    held: Instant,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            gap: Duration::ZERO,
            next: Instant::now(),
            refused: None,
            held: Instant::now(),
        }))
    }

    /// Consul has refused a request because there were too many, and asked to wait for so long.
    pub(super) fn refused(&self, wait: Duration) {
        let (mut state, now) = (self.state(), Instant::now());
        state.held = state.held.max(now + wait.min(LONGEST_GAP) + HEAD_START);
        let is_one = |refused: Instant| now.duration_since(refused) < ONE_REFUSAL;
        if state.gap.is_zero() || !state.refused.is_some_and(is_one) {
            state.refused = Some(now);
            state.gap = (state.gap * 2).clamp(FIRST_GAP, LONGEST_GAP);
        }
    }

    /// Consul has answered a request.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        if state.refused.is_some_and(|at| at.elapsed() < CALM) {
            return;
        }
        let gap = state.gap / 2;
        state.gap = if gap < SHORTEST_GAP {
            Duration::ZERO
        } else {
            gap
        };
    }

    /// Consul was away, and is back: what was refused in its place says nothing of how much it bears.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        (state.gap, state.refused, state.held) = (Duration::ZERO, None, Instant::now());
    }

    /// Waits until a request that can wait may be sent.
    pub(super) async fn turn(&self) {
        let Some(turn) = self.next() else { return };
        while let Some(left) = self.left(turn) {
            sleep(left.min(LOOK_AGAIN)).await;
        }
    }

    /// How long it is until this turn, if there still is a reason to wait for it.
    fn left(&self, turn: Instant) -> Option<Duration> {
        let state = self.state();
        let left = turn.max(state.held).checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero() && !state.gap.is_zero())
    }

    /// When the turn of the next one is, if it has to wait.
    fn next(&self) -> Option<Instant> {
        let mut state = self.state();
        if state.gap.is_zero() {
            return None;
        }
        let turn = state.next.max(Instant::now());
        state.next = turn + state.gap;
        Some(turn)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_can_wait_leaves_room_while_requests_are_refused() {
        let (throttle, start) = (Throttle::new(), Instant::now());
        for _ in 0..100 {
            throttle.turn().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "nothing is refused");
        // A limit of five in a second.
        let mut refused = 0;
        let (mut tokens, mut filled) = (0.0_f64, start);
        for _ in 0..200 {
            throttle.turn().await;
            tokens = (tokens + filled.elapsed().as_secs_f64() * 5.0).min(5.0);
            filled = Instant::now();
            if tokens >= 1.0 {
                tokens -= 1.0;
                throttle.answered();
            } else {
                refused += 1;
                throttle.refused(Duration::from_secs(1));
            }
        }
        assert!(refused <= 40, "{refused} of 200 were refused");
        sleep(CALM).await;
        for _ in 0..100 {
            throttle.answered();
        }
        let start = Instant::now();
        throttle.turn().await;
        throttle.turn().await;
        assert!(start.elapsed() <= LONGEST_GAP, "it is over");
    }
    /// A load balancer may have refused all of it.
    #[tokio::test(start_paused = true)]
    async fn what_was_refused_while_consul_was_away_is_forgotten() {
        let throttle = Throttle::new();
        for _ in 0..10 {
            throttle.refused(Duration::from_secs(60));
            sleep(ONE_REFUSAL).await;
        }
        throttle.forget();
        let start = Instant::now();
        for _ in 0..10 {
            throttle.turn().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
