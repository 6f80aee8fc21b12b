//! Names that no list has, asked for directly: the lists of all services and nodes are read within a budget
//! and may be behind, while a name that exists has to be there at once.
//!
//! What junk can cost is bounded twice: a name that was found absent is not asked for again for a while, and
//! all of them together not more often than the operator allows. Beyond that the lists decide.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

use super::slot::{LOAD_WAIT, Pending, millis};
use super::{Interest, Miss, Patience, Realm, Scope, ServiceKey, Slot};

/// For this part of a second they may come at once.
const BURST: f64 = 0.1;

/// So many of those for whom no list decides wait at a time until they may ask, and look so often whether they do.
const WAITING: usize = 64;
const LATER: Duration = Duration::from_millis(50);

/// The longest label of a name (RFC 1035, section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// With fewer names nobody looks for those that have had their time.
const FEW: usize = 256;

/// What a list does not have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sought {
    /// A service of that name, in lower case.
    Service(String),
    /// A node of that name, in lower case.
    Node(String),
    /// Something in the mesh, of a name that no service has.
    Mesh(ServiceKey),
}

impl Sought {
    /// Is there a list that does where the source cannot say? Of the mesh there is none, and that of what a peer
    /// exports is seldom read.
    fn is_listed(&self, realm: &Realm) -> bool {
        !matches!(self, Self::Mesh(_)) && !realm.is_of_peer()
    }

    /// Could anything have that name? What search domains and typing errors make is not asked for.
    fn can_exist(&self) -> bool {
        let fits = |label: &str| {
            (1..=LONGEST_LABEL).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        match self {
            Self::Service(name) => fits(name),
            Self::Mesh(key) => fits(key.name()),
            Self::Node(name) => name.split('.').all(fits),
        }
    }
}

/// Where it is published that there is nothing of a name.
pub type Absence = Slot<()>;

impl Absence {
    /// The source has nothing of that name, which is remembered for `ttl`.
    pub fn absent(&self, ttl: Duration) {
        self.publish_for((), millis(ttl));
    }

    /// The name exists, and is in its list from now on: whoever waits is to look there.
    pub fn found(&self) {
        self.fail_for(0);
    }
}

/// The names of one layer that were asked for beyond its lists.
#[derive(Debug)]
pub(super) struct Unlisted {
    state: Mutex<State>,
    refused: AtomicU64,
    waiting: Arc<Semaphore>,
}

#[derive(Debug)]
struct State {
    known: HashMap<(Scope, Sought), Arc<Absence>>,
    /// So many names are looked through for those that have had their time.
    look_through_at: usize,
    /// Questions to the source in a second; none before it has said how many.
    rate: u32,
    tokens: f64,
    /// Milliseconds on the catalog's clock.
    filled: u64,
}

impl Default for Unlisted {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                known: HashMap::new(),
                look_through_at: FEW,
                rate: 0,
                tokens: 1.0,
                filled: 0,
            }),
            refused: AtomicU64::new(0),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }
}

impl Unlisted {
    /// From now on the source is asked so often in a second at most; 0 is never.
    pub(super) fn set_rate(&self, rate: u32) {
        self.state().rate = rate;
    }

    /// How often the lists had to do since this was last asked, because too many names were asked for.
    pub(super) fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    /// May the source be asked for something that it may well not have? What it may not is counted.
    fn may_ask(&self, now: u64) -> bool {
        let may = self.state().take(now);
        if !may {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// What becomes of a question that may not be asked now, and that no list decides: a few wait for their turn.
    pub(super) fn later(&self, now: u64) -> Result<(), Miss> {
        let mut state = self.state();
        if state.take(now) {
            return Ok(());
        }
        let place = Arc::clone(&self.waiting).try_acquire_owned();
        let Some(place) = place.ok().filter(|_| state.rate > 0) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Miss::Unready);
        };
        let turn = async move {
            sleep(LATER).await;
            drop(place);
        };
        Err(Miss::Loading(Pending::new(turn, LOAD_WAIT)))
    }

    /// Is there really nothing of that name, which a list of `realm` does not have? The source is asked by
    /// way of `to`, if it has to be.
    pub(super) fn look(
        &self,
        realm: &Arc<Realm>,
        sought: Sought,
        patience: Patience,
        to: Option<&mpsc::Sender<Interest>>,
    ) -> Miss {
        if !sought.can_exist() {
            return Miss::Absent;
        }
        // Who has waited enough takes what the list says.
        let is_listed = sought.is_listed(realm);
        if patience == Patience::None && is_listed {
            return Miss::Absent;
        }
        let absence = match self.absence(realm, &sought) {
            Ok(absence) => absence,
            Err(_) if is_listed => return Miss::Absent,
            Err(miss) => return miss,
        };
        let interest = || Interest::Unlisted {
            realm: Arc::clone(realm),
            sought,
            absence: Arc::clone(&absence),
        };
        match absence.look(patience, |want| want.leave(to, interest)) {
            Err(Miss::Loading(pending)) if is_listed => Miss::Loading(pending.or_else_without()),
            Err(miss) if !is_listed => miss,
            // It is absent; or the source cannot say, and the list will do.
            _ => Miss::Absent,
        }
    }

