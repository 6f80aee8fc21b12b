//! What is asked: every row of sections 1.2, 1.3 and 1.6 of `reference/consul-dns.md`.

mod forms;
mod outcomes;

use crate::{
    support::{dns::Query, wire::rtype},
    world::ALT_DOMAIN,
};
use rtype::{A, AAAA, ANY, CAA, CNAME, DS, HTTPS, MX, NS, PTR, SOA, SRV, SVCB, TXT};

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// UDP without EDNS.
    Plain,
    /// UDP with EDNS of this size.
    Edns(u16),
    Tcp,
}

impl Way {
    pub(crate) fn query(self, name: &str, rtype: u16) -> Query {
        let query = Query::new(name, rtype);
        match self {
            Self::Plain => query,
            Self::Edns(size) => query.edns(size),
            Self::Tcp => query.tcp(),
        }
    }
}

const WAYS: &[Way] = &[
    Way::Plain,
    Way::Edns(512),
    Way::Edns(1232),
    Way::Edns(4096),
    Way::Tcp,
];

/// Ways in which the variants of a question are asked.
const VARIANT_WAYS: &[Way] = &[Way::Edns(4096), Way::Tcp];

/// What is asked most, of most names.
const USUAL: &[u16] = &[A, AAAA, SRV];
const MORE: &[u16] = &[A, AAAA, SRV, ANY, TXT, CNAME];
pub(crate) const EVERY: &[u16] = &[
    A, AAAA, SRV, ANY, TXT, CNAME, MX, NS, SOA, PTR, HTTPS, SVCB, DS, CAA,
];

/// Names that are asked for the same types.
struct Group {
    /// The row of the reference.
    about: &'static str,
    names: &'static [&'static str],
    types: &'static [u16],
}

fn groups() -> impl Iterator<Item = &'static Group> {
    [forms::GROUPS, outcomes::GROUPS].into_iter().flatten()
}

/// Every group with the number of names and types in it.
pub(crate) fn sizes() -> impl Iterator<Item = (&'static str, usize)> {
    let size = |group: &Group| (group.about, group.names.len() * group.types.len());
    groups().map(size)
}

/// All that is asked, as it is asked: the table in every way, and two variants of it in some.
pub(crate) fn all() -> Vec<Query> {
    about("")
}

/// Those of the groups that are about something.
pub(crate) fn about(what: &str) -> Vec<Query> {
    let mut all = Vec::new();
    for group in groups().filter(|group| group.about.contains(what)) {
        for name in group.names {
            for &rtype in group.types {
                all.extend(WAYS.iter().map(|way| way.query(name, rtype)));
                for variant in [in_dc1(name), Some(scrambled(name))].into_iter().flatten() {
                    all.extend(VARIANT_WAYS.iter().map(|way| way.query(&variant, rtype)));
                }
            }
        }
    }
    all
}

/// The name in the datacenter dc1, if it is in one of the two domains.
fn in_dc1(name: &str) -> Option<String> {
    ["consul", ALT_DOMAIN].into_iter().find_map(|domain| {
        let front = name.get(..name.len().checked_sub(domain.len())?)?;
        let tail = &name[front.len()..];
        (tail.eq_ignore_ascii_case(domain) && (front.is_empty() || front.ends_with('.')))
            .then(|| format!("{front}dc1.{tail}"))
    })
}

/// The name with about every second letter in the other case.
fn scrambled(name: &str) -> String {
    let flip = |(at, c): (usize, char)| match (at * 5 + name.len()) % 3 {
        0 if c.is_ascii_uppercase() => c.to_ascii_lowercase(),
        0 => c.to_ascii_uppercase(),
        _ => c,
    };
    name.chars().enumerate().map(flip).collect()
}
