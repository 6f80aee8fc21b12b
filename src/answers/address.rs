//! Which address an instance or a node answers with, and the names that SRV and NS records point
//! at (Consul `agent/translate_addr.go`).

use crate::catalog::{Instance, Node, Scope, TaggedAddress};
use crate::dns::{Data, Glue, Name, NameError, Record};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which families a question accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accept {
    V4,
    V6,
    /// SRV, ANY and every other type.
    Any,
}

/// An address as Consul may hold it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Ip(IpAddr),
    /// Not an IP address: the name of another host.
    Host(String),
}

/// The addresses of one thing, a service or a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    default: Option<Address>,
}

impl Addresses {
    /// From the registered address (may be empty) and the tagged ones. Across datacenters `wan`
    /// addresses go before them, where there are any.
    pub(super) fn of(address: &str, tagged: &BTreeMap<String, TaggedAddress>, wan: bool) -> Self {
        let tag = |name: &str| {
            tagged
                .get(name)
                .and_then(|tagged| parse_ip(&tagged.address))
        };
        let v4 = |name| match tag(name) {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        };
        let v6 = |name| match tag(name) {
            Some(IpAddr::V6(ip)) => Some(ip),
            _ => None,
        };
        let across = |name| Some(name).filter(|_| wan);
        let v4 = across("wan_ipv4").and_then(v4).or_else(|| v4("lan_ipv4"));
        let v6 = across("wan_ipv6").and_then(v6).or_else(|| v6("lan_ipv6"));
        let address = across("wan")
            .and_then(|name| tagged.get(name))
            .map(|tagged| tagged.address.as_str())
            .filter(|address| !address.is_empty())
            .unwrap_or(address);
        let default = (!address.is_empty()).then(|| {
            parse_ip(address).map_or_else(|| Address::Host(address.to_owned()), Address::Ip)
        });
        Self { v4, v6, default }
    }

    /// The one address that a question gets: a tagged one of the family first, IPv6 before IPv4
    /// where both are accepted, then the registered one.
    pub(super) fn choose(&self, accept: Accept) -> Option<Address> {
        let v6 = self.v6.filter(|_| accept != Accept::V4);
        let v4 = self.v4.filter(|_| accept != Accept::V6);
        if let Some(ip) = v6.map(IpAddr::V6).or_else(|| v4.map(IpAddr::V4)) {
            return Some(Address::Ip(ip));
        }
        self.default.clone().filter(|address| match address {
            Address::Ip(IpAddr::V4(_)) => accept != Accept::V6,
            Address::Ip(IpAddr::V6(_)) => accept != Accept::V4,
            Address::Host(_) => true,
        })
    }

    /// Is there none but under tags?
    pub(super) fn is_only_tagged(&self) -> bool {
        self.default.is_none()
    }

    /// The IPv4 address, if there is one.
    pub(super) fn v4(&self) -> Option<Ipv4Addr> {
        match self.choose(Accept::V4) {
            Some(Address::Ip(IpAddr::V4(ip))) => Some(ip),
            _ => None,
        }
    }

    /// The IPv6 address, if there is one.
    pub(super) fn v6(&self) -> Option<Ipv6Addr> {
        match self.choose(Accept::V6) {
            Some(Address::Ip(IpAddr::V6(ip))) => Some(ip),
            _ => None,
        }
    }
}

/// An IP address; an IPv4-mapped IPv6 address is the IPv4 address, as Go reads it.
fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// The address of an instance: its own, else its node's.
pub(super) fn instance_address(
    instance: &Instance,
    accept: Accept,
    asked: &Name,
    wan: bool,
) -> Option<Address> {
    let node = &instance.node;
    let of_node = || Addresses::of(&node.address, &node.tagged_addresses, wan).choose(accept);
    let own = Addresses::of(&instance.address, &instance.tagged_addresses, wan);
    // One that only its tags have says nothing of the other family.
    if own.is_only_tagged() {
        return own.choose(accept).or_else(of_node);
    }
    match own.choose(accept) {
        // A service that is its own alias would be a loop.
        Some(Address::Host(host))
            if host_name(&host).is_ok_and(|host| host.to_lowercase() == asked.to_lowercase()) =>
        {
            of_node()
        }
        address => address,
    }
}

