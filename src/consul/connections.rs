//! How many connections to Consul there may be, and what for (D2). Its agent counts those of a host together
//! and resets what is beyond its limit, so others on the host may leave less than the operator thought.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::watch::WAIT;

/// Services beyond the watches that are read at a time, and prepared queries that are executed, where there is
/// room.
const READS: usize = 8;
const EXECUTIONS: usize = 8;

/// Of so many connections one is for each of these.
const FOR_ONE: usize = 8;

/// The probe, and what is read now and then.
const REST: usize = 2;

/// Watches that are given up at a time for services that are asked for more.
const MAX_LINGERING: usize = 16;

/// For how long Consul may hold the connection of a watch that was closed.
const LINGERS: Duration = WAIT.saturating_add(Duration::from_secs(2));

/// After so many connections that Consul reset while it was well there are fewer: this part of what is open,
/// and two at least.
const RESETS: usize = 3;
const PART: usize = 5;

/// But not again within this time: Consul has yet to let go of what was closed.
const SHRINKS_EVERY: Duration = Duration::from_secs(10);

/// After so long without, there is one more again.
const GROWS_EVERY: Duration = Duration::from_secs(30);

/// The connections that Consul reset although it is well.
#[derive(Debug, Default)]
pub(super) struct Resets {
    /// Since it was last heard to be well, or not.
    lately: AtomicUsize,
    /// Before.
    proven: AtomicUsize,
}

impl Resets {
    /// A connection was reset just after a request was sent.
    pub(super) fn note(&self) {
        self.lately.fetch_add(1, Ordering::Relaxed);
    }

    /// Consul is well, or is not: then what it reset has another reason.
    pub(super) fn judge(&self, is_well: bool) {
        let lately = self.lately.swap(0, Ordering::Relaxed);
        if is_well {
            self.proven.fetch_add(lately, Ordering::Relaxed);
        }
    }

    fn take(&self) -> usize {
        self.proven.swap(0, Ordering::Relaxed)
    }
}

/// The room for watches on services.
#[derive(Debug)]
pub(super) struct Connections {
    /// What the operator allows.
    most: usize,
    /// What Consul was found to bear of watches on services; none while it bore all.
    borne: Option<usize>,
    started: Instant,
    /// Until when Consul may hold the connections of watches that were closed.
    lingering: Vec<Instant>,
    changed: Instant,
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        let now = Instant::now();
        Self {
            most,
            borne: None,
            started: now,
            lingering: Vec::new(),
            changed: now,
        }
    }

    /// Services that are read at a time beyond the watches.
    pub(super) fn reads(&self) -> usize {
        (self.most / FOR_ONE).clamp(1, READS)
    }

    /// Prepared queries that are executed at a time.
    pub(super) fn executions(&self) -> usize {
        (self.most / FOR_ONE).clamp(1, EXECUTIONS)
    }

    /// Datacenters, peers, namespaces and partitions that are followed at a time, the local one among them: each
    /// takes two connections, and together half of all at most.
    pub(super) fn realms(&self) -> usize {
        (self.most / 4).max(2)
    }

    /// How many services may be watched beside `lists` other watches.
    fn for_services(&self, lists: usize, now: Instant) -> usize {
        // The sweep of reverse names reads as many at a time as there are reads.
        let reserved = 2 * self.reads() + self.executions() + REST;
        let most = self.most.saturating_sub(reserved + lists);
        let most = self.borne.map_or(most, |borne| most.min(borne)).max(1);
        // An earlier life may have left connections that Consul still holds.
        if now < self.started + LINGERS {
            (most / 2).max(1)
        } else {
            most
        }
    }

    /// Is there room for one more watch beside these?
    pub(super) fn has_room(&mut self, open: usize, lists: usize) -> bool {
        let now = Instant::now();
        self.lingering.retain(|until| *until > now);
        open + self.lingering.len() < self.for_services(lists, now)
    }

    /// May a watch be closed for another? Its connection is free only once Consul has let it go.
    pub(super) fn may_exchange(&self) -> bool {
        self.lingering.len() < MAX_LINGERING
    }

    /// A watch was closed.
    pub(super) fn closed(&mut self) {
        self.lingering.push(Instant::now() + LINGERS);
    }

    /// Draws the conclusions from what Consul reset. Gives how many watches on services it is found to bear,
    /// if that is fewer than are open.
    pub(super) fn review(&mut self, resets: &Resets, open: usize) -> Option<usize> {
        self.review_at(resets.take(), open, Instant::now())
    }

    fn review_at(&mut self, resets: usize, open: usize, now: Instant) -> Option<usize> {
        if resets >= RESETS {
            if self.borne.is_some() && now.duration_since(self.changed) < SHRINKS_EVERY {
                return None;
            }
            self.changed = now;
            let borne = open.saturating_sub((open / PART).max(2)).max(1);
            self.borne = Some(borne);
            return (borne < open).then_some(borne);
        }
        if resets == 0 && now.duration_since(self.changed) >= GROWS_EVERY {
            self.changed = now;
            self.borne = self
                .borne
                .map(|borne| borne + 1)
                .filter(|borne| *borne < self.most);
        }
        None
    }

    /// How many watches on services Consul was found to bear; none while it bore all.
    pub(super) fn borne(&self) -> Option<usize> {
        self.borne
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_room_and_all_stay_within_what_is_allowed() {
        for (most, lists) in [(8, 3), (32, 2), (80, 2), (80, 12), (200, 2), (10_000, 40)] {
            let connections = Connections::new(most);
            let (start, later) = (connections.started, connections.started + LINGERS);
            let services = connections.for_services(lists, later);
            let rest = 2 * connections.reads() + connections.executions() + REST + lists;
            assert!(
                services >= 1 && services + rest <= most.max(rest + 1),
                "{most}"
            );
            assert!(
                connections.for_services(lists, start) <= services.div_ceil(2),
                "{most}"
            );
        }
    }

    #[test]
    fn what_consul_resets_while_it_is_well_makes_fewer_watches_and_they_come_back() {
        let mut connections = Connections::new(80);
        let (mut now, mut open) = (connections.started, 50);
        assert_eq!(connections.review_at(RESETS - 1, open, now), None);
        // Its limit is 30.
        for _ in 0..8 {
            let resets = if open > 30 { 10 } else { 0 };
            now += SHRINKS_EVERY;
            open = connections.review_at(resets, open, now).unwrap_or(open);
        }
        assert!((22..=30).contains(&open), "{open}");
        let borne = connections.borne();
        now += GROWS_EVERY;
        assert_eq!(connections.review_at(0, open, now), None);
        assert_eq!(connections.borne(), borne.map(|borne| borne + 1));
        for _ in 0..80 {
            now += GROWS_EVERY;
            connections.review_at(0, open, now);
        }
        assert_eq!(connections.borne(), None, "all that is allowed");
    }

    #[test]
    fn what_is_reset_while_consul_is_away_says_nothing() {
        let resets = Resets::default();
        (0..9).for_each(|_| resets.note());
        resets.judge(false);
        assert_eq!(resets.take(), 0);
        resets.note();
        resets.judge(true);
        assert_eq!((resets.take(), resets.take()), (1, 0));
    }
}
