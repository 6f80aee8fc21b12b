//! A place for one published value, with its version and its age, and a way to wait for it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::aging::Aging;
use super::{Found, Interest, Miss, Patience, Versions};

/// What was confirmed is served without a word to its source for so many milliseconds.
const FRESH: u64 = 1000;

/// Up to this age, in milliseconds, it is served while the source is asked; beyond it the answer
/// waits for that.
const SERVED_UNCONFIRMED: u64 = 2500;

/// After a refresh that failed, the old value is served without waiting for so many milliseconds.
const EXCUSED: u64 = 1000;

/// Where there is no old value, nothing is said for so many at first, and at most; it doubles with every
/// failure.
const FIRST_REFUSAL: u64 = 500;
const LONGEST_REFUSAL: u64 = 2000;

/// [`Slot::fresh_until`] while the source tells of every change by itself.
const WATCHED: u64 = u64::MAX;

/// How long a question may wait for something to be loaded. Resolvers ask again after one to five
/// seconds.
pub(super) const LOAD_WAIT: Duration = Duration::from_secs(2);

/// How long it may wait where there is something old to be had instead.
const CONFIRM_WAIT: Duration = Duration::from_millis(250);

/// Something on its way, or that is fetched as soon as somebody waits. Dropped unwaited, it costs
/// nothing. Whoever has waited looks again: that it has come does not say what it is.
pub struct Pending {
    coming: Pin<Box<dyn Future<Output = ()> + Send>>,
    at_most: Duration,
}

impl Pending {
    /// What is there once `coming` has ended, and is worth waiting for `at_most` so long.
    pub fn new(coming: impl Future<Output = ()> + Send + 'static, at_most: Duration) -> Self {
        Self {
            coming: Box::pin(coming),
            at_most,
        }
    }

    /// All of these, side by side.
    pub fn all(mut these: Vec<Self>) -> Self {
        if these.len() == 1
            && let Some(only) = these.pop()
        {
            return only;
        }
        let at_most = these.iter().map(|pending| pending.at_most).max();
        let all = poll_fn(move |context| {
            these.retain_mut(|pending| pending.coming.as_mut().poll(context).is_pending());
            if these.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        Self::new(all, at_most.unwrap_or_default())
    }

    /// The same, where there is something to be had without it.
    #[must_use]
    pub(super) fn or_else_without(self) -> Self {
        Self {
            at_most: self.at_most.min(CONFIRM_WAIT),
            ..self
        }
    }

    /// Waits until it has come, for as long as it is worth `since` somebody waits. False if it has
    /// not.
    pub async fn wait(self, since: Instant) -> bool {
        let left = self.at_most.saturating_sub(since.elapsed());
        tokio::time::timeout(left, self.coming).await.is_ok()
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending(at most {:?})", self.at_most)
    }
}

/// The one way to leave an interest with a source, and to wait until it is met.
#[derive(Debug)]
pub(super) struct Want {
    left: AtomicBool,
    /// How often it was met.
    gate: watch::Sender<u64>,
}

impl Want {
    pub(super) fn new() -> Self {
        Self {
            left: AtomicBool::new(false),
            gate: watch::Sender::new(0),
        }
    }

    /// Leaves the interest unless it is left already: `Loading`, or `Unready` if the source has no
    /// room. Who looked for the thing before must look again after this, or it may have come in
    /// between.
    pub(super) fn leave(
        &self,
        to: Option<&mpsc::Sender<Interest>>,
        interest: impl FnOnce() -> Interest,
    ) -> Miss {
        let Some(to) = to else {
            return Miss::Unready;
        };
        let mut gate = self.gate.subscribe();
        if !self.left.swap(true, Ordering::AcqRel) && to.try_send(interest()).is_err() {
            // The next question tries again.
            self.left.store(false, Ordering::Release);
            return Miss::Unready;
        }
        let coming = async move {
            // If it never will be met, whoever waits finds that out by looking again.
            let _ = gate.changed().await;
        };
        Miss::Loading(Pending::new(coming, LOAD_WAIT))
    }

    /// What was wanted has come, or will not: whoever waits is to look again.
    pub(super) fn met(&self) {
        self.left.store(false, Ordering::Release);
        self.gate.send_modify(|times| *times += 1);
    }

    pub(super) fn was_met(&self) -> bool {
        *self.gate.borrow() > 0
    }

    /// Has the source yet to meet it?
    pub(super) fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }
}

/// Where one thing is published: a service, or the result of a prepared query.
#[derive(Debug)]
pub struct Slot<T> {
    value: ArcSwapOption<T>,
    version: AtomicU64,
    /// Seconds on the catalog's clock at which it was last asked for.
    asked: AtomicU64,
    /// Until when, in milliseconds on that clock, it is served without a word to its source.
    fresh_until: AtomicU64,
    /// Until when it is served while the source is asked.
    served_until: AtomicU64,
    /// How often in a row its source could not say.
    failures: AtomicU32,
    aging: Aging,
    want: Want,
    versions: Arc<Versions>,
}

impl<T> Slot<T> {
    pub(super) fn new(versions: &Arc<Versions>) -> Self {
        Self {
            value: ArcSwapOption::empty(),
            version: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            fresh_until: AtomicU64::new(0),
            served_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            aging: Aging::default(),
            want: Want::new(),
            versions: Arc::clone(versions),
        }
    }

