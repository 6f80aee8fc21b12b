//! `NODE.node`: the address and the metadata of a node.

use crate::catalog::Scope;
use crate::names::types;

use super::address::{Accept, Address, Addresses};
use super::answer::Answer;
use super::make::{Asked, Maker, Miss, found};
use super::record::Data;
use super::target::{address_data, host_name};

impl Maker<'_> {
    /// Health is no question here: a node that is down has its address still.
    pub(super) fn node(
        &self,
        name: &str,
        scope: &Scope,
        asked: &Asked<'_>,
    ) -> Result<Answer, Miss> {
        let node = match found(self.catalog.node(scope, name)) {
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
            _ if asked.via.is_some() => Some(Accept::Any),
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
        self.with_alias_followed(answer, asked, u32::MAX)
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
