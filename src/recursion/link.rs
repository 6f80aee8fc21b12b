//! What one name says about one type, as it is kept: a set of records, an alias, or that there is none. A
//! chain of aliases is several of these, each with a time of its own, so that what many names lead to is
//! there once.

use std::time::{Duration, Instant};

use crate::dns::{Answer, Data, ExtendedError, Name, RawRecord, Rcode, Record};

/// The longest that anything is remembered, in seconds. Nobody is served for longer by a mistake.
const MAX_TTL: u32 = 7 * 86_400;

/// For how long a failure is remembered: the least that RFC 9520 section 3.2 asks for.
const FAILURE: Duration = Duration::from_secs(1);

/// What a question was asked with, beside name and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Form {
    /// DO: signatures, too.
    pub dnssec_ok: bool,
    /// CD: unchecked.
    pub checking_disabled: bool,
}

/// What one name says about one type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) rcode: Rcode,
    /// Where it leads to, in lower case, if it is an alias.
    pub(super) alias: Option<Name>,
    answers: Box<[Set]>,
    authority: Box<[Set]>,
    /// Its server has checked it.
    authentic: bool,
    errors: Box<[ExtendedError]>,
    born: Instant,
    /// How long it holds; nothing is kept that holds for no time.
    holds: Duration,
}

/// Records of one name and type, with one TTL (RFC 2181 section 5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    /// `None`: the name of the link, in the case in which it is asked for.
    owner: Option<Name>,
    rtype: u16,
    ttl: u32,
    /// The data of each, behind its length in two bytes.
    data: Box<[u8]>,
}

impl Set {
    /// Makes a set of records of one name and type; `None` if there are none.
    pub(super) fn new<'a>(
        owner: Option<Name>,
        records: impl Iterator<Item = RawRecord<'a>>,
    ) -> Option<Self> {
        let mut rtype = None;
        let mut ttl = u32::MAX;
        let mut data = Vec::new();
        for record in records {
            rtype = Some(record.rtype);
            ttl = ttl.min(sane(record.ttl));
            // It came with a length of two bytes, or as names that are shorter than that.
            let length = u16::try_from(record.rdata.len()).ok()?;
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(record.rdata);
        }
        Some(Self {
            owner,
            rtype: rtype?,
            ttl,
            data: data.into(),
        })
    }

    /// The same with a TTL that is no longer.
    pub(super) fn at_most(mut self, ttl: u32) -> Self {
        self.ttl = self.ttl.min(ttl);
        self
    }

    /// Its TTL in seconds.
    pub(super) fn ttl(&self) -> u32 {
        self.ttl
    }

    fn records<'a>(&'a self, name: &'a Name, age: u32) -> impl Iterator<Item = Record> + 'a {
        let mut rest = &*self.data;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (rdata, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = tail;
            Some(Record {
                owner: self.owner.as_ref().unwrap_or(name).clone(),
                ttl: self.ttl.saturating_sub(age),
                data: Data::from_rdata(self.rtype, rdata),
            })
        })
    }

    fn size(&self) -> usize {
        size_of::<Self>()
            + self.data.len()
            + self.owner.as_ref().map_or(0, |own| own.as_wire().len())
    }
}

/// RFC 2181 section 8: a TTL with its highest bit set is 0. Some are far too long.
fn sane(ttl: u32) -> u32 {
    if ttl > i32::MAX.cast_unsigned() {
        0
    } else {
        ttl.min(MAX_TTL)
    }
}

/// What goes into a [`Link`].
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) rcode: Rcode,
    pub(super) alias: Option<Name>,
    pub(super) answers: Vec<Set>,
    pub(super) authority: Vec<Set>,
    pub(super) authentic: bool,
    pub(super) errors: Vec<ExtendedError>,
}

impl Link {
    /// A link that was learned at `born`, and holds until the first of its sets has run down. Without a
    /// set nobody says how long that may be.
    pub(super) fn new(parts: Parts, born: Instant) -> Self {
        let sets = parts.answers.iter().chain(&parts.authority);
        let ttl = sets.map(Set::ttl).min().unwrap_or(0);
        Self {
            rcode: parts.rcode,
            alias: parts.alias,
            answers: parts.answers.into(),
            authority: parts.authority.into(),
            authentic: parts.authentic,
            errors: parts.errors.into(),
            born,
            holds: Duration::from_secs(ttl.into()),
        }
    }

    /// That nobody has an answer, and what was said of it.
    pub(super) fn failed(errors: Vec<ExtendedError>, born: Instant) -> Self {
        let parts = Parts {
            rcode: Rcode::SERVFAIL,
            alias: None,
            answers: Vec::new(),
            authority: Vec::new(),
            authentic: false,
            errors,
        };
        Self {
            holds: FAILURE,
            ..Self::new(parts, born)
        }
    }

    /// Does it still hold?
    pub(super) fn holds(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.born) < self.holds
    }

    /// Does it say anything but that there is nothing?
    pub(super) fn is_positive(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Adds to an answer what it says of `name`.
    pub(super) fn tell(&self, name: &Name, now: Instant, answer: &mut Answer) {
        let age = now.saturating_duration_since(self.born).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        let records = self.answers.iter().flat_map(|set| set.records(name, age));
        answer.answers.extend(records);
        for record in self.authority.iter().flat_map(|set| set.records(name, age)) {
            // Two links of a chain may need the same proof.
            if !answer.authority.contains(&record) {
                answer.authority.push(record);
            }
        }
        answer.rcode = self.rcode;
        answer.authentic &= self.authentic;
        ExtendedError::add(&mut answer.errors, &self.errors);
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn size(&self) -> usize {
        let sets = self.answers.iter().chain(&self.authority).map(Set::size);
        let errors = self
            .errors
            .iter()
            .map(|own| size_of::<ExtendedError>() + own.text.len());
        let alias = self.alias.as_ref().map_or(0, |own| own.as_wire().len());
        size_of::<Self>() + alias + sets.sum::<usize>() + errors.sum::<usize>()
    }
}
