//! The instances of a service, or of a prepared query: addresses, SRV records, aliases.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::{
    Found, Health, Instance, Kind, Miss, PreparedKey, Scope, Service, ServiceKey,
};
use crate::dns::{Answer, Cut, Data, Name, Open, Rcode, Reach, Record, Subset, types};

use super::address::{
    Accept, Address, Addresses, address_data, address_target, addresses_by_family, host_name,
    instance_address, node_ip, node_target, push_glue,
};
use super::lookup::Lookup;
use super::make::{Asked, Maker};
use super::settings::SrvTarget;

/// Host names behind the instances of one service that are looked up for its SRV answer.
const MAX_HOSTS: usize = 16;

/// The tag of the address that the mesh gives a service.
const VIRTUAL: &str = "consul-virtual";

/// Instances that are answered together.
pub(super) struct Group<'a> {
    pub(super) instances: Vec<&'a Instance>,
    pub(super) ttl: u32,
    /// Where they were asked for.
    pub(super) scope: &'a Scope,
    /// The port that was asked for by name.
    pub(super) port: Option<&'a str>,
    /// Their order means something: the first is the best.
    pub(super) in_order: bool,
}

/// The port that SRV records name. A port's name only goes with services that have several; a
/// service with several answers with its default one where no name is given.
fn port_of(instance: &Instance, name: Option<&str>) -> Option<u16> {
    match name {
        Some(name) => instance
            .ports
            .iter()
            .find(|port| port.name.eq_ignore_ascii_case(name))
            .map(|port| port.port),
        None => Some(instance.served_port()),
    }
}

/// Where an SRV record points, and what is known of that name's addresses.
enum Target {
    Known(Name, Addresses),
    /// A host name: all its addresses are another question (D21).
    Host(Name),
}