    /// Where the absence of a name is published; or what becomes of who must not ask the source for it now.
    fn absence(&self, realm: &Realm, sought: &Sought) -> Result<Arc<Absence>, Miss> {
        let now = realm.versions().millis();
        // The rate bounds how many there are, too: none but what is listed is entered without a token.
        let id = (realm.scope().clone(), sought.clone());
        let known = self.state().known.get(&id).cloned();
        if let Some(absence) = known.as_ref().filter(|absence| absence.is_in_hand(now)) {
            return Ok(Arc::clone(absence));
        }
        // A service that is listed was not made up.
        let is_free = matches!(sought, Sought::Mesh(key) if realm.lists(key.name()));
        match sought.is_listed(realm) {
            true if !self.may_ask(now) => return Err(Miss::Absent),
            false if !is_free => self.later(now)?,
            _ => {}
        }
        let mut state = self.state();
        if state.known.len() >= state.look_through_at {
            state.known.retain(|_, absence| absence.is_in_hand(now));
            state.look_through_at = FEW.max(2 * state.known.len());
        }
        let absence = state.known.entry(id);
        let absence = absence.or_insert_with(|| Arc::new(Slot::new(realm.versions())));
        Ok(Arc::clone(absence))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a token, if there is one.
    fn take(&mut self, now: u64) -> bool {
        let rate = f64::from(self.rate);
        let gained = now.saturating_sub(self.filled) as f64 / 1000.0 * rate;
        self.filled = now;
        self.tokens = (self.tokens + gained).min((rate * BURST).max(1.0));
        let has_one = self.rate > 0 && self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Versions;

    fn service(name: &str) -> Sought {
        Sought::Service(name.to_owned())
    }

    fn unlisted() -> Unlisted {
        let unlisted = Unlisted::default();
        unlisted.set_rate(45);
        unlisted
    }

    fn realm(datacenter: Option<&str>) -> Arc<Realm> {
        let scope = Scope {
            datacenter: datacenter.map(str::to_owned),
            ..Scope::default()
        };
        Arc::new(Realm::new(scope, "", &Arc::new(Versions::new())))
    }

    #[test]
    fn what_no_name_can_be_is_not_asked_for() {
        let long = "a".repeat(64);
        for (sought, can_exist) in [
            (service("web"), true),
            (service("web-2_b"), true),
            (service(&long), false),
            (service(&long[1..]), true),
            (service(""), false),
            (service("a.b"), false),
            (service("a b"), false),
            (service("b\u{fc}cher"), false),
            (Sought::Node("n1.rack.example".to_owned()), true),
            (Sought::Node("n1..example".to_owned()), false),
            (Sought::Node(format!("n1.{long}")), false),
        ] {
            assert_eq!(sought.can_exist(), can_exist, "{sought:?}");
        }
    }

    #[test]
    fn an_absent_name_is_asked_for_once_in_its_time() {
        let (unlisted, local, dc2) = (unlisted(), realm(None), realm(Some("dc2")));
        let (to, mut interests) = mpsc::channel(8);
        let look = |realm, patience| unlisted.look(realm, service("web"), patience, Some(&to));
        for _ in 0..3 {
            let miss = look(&local, Patience::Some);
            assert!(matches!(miss, Miss::Loading(_)), "{miss:?}");
            let miss = look(&local, Patience::None);
            assert!(matches!(miss, Miss::Absent), "it has waited: {miss:?}");
        }
        let Ok(Interest::Unlisted { absence, .. }) = interests.try_recv() else {
            panic!("nobody is asked");
        };
        absence.absent(Duration::from_secs(60));
        for _ in 0..1000 {
            let miss = look(&local, Patience::Some);
            assert!(matches!(miss, Miss::Absent), "{miss:?}");
        }
        assert!(interests.try_recv().is_err(), "it is asked for again");
        assert_eq!(unlisted.take_refused(), 0);
        // In another datacenter it is another name.
        unlisted.state().tokens = 1.0;
        let miss = look(&dc2, Patience::Some);
        assert!(matches!(miss, Miss::Loading(_)), "{miss:?}");
    }

    /// However many names are made up, they cost the source what the operator allows, and no more memory.
    #[test]
    fn junk_is_bounded() {
        let unlisted = unlisted();
        let mut state = unlisted.state();
        let mut taken = 0;
        for millis in 1000..31_000 {
            taken += (0..10).filter(|_| state.take(millis)).count();
        }
        assert!((1340..=1360).contains(&taken), "{taken}");
        state.rate = 0;
        assert!(!state.take(1_000_000));
        drop(state);

        unlisted.set_rate(u32::MAX);
        let realm = realm(None);
        for number in 0..100_000 {
            let sought = service(&format!("junk{number}"));
            if let Ok(absence) = unlisted.absence(&realm, &sought) {
                absence.absent(Duration::ZERO);
            }
        }
        assert!(unlisted.state().known.len() <= 2 * FEW);
    }
}
