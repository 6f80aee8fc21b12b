//! What an answer was made from, and whether that still stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::slot::latest_version;
use super::{Slot, millis};

/// Moves when something changes that any answer may depend on: a source comes or goes, a source
/// that publishes everything has new data, datacenters change, the operator's settings change.
static EPOCH: AtomicU64 = AtomicU64::new(1);

/// Makes every [`Basis`] of before out of date. For what changes seldom; call it after the change.
pub fn new_epoch() {
    EPOCH.fetch_add(1, Ordering::AcqRel);
}

/// What an answer was made from: it holds until some of that changes or its time is over.
///
/// Nobody has to tell the answers that are kept about a change: whoever keeps one looks here first.
/// That costs an atomic load for the epoch and one for each service.
#[derive(Debug, Clone)]
pub struct Basis {
    epoch: u64,
    /// The latest of all versions at that time, if more was read than services.
    everything: Option<u64>,
    /// The services that were read, with the versions that were.
    services: Vec<(Arc<Slot>, u64)>,
    /// Milliseconds on the catalog's clock from which on it does not hold.
    until: u64,
}

impl Basis {
    /// The state of things now. Take it before anything is read: what changes in between then
    /// makes the answer look older than it is, never newer.
    pub fn begin() -> Self {
        Self {
            epoch: EPOCH.load(Ordering::Acquire),
            everything: None,
            services: Vec::new(),
            until: u64::MAX,
        }
    }

    /// A basis that never holds: the answer is for this one time.
    pub fn none() -> Self {
        Self {
            until: 0,
            ..Self::begin()
        }
    }

    /// Does it hold at `now` (milliseconds on the catalog's clock)?
    pub fn holds(&self, now: u64) -> bool {
        now < self.until
            && EPOCH.load(Ordering::Acquire) == self.epoch
            && self
                .everything
                .is_none_or(|version| latest_version() == version)
            && self
                .services
                .iter()
                .all(|(slot, version)| slot.version() == *version)
    }

    /// Notes that the services it is made of were asked for, at `now` seconds.
    pub fn touch(&self, now: u64) {
        for (slot, _) in &self.services {
            slot.touch(now);
        }
    }

    /// It holds until then at most, in milliseconds on the catalog's clock.
    pub fn ends_at(&mut self, until: u64) {
        self.until = self.until.min(until);
    }

    /// It holds for so many milliseconds more at most.
    pub fn ends_in(&mut self, left: u64) {
        self.ends_at(millis().saturating_add(left));
    }

    /// This and what the other was made from.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.ends_at(other.until);
        // Of two states the older one: if they differ, it no longer holds, and neither do both.
        self.epoch = self.epoch.min(other.epoch);
        self.everything = match (self.everything, other.everything) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        };
        for (slot, version) in &other.services {
            self.add_service(slot, *version);
        }
        self
    }

    /// Bytes of memory that it takes, about.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.services.capacity() * size_of::<(Arc<Slot>, u64)>()
    }

    /// Could it hold at all?
    pub fn is_none(&self) -> bool {
        self.until == 0
    }

    pub(super) fn add_service(&mut self, slot: &Arc<Slot>, version: u64) {
        let known = self
            .services
            .iter()
            .any(|(own, own_version)| Arc::ptr_eq(own, slot) && *own_version == version);
        if !known {
            self.services.push((Arc::clone(slot), version));
        }
    }

    pub(super) fn add_everything(&mut self, version: u64) {
        self.everything = Some(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Service;

    #[test]
    fn it_ends_with_its_time_and_with_its_services() {
        let mut basis = Basis::begin();
        let slot = Arc::new(Slot::new());
        basis.add_service(&slot, slot.version());
        basis.ends_at(100);
        assert!(!basis.holds(100));
        // Other tests of this process may have begun an epoch.
        let renewed = Basis {
            epoch: EPOCH.load(Ordering::Acquire),
            ..basis.clone()
        };
        assert!(renewed.holds(99) || EPOCH.load(Ordering::Acquire) != renewed.epoch);
        slot.publish(Service::new(Vec::new()));
        assert!(!basis.holds(99));
    }

    #[test]
    fn a_new_epoch_ends_it() {
        let basis = Basis::begin();
        new_epoch();
        assert!(!basis.holds(0));
        assert!(Basis::none().is_none() && !Basis::none().holds(0));
    }
}