    /// What can be said of it now, with its version. `leave` is called if its source has to be
    /// asked.
    pub(super) fn look(
        &self,
        patience: Patience,
        leave: impl FnOnce(&Want) -> Miss,
    ) -> Found<(u64, Arc<T>)> {
        let now = self.versions.millis();
        self.touch(now / 1000);
        let fresh_until = self.fresh_until();
        let is_fresh = now < fresh_until;
        let Some(known) = self.get() else {
            // It could not be had a moment ago. Where it is watched, its first value is on its way.
            if is_fresh && fresh_until != WATCHED {
                return Err(self.not_yet(patience, fresh_until - now));
            }
            let miss = leave(&self.want);
            return self.get().ok_or(miss);
        };
        if is_fresh || patience == Patience::None {
            return Ok(known);
        }
        match leave(&self.want) {
            Miss::Loading(pending) if now >= self.served_until.load(Ordering::Acquire) => {
                Err(Miss::Loading(pending.or_else_without()))
            }
            _ => Ok(self.get().unwrap_or(known)),
        }
    }

    /// It could not be had. A failure for once may be over in a moment, for which it is worth to wait.
    fn not_yet(&self, patience: Patience, millis: u64) -> Miss {
        if patience == Patience::None || self.failures.load(Ordering::Relaxed) != 1 {
            return Miss::Unready;
        }
        let moment = Duration::from_millis(millis);
        Miss::Loading(Pending::new(async move { sleep(moment).await }, LOAD_WAIT))
    }

    /// What is published, if anything is yet, with its version. The version may be older than the
    /// value, never newer: who remembers it notices a change too often rather than never.
    pub fn get(&self) -> Option<(u64, Arc<T>)> {
        let version = self.version();
        self.value.load_full().map(|value| (version, value))
    }

    /// The version of what is published; moves whenever that changes, and when it begins to age.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Publishes a value. False, and nothing moves, if it is equal to what is published.
    pub(super) fn publish(&self, value: T) -> bool
    where
        T: PartialEq,
    {
        let changed = self.value.load().as_deref() != Some(&value);
        if changed {
            self.restore(value);
        }
        self.confirm();
        changed
    }

    /// Publishes what nobody keeps answers of, good for `fresh_for` milliseconds.
    pub(super) fn publish_for(&self, value: T, fresh_for: u64)
    where
        T: PartialEq,
    {
        if self.value.load().as_deref() != Some(&value) {
            self.restore(value);
        }
        self.answered();
        self.fail_for(fresh_for);
    }

    /// It could not be had: for so many milliseconds what was known, or that nothing was, will do.
    pub(super) fn fail_for(&self, fresh_for: u64) {
        self.serve(fresh_for, fresh_for);
        self.want.met();
    }

    /// As what another slot has, until the source is asked.
    pub(super) fn begin_with(&self, other: Option<Arc<T>>) {
        self.value.store(other);
    }

    /// Puts back what was known in an earlier life, not confirmed by anybody since.
    pub(super) fn restore(&self, value: T) {
        self.value.store(Some(Arc::new(value)));
        self.new_version();
    }

    /// Publishes what was read once: it is served at once, and the source is asked to follow it.
    pub(super) fn offer(&self, value: T) {
        self.restore(value);
        self.serve(0, SERVED_UNCONFIRMED);
        self.want.met();
    }

    /// The source says that the value still holds.
    pub fn confirm(&self) {
        self.answered();
        self.serve(FRESH, SERVED_UNCONFIRMED);
        self.want.met();
    }

    /// There is a usable answer about it.
    fn answered(&self) {
        self.failures.store(0, Ordering::Relaxed);
        if self.aging.ended() {
            self.new_version();
        }
    }

