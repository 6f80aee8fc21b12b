//! Lookup + catalog -> answer (Consul `agent/dns.go`: `makeNodeServiceRecords` and around it).

use std::net::IpAddr;

use crate::catalog::{Found, Kind, Node, Patience, Pending, Reader, Scope, ServiceKey};
use crate::names::{Domains, Lookup, Name, types};

use super::address::Addresses;
use super::answer::{Answer, Outside, Rcode};
use super::record::{Data, Record};
use super::settings::Settings;
use super::target::{addresses_by_family, node_target, push_glue};

/// The Extended DNS Error for an answer that is the last known good (RFC 8914 section 4.4).
const STALE_ANSWER: u16 = 3;

/// Consul names at most three servers in NS answers.
const MAX_NAME_SERVERS: usize = 3;

/// A question about a name below a domain of ours.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The domain that it is below, in lower case.
    pub domain: &'a Name,
    /// The whole name.
    pub name: &'a Name,
    /// QTYPE.
    pub qtype: u16,
    /// When it is asked.
    pub moment: Moment,
    /// May the answer wait until old data has been confirmed?
    pub patience: Patience,
    /// Who asks: a prepared query may be sorted by where that is.
    pub client: IpAddr,
    /// The question whose alias led here.
    pub(super) via: Option<&'a Self>,
}

/// When a question is asked, on the clocks that matter.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Seconds on the catalog's clock.
    pub now: u64,
    /// The SOA serial: seconds since 1970, as Consul's.
    pub serial: u32,
    /// When that serial is over, in milliseconds on the catalog's clock.
    pub serial_ends: u64,
}

/// Aliases that are followed inside our domains. Chains that people make have one or two.
const MAX_ALIASES: usize = 8;

impl<'a> Asked<'a> {
    /// A client's question for `name`, which is below `domain`.
    pub fn new(
        domain: &'a Name,
        name: &'a Name,
        qtype: u16,
        moment: Moment,
        client: IpAddr,
    ) -> Self {
        Self {
            domain,
            name,
            qtype,
            moment,
            patience: Patience::Some,
            client,
            via: None,
        }
    }

    /// The same, with or without patience.
    #[must_use]
    pub fn with(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Does following an alias to `name` from here go round in a circle, or too far?
    fn has_been_at(&self, name: &Name) -> bool {
        let mut steps = 0;
        let mut at = Some(self);
        while let Some(asked) = at {
            steps += 1;
            if steps > MAX_ALIASES || asked.name.to_lowercase() == name.to_lowercase() {
                return true;
            }
            at = asked.via;
        }
        false
    }
}

/// How far a question got.
#[derive(Debug)]
pub enum Step {
    /// The answer.
    Answer(Answer),
    /// A service must be loaded first; ask again after the wait.
    Wait(Pending),
    /// No data yet: nothing may be said about this name (D5).
    Unready,
}

/// Makes answers from a catalog.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    /// What exists; what is read of it is noted there.
    pub catalog: &'a Reader<'a>,
    /// What the operator has set.
    pub settings: &'a Settings,
    /// The domains that are answered from the catalog: aliases into them are followed at once.
    pub domains: &'a Domains,
}

/// Why there are no records to choose from.
pub(super) enum Miss {
    Absent,
    Wait(Pending),
    Unready,
}

pub(super) fn found<T>(found: Found<T>) -> Result<T, Miss> {
    match found {
        Found::Here(value) => Ok(value),
        Found::Loading(pending) => Err(Miss::Wait(pending)),
        Found::Absent => Err(Miss::Absent),
        Found::Unready => Err(Miss::Unready),
    }
}

