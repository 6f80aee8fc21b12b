//! Who is asked for a name: the upstreams of the longest domain that it is in, or those for everything else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use xxhash_rust::xxh3::xxh3_64;

use crate::dns::Name;
use crate::upstream::{self, Address, Group, Means, Metrics, Trust, Upstream};

use super::{Error, Settings, Upstreams};

/// The groups of upstreams, and what each is for.
pub(super) struct Plan {
    /// When it took the place of another one.
    since: Option<Instant>,
    pub(super) settings: Settings,
    trust: Option<Trust>,
    /// All that are asked.
    known: HashMap<Address, Arc<Upstream>>,
    default: Option<Arc<Group>>,
    /// The longest first.
    forward: Vec<Domain>,
}

/// A domain of the operator's.
struct Domain {
    name: Name,
    /// Who is asked, if anybody is.
    group: Option<(Arc<Group>, Mark)>,
}

/// Whose word something is. What others said of a name, before it was theirs to say, counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark(u32);

impl Mark {
    /// Of those who are asked for the rest, whoever they are: a host that moves keeps what it knows.
    fn of_rest(settings: &Settings) -> Self {
        Self(u32::from(settings.refuse_rebinding))
    }

    pub(super) fn to_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// Of those whom the operator named for a domain.
    fn of(upstreams: &[Address]) -> Self {
        let text: Vec<String> = upstreams.iter().map(Address::to_string).collect();
        // The other two are of those who are asked for the rest.
        Self(xxh3_64(text.join(" ").as_bytes()) as u32 | 2)
    }
}

/// Who speaks for a name.
#[derive(Clone, Copy)]
pub(super) enum Whom<'a> {
    /// These upstreams, whose word has this mark.
    Group(&'a Group, Mark),
    /// It does not exist, because the operator says so.
    Nothing,
    /// Nobody yet.
    Awaited,
    /// Nobody who could be asked.
    Nobody,
}

impl Plan {
    /// A plan for these upstreams and the domains of the settings. An upstream that is named for several, or was
    /// in the plan before, is one all the same, with one health and the same connections.
    ///
    /// # Errors
    /// The first that cannot be an upstream.
    pub(super) fn new(
        default: &[Address],
        settings: Settings,
        trust: Option<Trust>,
        runtime: &Handle,
        metrics: &Metrics,
        before: Option<&Self>,
    ) -> Result<Self, Error> {
        let how = upstream::Settings {
            strategy: settings.recursor_strategy,
            timeout: settings.recursor_timeout,
            random_case: settings.random_case,
            hedge_after: settings.hedge_after,
        };
        let means = Means {
            runtime,
            trust: trust.as_ref(),
            metrics,
        };
        let mut before_known = before.map(|own| own.known.clone()).unwrap_or_default();
        if before.is_some_and(|own| own.trust != trust) {
            before_known.retain(|address, _| !address.is_encrypted());
        }
        let mut known: HashMap<Address, Arc<Upstream>> = HashMap::new();
        let domains = settings.forward.iter().flat_map(|own| &own.upstreams);
        for address in default.iter().chain(domains) {
            if known.contains_key(address) {
                continue;
            }
            let upstream = match before_known.remove(address) {
                Some(upstream) => upstream,
                None => {
                    let made = Upstream::new(address.clone(), means);
                    Arc::new(made.map_err(|message| Error::Upstream {
                        upstream: Box::new(address.clone()),
                        message,
                    })?)
                }
            };
            known.insert(address.clone(), upstream);
        }
        let mut groups: HashMap<&[Address], Arc<Group>> = HashMap::new();
        let mut group = |addresses| match <[Address]>::is_empty(addresses) {
            true => None,
            false => Some(Arc::clone(groups.entry(addresses).or_insert_with(|| {
                let upstreams = addresses.iter().filter_map(|own| known.get(own));
                Arc::new(Group::new(upstreams.cloned().collect(), how))
            }))),
        };
        let group_of_rest = group(default);
        let mut forward: Vec<_> = settings
            .forward
            .iter()
            .map(|own| {
                let marked = |group| (group, Mark::of(&own.upstreams));
                Domain {
                    name: own.domain.clone(),
                    group: group(&own.upstreams).map(marked),
                }
            })
            .collect();
        forward.sort_by_key(|own| std::cmp::Reverse(own.name.labels().count()));
        Ok(Self {
            since: before.map(|_| Instant::now()),
            settings,
            trust,
            known,
            default: group_of_rest,
            forward,
        })
    }

    /// The same plan, but that these are asked for the rest.
    ///
    /// # Errors
    /// The first that cannot be an upstream.
    pub(super) fn with_default(
        &self,
        default: &[Address],
        runtime: &Handle,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let (settings, trust) = (self.settings.clone(), self.trust.clone());
        Self::new(default, settings, trust, runtime, metrics, Some(self))
    }

