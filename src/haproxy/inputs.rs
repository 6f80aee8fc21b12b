//! What Consul says, as far as it is believed: keys, services with their tags, and the instances of
//! those that matter.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::time::Instant;
use tracing::warn;

use crate::catalog::{Found, Kind, Layer, Loaded, Patience, Scope, Service, ServiceKey};
use crate::consul::{KeyValues, TagsByName};

use super::metrics::Metrics;

/// Services without a watch of their own that are asked for at a look. Looks are ten a second.
const ASKED_PER_LOOK: usize = 2;

/// How long the instances of all services may take to come before we begin without some of them.
const LOADING: Duration = Duration::from_secs(10);

/// Once there is doubt, of this many at the most one may be missing for it to end: what comes back comes
/// one by one.
const NEARLY_ALL: usize = 10;

/// Where it is read from.
#[derive(Debug)]
pub struct Feeds {
    /// The catalog's layer that the source feeds.
    pub layer: Arc<Layer>,
    /// The keys under the prefix.
    pub keys: Receiver<Option<Arc<KeyValues>>>,
    /// All services with their tags.
    pub tags: Receiver<Option<Arc<TagsByName>>>,
}

/// What Consul says at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Input {
    pub(super) keys: Arc<KeyValues>,
    pub(super) services: Arc<TagsByName>,
    /// The services with the tag, in order.
    pub(super) tagged: Vec<String>,
    /// Those with the tag that cannot have a backend.
    pub(super) left_out: Vec<String>,
    pub(super) instances: BTreeMap<String, Arc<Service>>,
    /// Another whenever something is.
    pub(super) print: u64,
}

/// What the file of before was made from: a first answer without any of it is doubted like one that
/// takes all away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// There is none, or none that would be missed.
    Nothing,
    /// Services with the tag.
    Tagged,
    /// Any services, as the user's template says.
    Any,
}

impl Before {
    /// What this text was made from. The template in the program has a backend of its own.
    pub(super) fn of(text: &str, has_template: bool) -> Self {
        let mut backends = text.lines().filter(|line| line.starts_with("backend "));
        match backends.any(|line| !line.starts_with("backend portolan:")) {
            false => Self::Nothing,
            true if has_template => Self::Any,
            true => Self::Tagged,
        }
    }
}

/// Reads it.
pub(super) struct Inputs {
    feeds: Feeds,
    tag: String,
    /// How long much must have been gone before that is believed.
    doubt: Duration,
    before: Before,
    metrics: Metrics,
    keys: Believed<KeyValues>,
    services: Believed<TagsByName>,
    /// Services that a template asked for, besides those with the tag.
    asked: BTreeSet<String>,
    /// The last that was known of each.
    known: BTreeMap<String, Arc<Service>>,
    /// Where in the services without a watch the next look goes on.
    turn: usize,
    since: Instant,
}

/// Something that is held for a while after it is gone.
struct Believed<T> {
    value: Option<Arc<T>>,
    gone_since: Option<Instant>,
}

impl<T> Believed<T> {
    const fn none() -> Self {
        Self {
            value: None,
            gone_since: None,
        }
    }

    /// Takes what is new, unless too much is gone in it and has not been for long enough. True as a
    /// second value when it begins to be doubted. What is too much may be less once there is doubt.
    fn take(
        &mut self,
        new: Option<Arc<T>>,
        doubt: Duration,
        is_too_much: impl Fn(Option<&T>, &T, bool) -> bool,
    ) -> (Option<Arc<T>>, bool) {
        let is_in_doubt = self.gone_since.is_some();
        let gone = match &new {
            Some(new) => is_too_much(self.value.as_deref(), new, is_in_doubt),
            None => false,
        };
        let begins = gone && self.gone_since.is_none();
        self.gone_since = gone.then(|| self.gone_since.unwrap_or_else(Instant::now));
        let is_doubted = self.gone_since.is_some_and(|since| since.elapsed() < doubt);
        if !is_doubted && new.is_some() {
            self.value = new;
            self.gone_since = None;
        }
        (self.value.clone(), begins && is_doubted)
    }
}

