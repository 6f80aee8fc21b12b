//! Who is asked for a name: the upstreams of the longest domain that it is in, or those for everything else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use crate::dns::Name;
use crate::upstream::{self, Group, Metrics, Upstream};

use super::{Settings, Upstreams};

/// The groups of upstreams, and what each is for.
pub(super) struct Plan {
    /// When it took the place of another one.
    since: Option<Instant>,
    /// Somebody will be named for the rest.
    is_awaited: bool,
    /// All that are asked.
    known: HashMap<SocketAddr, Arc<Upstream>>,
    default: Option<Arc<Group>>,
    /// The longest first; nobody is asked where there is no group.
    forward: Vec<(Name, Option<Arc<Group>>)>,
}

/// Who speaks for a name.
#[derive(Clone, Copy)]
pub(super) enum Whom<'a> {
    /// These upstreams.
    Group(&'a Group),
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
    pub(super) fn new(
        default: &[SocketAddr],
        settings: &Settings,
        runtime: &Handle,
        metrics: &Metrics,
        before: Option<&Self>,
    ) -> Self {
        let how = upstream::Settings {
            strategy: settings.recursor_strategy,
            timeout: settings.recursor_timeout,
            random_case: settings.random_case,
            hedge_after: settings.hedge_after,
        };
        let mut known = before.map(|own| own.known.clone()).unwrap_or_default();
        let mut groups: HashMap<&[SocketAddr], Arc<Group>> = HashMap::new();
        let mut group = |addresses| match <[SocketAddr]>::is_empty(addresses) {
            true => None,
            false => Some(Arc::clone(groups.entry(addresses).or_insert_with(|| {
                Arc::new(Group::new(addresses, how, runtime, metrics, &mut known))
            }))),
        };
        let group_of_rest = group(default);
        let mut forward: Vec<_> = settings
            .forward
            .iter()
            .map(|own| (own.domain.clone(), group(&own.upstreams)))
            .collect();
        forward.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.labels().count()));
        let domains = settings.forward.iter().flat_map(|own| &own.upstreams);
        let named: Vec<_> = default.iter().chain(domains).collect();
        known.retain(|address, _| named.contains(&address));
        Self {
            since: before.map(|_| Instant::now()),
            is_awaited: settings.upstreams == Upstreams::System,
            known,
            default: group_of_rest,
            forward,
        }
    }

    /// Was something found out before it was made?
    pub(super) fn is_younger_than(&self, at: Instant) -> bool {
        self.since.is_some_and(|since| at < since)
    }

    fn domain(&self, name: &Name) -> Option<&(Name, Option<Arc<Group>>)> {
        let mut forward = self.forward.iter();
        forward.find(|(domain, _)| name.is_at_or_below(domain))
    }

    /// Who speaks for a name, in lower case.
    pub(super) fn whom(&self, name: &Name) -> Whom<'_> {
        match (self.domain(name), &self.default) {
            (Some((_, Some(group))), _) | (None, Some(group)) => Whom::Group(group),
            (Some((_, None)), _) => Whom::Nothing,
            (None, None) if self.is_awaited => Whom::Awaited,
            (None, None) => Whom::Nobody,
        }
    }

    /// Is it a name that no domain of the operator's has?
    pub(super) fn is_default(&self, name: &Name) -> bool {
        self.domain(name).is_none()
    }

    /// Do the same upstreams speak for both? What one says of the other's names is not believed.
    pub(super) fn is_same(&self, one: &Name, other: &Name) -> bool {
        if self.forward.is_empty() {
            return true;
        }
        match (self.whom(one), self.whom(other)) {
            (Whom::Group(one), Whom::Group(other)) => std::ptr::eq(one, other),
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
            Plan::new(&default, settings, &Handle::current(), &metrics, before)
        };
        let plan = of(&["192.0.2.9:53"], &settings, None);
        let plan_time = Instant::now();
        let group = |text: &str| match plan.whom(&name(text)) {
            Whom::Group(group) => Some(group as *const Group),
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
