//! Where Portolan's answers differ from Consul's on purpose: every way, with its reason. Rows are
//! those of section 8 of `reference/consul-dns.md`, decisions (D) those of the design.

mod decisions;
mod newer;
mod section8;
mod slips;

use crate::{
    judge::Exchange,
    support::compare::{Difference, Part},
};
pub(crate) use decisions::{SECOND_DOMAIN, SIZE_OF_OPT};

/// A way in which answers differ on purpose.
pub(crate) struct Deviation {
    /// A few words, for the summary.
    pub(crate) name: &'static str,
    /// Where that was decided, and why.
    pub(crate) because: &'static str,
    pub(crate) parts: &'static [Part],
    /// Whether this is why the two differ here, and ours is as it should be.
    pub(crate) holds: fn(&Exchange<'_>, &Difference) -> bool,
}

/// All of them. Of those that hold, the first counts.
pub(crate) fn all() -> impl Iterator<Item = &'static Deviation> {
    [section8::LIST, decisions::LIST, slips::LIST, newer::LIST]
        .into_iter()
        .flatten()
}

/// Whether nothing but a newer Consul than 1.8.7 shows it.
pub(crate) fn is_of_newer_consul(deviation: &Deviation) -> bool {
    newer::LIST.iter().any(|newer| newer.name == deviation.name)
}

/// Whether the TTLs of both sides, record by record, are as `right` wants them.
fn ttls_are(difference: &Difference, right: fn(u32, u32) -> bool) -> bool {
    let ttl = |text: &String| {
        let word = text.rsplit(" ttl ").next()?.split(' ').next()?;
        word.parse().ok()
    };
    let pairs = difference.theirs.iter().zip(&difference.ours);
    difference.theirs.len() == difference.ours.len()
        && pairs
            .map(|(theirs, ours)| (ttl(theirs), ttl(ours)))
            .all(|pair| matches!(pair, (Some(theirs), Some(ours)) if right(theirs, ours)))
}