pub(super) fn node_ip(addresses: &Addresses) -> Option<IpAddr> {
    match addresses.choose(Accept::Any)? {
        Address::Ip(ip) => Some(ip),
        Address::Host(_) => None,
    }
}

pub(super) fn address_data(ip: IpAddr) -> Data {
    match ip {
        IpAddr::V4(ip) => Data::A(ip),
        IpAddr::V6(ip) => Data::Aaaa(ip),
    }
}

/// A host name that stands in an address field. HAProxy compares targets byte for byte, so the
/// callers that make targets of it lower its case.
pub(super) fn host_name(host: &str) -> Result<Name, NameError> {
    Name::from_text(host)
}

/// `<node>.node.<datacenter>.<domain>`, or with `<peer>.peer` for a peer's; in lower case (D16).
pub(super) fn node_target(node: &Node, scope: &Scope, domain: &Name) -> Result<Name, NameError> {
    let text = match &scope.peer {
        Some(peer) => format!("{}.node.{peer}.peer", node.name),
        None => format!("{}.node.{}", node.name, node.datacenter),
    };
    Ok(domain.below(&text)?.to_lowercase())
}

/// `<hex>.addr.<datacenter>.<domain>`, or without a datacenter for a peer's; in lower case.
pub(super) fn address_target(
    ip: IpAddr,
    node: &Node,
    scope: &Scope,
    domain: &Name,
) -> Result<Name, NameError> {
    let hex = match ip {
        IpAddr::V4(ip) => format!("{:08x}", u32::from(ip)),
        IpAddr::V6(ip) => format!("{:032x}", u128::from(ip)),
    };
    let text = match &scope.peer {
        Some(_) => format!("{hex}.addr"),
        None => format!("{hex}.addr.{}", node.datacenter),
    };
    Ok(domain.below(&text)?.to_lowercase())
}

/// One A and one AAAA record for each answer that has them (D8, D21).
pub(super) fn push_glue(
    glue: &mut Vec<Glue>,
    of: usize,
    target: &Name,
    ttl: u32,
    addresses: &Addresses,
) {
    let v4 = addresses.v4().map(Data::A);
    let v6 = addresses.v6().map(Data::Aaaa);
    glue.extend(v4.into_iter().chain(v6).map(|data| Glue {
        of,
        record: Record {
            owner: target.clone(),
            ttl,
            data,
        },
    }));
}

/// All A before any AAAA: HAProxy loses what follows an address of the family it does not use.
pub(super) fn addresses_by_family(glue: &mut [Glue]) {
    glue.sort_by_key(|glue| (glue.record.data.rtype(), glue.of));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(address: &str, tags: &[(&str, &str)]) -> Addresses {
        let tagged = tags
            .iter()
            .map(|(tag, address)| {
                let address = TaggedAddress {
                    address: (*address).to_owned(),
                    port: 0,
                };
                ((*tag).to_owned(), address)
            })
            .collect();
        Addresses::of(address, &tagged, false)
    }

    fn ip(text: &str) -> Option<Address> {
        Some(Address::Ip(text.parse().expect("an address")))
    }

    #[test]
    fn choice_by_family() {
        let dual = addresses(
            "10.0.0.1",
            &[("lan_ipv4", "10.0.0.1"), ("lan_ipv6", "2001:db8::1")],
        );
        assert_eq!(dual.choose(Accept::V4), ip("10.0.0.1"));
        assert_eq!(dual.choose(Accept::V6), ip("2001:db8::1"));
        assert_eq!(dual.choose(Accept::Any), ip("2001:db8::1"));

        let plain = addresses("10.0.0.2", &[]);
        assert_eq!(plain.choose(Accept::V6), None);
        assert_eq!(plain.choose(Accept::Any), ip("10.0.0.2"));

        let host = addresses("www.example.com", &[]);
        let name = Some(Address::Host("www.example.com".to_owned()));
        assert_eq!(host.choose(Accept::V4), name);
        assert_eq!((host.v4(), host.v6()), (None, None));

        assert_eq!(addresses("", &[]).choose(Accept::Any), None);
        assert_eq!(
            addresses("::ffff:10.2.2.2", &[]).choose(Accept::V4),
            ip("10.2.2.2")
        );
    }
}
