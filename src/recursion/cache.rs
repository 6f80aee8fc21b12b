//! The links that were learned, for all workers, within a number of bytes. What is asked for often stays
//! when names come by that are asked for once (S3-FIFO). Absences have a part of their own, so that
//! random names cannot push out what is in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache as Kept;

use crate::dns::Rcode;

use super::Question;
use super::link::{Age, Link};
use super::plan::Mark;

/// One byte of this many is for absences.
const NEGATIVE_SHARE: u64 = 8;

/// What an entry takes beside its link and its key: its place, and the heads of what is allocated.
const ENTRY: usize = 96;

/// Bytes of a link of one address, about: so many links there will be.
const USUAL: u64 = 400;

/// The type under which stands that a name does not exist, whatever is asked of it.
const ANY_TYPE: u16 = 0;

/// Name in lower case, type, form and whose word it is, as bytes.
type Key = Box<[u8]>;

/// A key that is looked for.
struct Sought {
    bytes: [u8; 255 + REST],
    length: usize,
}

/// Bytes of a key behind the name.
const REST: usize = 2 + 1 + 4;

impl Sought {
    fn new(question: Question<'_>, rtype: u16, mark: Mark) -> Self {
        let (wire, mut bytes) = (question.name.as_wire(), [0; 255 + REST]);
        let length = wire.len() + REST;
        bytes[..wire.len()].copy_from_slice(wire);
        let [high, low] = rtype.to_be_bytes();
        let form = question.form;
        let form = u8::from(form.dnssec_ok) | u8::from(form.checking_disabled) << 1;
        let [a, b, c, d] = mark.to_bytes();
        bytes[wire.len()..length].copy_from_slice(&[high, low, form, a, b, c, d]);
        Self { bytes, length }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<Link>> for Bytes {
    fn weight(&self, key: &Key, link: &Arc<Link>) -> u64 {
        (ENTRY + key.len() + link.size()) as u64
    }
}

/// The links of all names.
pub(super) struct Cache {
    positive: Kept<Key, Arc<Link>, Bytes>,
    negative: Kept<Key, Arc<Link>, Bytes>,
}

/// Of so many bytes those for what there is, and those for absences.
fn shares(bytes: u64) -> (u64, u64) {
    let negative = bytes / NEGATIVE_SHARE;
    (bytes - negative, negative)
}

impl Cache {
    /// A cache that takes about so many bytes at most.
    pub(super) fn new(bytes: u64) -> Self {
        let (positive, negative) = shares(bytes);
        let part = |bytes: u64| {
            let items = usize::try_from(bytes / USUAL).unwrap_or(usize::MAX);
            Kept::with_weighter(items.max(1), bytes, Bytes)
        };
        Self {
            positive: part(positive),
            negative: part(negative),
        }
    }

    /// From now on it takes so many bytes.
    pub(super) fn resize(&self, bytes: u64) {
        let (positive, negative) = shares(bytes);
        self.positive.set_capacity(positive);
        self.negative.set_capacity(negative);
    }

    /// What a name says about a type, if that is known, and how it stands to its time, where it may be told for `stale`
    /// after that: what holds; else what was learned last, be it that upstreams had no answer.
    pub(super) fn get(
        &self,
        question: Question<'_>,
        mark: Mark,
        stale: Duration,
        now: Instant,
    ) -> Option<(Arc<Link>, Age)> {
        let key = Sought::new(question, question.qtype, mark);
        let any = || Sought::new(question, ANY_TYPE, mark);
        let mut last: Option<(Arc<Link>, Age)> = None;
        for place in 0..3 {
            let found = match place {
                0 => self.positive.get(key.as_bytes()),
                1 => self.negative.get(key.as_bytes()),
                _ => self.negative.get(any().as_bytes()),
            };
            let Some(link) = found else { continue };
            match link.age(now, stale) {
                Age::Gone => {}
                age @ (Age::Fresh | Age::Ageing) if !link.is_failure() => return Some((link, age)),
                age => {
                    let is_last = last
                        .as_ref()
                        .is_none_or(|(own, _)| link.born() > own.born());
                    if is_last {
                        last = Some((link, age));
                    }
                }
            }
        }
        last
    }

    /// That upstreams had no answer, if that is the last that they had to say.
    pub(super) fn failure(&self, question: Question<'_>, mark: Mark) -> Option<Arc<Link>> {
        let key = Sought::new(question, question.qtype, mark);
        let kept = self.negative.get(key.as_bytes());
        kept.filter(|link| link.is_failure())
    }

    /// Keeps a link, if it holds for any time.
    pub(super) fn put(&self, question: Question<'_>, mark: Mark, link: &Arc<Link>, now: Instant) {
        if !link.holds(now) {
            return;
        }
        let rtype = match link.rcode {
            Rcode::NXDOMAIN => ANY_TYPE,
            _ => question.qtype,
        };
        let key = Sought::new(question, rtype, mark).as_bytes().into();
        let part = if link.is_positive() {
            &self.positive
        } else {
            &self.negative
        };
        part.insert(key, Arc::clone(link));
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn bytes(&self) -> u64 {
        self.positive.weight() + self.negative.weight()
    }
}