impl Maker<'_> {
    /// Answers a question.
    pub fn answer(&self, lookup: &Lookup, asked: &Asked<'_>) -> Step {
        // Consul answers these two before it looks at the name, for every name of the zone.
        let answer = match asked.qtype {
            types::SOA => self.start_of_authority(asked),
            types::NS => self.name_servers(asked),
            types::AXFR => Ok(Answer::empty(Rcode::NOTIMP, true)),
            _ => self.by_lookup(lookup, asked),
        };
        let scope = lookup.scope();
        let stale = |answer: Answer| {
            let away = scope.is_some_and(|scope| self.catalog.is_stale(scope));
            Step::Answer(Answer {
                extended_error: away.then_some(STALE_ANSWER),
                ..answer
            })
        };
        match answer {
            Ok(answer) => stale(answer),
            Err(Miss::Absent) => stale(self.nxdomain(asked)),
            Err(Miss::Wait(pending)) => Step::Wait(pending),
            Err(Miss::Unready) => Step::Unready,
        }
    }

    fn by_lookup(&self, lookup: &Lookup, asked: &Asked<'_>) -> Result<Answer, Miss> {
        match lookup {
            Lookup::Apex => Ok(self.nodata(asked)),
            Lookup::Nothing => Err(Miss::Absent),
            Lookup::EmptyNonTerminal(scope) => {
                found(self.catalog.has(scope))?;
                Ok(self.nodata(asked))
            }
            Lookup::Address(ip) => Ok(self.address(*ip, asked)),
            Lookup::Node { name, scope } => self.node(name, scope, asked),
            Lookup::Virtual { name, scope } => self.virtual_address(name, scope, asked),
            Lookup::Query { name, scope } => self.query(name, scope, asked),
            Lookup::Service {
                kind,
                name,
                tag,
                scope,
                only_srv,
                ..
            } => {
                let answer = match self.service(lookup, asked) {
                    // `_tcp.service` is above every `_web._tcp.service`, so it exists; RFC 8020.
                    Err(Miss::Absent)
                        if *kind == Kind::Service && tag.is_none() && name.starts_with('_') =>
                    {
                        found(self.catalog.has(scope))?;
                        self.nodata(asked)
                    }
                    answer => answer?,
                };
                Ok(if *only_srv {
                    self.nodata(asked)
                } else {
                    answer
                })
            }
        }
    }

    /// Is the node in another datacenter, and are addresses translated for that?
    pub(super) fn is_across_wan(&self, node: &Node) -> bool {
        self.settings.translate_wan_addrs
            && !node
                .datacenter
                .eq_ignore_ascii_case(&self.catalog.local_datacenter())
    }

    pub(super) fn nxdomain(&self, asked: &Asked<'_>) -> Answer {
        Answer::negative(Rcode::NXDOMAIN, self.soa(asked))
    }

    pub(super) fn nodata(&self, asked: &Asked<'_>) -> Answer {
        Answer::negative(Rcode::NOERROR, self.soa(asked))
    }

    /// Records for the asked name, or NODATA if there are none.
    pub(super) fn data(&self, asked: &Asked<'_>, ttl: u32, data: Vec<Data>) -> Answer {
        if data.is_empty() {
            return self.nodata(asked);
        }
        Answer {
            answers: data
                .into_iter()
                .map(|data| Record {
                    owner: asked.name.clone(),
                    ttl,
                    data,
                })
                .collect(),
            ..Answer::empty(Rcode::NOERROR, true)
        }
    }

    /// What stands at the end of an alias: records for the type asked, and the name outside our
    /// domains that it leads to, if it does.
    pub(super) fn follow(
        &self,
        target: &Name,
        asked: &Asked<'_>,
    ) -> Result<(Vec<Record>, Option<Name>), Miss> {
        if asked.has_been_at(target) {
            return Ok((Vec::new(), None));
        }
        let Some((domain, lookup)) = self.domains.parse(target.as_wire(), asked.qtype) else {
            return Ok((Vec::new(), Some(target.clone())));
        };
        let next = Asked {
            domain,
            name: target,
            via: Some(asked),
            ..*asked
        };
        match self.by_lookup(&lookup, &next) {
            Ok(answer) => {
                let outside = answer.outside.into_iter().next();
                Ok((answer.answers, outside.map(|outside| outside.target)))
            }
            Err(Miss::Absent) => Ok((Vec::new(), None)),
            Err(miss) => Err(miss),
        }
    }

    /// Puts behind an answer that ends in an alias what the alias leads to.
    pub(super) fn with_alias_followed(
        &self,
        mut answer: Answer,
        asked: &Asked<'_>,
        max_ttl: u32,
    ) -> Result<Answer, Miss> {
        let alias = answer.answers.iter().find_map(|record| match &record.data {
            Data::Cname(target) => Some(target.clone()),
            _ => None,
        });
        let Some(target) = alias else {
            return Ok(answer);
        };
        // Who asks for the alias itself gets no more.
        if asked.qtype == types::CNAME {
            return Ok(answer);
        }
        let (mut records, outside) = self.follow(&target, asked)?;
        if asked.qtype == types::ANY {
            // ANY of an alias is about addresses; a node's metadata is not the service's.
            records.retain(|record| record.data.rtype() != types::TXT);
        }
        answer
            .answers
            .extend(records.into_iter().map(|record| Record {
                ttl: record.ttl.min(max_ttl),
                ..record
            }));
        answer.outside = outside
            .map(|target| Outside {
                of: None,
                target,
                max_ttl,
            })
            .into_iter()
            .collect();
        Ok(answer)
    }

    fn soa(&self, asked: &Asked<'_>) -> Record {
        let soa = self.settings.soa;
        self.catalog.ends_at(asked.moment.serial_ends);
        let below = |label| asked.domain.below(label).unwrap_or_else(|_| Name::root());
        Record {
            owner: asked.domain.clone(),
            ttl: soa.min_ttl,
            data: Data::Soa {
                mname: below("ns"),
                rname: below("hostmaster"),
                serial: asked.moment.serial,
                refresh: soa.refresh,
                retry: soa.retry,
                expire: soa.expire,
                minimum: soa.min_ttl,
            },
        }
    }

    fn start_of_authority(&self, asked: &Asked<'_>) -> Result<Answer, Miss> {
        let servers = self.name_servers(asked)?;
        let has_servers = !servers.answers.is_empty();
        Ok(Answer {
            answers: vec![self.soa(asked)],
            authority: if has_servers {
                servers.answers
            } else {
                Vec::new()
            },
            additional: servers.additional,
            ..Answer::empty(Rcode::NOERROR, true)
        })
    }

    /// NS: the Consul servers, which are the healthy instances of the service `consul`.
    fn name_servers(&self, asked: &Asked<'_>) -> Result<Answer, Miss> {
        let key = ServiceKey::new(Kind::Service, "consul");
        let service = match found(self.catalog.service(
            &Scope::default(),
            &key,
            asked.moment.now,
            asked.patience,
        )) {
            Ok(service) => service,
            Err(Miss::Absent) => return Ok(self.nodata(asked)),
            Err(miss) => return Err(miss),
        };
        let mut answer = Answer::empty(Rcode::NOERROR, true);
        let ttl = self.settings.node_ttl;
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let servers = self
            .usable(service.instances(), None)
            .filter(|instance| plain(&instance.node.name));
        for instance in servers.take(MAX_NAME_SERVERS) {
            let Ok(target) = node_target(&instance.node, &Scope::default(), asked.domain) else {
                continue;
            };
            let of = answer.answers.len();
            answer.answers.push(Record {
                owner: asked.domain.clone(),
                ttl,
                data: Data::Ns(target.clone()),
            });
            let addresses = Addresses::of(
                &instance.node.address,
                &instance.node.tagged_addresses,
                false,
            );
            push_glue(&mut answer.additional, of, &target, ttl, &addresses);
        }
        if answer.answers.is_empty() {
            return Ok(self.nodata(asked));
        }
        addresses_by_family(&mut answer.additional);
        Ok(answer)
    }

    fn address(&self, ip: IpAddr, asked: &Asked<'_>) -> Answer {
        let data = match (ip, asked.qtype) {
            (IpAddr::V4(ip), types::A | types::ANY) => vec![Data::A(ip)],
            (IpAddr::V6(ip), types::AAAA | types::ANY) => vec![Data::Aaaa(ip)],
            _ => Vec::new(),
        };
        self.data(asked, self.settings.node_ttl, data)
    }
}
