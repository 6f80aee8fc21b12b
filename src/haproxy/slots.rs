//! How many server slots a backend has: room to grow, so that scaling is a matter of DNS alone.

use std::collections::BTreeMap;

/// Slots by backend. They never shrink while the backend is there: free slots cost little, and a
/// reload for nothing costs more.
#[derive(Debug, Default)]
pub(super) struct Slots(BTreeMap<String, usize>);

impl Slots {
    /// The slots for these services with so many instances each: twice the instances, and `least`
    /// of them; as many as before while they fit. A service that is not among them is forgotten.
    pub(super) fn of<'a>(
        &mut self,
        services: impl Iterator<Item = (&'a str, usize)>,
        least: usize,
    ) -> BTreeMap<String, usize> {
        let sized = services.map(|(name, instances)| {
            let known = self.0.get(name).copied();
            let fitting = known.filter(|slots| instances <= *slots);
            let slots = fitting.unwrap_or_else(|| instances.saturating_mul(2).max(least));
            (name.to_owned(), slots)
        });
        self.0 = sized.collect();
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_grow_by_doubling_and_never_shrink() {
        let mut slots = Slots::default();
        let mut web = |instances| slots.of([("web", instances)].into_iter(), 10)["web"];
        assert_eq!(
            [0, 10, 11, 22, 23, 1].map(&mut web),
            [10, 10, 22, 22, 46, 46]
        );
        assert_eq!(slots.of([("db", 1)].into_iter(), 10).len(), 1);
        assert_eq!(slots.of([("web", 1)].into_iter(), 10)["web"], 10);
    }
}
