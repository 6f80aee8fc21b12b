//! How many server slots a backend has: room to grow, so that scaling is a matter of DNS alone.

use std::collections::BTreeMap;

/// Free slots of all backends together. HAProxy sets a file descriptor aside for the check of each,
/// and does not start when the system has fewer.
const SLOTS: usize = 8000;

/// A backend has at least so many, whatever all others have.
const FEW: usize = 10;

/// Slots by backend. They never shrink for fewer instances: a reload for nothing costs more than a
/// free slot.
#[derive(Debug, Default)]
pub(super) struct Slots {
    known: BTreeMap<String, usize>,
    /// What each backend has at least.
    least: usize,
}

impl Slots {
    /// The slots for these services with so many instances each: twice the instances, and at least
    /// `wanted` while there are few services; as many as before while they fit. A service that is
    /// not among them is forgotten.
    pub(super) fn of<'a>(
        &mut self,
        services: impl ExactSizeIterator<Item = (&'a str, usize)>,
        wanted: usize,
    ) -> BTreeMap<String, usize> {
        let share = SLOTS / services.len().max(1);
        let least = wanted.min(share.max(FEW));
        if least != self.least {
            // Services have come or gone, so that there is a reload anyway.
            self.known.clear();
            self.least = least;
        }
        let sized = services.map(|(name, instances)| {
            let known = self.known.get(name).copied();
            let fitting = known.filter(|slots| instances <= *slots);
            let slots = fitting.unwrap_or_else(|| instances.saturating_mul(2).max(least));
            (name.to_owned(), slots)
        });
        self.known = sized.collect();
        self.known.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_grow_by_doubling_and_never_shrink() {
        let mut slots = Slots::default();
        let mut web = |instances| slots.of([("web", instances)].into_iter(), 10)["web"];
        let grown = [0, 10, 11, 22, 23, 1].map(&mut web);
        assert_eq!(grown, [10, 10, 22, 22, 46, 46]);
        assert_eq!(slots.of([("db", 1)].into_iter(), 10).len(), 1);
        assert_eq!(slots.of([("web", 1)].into_iter(), 10)["web"], 10);
        assert_eq!(slots.of([("db", 8)].into_iter(), 10)["db"], 16);
    }

    #[test]
    fn many_services_have_fewer_each() {
        let mut slots = Slots::default();
        let names: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let mut of = |count: usize| {
            let services = names[..count].iter().map(|name| (name.as_str(), 1));
            slots.of(services, 32).into_values().sum::<usize>()
        };
        assert_eq!(of(1), 32);
        assert_eq!(of(250), 8000);
        assert_eq!(of(400), 8000);
        assert_eq!(of(1000), 10_000);
    }
}
