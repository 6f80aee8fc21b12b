//! The name server algorithm of RFC 1034 section 4.3.2 over the record sets of one zone.
//!
//! Hickory's own lookup is not used: it puts wildcards over names that exist (RFC 4592 section
//! 2.2.1), and it reads the whole zone to tell NXDOMAIN from NODATA, which a stream of mistyped
//! names would turn into load. Here both are a few steps in an ordered map: a name's descendants
//! follow it directly in canonical order (RFC 4034 section 6.1).

use std::collections::BTreeMap;
use std::sync::Arc;

use hickory_proto::rr::{LowerName, Name, RData, Record, RecordSet, RecordType, RrKey};

/// The record sets of a zone, as hickory built them.
pub(super) type Records = BTreeMap<RrKey, Arc<RecordSet>>;

/// What one zone says about one name and type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Hit {
    /// These records answer the question.
    Answer(Vec<Record>),
    /// The name is an alias of this one, by this CNAME record.
    Alias(Name, Box<Record>),
    /// The name is in a part of the zone that others serve; these are their NS records.
    Referral(Vec<Record>),
    /// The name exists, the type does not.
    NoData,
    /// The name does not exist.
    NxDomain,
}

/// Looks `name` up in the zone `origin`. `name` must be in the zone.
pub(super) fn look(records: &Records, origin: &LowerName, name: &Name, rtype: RecordType) -> Hit {
    let wanted = LowerName::new(name);
    if let Some(cut) = delegation(records, origin, &wanted, rtype) {
        return Hit::Referral(cut.records_without_rrsigs().cloned().collect());
    }
    if has_records(records, &wanted) {
        return at_node(records, &wanted, name, rtype);
    }
    if exists(records, &wanted) {
        // An empty non-terminal (RFC 8020): nothing here, but something below.
        return Hit::NoData;
    }
    // RFC 4592 section 3.3.1: only the wildcard right under the closest encloser counts.
    let mut encloser = wanted.base_name();
    while encloser != *origin && !exists(records, &encloser) {
        encloser = encloser.base_name();
    }
    let wildcard = Name::from(encloser).prepend_label(b"*".as_slice());
    match wildcard.map(|name| LowerName::new(&name)) {
        Ok(wildcard) if has_records(records, &wildcard) => at_node(records, &wildcard, name, rtype),
        _ => Hit::NxDomain,
    }
}

/// The SOA record for the authority section of a negative answer. Its TTL is how long the absence
/// may be remembered (RFC 2308 section 3).
pub(super) fn negative_soa(records: &Records, origin: &LowerName) -> Option<Record> {
    let set = records.get(&RrKey::new(origin.clone(), RecordType::SOA))?;
    let mut record = set.record()?.clone();
    if let RData::SOA(soa) = &record.data {
        record.ttl = record.ttl.min(soa.minimum);
    }
    Some(record)
}

/// The records of exactly this name and type, cuts or not: glue lies below a cut.
pub(super) fn exact(records: &Records, name: &Name, rtype: RecordType) -> Vec<Record> {
    records
        .get(&RrKey::new(LowerName::new(name), rtype))
        .map(|set| set.records_without_rrsigs().cloned().collect())
        .unwrap_or_default()
}

/// The NS set of the topmost cut between the apex and `name`.
fn delegation<'r>(
    records: &'r Records,
    origin: &LowerName,
    name: &LowerName,
    rtype: RecordType,
) -> Option<&'r RecordSet> {
    let mut found = None;
    let mut at = name.clone();
    while at != *origin && !at.is_root() {
        let parent = at.base_name();
        // DS at a cut belongs to this side of it (RFC 4035 section 3.1.4.1).
        if !(rtype == RecordType::DS && at == *name) {
            let cut = records.get(&RrKey::new(at, RecordType::NS));
            found = cut.map(AsRef::as_ref).or(found);
        }
        at = parent;
    }
    found
}

/// What is at `node`, with `owner` as the owner: the name as it was asked, or one that a wildcard
/// stands for.
fn at_node(records: &Records, node: &LowerName, owner: &Name, rtype: RecordType) -> Hit {
    let owned = |set: &Arc<RecordSet>| -> Vec<Record> {
        set.records_without_rrsigs()
            .map(|record| {
                let mut record = record.clone();
                record.name = owner.clone();
                record
            })
            .collect()
    };
    let get = |rtype| records.get(&RrKey::new(node.clone(), rtype));
    if rtype == RecordType::ANY {
        let all = sets_at(records, node).flat_map(|(_, set)| owned(set));
        return Hit::Answer(all.collect());
    }
    if let Some(set) = get(rtype) {
        return Hit::Answer(owned(set));
    }
    let alias = get(RecordType::CNAME).and_then(|set| owned(set).into_iter().next());
    alias.map_or(Hit::NoData, |record| match &record.data {
        RData::CNAME(target) => Hit::Alias(target.0.clone(), Box::new(record)),
        _ => Hit::NoData,
    })
}

fn sets_at<'r>(
    records: &'r Records,
    node: &LowerName,
) -> impl Iterator<Item = (&'r RrKey, &'r Arc<RecordSet>)> {
    let first = RrKey::new(node.clone(), RecordType::from(0));
    let node = node.clone();
    records
        .range(first..)
        .take_while(move |(key, _)| key.name == node)
}

fn has_records(records: &Records, node: &LowerName) -> bool {
    sets_at(records, node).next().is_some()
}

/// Is there a record at this name or below it?
fn exists(records: &Records, name: &LowerName) -> bool {
    let first = RrKey::new(name.clone(), RecordType::from(0));
    records
        .range(first..)
        .next()
        .is_some_and(|(key, _)| name.zone_of(&key.name))
}