    /// Was something found out before it was made?
    pub(super) fn is_younger_than(&self, at: Instant) -> bool {
        self.since.is_some_and(|since| at < since)
    }

    fn domain(&self, name: &Name) -> Option<&Domain> {
        let mut forward = self.forward.iter();
        forward.find(|own| name.is_at_or_below(&own.name))
    }

    /// Who speaks for a name, in lower case.
    pub(super) fn whom(&self, name: &Name) -> Whom<'_> {
        match (self.domain(name), &self.default) {
            (Some(own), _) => match &own.group {
                Some((group, mark)) => Whom::Group(group, *mark),
                None => Whom::Nothing,
            },
            (None, Some(group)) => Whom::Group(group, Mark::of_rest(&self.settings)),
            (None, None) if self.settings.upstreams == Upstreams::System => Whom::Awaited,
            (None, None) => Whom::Nobody,
        }
    }

    /// Is this somebody else's name, which may not lead to anything of ours?
    pub(super) fn withholds(&self, name: &Name) -> bool {
        self.settings.refuse_rebinding && self.domain(name).is_none()
    }

    /// Do the same upstreams speak for both? What one says of the other's names is not believed.
    pub(super) fn is_same(&self, one: &Name, other: &Name) -> bool {
        if self.forward.is_empty() {
            return true;
        }
        match (self.whom(one), self.whom(other)) {
            (Whom::Group(one, own), Whom::Group(other, its)) => {
                std::ptr::eq(one, other) && own == its
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::recursion::Forward;

    fn name(text: &str) -> Name {
        Name::from_text(text).expect("a name")
    }

    #[tokio::test]
    async fn the_longest_domain_counts() {
        let to = |domain: &str, upstreams: &[&str]| Forward {
            domain: name(domain),
            upstreams: upstreams
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect(),
        };
        let mut settings = Settings {
            upstreams: Upstreams::None,
            forward: vec![
                to("example", &["192.0.2.1:53"]),
                to("corp.example", &["10.1.0.53:53", "10.1.0.54:53"]),
                to("lab.corp.example", &[]),
                to("10.in-addr.arpa", &["10.1.0.53:53", "10.1.0.54:53"]),
            ],
            ..Settings::default()
        };
        let metrics = Metrics::register(&mut Registry::default());
        let of = |default: &[&str], settings: &Settings, before: Option<&Plan>| {
            let default: Vec<_> = default
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect();
            let (settings, runtime) = (settings.clone(), Handle::current());
            Plan::new(&default, settings, None, &runtime, &metrics, before).expect("a plan")
        };
        let plan = of(&["192.0.2.9:53"], &settings, None);
        let plan_time = Instant::now();
        let group = |text: &str| match plan.whom(&name(text)) {
            Whom::Group(group, _) => Some(group as *const Group),
            _ => None,
        };
        assert_eq!(group("corp.example"), group("a.b.corp.example"));
        assert_eq!(
            group("corp.example"),
            group("4.3.2.10.in-addr.arpa"),
            "one group for both"
        );
        assert_ne!(group("corp.example"), group("xcorp.example"));
        assert_eq!(group("xcorp.example"), group("example"));
        assert_ne!(group("example"), group("example.net"));
        assert!(matches!(
            plan.whom(&name("x.lab.corp.example")),
            Whom::Nothing
        ));
        assert!(plan.is_same(&name("corp.example"), &name("10.in-addr.arpa")));
        assert!(!plan.is_same(&name("corp.example"), &name("example")));
        assert!(!plan.is_same(&name("lab.corp.example"), &name("corp.example")));
        let outside = name("example.net");
        assert!(matches!(
            of(&[], &settings, None).whom(&outside),
            Whom::Nobody
        ));
        settings.upstreams = Upstreams::System;
        assert!(matches!(
            of(&[], &settings, None).whom(&outside),
            Whom::Awaited
        ));
        // Another plan knows the upstreams that it has in common with the one before, and no others.
        let next = of(&["192.0.2.1:53", "192.0.2.8:53"], &settings, Some(&plan));
        let of_next = |text: &str| next.known.get(&text.parse().expect("an address"));
        let same = plan.known.values().filter(|own| {
            let mut all = next.known.values();
            all.any(|other| Arc::ptr_eq(own, other))
        });
        assert_eq!(same.count(), 3);
        assert!(of_next("192.0.2.9:53").is_none() && of_next("192.0.2.8:53").is_some());
        assert!(next.is_younger_than(plan_time) && !plan.is_younger_than(plan_time));
    }
}
