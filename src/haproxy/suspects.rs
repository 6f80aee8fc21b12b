//! What has changed and may be what HAProxy refuses, and the services that were found to be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::catalog::Service;
use crate::consul::{KeyValues, TagsByName};

use super::inputs::Input;

/// When what is refused is tried again although it is the same, first and at the latest: the cause may be elsewhere.
const FIRST_REST: Duration = Duration::from_secs(60);
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// Something that has changed, and that HAProxy may not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Suspect {
    Key(String),
    Service(String),
}

/// A service as it is in Consul, as far as a template can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    tags: Option<BTreeSet<String>>,
    instances: Option<Arc<Service>>,
}

impl Seen {
    fn of(input: &Input, name: &str) -> Self {
        Self {
            tags: input.services.get(name).cloned(),
            instances: input.instances.get(name).cloned(),
        }
    }
}

/// The services that are others than in the running configuration, or new, or gone.
pub(super) fn changed(input: &Input, good: &Input) -> BTreeSet<String> {
    let of = |input: &Input| -> BTreeSet<String> {
        let instances = input.instances.keys();
        input.services.keys().chain(instances).cloned().collect()
    };
    let mut names = of(input);
    names.extend(of(good));
    names.retain(|name| {
        let is_same = input.services.get(name) == good.services.get(name);
        !is_same || input.instances.get(name) != good.instances.get(name)
    });
    names
}

/// What Consul says, but these services as they are in the running configuration.
pub(super) fn with_good<'a>(
    input: &Input,
    good: &Input,
    names: impl Iterator<Item = &'a String>,
) -> Input {
    let mut services = TagsByName::clone(&input.services);
    let (mut tagged, mut instances) = (
        BTreeSet::from_iter(input.tagged.iter().cloned()),
        input.instances.clone(),
    );
    for name in names {
        let seen = Seen::of(good, name);
        put(&mut services, name, seen.tags);
        put(&mut instances, name, seen.instances);
        match good.tagged.contains(name) {
            true => tagged.insert(name.clone()),
            false => tagged.remove(name),
        };
    }
    Input {
        services: Arc::new(services),
        tagged: tagged.into_iter().collect(),
        instances,
        ..input.clone()
    }
}

/// Puts a value in, or takes it out.
pub(super) fn put<T>(map: &mut BTreeMap<String, T>, name: &str, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(name.to_owned(), value)),
        None => drop(map.remove(name)),
    }
}

/// Why a service is left as it was.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// What was tried, with these keys.
    seen: Seen,
    keys: Arc<KeyValues>,
    words: String,
    pause: Duration,
    until: Instant,
}

/// What was known of services that are tried again.
pub(super) type Before = BTreeMap<String, Refusal>;

/// The services that are left as they were.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<String, Refusal>);

impl Refusals {
    /// The services that have been refused as they are, with these keys, and not long before `now`, if that matters.
    pub(super) fn resting(&self, input: &Input, now: Option<Instant>) -> BTreeSet<String> {
        let refused = self.0.iter();
        let resting = refused.filter(|(service, refusal)| {
            let is_same = Seen::of(input, service) == refusal.seen;
            is_same
                && Arc::ptr_eq(&input.keys, &refusal.keys)
                && now.is_none_or(|now| now < refusal.until)
        });
        resting.map(|(service, _)| service.clone()).collect()
    }

    /// All that were refused have been tried again but for these. Gives what was known of the others.
    pub(super) fn clear(&mut self, resting: &BTreeSet<String>) -> Before {
        let all = std::mem::take(&mut self.0).into_iter();
        let (stays, tried) = all.partition(|(service, _)| resting.contains(service));
        self.0 = stays;
        tried
    }

    /// A service is left as it was, for this reason.
    pub(super) fn add(&mut self, input: &Input, service: &str, words: &str, before: &Before) {
        let seen = Seen::of(input, service);
        let before = before.get(service).filter(|before| before.seen == seen);
        if before.is_none_or(|before| before.words != words) {
            warn!(
                service,
                reason = words,
                "HAProxy takes no configuration with this service as it is now; it stays as it was"
            );
        }
        // Where it was tried because a key has changed, that was no rest.
        let has_rested = |before: &&Refusal| before.until <= Instant::now();
        let pause = before
            .filter(has_rested)
            .map_or(FIRST_REST, |before| before.pause * 2);
        let pause = pause.min(LONGEST_REST);
        let refusal = Refusal {
            seen,
            keys: Arc::clone(&input.keys),
            words: words.to_owned(),
            pause,
            until: Instant::now() + pause,
        };
        self.0.insert(service.to_owned(), refusal);
    }

    /// This one was not tried after all.
    pub(super) fn put_back(&mut self, service: &str, before: &mut Before) {
        if let Some((name, refusal)) = before.remove_entry(service) {
            self.0.insert(name, refusal);
        }
    }

    /// Everything is tried again.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Which, and why.
    pub(super) fn in_words(&self) -> impl Iterator<Item = String> {
        let all = self.0.iter();
        all.map(|(name, refusal)| format!("service {name}: {}", refusal.words))
    }

    /// When one of them is tried again although it is the same.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|refusal| refusal.until).min()
    }
}

/// Two groups, of which the first is the last.
pub(super) fn halves(group: &[Suspect]) -> Vec<Vec<Suspect>> {
    let (first, second) = group.split_at(group.len() / 2);
    let halves = [second, first].into_iter();
    halves
        .filter(|half| !half.is_empty())
        .map(<[Suspect]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_tried_when_it_changes_and_now_and_then() {
        let input = |tag: &str| Input {
            services: Arc::new([("web".to_owned(), [tag.to_owned()].into())].into()),
            ..Input::default()
        };
        let bad = input("a\nb");
        let mut refusals = Refusals::default();
        refusals.add(&bad, "web", "no", &Before::new());
        let rests = |refusals: &Refusals, input: &Input| {
            let resting = refusals.resting(input, Some(Instant::now()));
            resting.contains("web")
        };
        assert!(rests(&refusals, &bad));
        assert!(!rests(&refusals, &input("c")), "it is another");
        let keys = Arc::new(KeyValues::from([("k".to_owned(), Vec::new())]));
        let with_keys = Input {
            keys,
            ..bad.clone()
        };
        assert!(!rests(&refusals, &with_keys), "a key has changed");
        for pause in [60, 120, 240] {
            assert_eq!(
                refusals.next(),
                Some(Instant::now() + Duration::from_secs(pause))
            );
            tokio::time::advance(Duration::from_secs(pause)).await;
            assert!(!rests(&refusals, &bad), "after {pause} s");
            let before = refusals.clear(&BTreeSet::new());
            assert_eq!((before.len(), refusals.len()), (1, 0));
            refusals.add(&bad, "web", "no", &before);
            assert!(rests(&refusals, &bad));
        }
    }

    #[test]
    fn all_are_in_one_half_and_the_first_is_the_last() {
        let all: Vec<_> = ["a", "b", "c"]
            .map(|name| Suspect::Service(name.to_owned()))
            .into();
        let halved = halves(&all);
        assert_eq!(halved.concat().len(), 3);
        assert_eq!(halved.last().and_then(|half| half.first()), all.first());
        assert_eq!(halves(&all[..1]), [all[..1].to_vec()]);
        assert!(halves(&[]).is_empty());
    }
}
