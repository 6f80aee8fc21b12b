//! `NODE.node`: the address and the metadata of a node; and the names of addresses.

use std::net::IpAddr;

use crate::catalog::{Found, Miss, Scope};
use crate::dns::{Answer, Data, Name, types};

use super::address::{Accept, Address, Addresses, address_data, host_name, node_target};
use super::make::{Asked, Maker};

impl Maker<'_> {
    /// Health is no question here: a node that is down has its address still.
    pub(super) fn node(&self, name: &str, scope: &Scope, asked: &Asked<'_>) -> Found<Answer> {
        let node = match self.catalog.node(scope, name, asked.patience) {
            Ok(node) => node,
            // `b.node` exists, without records, if there is a node `a.b`.
            Err(Miss::Absent) if self.catalog.has_node_below(scope, name) => {
                return Ok(self.nodata(asked));
            }
            Err(miss) => return Err(miss),
        };
        let addresses = Addresses::of(
            &node.address,
            &node.tagged_addresses,
            self.is_across_wan(&node),
        );
        let accept = match asked.qtype {
            types::A => Some(Accept::V4),
            types::AAAA => Some(Accept::V6),
            types::ANY | types::CNAME => Some(Accept::Any),
            // Who came here by an alias may find another one, whatever was asked.
            _ if asked.by_alias => Some(Accept::Any),
            _ => None,
        };
        let takes_address = matches!(asked.qtype, types::A | types::AAAA | types::ANY);
        let mut data = Vec::new();
        match accept.and_then(|accept| addresses.choose(accept)) {
            Some(Address::Ip(_)) if !takes_address => {}
            Some(Address::Ip(ip)) => data.push(address_data(ip)),
            Some(Address::Host(host)) => data.extend(host_name(&host).ok().map(Data::Cname)),
            None => {}
        }
        if matches!(asked.qtype, types::TXT | types::ANY) {
            data.extend(node.meta.iter().map(|(key, value)| text(key, value)));
        }
        let answer = self.data(asked, self.settings.node_ttl, data);
        Ok(Self::with_open_alias(answer, asked, u32::MAX))
    }

    /// The name of what is at an address: a node, else a service. `asked.domain` is the domain to name
    /// it in.
    ///
    /// # Errors
    /// It is nothing of ours; or what to wait for, while the addresses of services are being learned.
    pub fn reverse(&self, address: IpAddr, asked: &Asked<'_>) -> Found<Answer> {
        let target = match self.catalog.node_at(address) {
            Some(node) => node_target(&node, &Scope::default(), asked.domain).ok(),
            None => match self.catalog.service_at(address) {
                Ok(service) => self.service_name(&service, asked.domain),
                // Without data it may still be somebody else's.
                Err(Miss::Unready) => None,
                Err(miss) => return Err(miss),
            },
        };
        let target = target.ok_or(Miss::Absent)?;
        Ok(match asked.qtype {
            types::PTR | types::ANY => {
                self.data(asked, self.settings.node_ttl, vec![Data::Ptr(target)])
            }
            // The name is ours, and has no other records.
            _ => self.nodata(asked),
        })
    }

    fn service_name(&self, service: &str, domain: &Name) -> Option<Name> {
        let datacenter = self.catalog.local_datacenter();
        let name = domain.below(&format!("{service}.service.{datacenter}"));
        name.ok().map(|name| name.to_lowercase())
    }

    /// NXDOMAIN for a reverse name that is nobody's: with the SOA of our domain, as Consul's.
    pub fn nobody(&self, asked: &Asked<'_>) -> Answer {
        self.nxdomain(asked)
    }
}

/// Node metadata as TXT (RFC 1464; Consul's `rfc1035-` keys give the value alone).
fn text(key: &str, value: &str) -> Data {
    let text = if key.to_ascii_lowercase().starts_with("rfc1035-") {
        value.to_owned()
    } else {
        let quoted = key.replace('`', "``").replace('=', "`=");
        let inner = quoted.trim_matches([' ', '\t']);
        let at = quoted.find(inner).unwrap_or(0);
        let blanks = |part: &str| part.chars().flat_map(|c| ['`', c]).collect::<String>();
        let (before, after) = (&quoted[..at], &quoted[at + inner.len()..]);
        format!("{}{inner}{}={value}", blanks(before), blanks(after))
    };
    Data::Txt(text.as_bytes().chunks(255).map(<[u8]>::to_vec).collect())
}
