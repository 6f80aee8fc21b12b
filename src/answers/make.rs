//! Lookup + catalog -> answer (Consul `agent/dns.go`: `makeNodeServiceRecords` and around it).

use std::net::IpAddr;

use crate::catalog::{Found, Kind, Miss, Node, Patience, Reader, Scope, ServiceKey};
use crate::dns::{Answer, Data, ExtendedError, Name, Open, Rcode, Reach, Record, types};

use super::address::{Addresses, addresses_by_family, node_target, push_glue};
use super::lookup::Lookup;
use super::settings::Settings;

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
    /// An alias led here.
    pub by_alias: bool,
}

/// When a question is asked, on the clocks that matter.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The SOA serial: seconds since 1970, as Consul's.
    pub serial: u32,
    /// When that serial is over, in milliseconds on the catalog's clock.
    pub serial_ends: u64,
}

/// Makes answers from a catalog.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    /// What exists; what is read of it is noted there.
    pub catalog: &'a Reader<'a>,
    /// What the operator has set.
    pub settings: &'a Settings,
}

impl Maker<'_> {
    /// Answers a question, in the end with NXDOMAIN.
    ///
    /// # Errors
    /// What has to be waited for, or that nothing may be said yet; never that it is absent.
    pub fn answer(&self, lookup: &Lookup, asked: &Asked<'_>) -> Found<Answer> {
        // Consul answers these two before it looks at the name, for every name of the zone.
        let answer = match asked.qtype {
            types::SOA => self.start_of_authority(asked),
            types::NS => self.name_servers(asked),
            types::AXFR => Ok(Answer::empty(Rcode::NOTIMP, true)),
            _ => self.by_lookup(lookup, asked),
        };
        let scope = lookup.scope();
        let answer = match answer {
            Err(Miss::Absent) => self.nxdomain(asked),
            answer => answer?,
        };
        let away = scope.is_some_and(|scope| self.catalog.is_stale(scope));
        let stale = away.then(|| ExtendedError::new(STALE_ANSWER, b""));
        Ok(Answer {
            errors: stale.into_iter().collect(),
            ..answer
        })
    }

    fn by_lookup(&self, lookup: &Lookup, asked: &Asked<'_>) -> Found<Answer> {
        match lookup {
            Lookup::Apex => Ok(self.nodata(asked)),
            Lookup::Nothing => Err(Miss::Absent),
            Lookup::EmptyNonTerminal(scope) => {
                self.catalog.has(scope)?;
                Ok(self.nodata(asked))
            }
            Lookup::Address(ip) => Ok(self.address(*ip, asked)),
            Lookup::Node { name, scope } => self.node(name, scope, asked),
            Lookup::Virtual { name, port, scope } => {
                self.virtual_address(name, port.as_deref(), scope, asked)
            }
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
                        self.catalog.has(scope)?;
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

    /// Leaves the end of an alias open: whoever knows the name goes on there. The operator chose it,
    /// so that is done for every client.
    pub(super) fn with_open_alias(answer: Answer, asked: &Asked<'_>, max_ttl: u32) -> Answer {
        let alias = answer.answers.iter().find_map(|record| match &record.data {
            // Who asks for the alias itself gets no more.
            Data::Cname(target) if asked.qtype != types::CNAME => Some(target.clone()),
            _ => None,
        });
        let open = alias.map(|to| Open {
            to,
            of: None,
            max_ttl,
            decides: false,
            reach: Reach::Everyone,
        });
        Answer {
            open: open.into_iter().collect(),
            ..answer
        }
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

    fn start_of_authority(&self, asked: &Asked<'_>) -> Found<Answer> {
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
    fn name_servers(&self, asked: &Asked<'_>) -> Found<Answer> {
        let key = ServiceKey::new(Kind::Service, "consul");
        let service = match self
            .catalog
            .service(&Scope::default(), &key, asked.patience)
        {
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