    /// The source had no usable answer about it. What was known is served on, and is marked as old before long:
    /// the rest of what the source says may be as current as ever.
    pub fn fell_silent(&self) {
        if self.aging.failed(self.versions.millis()) {
            self.new_version();
        }
    }

    /// For how many milliseconds there has been no usable answer about it, if that is more than a moment.
    pub(super) fn stale_millis(&self) -> Option<u64> {
        self.aging.millis(self.versions.millis())
    }

    /// The source could not say, and is not asked again for a while, `at_least` so long: what was known is
    /// served meanwhile, and where nothing was, that is said. However many ask, they cost it no more.
    pub fn excuse(&self, at_least: Duration) {
        self.fell_silent();
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(8);
        let pause = match self.value.load().is_some() {
            true => EXCUSED,
            false => (FIRST_REFUSAL << failures).min(LONGEST_REFUSAL),
        };
        self.fail_for(pause.max(millis(at_least)));
    }

    /// From now on for so many milliseconds, if it is not for longer already.
    fn serve(&self, fresh_for: u64, served_for: u64) {
        let now = self.versions.millis();
        self.fresh_until
            .fetch_max(now.saturating_add(fresh_for), Ordering::AcqRel);
        self.served_until
            .fetch_max(now.saturating_add(served_for), Ordering::AcqRel);
    }

    /// The source will tell of every change by itself, or no longer does: then what was made of
    /// the value must be looked at again, since from now on it ages.
    pub fn set_watched(&self, watched: bool) {
        if watched {
            self.fresh_until.store(WATCHED, Ordering::Release);
            self.served_until.store(WATCHED, Ordering::Release);
        } else if self.is_watched() {
            let now = self.versions.millis();
            self.fresh_until.store(now, Ordering::Release);
            self.served_until.store(now, Ordering::Release);
            self.new_version();
        }
    }

    /// Does the source tell of every change by itself?
    pub fn is_watched(&self) -> bool {
        self.fresh_until() == WATCHED
    }

    /// Until when it is served without a word to its source, in milliseconds on the catalog's clock.
    pub(super) fn fresh_until(&self) -> u64 {
        self.fresh_until.load(Ordering::Acquire)
    }

    /// Is its source asked just now, or need it not be?
    pub(super) fn is_in_hand(&self, now: u64) -> bool {
        self.want.is_left() || now < self.fresh_until()
    }

    /// What was made of the value is to be looked at again.
    fn new_version(&self) {
        self.version.store(self.versions.next(), Ordering::Release);
    }

    /// Makes every answer that depends on this slot out of date, and sends those who wait for it
    /// back to the catalog: the service is no longer here.
    pub(super) fn retire(&self) {
        self.new_version();
        self.want.met();
    }

    /// Notes that it was asked for, at `now` seconds.
    pub(super) fn touch(&self, now: u64) {
        // Only a later second is written: questions in the same second share the cache line.
        if self.asked.load(Ordering::Relaxed) < now {
            self.asked.store(now, Ordering::Relaxed);
        }
    }

    /// When it was last asked for, in seconds on the catalog's clock.
    pub fn last_asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// On the catalog's clock.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Service;

    fn slot() -> Slot<Service> {
        Slot::new(&Arc::new(Versions::new()))
    }

    fn waits(want: &Want) -> Miss {
        let (to, mut interests) = mpsc::channel(1);
        let miss = want.leave(Some(&to), || {
            let versions = Arc::new(Versions::new());
            Interest::Reverse(Arc::new(crate::catalog::Realm::new(
                crate::catalog::Scope::default(),
                "",
                &versions,
            )))
        });
        interests.close();
        miss
    }

    fn pending(want: &Want) -> Pending {
        match waits(want) {
            Miss::Loading(pending) => pending,
            other => panic!("nothing to wait for: {other:?}"),
        }
    }