impl Maker<'_> {
    /// The instances that are healthy and have the tag and the port.
    pub(super) fn service(&self, lookup: &Lookup, asked: &Asked<'_>) -> Found<Answer> {
        let Lookup::Service {
            kind,
            name,
            tag,
            scope,
            port,
            ..
        } = lookup
        else {
            return Err(Miss::Absent);
        };
        let key = ServiceKey::new(*kind, name);
        let tag = tag.as_deref();
        let service = self.catalog.service(scope, &key, asked.patience)?;
        let has_port = |instance: &&Instance| port_of(instance, port.as_deref()).is_some();
        let instances: Vec<&Instance> = self
            .usable(service.instances(), tag)
            .filter(has_port)
            .collect();
        if instances.is_empty() {
            // `2.web.service` exists, without records, if an instance is tagged `1.2`.
            let below = |own: &String| {
                let tag = tag.unwrap_or_default();
                own.to_ascii_lowercase()
                    .strip_suffix(tag)
                    .is_some_and(|rest| rest.ends_with('.'))
            };
            let has_below = tag.is_some()
                && self
                    .usable(service.instances(), None)
                    .filter(has_port)
                    .any(|instance| instance.tags.iter().any(below));
            return if has_below {
                Ok(self.nodata(asked))
            } else {
                Err(Miss::Absent)
            };
        }
        let group = Group {
            instances,
            ttl: self.settings.service_ttl.of(name),
            scope,
            port: port.as_deref(),
            in_order: false,
        };
        self.group(&group, asked)
    }

    /// Answers with a group of instances.
    pub(super) fn group(&self, group: &Group<'_>, asked: &Asked<'_>) -> Found<Answer> {
        if asked.qtype == types::SRV {
            return self.srv(group, asked);
        }
        let answer = self.addresses(group, asked);
        Ok(Self::with_open_alias(answer, asked, group.ttl))
    }

    /// The instances that may be answered: healthy, and with the tag.
    pub(super) fn usable<'s>(
        &self,
        instances: &'s [Instance],
        tag: Option<&str>,
    ) -> impl Iterator<Item = &'s Instance> {
        let worst = if self.settings.only_passing {
            Health::Passing
        } else {
            Health::Warning
        };
        instances.iter().filter(move |instance| {
            instance.health <= worst && tag.is_none_or(|tag| instance.has_tag(tag))
        })
    }

    /// A, AAAA, ANY: the addresses; any other type: only an alias could be an answer.
    fn addresses(&self, group: &Group<'_>, asked: &Asked<'_>) -> Answer {
        let (accept, takes_addresses) = match asked.qtype {
            types::A => (Accept::V4, true),
            types::AAAA => (Accept::V6, true),
            types::ANY => (Accept::Any, true),
            _ => (Accept::Any, false),
        };
        let mut data: Vec<Data> = Vec::new();
        let mut seen = HashSet::with_capacity(group.instances.len());
        let mut alias = None;
        for instance in &group.instances {
            let wan = self.is_across_wan(&instance.node);
            match instance_address(instance, accept, asked.name, wan) {
                Some(Address::Ip(ip)) if seen.insert(ip) => data.push(address_data(ip)),
                Some(Address::Ip(_)) => {}
                Some(Address::Host(host)) => alias = alias.or_else(|| host_name(&host).ok()),
                None => {}
            }
        }
        // A name has either addresses or an alias (RFC 1034 section 3.6.2); addresses win.
        if data.is_empty() {
            data.extend(alias.map(Data::Cname));
        } else if !takes_addresses {
            data.clear();
        }
        Answer {
            cut: Cut::Subset(Subset {
                by_client: !group.in_order,
                truncated: self.settings.truncate_addresses,
                at_most: self.settings.a_record_limit,
                at_most_in_512: self.settings.udp_answer_limit,
            }),
            rotate: !group.in_order,
            ..self.data(asked, group.ttl, data)
        }
    }

    fn srv(&self, group: &Group<'_>, asked: &Asked<'_>) -> Found<Answer> {
        let ttl = group.ttl;
        let mut answer = Answer::empty(Rcode::NOERROR, true);
        answer.cut = Cut::Subset(Subset {
            by_client: !group.in_order,
            truncated: true,
            at_most: 0,
            at_most_in_512: self.settings.udp_answer_limit,
        });
        let mut seen = HashSet::with_capacity(group.instances.len());
        let mut hosts = 0;
        for instance in &group.instances {
            // Consul's key of a duplicate; ids do not count.
            let port = self.srv_port(instance, group.port);
            let wan = self.is_across_wan(&instance.node);
            let own = Addresses::of(&instance.address, &instance.tagged_addresses, wan);
            if !seen.insert((&instance.node.name, own.choose(Accept::Any), port)) {
                continue;
            }
            let Some(target) = self.srv_target(instance, own, group.scope, asked) else {
                continue;
            };
            let of = answer.answers.len();
            let name = match target {
                Target::Known(name, addresses) => {
                    push_glue(&mut answer.additional, of, &name, ttl, &addresses);
                    name
                }
                Target::Host(name) => {
                    hosts += 1;
                    if hosts <= MAX_HOSTS {
                        answer.open.push(Open {
                            to: name.clone(),
                            of: Some(of),
                            max_ttl: ttl,
                            decides: false,
                            reach: Reach::Everyone,
                        });
                    }
                    name
                }
            };
            answer.answers.push(Record {
                owner: asked.name.clone(),
                ttl,
                data: Data::Srv {
                    priority: 1,
                    weight: instance
                        .weight()
                        .saturating_mul(self.settings.srv_weight_scale),
                    port,
                    target: name,
                },
            });
        }
        if answer.answers.is_empty() {
            return Ok(self.nodata(asked));
        }
        addresses_by_family(&mut answer.additional);
        Ok(answer)
    }

    /// The port of an SRV record: across datacenters that of the `wan` address, if it has one.
    fn srv_port(&self, instance: &Instance, name: Option<&str>) -> u16 {
        let wan = instance
            .tagged_addresses
            .get("wan")
            .filter(|wan| wan.port != 0 && self.is_across_wan(&instance.node));
        wan.map_or_else(
            || port_of(instance, name).unwrap_or(instance.port),
            |wan| wan.port,
        )
    }

    /// The name that an SRV record points at; the instance's `own` addresses go before its node's.
    fn srv_target(
        &self,
        instance: &Instance,
        own: Addresses,
        scope: &Scope,
        asked: &Asked<'_>,
    ) -> Option<Target> {
        let wan = self.is_across_wan(&instance.node);
        let node = &instance.node;
        let node_addresses = Addresses::of(&node.address, &node.tagged_addresses, wan);
        let names_node = self.settings.srv_target == SrvTarget::Consul;
        let by_address = |ip| address_target(ip, node, scope, asked.domain).ok();
        match own.choose(Accept::Any) {
            Some(Address::Ip(ip)) => Some(Target::Known(by_address(ip)?, own)),
            Some(Address::Host(host)) => {
                let target = host_name(&host).ok()?.to_lowercase();
                if target != asked.name.to_lowercase() {
                    return Some(Target::Host(target));
                }
                let ip = node_ip(&node_addresses)?;
                let target = node_target(node, scope, asked.domain).ok();
                Some(Target::Known(
                    target.or_else(|| by_address(ip))?,
                    node_addresses,
                ))
            }
            None => match node_addresses.choose(Accept::Any)? {
                Address::Host(host) => Some(Target::Host(host_name(&host).ok()?.to_lowercase())),
                Address::Ip(ip) => {
                    // A tagged address is not what `NODE.node` answers, so it is spelt out.
                    // An agent that translates addresses shows the translated one in its place.
                    let lan = node.tagged_addresses.get("lan").filter(|_| wan);
                    let own = lan.map_or(node.address.as_str(), |lan| lan.address.as_str());
                    let own = own.parse::<IpAddr>();
                    let is_node_address = own.is_ok_and(|own| own.to_canonical() == ip);
                    let target = if names_node && is_node_address {
                        node_target(node, scope, asked.domain).ok()
                    } else {
                        None
                    };
                    Some(Target::Known(
                        target.or_else(|| by_address(ip))?,
                        node_addresses,
                    ))
                }
            },
        }
    }

    /// The result of a prepared query, in the order that Consul chose.
    pub(super) fn query(&self, name: &str, scope: &Scope, asked: &Asked<'_>) -> Found<Answer> {
        // Other names cannot be asked for in a URL, nor in Consul's own DNS, which escapes them.
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Miss::Absent);
        }
        let key = PreparedKey {
            name: name.to_owned(),
            scope: scope.clone(),
            client: Some(asked.client),
        };
        let executed = self.catalog.prepared(&key, asked.patience)?;
        let result = executed.as_ref().as_ref().ok_or(Miss::Absent)?;
        if result.instances.is_empty() {
            return Err(Miss::Absent);
        }
        let service = result.service.to_ascii_lowercase();
        // The names of what a peer has are those of the peer.
        let of_peer = result.peer.clone().map(|peer| Scope {
            peer: Some(peer),
            ..Scope::default()
        });
        let group = Group {
            instances: result.instances.iter().collect(),
            ttl: result
                .ttl
                .unwrap_or_else(|| self.settings.service_ttl.of(&service)),
            scope: of_peer.as_ref().unwrap_or(scope),
            port: None,
            in_order: true,
        };
        let answer = self.group(&group, asked)?;
        Ok(Answer {
            for_client: true,
            ..answer
        })
    }

    /// The address that the mesh gives a service (Consul 1.11), or one of its ports (Consul 2.0).
    pub(super) fn virtual_address(
        &self,
        name: &str,
        port: Option<&str>,
        scope: &Scope,
        asked: &Asked<'_>,
    ) -> Found<Answer> {
        let address = self.address_in_mesh(name, port, scope, asked)?;
        let data = match (address, asked.qtype) {
            (Some(ip @ IpAddr::V4(_)), types::A | types::ANY)
            | (Some(ip @ IpAddr::V6(_)), types::AAAA | types::ANY) => vec![address_data(ip)],
            _ => Vec::new(),
        };
        Ok(self.data(asked, self.settings.node_ttl, data))
    }

    /// That address, if there is one; absent where the name is nobody's. It is the local datacenter's, whichever is
    /// named.
    fn address_in_mesh(
        &self,
        name: &str,
        port: Option<&str>,
        scope: &Scope,
        asked: &Asked<'_>,
    ) -> Found<Option<IpAddr>> {
        let scope = &Scope {
            datacenter: None,
            ..scope.clone()
        };
        let mesh = |kind| {
            let key = ServiceKey::new(kind, name);
            match self.catalog.service(scope, &key, asked.patience) {
                Err(Miss::Absent) => Ok(None),
                found => found.map(Some),
            }
        };
        if let Some(port) = port
            && let Some(proxies) = mesh(Kind::Connect)?
        {
            let own = tagged(&proxies, &format!("{VIRTUAL}:{port}"));
            let has_ports = |proxy: &Instance| !proxy.ports.is_empty();
            if own.is_some() || proxies.instances().iter().any(has_ports) {
                return own.map(Some).ok_or(Miss::Absent);
            }
        }
        let given = match scope.peer {
            None => mesh(Kind::Virtual),
            Some(_) => Ok(None),
        };
        let first = |given: &Arc<Service>| given.instances().first()?.address.parse().ok();
        let is_unready = matches!(given, Err(Miss::Unready));
        let given = if is_unready { None } else { given? };
        if let Some(address) = given.as_ref().and_then(first) {
            return Ok(Some(address));
        }
        // Of peers, and before Consul 1.16, the proxies tell and nothing else.
        let proxies = mesh(Kind::Connect)?;
        let address = proxies.as_ref().and_then(|proxies| {
            tagged(proxies, VIRTUAL).or_else(|| tagged(proxies, &format!("{VIRTUAL}:{name}")))
        });
        match (address, proxies) {
            (None, _) if is_unready => Err(Miss::Unready),
            (None, None) => Err(Miss::Absent),
            (address, _) => Ok(address),
        }
    }
}

/// The address under that tag, of whichever instance has one.
fn tagged(service: &Service, tag: &str) -> Option<IpAddr> {
    let instances = service.instances().iter();
    let mut tagged = instances.filter_map(|instance| instance.tagged_addresses.get(tag));
    tagged.find_map(|tagged| tagged.address.parse().ok())
}