impl Inputs {
    pub(super) fn new(
        feeds: Feeds,
        tag: &str,
        doubt: Duration,
        before: Before,
        metrics: Metrics,
    ) -> Self {
        Self {
            feeds,
            tag: tag.to_owned(),
            doubt,
            before,
            metrics,
            keys: Believed::none(),
            services: Believed::none(),
            asked: BTreeSet::new(),
            known: BTreeMap::new(),
            turn: 0,
            since: Instant::now(),
        }
    }

    /// A template asks for the instances of these too. True if some of them are not known yet.
    pub(super) fn want(&mut self, asked: BTreeSet<String>) -> bool {
        let services = self.services.value.clone().unwrap_or_default();
        let mut is_new = false;
        for name in &asked {
            is_new |= services.contains_key(name) && !self.known.contains_key(name);
        }
        if is_new && !asked.is_subset(&self.asked) {
            self.since = Instant::now();
        }
        self.asked = asked;
        is_new && self.since.elapsed() < LOADING
    }

    /// What Consul says now; `None` while it has not said enough to begin with.
    pub(super) fn look(&mut self) -> Option<Input> {
        let keys = self.believed_keys()?;
        let services = self.believed_services()?;
        let (tagged, left_out) =
            tagged(&services, &self.tag).partition::<Vec<_>, _>(|name| is_askable(name));
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let (tagged, left_out) = (owned(tagged), owned(left_out));
        let wanted: BTreeSet<&String> = tagged.iter().chain(&self.asked).collect();
        let wanted: Vec<String> = wanted.into_iter().cloned().collect();

        let mut print = DefaultHasher::new();
        (Arc::as_ptr(&keys), Arc::as_ptr(&services)).hash(&mut print);
        let (mut unwatched, mut missing) = (Vec::new(), false);
        for name in &wanted {
            match self.service(name, Patience::None) {
                Ok(loaded) => {
                    let (slot, version) = &loaded.source;
                    (name, version).hash(&mut print);
                    if !slot.is_watched() {
                        unwatched.push(name);
                    }
                    self.known.insert(name.clone(), loaded.value);
                }
                // What is gone, or cannot be told now, was known before or is not waited for long.
                _ => missing |= services.contains_key(name) && !self.known.contains_key(name),
            }
        }
        for _ in 0..ASKED_PER_LOOK.min(unwatched.len()) {
            self.turn = (self.turn + 1) % unwatched.len();
            // It is read anew in the background; a later look sees it.
            drop(self.service(unwatched[self.turn], Patience::Some));
        }
        self.known
            .retain(|name, _| wanted.binary_search(name).is_ok());
        if missing && self.since.elapsed() < LOADING {
            return None;
        }
        Some(Input {
            keys,
            services,
            tagged,
            left_out,
            instances: self.known.clone(),
            print: print.finish(),
        })
    }

    fn service(&self, name: &str, patience: Patience) -> Found<Loaded<Service>> {
        let key = ServiceKey::new(Kind::Service, name);
        let layer = &self.feeds.layer;
        layer.service(&Scope::default(), &key, patience)
    }

    fn believed_keys(&mut self) -> Option<Arc<KeyValues>> {
        let new = self.feeds.keys.borrow().clone();
        let is_too_much = |old: Option<&KeyValues>, new: &KeyValues, is_in_doubt: bool| {
            let Some(old) = old else { return false };
            let gone = old.keys().filter(|key| !new.contains_key(*key)).count();
            match is_in_doubt {
                true => gone * NEARLY_ALL > old.len(),
                false => new.is_empty() && !old.is_empty(),
            }
        };
        let (keys, begins) = self.keys.take(new, self.doubt, is_too_much);
        if begins {
            self.metrics.held.inc();
            let seconds = self.doubt.as_secs();
            warn!(
                seconds,
                "all keys have vanished from Consul; keeping the last ones unless that lasts"
            );
        }
        keys
    }

