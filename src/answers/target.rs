//! The names that SRV and NS records point at, and the addresses that go with them.

use std::net::IpAddr;

use crate::catalog::{Instance, Node, Scope};
use crate::names::{Name, NameError};

use super::address::{Accept, Address, Addresses};
use super::answer::Glue;
use super::record::{Data, Record};

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
    if own.is_empty() {
        return of_node();
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