    #[test]
    fn an_equal_service_moves_no_version() {
        let slot = slot();
        assert!(slot.publish(Service::new(Vec::new())));
        let version = slot.version();
        assert!(!slot.publish(Service::new(Vec::new())));
        assert_eq!(slot.version(), version);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_is_released_by_the_next_value() {
        let slot = slot();
        let first = pending(&slot.want);
        slot.publish(Service::new(Vec::new()));
        assert!(first.wait(Instant::now()).await);
        assert!(!pending(&slot.want).wait(Instant::now()).await);
        let again = pending(&slot.want);
        slot.confirm();
        assert!(again.wait(Instant::now()).await);
    }

    #[test]
    fn a_value_ages_unless_it_is_watched_or_excused() {
        let slot = slot();
        let has_to_wait = |patience| slot.look(patience, waits).is_err();
        slot.restore(Service::new(Vec::new()));
        assert!(has_to_wait(Patience::Some), "never confirmed");
        assert!(!has_to_wait(Patience::None), "what is old will do");
        slot.excuse(Duration::ZERO);
        assert!(!has_to_wait(Patience::Some), "excused");
        slot.set_watched(true);
        let version = slot.version();
        slot.set_watched(false);
        assert!(has_to_wait(Patience::Some), "no longer watched");
        assert_ne!(slot.version(), version, "it ages from now on");
        slot.confirm();
        assert!(!has_to_wait(Patience::Some), "confirmed");
    }

    /// Or every question for it would be a request, over and over while it waits.
    #[test]
    fn what_could_not_be_had_is_not_asked_for_again_at_once() {
        let slot = slot();
        let said = slot.look(Patience::Some, waits);
        assert!(matches!(said, Err(Miss::Loading(_))), "{said:?}");
        let mut pauses = Vec::new();
        for _ in 0..5 {
            slot.fresh_until.store(0, Ordering::Relaxed);
            slot.excuse(Duration::ZERO);
            let said = slot.look(Patience::None, waits);
            assert!(matches!(said, Err(Miss::Unready)), "{said:?}");
            // Who may wait does so after the first failure, without asking before the pause is over.
            let said = slot.look(Patience::Some, |_| panic!("it is asked again"));
            let waits = matches!(said, Err(Miss::Loading(_)));
            assert_eq!(waits, pauses.is_empty(), "{said:?}");
            pauses.push(slot.fresh_until() - slot.versions.millis());
        }
        let expected = [500, 1000, 2000, 2000, 2000];
        for (pause, most) in pauses.iter().zip(expected) {
            assert!((most - 100..=most).contains(pause), "{pauses:?}");
        }
        slot.fresh_until.store(0, Ordering::Relaxed);
        slot.excuse(Duration::from_secs(30));
        assert!(slot.fresh_until() - slot.versions.millis() > 29_000);
        // Whatever was asked for, an answer ends it.
        slot.publish(Service::new(Vec::new()));
        assert!(slot.look(Patience::Some, waits).is_ok());
        assert_eq!(slot.failures.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_asks_while_a_new_watch_reads_waits_as_well() {
        let slot = slot();
        slot.set_watched(true);
        for patience in [Patience::Some, Patience::None] {
            let said = slot.look(patience, waits);
            assert!(matches!(said, Err(Miss::Loading(_))), "{said:?}");
        }
        slot.publish(Service::new(Vec::new()));
        assert!(slot.look(Patience::Some, waits).is_ok());
    }

    /// Threads that leave, meet and look again: none of them waits for what has come already.
    #[test]
    fn no_wake_up_is_lost() {
        const ROUNDS: u64 = 2000;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_time()
            .build()
            .expect("a runtime");
        let slot = Arc::new(Slot::<u64>::new(&Arc::new(Versions::new())));
        let (to, mut interests) = mpsc::channel(4);
        let source = Arc::clone(&slot);
        let meeting = runtime.spawn(async move {
            while interests.recv().await.is_some() {
                let next = source.get().map_or(0, |(_, value)| *value) + 1;
                // Old at once, so that every look has to wait for the next.
                source.value.store(Some(Arc::new(next)));
                source.want.met();
            }
        });
        let asking: Vec<_> = (0..3)
            .map(|_| {
                let (slot, to) = (Arc::clone(&slot), to.clone());
                runtime.spawn(async move {
                    let realm = Arc::new(crate::catalog::Realm::new(
                        crate::catalog::Scope::default(),
                        "",
                        &slot.versions,
                    ));
                    let mut seen = 0;
                    while seen < ROUNDS {
                        let looked = slot.look(Patience::Some, |want| {
                            want.leave(Some(&to), || Interest::Reverse(Arc::clone(&realm)))
                        });
                        match looked {
                            Ok((_, value)) => seen = *value,
                            Err(Miss::Loading(pending)) => {
                                let pending = Pending {
                                    at_most: Duration::from_secs(60),
                                    ..pending
                                };
                                assert!(pending.wait(Instant::now()).await, "{seen}");
                                seen = slot.get().map_or(0, |(_, value)| *value);
                            }
                            // There was no room; the next look tries again.
                            Err(_) => tokio::task::yield_now().await,
                        }
                    }
                })
            })
            .collect();
        drop(to);
        runtime.block_on(async {
            for asking in asking {
                asking.await.expect("it waits for nothing that has come");
            }
            meeting.await.expect("it meets what is left");
        });
    }
}
