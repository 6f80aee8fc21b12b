//! Which services have a backend, and how many server slots it has: so many, and for so long, that what comes and goes
//! is a matter of DNS and costs no reload.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::inputs::Input;

/// The backend of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    /// Servers that fit in.
    pub(super) slots: usize,
    /// All tags of its instances.
    pub(super) tags: BTreeSet<String>,
}

/// The backends that there are.
#[derive(Debug, Clone)]
pub(super) struct Backends {
    /// How long one stays whose service is gone.
    linger: Duration,
    /// Slots of each at least, while there are few.
    min_slots: usize,
    slots: Slots,
    /// By service, with its tags, and since when it is gone.
    had: BTreeMap<String, (BTreeSet<String>, Option<Instant>)>,
}

impl Backends {
    pub(super) fn new(linger: Duration, min_slots: usize) -> Self {
        Self {
            linger,
            min_slots,
            slots: Slots::default(),
            had: BTreeMap::new(),
        }
    }

    /// The backends for what Consul says now. A service that has gone keeps its backend for a while, empty: many come
    /// back. Who takes the tag from a service wants it out at once.
    pub(super) fn of(&mut self, input: &Input, now: Instant) -> BTreeMap<String, Backend> {
        let tagged: BTreeSet<&String> = input.tagged.iter().collect();
        self.had.retain(|name, (_, gone)| {
            if tagged.contains(name) || input.services.contains_key(name) {
                return false;
            }
            now.duration_since(*gone.get_or_insert(now)) < self.linger
        });
        for name in &input.tagged {
            let tags = input.services.get(name).cloned().unwrap_or_default();
            self.had.insert(name.clone(), (tags, None));
        }
        let sizes = self.had.keys().map(|name| {
            let service = input.instances.get(name);
            let instances = service.map_or(0, |service| service.instances().len());
            (name.as_str(), instances)
        });
        let slots = self.slots.of(sizes, self.min_slots);
        let backends = self.had.iter().filter_map(|(name, (tags, _))| {
            let (slots, tags) = (*slots.get(name)?, tags.clone());
            Some((name.clone(), Backend { slots, tags }))
        });
        backends.collect()
    }

    /// Those that should go now stay once more as long. False if there is none.
    pub(super) fn postpone(&mut self, now: Instant) -> bool {
        let mut is_any = false;
        for since in self.had.values_mut().filter_map(|(_, gone)| gone.as_mut()) {
            if now.duration_since(*since) >= self.linger {
                *since = now;
                is_any = !self.linger.is_zero();
            }
        }
        is_any
    }

    /// The services whose backends are still there, but not they themselves.
    pub(super) fn gone(&self) -> impl Iterator<Item = &str> {
        let gone = self.had.iter().filter(|(_, (_, gone))| gone.is_some());
        gone.map(|(name, _)| name.as_str())
    }

    /// When the first of them goes too.
    pub(super) fn next(&self) -> Option<Instant> {
        let gone = self.had.values().filter_map(|(_, gone)| *gone);
        gone.map(|gone| gone + self.linger).min()
    }
}

/// How many backends there are in a configuration, those of Portolan's own aside.
pub(super) fn backends_in(text: &str) -> usize {
    let names = text.lines().filter_map(|line| {
        let (section, name) = line.split_once(char::is_whitespace)?;
        matches!(section, "backend" | "listen").then_some(name.trim())
    });
    names.filter(|name| !name.starts_with("portolan:")).count()
}

/// Free slots of all backends together. HAProxy sets a file descriptor aside for the check of each,
/// and does not start when the system has fewer.
const SLOTS: usize = 8000;

/// A backend has at least so many, whatever all others have.
const FEW: usize = 10;

/// Slots by backend. They never shrink for fewer instances: a reload for nothing costs more than a
/// free slot.
#[derive(Debug, Default, Clone)]
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
    use std::sync::Arc;

    use super::*;

    fn input(services: &[(&str, &str)]) -> Input {
        let services = services.iter();
        let services: BTreeMap<String, BTreeSet<String>> = services
            .map(|(name, tag)| ((*name).to_owned(), [(*tag).to_owned()].into()))
            .collect();
        let tagged = services.iter().filter(|(_, tags)| tags.contains("rest"));
        Input {
            tagged: tagged.map(|(name, _)| name.clone()).collect(),
            services: Arc::new(services),
            ..Input::default()
        }
    }

    #[test]
    fn a_service_that_has_gone_keeps_its_backend_for_a_while() {
        const SECOND: Duration = Duration::from_secs(1);
        let start = Instant::now();
        let mut backends = Backends::new(10 * SECOND, 32);
        let mut of = |services: &[(&str, &str)], seconds: u32| {
            let now = start + seconds * SECOND;
            let names: Vec<String> = backends.of(&input(services), now).into_keys().collect();
            let gone: Vec<&str> = backends.gone().collect();
            let next = backends.next().map(|next| (next - start).as_secs());
            (names.join(" "), gone.join(" "), next)
        };
        let is = |names: &str, gone: &str, next| (names.to_owned(), gone.to_owned(), next);
        let (web, api) = (("web", "rest"), ("api", "rest"));
        assert_eq!(of(&[web, api, ("db", "x")], 0), is("api web", "", None));
        assert_eq!(of(&[api], 1), is("api web", "web", Some(11)));
        assert_eq!(of(&[api], 5), is("api web", "web", Some(11)));
        assert_eq!(of(&[web], 6), is("api web", "api", Some(16)));
        assert_eq!(of(&[web, ("api", "x")], 7), is("web", "", None), "untagged");
        assert_eq!(of(&[], 8), is("web", "web", Some(18)));
        assert_eq!(of(&[], 18), is("", "", None), "it lasted");

        let mut backends = Backends::new(10 * SECOND, 32);
        backends.of(&input(&[web]), start);
        backends.of(&input(&[]), start);
        assert!(!backends.postpone(start + 9 * SECOND));
        assert!(backends.postpone(start + 10 * SECOND));
        assert_eq!(backends.next(), Some(start + 20 * SECOND));
    }

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
