//! What a reply says to the question, and nothing else: the chain of aliases from its name on, and what
//! is at the end of it (RFC 5452 section 6, RFC 6672 section 3.4). Records of other names do not get
//! any further.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::dns::{Name, RawRecord, Rcode, Response, types};

use super::link::{Form, Link, Parts, Set};

/// Links of one chain that come with a redirection or a proof, and records of either kind. Those who sign
/// need a few; more would be multiplied by the links.
const MOST: usize = 16;

/// The longest that an absence is remembered, in seconds (RFC 2308 section 5 advises one to three
/// hours).
const MAX_NEGATIVE_TTL: u32 = 3600;

/// Links in their order, each with the name that it is about, in lower case.
pub(super) type Links = Vec<(Name, Arc<Link>)>;

/// Takes a reply to a question apart. `name` is in lower case. Of aliases that lead to a name that who said it
/// does not speak for, `is_same` says so, and the chain is left open there.
pub(super) fn links(
    name: &Name,
    qtype: u16,
    form: Form,
    response: &Response,
    now: Instant,
    is_same: impl Fn(&Name) -> bool,
) -> Links {
    let scrub = Scrub::new(qtype, form, response);
    let mut links = Links::new();
    let mut seen = HashSet::new();
    let mut at = name.clone();
    loop {
        let Some(parts) = scrub.at(&at, links.len()) else {
            return links;
        };
        let next = parts.alias.clone();
        if next.is_some() {
            seen.insert(at.clone());
        }
        links.push((at, Arc::new(Link::new(parts, now))));
        match next {
            Some(next) if !seen.contains(&next) && is_same(&next) => at = next,
            _ => return links,
        }
    }
}

struct Scrub<'a> {
    qtype: u16,
    form: Form,
    response: &'a Response,
    /// The answers by their owners, whatever the case: a chain takes time in proportion to its length.
    answers: Vec<RawRecord<'a>>,
    /// Those of them that redirect all names below one.
    dnames: Vec<(Name, RawRecord<'a>)>,
}

