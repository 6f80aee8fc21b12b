//! Static zones: master files (RFC 1035 section 5) served with authority.
//!
//! A zone is a file that ends in `.zone`. It is read once, checked, and never changed afterwards;
//! a reload builds new [`Zones`] and swaps them in, so that a bad file never replaces a good one.
//! Hickory parses the record data and holds the records. The text around them and the lookup are
//! ours, for the reasons given in `tokens`, `rdata` and `lookup`.
//!
//! What is left out on purpose: `$INCLUDE` and `$GENERATE`, DNAME, DNSSEC records, zone transfers.
//! Each is refused with a clear word.

mod load;
mod lookup;
mod master;
mod rdata;
mod tokens;

use std::collections::{HashMap, HashSet};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use hickory_server::store::in_memory::InMemoryZoneHandler;

pub use load::Error;
use lookup::Step;

/// Every static zone, ready to be asked. Immutable: put it into an `Arc`.
pub struct Zones {
    zones: HashMap<LowerName, InMemoryZoneHandler>,
}

/// What the zones say about one question.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// NOERROR, NXDOMAIN, or REFUSED for a zone transfer.
    pub rcode: ResponseCode,
    /// Speaks the zone itself? False for a referral (RFC 1034 section 4.3.2, the AA bit).
    pub authoritative: bool,
    /// Aliases in the order in which they were followed, then the records asked for.
    pub answers: Vec<Record>,
    /// The SOA record of a negative answer, or the NS records of a referral.
    pub authority: Vec<Record>,
    /// The addresses that our zones know for every target in the other sections: all A records in
    /// the order of their targets, then all AAAA records.
    pub additional: Vec<Record>,
    /// The last alias leads to this name, which is in none of our zones. Who recurses may go on
    /// there; who does not has a complete answer as it is.
    pub unfinished: Option<Name>,
}

impl Outcome {
    fn new(rcode: ResponseCode) -> Self {
        Self {
            rcode,
            authoritative: true,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            unfinished: None,
        }
    }
}

/// How many aliases are followed. A chain in files that people write has one or two.
const MAX_ALIASES: usize = 16;

impl Zones {
    /// No zones at all.
    pub fn empty() -> Self {
        Self {
            zones: HashMap::new(),
        }
    }

    /// The apex of every zone, in alphabetical order, for a summary.
    pub fn origins(&self) -> Vec<Name> {
        let mut origins: Vec<LowerName> = self.zones.keys().cloned().collect();
        origins.sort();
        origins.into_iter().map(Name::from).collect()
    }

    /// Answers a question from the zone with the longest name that holds `name`
    /// (RFC 1034 section 4.3.2); `None` if no zone does. An alias is followed into other zones of
    /// ours. The owner names of what answers `name` itself have its letter case.
    pub async fn lookup(&self, name: &Name, rtype: RecordType) -> Option<Outcome> {
        let mut name = name.clone();
        name.set_fqdn(true);
        self.zone_of(&name)?;
        if matches!(rtype, RecordType::AXFR | RecordType::IXFR) {
            return Some(Outcome::new(ResponseCode::Refused));
        }
        let mut outcome = Outcome::new(ResponseCode::NoError);
        let mut seen = HashSet::new();
        let mut glue_only = false;
        loop {
            let Some((origin, zone)) = self.zone_of(&name) else {
                outcome.unfinished = Some(name);
                break;
            };
            if seen.len() > MAX_ALIASES || !seen.insert(LowerName::new(&name)) {
                // A circle of aliases. The records are what the zone says; there is no more.
                break;
            }
            let records = zone.records().await;
            match lookup::step(&records, origin, &name, rtype) {
                Step::Answer(found) => outcome.answers.extend(found),
                Step::Alias(alias) => {
                    let target = match &alias.data {
                        RData::CNAME(target) => Some(target.0.clone()),
                        _ => None,
                    };
                    outcome.answers.push(*alias);
                    if let Some(target) = target {
                        name = target;
                        continue;
                    }
                }
                Step::Referral(servers) => {
                    // AA speaks of the first owner name (RFC 1035 section 4.1.1).
                    outcome.authoritative = !outcome.answers.is_empty();
                    outcome.authority = servers;
                    glue_only = true;
                }
                step @ (Step::NoData | Step::NxDomain) => {
                    if step == Step::NxDomain {
                        // Also behind an alias: RFC 6604 section 2.1.
                        outcome.rcode = ResponseCode::NXDomain;
                    }
                    outcome
                        .authority
                        .extend(lookup::negative_soa(&records, origin));
                }
            }
            break;
        }
        outcome.additional = self.addresses(&outcome, glue_only).await;
        Some(outcome)
    }

    /// The zone with the longest name that holds `name`.
    fn zone_of(&self, name: &Name) -> Option<(&LowerName, &InMemoryZoneHandler)> {
        let mut at = LowerName::new(name);
        loop {
            if let Some(found) = self.zones.get_key_value(&at) {
                return Some(found);
            }
            if at.is_root() {
                return None;
            }
            at = at.base_name();
        }
    }

    /// The addresses of every target in the answer and authority sections, as far as our zones
    /// have them. Behind a referral they are glue, which lies below the cut.
    async fn addresses(&self, outcome: &Outcome, glue: bool) -> Vec<Record> {
        let mut seen = HashSet::new();
        let mut targets = Vec::new();
        for record in outcome.answers.iter().chain(&outcome.authority) {
            let target = match &record.data {
                RData::NS(ns) => &ns.0,
                RData::MX(mx) => &mx.exchange,
                RData::SRV(srv) => &srv.target,
                _ => continue,
            };
            if seen.insert(LowerName::new(target)) {
                targets.push(target);
            }
        }
        let mut found = Vec::new();
        for rtype in [RecordType::A, RecordType::AAAA] {
            for target in &targets {
                let Some((origin, zone)) = self.zone_of(target) else {
                    continue;
                };
                let records = zone.records().await;
                if glue {
                    found.extend(lookup::exact(&records, target, rtype));
                } else if let Step::Answer(addresses) =
                    lookup::step(&records, origin, target, rtype)
                {
                    found.extend(addresses);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
