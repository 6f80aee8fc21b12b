//! What one name says about one type, as it is kept: a set of records, an alias, or that there is none. A
//! chain of aliases is several of these, each with a time of its own, so that what many names lead to is
//! there once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::dns::{Answer, Data, ExtendedError, Name, RawRecord, Rcode, Record, types};

/// The longest that anything is remembered, in seconds. Nobody is served for longer by a mistake.
const MAX_TTL: u32 = 7 * 86_400;

/// For how long a failure is remembered: the least that RFC 9520 section 3.2 asks for, and when it lasts
/// twice as long each time, up to a bound that is well below its five minutes.
const FIRST_FAILURE: Duration = Duration::from_secs(1);
const LONGEST_FAILURE: Duration = Duration::from_secs(30);

/// How long upstreams are left alone with a name that they could not say anything about, while what they
/// said before is served (RFC 8767 section 5, failure recheck timer).
const RECHECK: Duration = Duration::from_secs(30);

/// The TTL of what is told although it has run down (RFC 8767 section 4).
const STALE_TTL: u32 = 30;

/// Extended DNS Errors of what has run down (RFC 8914 sections 4.4 and 4.20).
const STALE_ANSWER: u16 = 3;
const STALE_NXDOMAIN: u16 = 19;

/// It is asked for anew once this part of its time is left: a tenth.
const LAST_PART: u32 = 10;

/// [`Link::refresh`] while somebody asks for it anew.
const UNDER_WAY: u64 = u64::MAX;

/// How what is known stands to its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// It holds.
    Fresh,
    /// It holds, but not for long.
    Ageing,
    /// It has run down, and may be told if nothing else can be.
    Expired,
    /// It has to be forgotten.
    Gone,
}

/// What a question was asked with, beside name and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Form {
    /// DO: signatures, too.
    pub dnssec_ok: bool,
    /// CD: unchecked.
    pub checking_disabled: bool,
}