impl<'a> Scrub<'a> {
    fn new(qtype: u16, form: Form, response: &'a Response) -> Self {
        let mut answers: Vec<RawRecord<'a>> = response.answers().collect();
        // Those of one owner stay in the order in which they came.
        answers.sort_by(|one, other| compare(one.owner, other.owner));
        let dname = |record: &RawRecord<'a>| {
            let (owner, _) = Name::split_from(record.owner)?;
            (record.rtype == types::DNAME).then_some((owner, *record))
        };
        Self {
            qtype,
            form,
            response,
            dnames: answers.iter().filter_map(dname).take(MOST).collect(),
            answers,
        }
    }

    /// The answers that a name owns.
    fn of(&self, name: &Name) -> impl Iterator<Item = RawRecord<'a>> {
        let wire = name.as_wire();
        let from = |limit: Ordering| {
            self.answers
                .partition_point(|own| compare(own.owner, wire) < limit)
        };
        let (begin, end) = (from(Ordering::Equal), from(Ordering::Greater));
        self.answers[begin..end].iter().copied()
    }

    /// What the reply says of one name. `None` if it says nothing: an alias leads there, and the chain
    /// is left open.
    fn at(&self, name: &Name, number: usize) -> Option<Parts> {
        let mut parts = Parts {
            rcode: Rcode::NOERROR,
            alias: None,
            answers: Vec::new(),
            authority: Vec::new(),
            authentic: self.response.authentic,
            errors: Vec::new(),
        };
        if self.qtype == types::ANY {
            parts.answers = self.everything(name);
        } else {
            parts.answers = self.set(name, self.qtype);
        }
        if parts.answers.is_empty() && self.qtype != types::CNAME {
            self.alias(name, number, &mut parts);
            // Who asks for everything is told of the alias, and no more (RFC 1034 section 4.3.2).
            parts.alias = parts.alias.filter(|_| self.qtype != types::ANY);
        }
        if parts.answers.is_empty() {
            return self.nothing(number == 0, parts);
        }
        if parts.alias.is_none() {
            parts.errors = self.response.errors().to_vec();
        }
        if self.form.dnssec_ok && number < MOST && self.is_expanded(name) {
            parts.authority = self.proofs();
        }
        Some(parts)
    }

    /// There is nothing at the end of the chain.
    fn nothing(&self, is_first: bool, mut parts: Parts) -> Option<Parts> {
        // It says how long, and nothing else: whose it is, is the server's affair, as for Unbound.
        let mut authority = self.response.authority();
        let soa = authority.find(|record| record.rtype == types::SOA);
        let rcode = self.response.rcode;
        if rcode == Rcode::NOERROR && soa.is_none() && !is_first {
            return None;
        }
        parts.rcode = rcode;
        parts.errors = self.response.errors().to_vec();
        if let Some(soa) = soa {
            let minimum = soa
                .rdata
                .last_chunk()
                .map_or(0, |own| u32::from_be_bytes(*own));
            let most = minimum.min(MAX_NEGATIVE_TTL);
            let owner = Name::split_from(soa.owner).map(|(own, _)| own);
            let beside = self.response.authority();
            let beside = beside.filter(|own| own.owner.eq_ignore_ascii_case(soa.owner));
            let mut sets = self.signed(owner, std::iter::once(soa), types::SOA, beside);
            if self.form.dnssec_ok {
                sets.extend(self.proofs());
            }
            let sets = sets.into_iter().map(|set| set.at_most(most));
            parts.authority.extend(sets);
        }
        Some(parts)
    }

    /// The records of a type at a name.
    fn set(&self, name: &Name, rtype: u16) -> Vec<Set> {
        if rtype == types::RRSIG {
            return self.signatures(name);
        }
        let records = self.of(name).filter(|record| record.rtype == rtype);
        self.signed(None, records, rtype, self.of(name))
    }

    /// A set of records of a type, and for who wants them the signatures over it that stand `beside` it.
    fn signed(
        &self,
        owner: Option<Name>,
        records: impl Iterator<Item = RawRecord<'a>>,
        rtype: u16,
        beside: impl Iterator<Item = RawRecord<'a>>,
    ) -> Vec<Set> {
        let set = Set::new(owner.clone(), records);
        let wants = self.form.dnssec_ok && set.is_some();
        let signatures = beside.filter(|record| wants && covers(record, rtype));
        set.into_iter().chain(Set::new(owner, signatures)).collect()
    }

    /// All records at a name, for ANY, which asks for signatures as well.
    fn everything(&self, name: &Name) -> Vec<Set> {
        let own = || self.of(name);
        let mut rtypes: Vec<u16> = own().map(|record| record.rtype).collect();
        rtypes.sort_unstable();
        rtypes.dedup();
        let sets = rtypes.into_iter().flat_map(|rtype| match rtype {
            types::RRSIG => self.signatures(name),
            _ => Set::new(None, own().filter(|record| record.rtype == rtype))
                .into_iter()
                .collect(),
        });
        sets.collect()
    }

    /// The signatures at a name, a set for each type that they cover: each has the TTL of what it covers
    /// (RFC 4034 section 3).
    fn signatures(&self, name: &Name) -> Vec<Set> {
        let own = || self.of(name).filter(|record| record.rtype == types::RRSIG);
        let mut covered: Vec<&[u8]> = own().filter_map(|record| record.rdata.get(..2)).collect();
        covered.sort_unstable();
        covered.dedup();
        let set =
            |rtype: &[u8]| Set::new(None, own().filter(|record| record.rdata.starts_with(rtype)));
        covered.into_iter().filter_map(set).collect()
    }

    /// The alias at a name: of two the first counts. Where a DNAME made it, that stands in front.
    fn alias(&self, name: &Name, number: usize, parts: &mut Parts) {
        let cname = self.of(name).find(|record| record.rtype == types::CNAME);
        let is_above = |owner: &Name| owner != name && name.is_at_or_below(owner);
        let dname = self.dnames.iter().find(|(owner, _)| is_above(owner));
        if let Some((owner, record)) = dname
            && number < MOST
        {
            let record = std::iter::once(*record);
            let sets = self.signed(Some(owner.clone()), record, types::DNAME, self.of(owner));
            parts.answers.extend(sets);
        }
        let made;
        let cname = match (cname, dname) {
            (Some(cname), _) => Some(cname),
            // Who made the DNAME may leave it to us to make the alias.
            (None, Some((owner, record))) => {
                made = moved(name, owner, record.rdata);
                made.as_ref().map(|made| RawRecord {
                    owner: name.as_wire(),
                    rtype: types::CNAME,
                    ttl: record.ttl,
                    rdata: made.as_wire(),
                })
            }
            (None, None) => None,
        };
        let target = cname
            .and_then(|cname| Name::split_from(cname.rdata))
            // More than a name is no alias.
            .and_then(|(target, rest)| rest.is_empty().then_some(target));
        let Some(target) = target else {
            parts.answers.clear();
            return;
        };
        parts.alias = Some(target.to_lowercase());
        let sets = self.signed(None, cname.into_iter(), types::CNAME, self.of(name));
        parts.answers.extend(sets);
    }

    /// Is what the reply says of a name a wildcard's (RFC 4035 section 5.3.4)? Then a proof belongs to it
    /// that there is no better match.
    fn is_expanded(&self, name: &Name) -> bool {
        let labels = name.labels().filter(|label| *label != b"*").count();
        self.of(name).any(|record| {
            let signed = record.rdata.get(3).map(|labels| usize::from(*labels));
            record.rtype == types::RRSIG && signed.is_some_and(|own| own < labels)
        })
    }

    /// The records that prove that there is nothing, with their signatures.
    fn proofs(&self) -> Vec<Set> {
        let mut sets: Vec<Set> = Vec::new();
        let mut told: Vec<(&'a [u8], u16)> = Vec::new();
        for record in self.response.authority() {
            let place = (record.owner, record.rtype);
            if told.len() == MOST {
                break;
            }
            if !matches!(record.rtype, types::NSEC | types::NSEC3) || told.contains(&place) {
                continue;
            }
            told.push(place);
            let owner = Name::split_from(record.owner).map(|(own, _)| own);
            let own = || {
                let authority = self.response.authority();
                authority.filter(|own| own.owner == record.owner)
            };
            let records = own().filter(|own| own.rtype == record.rtype);
            sets.extend(self.signed(owner, records, record.rtype, own()));
        }
        sets
    }
}

/// The order of names in wire form, whatever their case: any will do that is the same for all.
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let lower = |byte: &u8| byte.to_ascii_lowercase();
    one.iter().map(lower).cmp(other.iter().map(lower))
}

/// Is it a signature over records of this type?
fn covers(record: &RawRecord<'_>, rtype: u16) -> bool {
    record.rtype == types::RRSIG && record.rdata.first_chunk() == Some(&rtype.to_be_bytes())
}

/// The name below `from` moved below `to`; `None` if it is too long there.
fn moved(name: &Name, from: &Name, to: &[u8]) -> Option<Name> {
    let (to, rest) = Name::split_from(to)?;
    if !rest.is_empty() {
        return None;
    }
    let kept = name.labels().count() - from.labels().count();
    Name::from_labels(name.labels().take(kept).chain(to.labels())).ok()
}
