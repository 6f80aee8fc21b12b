//! The links that were learned, for all workers, within a number of bytes. What is asked for often stays
//! when names come by that are asked for once (S3-FIFO). Absences have a part of their own, so that
//! random names cannot push out what is in use.

use std::sync::Arc;
use std::time::Instant;

use quick_cache::Weighter;
use quick_cache::sync::Cache as Kept;

use crate::dns::{Name, Rcode};

use super::link::{Form, Link};

/// One byte of this many is for absences.
const NEGATIVE_SHARE: u64 = 8;

/// What an entry takes beside its link and its key: its place, and the heads of what is allocated.
const ENTRY: usize = 96;

/// Bytes of a link of one address, about: so many links there will be.
const USUAL: u64 = 400;

/// The type under which stands that a name does not exist, whatever is asked of it.
const ANY_TYPE: u16 = 0;

/// Name in lower case, type and form, as bytes.
type Key = Box<[u8]>;

/// A key that is looked for.
struct Sought {
    bytes: [u8; 255 + 3],
    length: usize,
}

impl Sought {
    fn new(name: &Name, rtype: u16, form: Form) -> Self {
        let (wire, mut bytes) = (name.as_wire(), [0; 255 + 3]);
        let length = wire.len() + 3;
        bytes[..wire.len()].copy_from_slice(wire);
        let [high, low] = rtype.to_be_bytes();
        let form = u8::from(form.dnssec_ok) | u8::from(form.checking_disabled) << 1;
        bytes[wire.len()..length].copy_from_slice(&[high, low, form]);
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

impl Cache {
    /// A cache that takes about so many bytes at most.
    pub(super) fn new(bytes: u64) -> Self {
        let negative = bytes / NEGATIVE_SHARE;
        let part = |bytes: u64| {
            let items = usize::try_from(bytes / USUAL).unwrap_or(usize::MAX);
            Kept::with_weighter(items.max(1), bytes, Bytes)
        };
        Self {
            positive: part(bytes - negative),
            negative: part(negative),
        }
    }

    /// What a name says about a type, if that is known and still holds. `name` is in lower case.
    pub(super) fn get(
        &self,
        name: &Name,
        rtype: u16,
        form: Form,
        now: Instant,
    ) -> Option<Arc<Link>> {
        let mut key = Sought::new(name, rtype, form);
        let holds = |link: &Arc<Link>| link.holds(now);
        let found = self.positive.get(key.as_bytes()).filter(holds);
        let found = found.or_else(|| self.negative.get(key.as_bytes()).filter(holds));
        found.or_else(|| {
            key = Sought::new(name, ANY_TYPE, form);
            self.negative.get(key.as_bytes()).filter(holds)
        })
    }

    /// Keeps a link, if it holds for any time.
    pub(super) fn put(&self, name: &Name, rtype: u16, form: Form, link: &Arc<Link>, now: Instant) {
        if !link.holds(now) {
            return;
        }
        let rtype = match link.rcode {
            Rcode::NXDOMAIN => ANY_TYPE,
            _ => rtype,
        };
        let key = Sought::new(name, rtype, form).as_bytes().into();
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