/// What one name says about one type.
#[derive(Debug)]
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
    /// From `born` on, when the first of its signatures has run out; nobody may be told after that.
    signed: Option<Duration>,
    /// 0; or [`UNDER_WAY`]; or milliseconds after `born` before which it is not asked for anew.
    refresh: AtomicU64,
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

    /// The data of each record.
    fn rdata(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.data;
        std::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (rdata, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = tail;
            Some(rdata)
        })
    }

    fn records<'a>(&'a self, name: &'a Name, age: u32) -> impl Iterator<Item = Record> + 'a {
        self.rdata().map(move |rdata| Record {
            owner: self.owner.as_ref().unwrap_or(name).clone(),
            ttl: self.ttl.saturating_sub(age),
            data: Data::from_rdata(self.rtype, rdata),
        })
    }

    /// When the first of its signatures runs out (RFC 4034 section 3.1.5), in seconds from `since_1970` on.
    fn signed_for(&self, since_1970: u64) -> Option<u32> {
        if self.rtype != types::RRSIG {
            return None;
        }
        let left = self.rdata().map(|rdata| {
            let until = rdata.get(8..).and_then(<[u8]>::first_chunk);
            let until = u32::from_be_bytes(*until?);
            // Serial numbers, as they wrap round (RFC 1982).
            let left = until.wrapping_sub(since_1970 as u32).cast_signed().max(0);
            Some(left.cast_unsigned())
        });
        left.min().flatten()
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
        let sets = || parts.answers.iter().chain(&parts.authority);
        let ttl = sets().map(Set::ttl).min().unwrap_or(0);
        let is_signed = sets().any(|set| set.rtype == types::RRSIG);
        let signed = is_signed.then(|| {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
            let since_1970 = since_1970.unwrap_or_default().as_secs();
            let left = sets().filter_map(|set| set.signed_for(since_1970)).min();
            Duration::from_secs(left.unwrap_or(0).into())
        });
        Self {
            rcode: parts.rcode,
            alias: parts.alias,
            answers: parts.answers.into(),
            authority: parts.authority.into(),
            authentic: parts.authentic,
            errors: parts.errors.into(),
            born,
            holds: Duration::from_secs(ttl.into()),
            signed,
            refresh: AtomicU64::new(0),
        }
    }

    /// That nobody has an answer, and what was said of it. `before` is the failure before, if it is known: when it
    /// was not long ago, this one is remembered for longer.
    pub(super) fn failed(errors: Vec<ExtendedError>, before: Option<&Self>, born: Instant) -> Self {
        let holds = before
            .filter(|own| own.aged(born) < own.holds + LONGEST_FAILURE)
            .map_or(FIRST_FAILURE, |own| (own.holds * 2).min(LONGEST_FAILURE));
        Self::without_records(Rcode::SERVFAIL, errors, born, holds)
    }

    fn without_records(
        rcode: Rcode,
        errors: Vec<ExtendedError>,
        born: Instant,
        holds: Duration,
    ) -> Self {
        let parts = Parts {
            rcode,
            alias: None,
            answers: Vec::new(),
            authority: Vec::new(),
            authentic: false,
            errors,
        };
        Self {
            holds,
            ..Self::new(parts, born)
        }
    }

    /// The same, but that what it says is withheld, for this reason.
    pub(super) fn withheld(&self, why: ExtendedError) -> Self {
        Self::without_records(Rcode::NOERROR, vec![why], self.born, self.holds)
    }

    /// Types and data of the records that it answers with.
    pub(super) fn answers(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let sets = self.answers.iter();
        sets.flat_map(|set| set.rdata().map(|rdata| (set.rtype, rdata)))
    }

    fn aged(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    /// Does it still hold?
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.aged(now) < self.holds
    }

    /// How it stands to its time, where it may be told for `stale` after it has run down.
    pub(super) fn age(&self, now: Instant, stale: Duration) -> Age {
        let aged = self.aged(now);
        if aged < self.holds {
            return match self.is_failure() || aged < self.ages_at() {
                true => Age::Fresh,
                false => Age::Ageing,
            };
        }
        let may_be_told = !self.is_failure()
            && aged - self.holds < stale
            && self.signed.is_none_or(|until| aged < until);
        match may_be_told {
            true => Age::Expired,
            false => Age::Gone,
        }
    }

    fn ages_at(&self) -> Duration {
        self.holds - self.holds / LAST_PART
    }

    /// Until when it does not have to be looked at again.
    pub(super) fn look_again(&self, now: Instant) -> Duration {
        /// In its last part, and when it has run down: it may have been asked for anew meanwhile.
        const SOON: Duration = Duration::from_secs(1);
        let aged = self.aged(now);
        match self.ages_at().checked_sub(aged) {
            _ if self.is_failure() => Duration::ZERO,
            Some(left) if !left.is_zero() => left,
            _ => match self.holds.checked_sub(aged) {
                Some(left) if !left.is_zero() => left.min(SOON),
                // What never held is for whoever asked for it.
                _ if self.holds.is_zero() => Duration::ZERO,
                _ => SOON,
            },
        }
    }

    /// Is it that nobody had an answer?
    pub(super) fn is_failure(&self) -> bool {
        self.rcode == Rcode::SERVFAIL
    }

    /// When it was learned.
    pub(super) fn born(&self) -> Instant {
        self.born
    }

    /// Somebody may ask for it anew, and nobody else does until that has come to an end.
    pub(super) fn begin_refresh(&self) -> bool {
        self.refresh.swap(UNDER_WAY, Ordering::AcqRel) != UNDER_WAY
    }

    /// Nothing came of asking for it anew, which says nothing of what would come now.
    pub(super) fn end_refresh(&self) {
        self.refresh.store(0, Ordering::Release);
    }

    /// Upstreams could not say anything about it: they are left alone with it for a while.
    pub(super) fn put_off(&self, now: Instant) {
        let until = (self.aged(now) + RECHECK).as_millis();
        let until = u64::try_from(until).unwrap_or(UNDER_WAY - 1);
        self.refresh.store(until, Ordering::Release);
    }

    /// Since when they are; `None` if they are not.
    pub(super) fn put_off_since(&self, now: Instant) -> Option<Instant> {
        let until = self.refresh.load(Ordering::Acquire);
        let is_put_off = until != UNDER_WAY && self.aged(now).as_millis() < u128::from(until);
        is_put_off.then(|| self.born + Duration::from_millis(until).saturating_sub(RECHECK))
    }

    /// Does it say anything but that there is nothing?
    pub(super) fn is_positive(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Adds to an answer what it says of `name`, as something that has run down if it has.
    pub(super) fn tell(&self, name: &Name, now: Instant, answer: &mut Answer) {
        let age = u32::try_from(self.aged(now).as_secs()).unwrap_or(u32::MAX);
        let is_stale = !self.holds.is_zero() && !self.holds(now);
        let in_time = |record: Record| match is_stale {
            true => Record {
                ttl: STALE_TTL,
                ..record
            },
            false => record,
        };
        let records = |sets: &'_ [Set]| -> Vec<Record> {
            let records = sets.iter().flat_map(|set| set.records(name, age));
            records.map(in_time).collect()
        };
        answer.answers.extend(records(&self.answers));
        for record in records(&self.authority) {
            // Two links of a chain may need the same proof.
            if !answer.authority.contains(&record) {
                answer.authority.push(record);
            }
        }
        answer.rcode = self.rcode;
        answer.authentic &= self.authentic && !is_stale;
        if is_stale {
            let code = match self.rcode {
                Rcode::NXDOMAIN => STALE_NXDOMAIN,
                _ => STALE_ANSWER,
            };
            ExtendedError::add(&mut answer.errors, &[ExtendedError::new(code, b"")]);
        }
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
