//! A master file's entries -> the record sets of one zone (RFC 1035 section 5, RFC 2308 section 4).

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use hickory_proto::rr::{DNSClass, LowerName, Name, Record, RecordSet, RecordType, RrKey};
use hickory_proto::serialize::txt::parse_ttl;

use super::rdata;
use super::tokens::{Entries, Entry, Fault, Token};

/// One zone as its file says it.
#[derive(Debug)]
pub(super) struct Master {
    /// The owner of the SOA record.
    pub(super) origin: Name,
    /// Every record set; each record of a set has the same TTL.
    pub(super) records: BTreeMap<RrKey, RecordSet>,
}

/// The largest TTL (RFC 2181 section 8). More is a typing error.
const MAX_TTL: u32 = 0x7fff_ffff;

/// Reads a whole file.
///
/// `origin` is what relative names are relative to until a `$ORIGIN` line says otherwise. The zone
/// is where the SOA record is, which also reads files that start with `$ORIGIN .`, as BIND's tools
/// write them.
///
/// # Errors
/// The first thing that is wrong, with its line. A zone without SOA is reported on line 1.
pub(super) fn parse(text: &str, origin: Option<Name>) -> Result<Master, Fault> {
    let mut reader = Reader {
        origin,
        owner: None,
        default_ttl: None,
        last_ttl: None,
    };
    let mut found = Vec::new();
    for entry in Entries::new(text) {
        let entry = entry?;
        let line = entry.line;
        if let Some(record) = reader
            .entry(entry)
            .map_err(|message| Fault { line, message })?
        {
            found.push((line, record));
        }
    }
    assemble(found)
}

/// What one entry leaves behind for the next.
struct Reader {
    origin: Option<Name>,
    owner: Option<Name>,
    default_ttl: Option<u32>,
    last_ttl: Option<u32>,
}

impl Reader {
    /// A record, or `None` for a directive.
    fn entry(&mut self, entry: Entry) -> Result<Option<Record>, String> {
        let mut words = entry.tokens.as_slice();
        if !entry.indented
            && let [first, rest @ ..] = words
        {
            if !first.quoted && first.text.starts_with('$') {
                self.directive(&first.text, rest)?;
                return Ok(None);
            }
            self.owner = Some(rdata::name(first, self.origin()?)?);
            words = rest;
        }
        let owner = self
            .owner
            .clone()
            .ok_or("the line starts with blank space, but no record is before it")?;
        let (ttl, words) = ttl_and_class(words)?;
        let [rtype, words @ ..] = words else {
            return Err(format!("no record type after {owner}"));
        };
        let rtype = rdata::record_type(&rtype.text)?;
        let data = rdata::rdata(rtype, words, self.origin()?)?;
        let ttl = ttl
            .or(self.default_ttl)
            .or(self.last_ttl)
            .ok_or("no TTL: put one on this line, or a $TTL line at the top")?;
        self.last_ttl = Some(ttl);
        Ok(Some(Record::from_rdata(owner, ttl, data)))
    }

    fn origin(&self) -> Result<&Name, String> {
        self.origin
            .as_ref()
            .ok_or_else(|| "a name before any $ORIGIN".to_owned())
    }

    fn directive(&mut self, which: &str, words: &[Token]) -> Result<(), String> {
        let one = || match words {
            [word] => Ok(word),
            _ => Err(format!("{which} takes one word, not {}", words.len())),
        };
        match which.to_ascii_uppercase().as_str() {
            "$ORIGIN" => {
                // The first line of a file may set an origin where none is yet.
                let base = self.origin.clone().unwrap_or_else(Name::root);
                self.origin = Some(rdata::name(one()?, &base)?);
                Ok(())
            }
            "$TTL" => {
                self.default_ttl = Some(seconds(&one()?.text)?);
                Ok(())
            }
            // It can name any file of the host and include itself without end. Nobody needs it for
            // the few static zones of a host.
            "$INCLUDE" => {
                Err("$INCLUDE is not followed: put the records into this file".to_owned())
            }
            _ => Err(format!("unknown directive {which}")),
        }
    }
}

/// Takes `[TTL] [class]` in either order off the front of a record's words.
fn ttl_and_class(mut words: &[Token]) -> Result<(Option<u32>, &[Token]), String> {
    let mut ttl = None;
    let mut class = None;
    while let [word, rest @ ..] = words {
        if ttl.is_none() && word.text.starts_with(|c: char| c.is_ascii_digit()) {
            ttl = Some(seconds(&word.text)?);
        } else if class.is_none()
            && let Ok(found) = DNSClass::from_str(&word.text.to_ascii_uppercase())
        {
            if found != DNSClass::IN {
                return Err(format!("class {found}; only IN is served"));
            }
            class = Some(found);
        } else {
            break;
        }
        words = rest;
    }
    Ok((ttl, words))
}

/// Seconds, or `1h30m` as BIND writes it.
fn seconds(word: &str) -> Result<u32, String> {
    match parse_ttl(word) {
        Ok(ttl) if ttl <= MAX_TTL => Ok(ttl),
        Ok(ttl) => Err(format!("a TTL of {ttl} s is more than {MAX_TTL}")),
        Err(_) => Err(format!("{word:?} is not a TTL")),
    }
}

/// Checks the records against each other and sorts them into sets.
fn assemble(found: Vec<(usize, Record)>) -> Result<Master, Fault> {
    let Some(origin) = found
        .iter()
        .find(|(_, record)| record.record_type() == RecordType::SOA)
        .map(|(_, record)| record.name.clone())
    else {
        return Err(Fault {
            line: 1,
            message: "the zone has no SOA record".to_owned(),
        });
    };
    let mut records: BTreeMap<RrKey, RecordSet> = BTreeMap::new();
    let mut kinds: HashMap<LowerName, Kind> = HashMap::new();
    for (line, record) in found {
        let fault = |message| Err(Fault { line, message });
        let rtype = record.record_type();
        let owner = LowerName::new(&record.name);
        if !origin.zone_of(&record.name) {
            return fault(format!("{} is outside of the zone {origin}", record.name));
        }
        let key = RrKey::new(owner.clone(), rtype);
        if rtype == RecordType::SOA && (records.contains_key(&key) || record.name != origin) {
            return fault(format!("a second SOA record; {origin} has one already"));
        }
        let kind = kinds.entry(owner).or_default();
        match rtype {
            // RFC 1034 section 3.6.2, RFC 2181 section 10.1.
            RecordType::CNAME if kind.alias || kind.other => {
                return fault(format!("{} has a CNAME and another record", record.name));
            }
            RecordType::CNAME => kind.alias = true,
            _ if kind.alias => {
                return fault(format!("{} has a CNAME and another record", record.name));
            }
            _ => kind.other = true,
        }
        match records.get_mut(&key) {
            Some(set) => {
                set.insert(record, 0);
            }
            None => {
                records.insert(key, RecordSet::from(record));
            }
        }
    }
    for set in records.values_mut() {
        // RFC 2181 section 5.2: one TTL for a set; the lowest is never wrong.
        let lowest = set.records_without_rrsigs().map(|record| record.ttl).min();
        if let Some(ttl) = lowest {
            set.set_ttl(ttl);
        }
    }
    Ok(Master { origin, records })
}

/// What is at a name so far.
#[derive(Default)]
struct Kind {
    alias: bool,
    other: bool,
}

#[cfg(test)]
mod tests;
