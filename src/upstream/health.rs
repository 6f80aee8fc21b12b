//! What we remember of an upstream's behaviour, and the order in which upstreams are asked. Pure:
//! time and chance are arguments.

use std::time::{Duration, Instant};

use super::Strategy;

/// So many failures in a row and an upstream is asked last.
const LIMIT: u32 = 3;
/// For how long at first; it doubles with every probe that fails.
const FIRST_REST: Duration = Duration::from_secs(1);
/// For how long at most: an upstream that came back is in use again no later than this.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// The memory of one upstream.
///
/// It rests after `LIMIT` failures in a row: it is asked only when all others failed. When the
/// rest is over, one question goes to it at its old place again, as a probe.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    failures: u32,
    resting: Option<Rest>,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    length: Duration,
    until: Instant,
    /// When the probe went out that has not come back.
    probe: Option<Instant>,
}

impl Health {
    /// A question is about to go to it. If its rest is over, the next one starts now, so that one
    /// question is the probe and not every question until the probe is back.
    pub(super) fn asked(&mut self, now: Instant) {
        if let Some(rest) = &mut self.resting
            && rest.until <= now
        {
            rest.until = now + rest.length;
            rest.probe = Some(now);
        }
    }

    /// It gave a good answer.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It did not, on a question that was sent at `sent`.
    pub(super) fn failed(&mut self, sent: Instant, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        match &mut self.resting {
            None if self.failures < LIMIT => {}
            None => {
                self.resting = Some(Rest {
                    length: FIRST_REST,
                    until: now + FIRST_REST,
                    probe: None,
                });
            }
            // Only a probe lengthens the rest: many questions that were under way together when it
            // died say no more than one of them.
            Some(rest) if rest.probe.is_some_and(|probe| sent >= probe) => {
                rest.length = (rest.length * 2).min(LONGEST_REST);
                rest.until = now + rest.length;
                rest.probe = None;
            }
            Some(_) => {}
        }
    }

    /// Has it failed so often that a question to it is but a probe?
    pub(super) fn rests(&self) -> bool {
        self.resting.is_some()
    }

    /// Is it asked in its turn?
    pub(super) fn is_well(&self, now: Instant) -> bool {
        self.resting.is_none_or(|rest| rest.until <= now)
    }
}

/// For how long after its last answer an upstream that refuses connections is taken to be starting anew.
const RESTART: Duration = Duration::from_secs(3);

/// An answer of an upstream's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    /// When its question was sent.
    pub(super) sent: Instant,
    /// When it came.
    pub(super) at: Instant,
}

/// A question that was refused by all who could be asked, as by an upstream that starts anew.
#[derive(Debug)]
pub(super) struct Patience {
    /// When it was refused first, or last found that it alone is refused.
    refused: Instant,
    /// Others were answered meanwhile.
    is_alone: bool,
}

impl Patience {
    pub(super) fn new(refused: Instant) -> Self {
        Self {
            refused,
            is_alone: false,
        }
    }

    /// Is there a point in asking again, when it was asked then and refused now? Yes, if one of them has answered but
    /// a moment ago. No, if questions of others are sent and answered between this one's refusals: who answers others
    /// is there, and means this one. Once may be chance: one that ends closes its doors first and answers those inside.
    pub(super) fn lasts(&mut self, last: Option<Answered>, asked: Instant, now: Instant) -> bool {
        let Some(last) = last else {
            return false;
        };
        if last.sent > self.refused && last.at < asked {
            if self.is_alone {
                return false;
            }
            (self.is_alone, self.refused) = (true, now);
        }
        now.saturating_duration_since(last.at) < RESTART
    }
}

/// In which order to ask: first those that are well, as the strategy says, then those that rest,
/// the one whose rest ends first in front. Every upstream is in it exactly once.
///
/// `chance` is any number; `Strategy::Random` takes the order from it.
pub(super) fn order(all: &[Health], strategy: Strategy, now: Instant, chance: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    if strategy == Strategy::Random {
        shuffle(&mut order, chance);
    }
    order.sort_by_key(|&index| {
        let rest = all.get(index).and_then(|health| health.resting);
        rest.filter(|rest| rest.until > now).map(|rest| rest.until)
    });
    order
}