    fn believed_services(&mut self) -> Option<Arc<TagsByName>> {
        let new = self.feeds.tags.borrow().clone();
        let tag = &self.tag;
        let before = self.before;
        let is_too_much = |old: Option<&TagsByName>, new: &TagsByName, is_in_doubt: bool| {
            let Some(old) = old else {
                return match before {
                    Before::Nothing => false,
                    Before::Tagged => tagged(new, tag).next().is_none(),
                    // Consul's servers are a service of their own.
                    Before::Any => new.keys().all(|name| name == "consul"),
                };
            };
            let before = tagged(old, tag).count();
            let is_gone = |name: &&str| !new.get(*name).is_some_and(|tags| has(tags, tag));
            let gone = tagged(old, tag).filter(is_gone).count();
            let part = if is_in_doubt { NEARLY_ALL } else { 2 };
            gone * part > before
        };
        let (services, begins) = self.services.take(new, self.doubt, is_too_much);
        if begins {
            self.metrics.held.inc();
            let seconds = self.doubt.as_secs();
            let what = match services {
                Some(_) => "more than half of the services are gone",
                None => "Consul lists no services, but the previous configuration has some",
            };
            warn!(seconds, "{what}; keeping the last ones unless that lasts");
        }
        services
    }
}

fn has(tags: &BTreeSet<String>, tag: &str) -> bool {
    tags.iter().any(|own| own.eq_ignore_ascii_case(tag))
}

/// The services with a tag.
fn tagged<'a>(services: &'a TagsByName, tag: &'a str) -> impl Iterator<Item = &'a str> {
    let tagged = services.iter().filter(move |(_, tags)| has(tags, tag));
    tagged.map(|(name, _)| name.as_str())
}

/// Can HAProxy ask for a service of this name? It has to be a label of DNS, with a `_` before it.
fn is_askable(name: &str) -> bool {
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=62).contains(&name.len()) && name.bytes().all(is_right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn much_that_is_gone_is_held_for_a_while() {
        let doubt = Duration::from_secs(30);
        let is_too_much = |old: Option<&Vec<u8>>, new: &Vec<u8>, is_in_doubt: bool| {
            let old = old.map_or(0, Vec::len);
            new.len() < if is_in_doubt { old } else { old / 2 }
        };
        let mut believed = Believed::none();
        let mut take = |value: &[u8]| {
            let new = Some(Arc::new(value.to_vec()));
            let (value, begins) = believed.take(new, doubt, is_too_much);
            (value.map(|value| value.len()), begins)
        };
        assert_eq!(take(b"ab"), (Some(2), false));
        assert_eq!(take(b""), (Some(2), true));
        assert_eq!(take(b""), (Some(2), false));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(take(b""), (Some(2), false));
        assert_eq!(take(b"a"), (Some(2), false), "it comes back");
        assert_eq!(take(b"cd"), (Some(2), false), "it is back");
        assert_eq!(take(b""), (Some(2), true));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(take(b""), (Some(0), false), "it lasted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_answer_may_be_doubted() {
        let doubt = Duration::from_secs(30);
        let mut believed = Believed::none();
        let mut take = |value: u8| {
            let is_too_much = |old: Option<&u8>, new: &u8, _| old.is_none() && *new == 0;
            let (value, begins) = believed.take(Some(Arc::new(value)), doubt, is_too_much);
            (value.map(|value| *value), begins)
        };
        assert_eq!(take(0), (None, true));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(take(0), (None, false));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(take(0), (Some(0), false), "it lasted");
    }

    #[test]
    fn names_that_cannot_be_asked_for_are_left_out() {
        let tags = |tag: &str| BTreeSet::from([tag.to_owned()]);
        let services: TagsByName = [
            ("web", "rest"),
            ("db", "other"),
            ("a b", "REST"),
            ("a.b", "rest"),
            ("api_2-x", "Rest"),
        ]
        .map(|(name, tag)| (name.to_owned(), tags(tag)))
        .into();
        let (names, others): (Vec<&str>, _) =
            tagged(&services, "rest").partition(|name| is_askable(name));
        assert_eq!(names, ["api_2-x", "web"]);
        let others: Vec<&str> = others;
        assert_eq!(others, ["a b", "a.b"]);
        assert!(is_askable(&"x".repeat(62)) && !is_askable(&"x".repeat(63)));
    }
}
