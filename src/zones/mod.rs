//! Static zones: master files (RFC 1035 section 5) served with authority; and hosts files for what is in none.
//!
//! A zone is a file that ends in `.zone`. It is read once, checked, and never changed afterwards;
//! a reload builds new [`Zones`] and swaps them in, so that a bad file never replaces a good one.
//! Hickory parses the record data, and builds and checks the zone. The text around the data and the
//! lookup are ours, for the reasons given in `tokens`, `rdata` and `lookup`.
//!
//! A zone speaks of its own names alone, and at once: what an alias or a host leads to is left open.
//!
//! What is left out on purpose: `$INCLUDE` and `$GENERATE`, DNAME, DNSSEC records, zone transfers.
//! Each is refused with a clear word.

mod hosts;
mod load;
mod lookup;
mod master;
mod rdata;
mod tokens;

use std::collections::{HashMap, HashSet};

use hickory_proto::rr::{LowerName, Record, RecordType};

use crate::dns::hickory::{from_hickory, record, to_hickory};
use crate::dns::{Answer, Glue, Name, Open, Rcode, Reach, types};

pub use hosts::Hosts;
pub use load::Error;
use lookup::{Hit, Records};

/// Every static zone, ready to be asked. Immutable: put it into an `Arc`.
pub struct Zones {
    /// By the wire form of the apex, in lower case.
    zones: HashMap<Box<[u8]>, Zone>,
    /// What is in no zone.
    hosts: Hosts,
}

/// One zone.
struct Zone {
    origin: LowerName,
    records: Records,
}

impl Zones {
    /// No zones at all.
    pub fn empty() -> Self {
        Self {
            zones: HashMap::new(),
            hosts: Hosts::default(),
        }
    }

    /// The same with hosts for what is in no zone.
    #[must_use]
    pub fn with_hosts(self, hosts: Hosts) -> Self {
        Self { hosts, ..self }
    }

    /// How many names there are from hosts files.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The apex of every zone, in alphabetical order, for a summary.
    pub fn origins(&self) -> Vec<Name> {
        let mut origins: Vec<&LowerName> = self.zones.values().map(|zone| &zone.origin).collect();
        origins.sort();
        origins
            .into_iter()
            .filter_map(|origin| from_hickory(origin))
            .collect()
    }

    /// Is a name in one of the zones, or of the hosts? `name` is in lower case.
    pub fn have(&self, name: &Name) -> bool {
        self.zone_of(name).is_some() || self.hosts.have(name)
    }

    /// What the zone with the longest name that holds `name` says to it (RFC 1034 section 4.3.2), or else
    /// the hosts; `None` if nobody does. `name` is in lower case.
    pub fn lookup(&self, name: &Name, qtype: u16) -> Option<Answer> {
        let Some(zone) = self.zone_of(name) else {
            return self.hosts.lookup(name, qtype);
        };
        if matches!(qtype, types::AXFR | types::IXFR) {
            return Some(Answer::empty(Rcode::REFUSED, true));
        }
        let wanted = to_hickory(name)?;
        let hit = lookup::look(
            &zone.records,
            &zone.origin,
            &wanted,
            RecordType::from(qtype),
        );
        let mut answer = Answer::empty(Rcode::NOERROR, true);
        match hit {
            Hit::Answer(found) => add(&mut answer, &found),
            Hit::Alias(target, alias) => {
                answer.answers.extend(record(&alias));
                answer.open.extend(from_hickory(&target).map(|to| Open {
                    to,
                    of: None,
                    max_ttl: u32::MAX,
                    decides: true,
                    reach: Reach::Recursive,
                }));
            }
            Hit::Referral(servers) => {
                // AA speaks of the first owner name (RFC 1035 section 4.1.1).
                answer.authoritative = false;
                answer.additional = self.glue(&servers);
                answer.authority = servers.iter().filter_map(record).collect();
            }
            Hit::NoData => answer.authority.extend(zone.negative_soa()),
            Hit::NxDomain => {
                answer.rcode = Rcode::NXDOMAIN;
                answer.authority.extend(zone.negative_soa());
            }
        }
        Some(answer)
    }

    /// The zone with the longest name that holds `name`.
    fn zone_of(&self, name: &Name) -> Option<&Zone> {
        let mut rest = name.as_wire();
        while !self.zones.is_empty() {
            if let Some(zone) = self.zones.get(rest) {
                return Some(zone);
            }
            let length = usize::from(*rest.first()?);
            if length == 0 {
                return None;
            }
            rest = rest.get(length + 1..)?;
        }
        None
    }

    /// The addresses of name servers that others are referred to, as far as our zones have them:
    /// all A before any AAAA, each in the order of the servers. They may lie below the cut, where no
    /// lookup goes.
    fn glue(&self, servers: &[Record]) -> Vec<Glue> {
        let servers = servers.iter().filter_map(record);
        let hosts: Vec<_> = servers.filter_map(|ns| ns.data.host()).collect();
        let mut found = Vec::new();
        for rtype in [RecordType::A, RecordType::AAAA] {
            for host in &hosts {
                let zone = self.zone_of(&host.to_lowercase()).zip(to_hickory(host));
                let addresses = zone.map(|(zone, host)| lookup::exact(&zone.records, &host, rtype));
                let addresses = addresses.unwrap_or_default();
                let glue = addresses.iter().filter_map(record);
                found.extend(glue.map(|record| Glue { of: 0, record }));
            }
        }
        found
    }
}

impl Zone {
    fn negative_soa(&self) -> Option<crate::dns::Record> {
        record(&lookup::negative_soa(&self.records, &self.origin)?)
    }
}

/// Adds the records that answer a question, and leaves the addresses of their hosts open.
fn add(answer: &mut Answer, found: &[Record]) {
    let mut hosts = HashSet::new();
    for own in found {
        let Some(converted) = record(own) else {
            continue;
        };
        let of = answer.answers.len();
        let host = converted.data.host();
        let host = host.filter(|host| hosts.insert(host.to_lowercase()));
        answer.answers.push(converted);
        answer.open.extend(host.map(|to| Open {
            to,
            of: Some(of),
            max_ttl: u32::MAX,
            decides: false,
            reach: Reach::Recursive,
        }));
    }
}

#[cfg(test)]
mod tests;