/// Fisher and Yates, with a xorshift generator.
fn shuffle(items: &mut [usize], chance: u64) {
    let mut state = chance | 1;
    for last in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let among = u64::try_from(last).map_or(u64::MAX, |last| last.saturating_add(1));
        let pick = usize::try_from((state >> 11) % among).unwrap_or(last);
        items.swap(last, pick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fail(health: &mut Health, times: u32, now: Instant) {
        for _ in 0..times {
            health.failed(now, now);
        }
    }

    #[test]
    fn rests_after_three_failures_in_a_row() {
        let now = Instant::now();
        let mut health = Health::default();
        fail(&mut health, 2, now);
        health.succeeded();
        fail(&mut health, 2, now);
        assert!(health.is_well(now));
        fail(&mut health, 1, now);
        assert!(!health.is_well(now));
        assert!(health.is_well(now + SECOND));
        health.succeeded();
        assert!(health.is_well(now));
    }

    #[test]
    fn one_probe_at_a_time_and_longer_rests() {
        let start = Instant::now();
        let mut health = Health::default();
        fail(&mut health, 50, start);
        // What was under way when it died does not lengthen the rest.
        assert!(health.is_well(start + SECOND));
        let mut now = start + SECOND;
        let mut rests = Vec::new();
        for _ in 0..7 {
            assert!(health.is_well(now));
            health.asked(now);
            assert!(!health.is_well(now), "the probe is under way");
            let sent = now;
            now += Duration::from_millis(10);
            health.failed(sent, now);
            let rest = (0..100).find(|&s| health.is_well(now + s * SECOND));
            rests.push(rest.unwrap_or(u32::MAX));
            now += rests.last().copied().unwrap_or(0) * SECOND;
        }
        assert_eq!(rests, [2, 4, 8, 16, 30, 30, 30]);
        health.asked(now);
        health.succeeded();
        assert!(health.is_well(now));
    }

    #[test]
    fn the_sick_are_asked_last_and_none_is_forgotten() {
        let now = Instant::now();
        let mut all = vec![Health::default(); 4];
        assert_eq!(order(&all, Strategy::Sequential, now, 7), [0, 1, 2, 3]);
        fail(&mut all[0], 3, now + SECOND);
        fail(&mut all[2], 3, now);
        assert_eq!(order(&all, Strategy::Sequential, now, 7), [1, 3, 2, 0]);
        let later = now + SECOND;
        assert_eq!(order(&all, Strategy::Sequential, later, 7), [1, 2, 3, 0]);
        for chance in 0..100 {
            let order = order(&all, Strategy::Random, now, chance);
            assert_eq!(order[2..], [2, 0]);
        }
    }

    #[test]
    fn random_starts_everywhere() {
        let all = vec![Health::default(); 3];
        let mut first = [0; 3];
        for chance in 0..3000_u64 {
            let chance = chance.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            first[order(&all, Strategy::Random, Instant::now(), chance)[0]] += 1;
        }
        assert!(first.iter().all(|&n| n > 800), "{first:?}");
    }

    #[test]
    fn who_starts_anew_is_waited_for_and_who_refuses_one_alone_is_not() {
        let start = Instant::now();
        let at = |tenths: u32| start + SECOND / 10 * tenths;
        let answered = |sent, came| {
            let (sent, at) = (at(sent), at(came));
            Some(Answered { sent, at })
        };
        // The last answer of all, when this was asked and when refused, and whether it is asked again.
        type Step = (Option<Answered>, u32, u32, bool);
        let cases: [(&str, &[Step]); 6] = [
            ("nobody was ever there", &[(None, 10, 10, false)]),
            (
                "it starts within its time",
                &[
                    (answered(1, 2), 10, 10, true),
                    (answered(1, 2), 15, 31, true),
                ],
            ),
            (
                "it does not",
                &[
                    (answered(1, 2), 10, 10, true),
                    (answered(1, 2), 32, 32, false),
                ],
            ),
            (
                "an answer to what was sent before is noticed late",
                &[
                    (answered(1, 2), 10, 10, true),
                    (answered(9, 11), 15, 15, true),
                    (answered(9, 11), 20, 20, true),
                ],
            ),
            (
                "it answers others again and again",
                &[
                    (answered(1, 2), 10, 10, true),
                    (answered(11, 12), 15, 15, true),
                    (answered(16, 17), 20, 20, false),
                ],
            ),
            (
                "it answered others once, while it closed",
                &[
                    (answered(1, 2), 10, 10, true),
                    (answered(11, 12), 15, 15, true),
                    (answered(11, 12), 20, 20, true),
                ],
            ),
        ];
        for (what, steps) in cases {
            let mut patience = None;
            for (last, asked, now, expected) in steps {
                let patience = patience.get_or_insert_with(|| Patience::new(at(*now)));
                let lasts = patience.lasts(*last, at(*asked), at(*now));
                assert_eq!(lasts, *expected, "{what}: at {now}");
            }
        }
    }
}
