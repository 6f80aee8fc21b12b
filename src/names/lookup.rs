//! The grammar of names below Consul's domain (Consul `agent/dns.go`: `dispatch`, `parseLocality`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::catalog::{Kind, Scope};

use super::name::{Name, labels, offset_of_suffix};
use super::types;

/// The meaning of a name below the domain. All names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The domain itself.
    Apex,
    /// `[tag.]NAME.service`, `_NAME._TAG[.service]`, `NAME.connect`, `NAME.ingress`: the
    /// instances of a service.
    Service {
        /// Which list of instances.
        kind: Kind,
        /// The service.
        name: String,
        /// Only the instances with this tag. All labels left of the service are one tag.
        tag: Option<String>,
        /// Where.
        scope: Scope,
        /// The port by its name, of a service that has several.
        port: Option<String>,
        /// RFC 2782's form without `.service` owns SRV records and nothing else.
        only_srv: bool,
    },
    /// `NAME.virtual`: the address that the mesh gives a service.
    Virtual {
        /// The service.
        name: String,
        /// Where.
        scope: Scope,
    },
    /// `NAME.query`: a prepared query by name or UUID, or a name that a template matches.
    Query {
        /// The query.
        name: String,
        /// Where.
        scope: Scope,
    },
    /// `NAME.node`.
    Node {
        /// The node; node names may contain dots.
        name: String,
        /// Where.
        scope: Scope,
    },
    /// `HEX.addr`: an address spelt out. What follows `addr` is not checked, as in Consul.
    Address(IpAddr),
    /// A name without records that has, or may have, names below it (RFC 8020): `service`, `dc1`.
    EmptyNonTerminal(Scope),
    /// No form of name; it does not exist.
    Nothing,
}

impl Lookup {
    /// The part of the world that it speaks of; `None` if no part's data matters.
    pub fn scope(&self) -> Option<&Scope> {
        match self {
            Self::Service { scope, .. }
            | Self::Virtual { scope, .. }
            | Self::Query { scope, .. }
            | Self::Node { scope, .. }
            | Self::EmptyNonTerminal(scope) => Some(scope),
            Self::Apex | Self::Address(_) | Self::Nothing => None,
        }
    }
}

/// What stands right of the keyword.
struct Place {
    scope: Scope,
    port: Option<String>,
}

impl Place {
    /// Nothing, `DC`, or pairs such as `DC.dc`, `PEER.peer`, `NAME.port`, `NS.ns`, `AP.ap` in any
    /// order (Consul 1.9 and later, `agent/dns/parser.go`); `NS.DC` is Enterprise's older form.
    fn parse(suffix: &[&str]) -> Option<Self> {
        let mut place = Self {
            scope: Scope::default(),
            port: None,
        };
        match suffix {
            [] => {}
            [datacenter] => place.scope.datacenter = Some((*datacenter).to_owned()),
            _ if suffix.len() > 8 || !suffix.len().is_multiple_of(2) => return None,
            _ => {
                for pair in suffix.chunks_exact(2) {
                    let field = match pair[1] {
                        "dc" => &mut place.scope.datacenter,
                        "peer" => &mut place.scope.peer,
                        "ns" => &mut place.scope.namespace,
                        "ap" => &mut place.scope.partition,
                        "port" => &mut place.port,
                        datacenter if suffix.len() == 2 => {
                            place.scope.datacenter = Some(datacenter.to_owned());
                            &mut place.scope.namespace
                        }
                        _ => return None,
                    };
                    if field.replace(pair[0].to_owned()).is_some() {
                        return None;
                    }
                }
                if place.scope.datacenter.is_some() && place.scope.peer.is_some() {
                    return None;
                }
            }
        }
        Some(place)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keyword {
    Instances(Kind),
    Virtual,
    Query,
    Node,
    Addr,
}

impl Keyword {
    fn of(label: &str) -> Option<Self> {
        Some(match label {
            "service" => Self::Instances(Kind::Service),
            "connect" => Self::Instances(Kind::Connect),
            "ingress" => Self::Instances(Kind::Ingress),
            "virtual" => Self::Virtual,
            "query" => Self::Query,
            "node" => Self::Node,
            "addr" => Self::Addr,
            _ => return None,
        })
    }
}

/// The address that a name of the reverse tree stands for (RFC 1035 section 3.5, RFC 3596
/// section 2.5); `None` for every other name, and for one that names only part of an address.
pub fn reverse_address(name: &[u8]) -> Option<IpAddr> {
    let lower = name.to_ascii_lowercase();
    let parts: Vec<&str> = labels(&lower).map(plain_label).collect::<Option<_>>()?;
    match parts[..] {
        [d, c, b, a, "in-addr", "arpa"] => {
            let octet = |text: &str| {
                let plain = text.len() == 1 || !text.starts_with('0');
                text.parse::<u8>().ok().filter(|_| plain)
            };
            let octets = [octet(a)?, octet(b)?, octet(c)?, octet(d)?];
            Some(IpAddr::from(octets))
        }
        [ref nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let mut bits = 0_u128;
            for nibble in nibbles.iter().rev() {
                let digit = match nibble.as_bytes() {
                    [byte] => char::from(*byte).to_digit(16)?,
                    _ => return None,
                };
                bits = bits << 4 | u128::from(digit);
            }
            Some(IpAddr::from(Ipv6Addr::from(bits)))
        }
        _ => None,
    }
}

/// Is the name below `arpa`?
pub fn is_reverse(name: &[u8]) -> bool {
    offset_of_suffix(name, b"\x04arpa\0").is_some()
}

/// The domains that are Consul's.
#[derive(Debug, Clone)]
pub struct Domains {
    primary: Name,
    /// Longest first.
    all: Vec<Name>,
}

impl Domains {
    /// The primary domain and, if there is one, `alt_domain`.
    pub fn new(primary: &Name, alternative: Option<&Name>) -> Self {
        let mut all: Vec<Name> = std::iter::once(primary)
            .chain(alternative)
            .map(Name::to_lowercase)
            .collect();
        // The longest match wins when one domain contains the other.
        all.sort_by_key(|name| std::cmp::Reverse(name.as_wire().len()));
        Self {
            primary: primary.to_lowercase(),
            all,
        }
    }

    /// The primary domain, in lower case.
    pub fn primary(&self) -> &Name {
        &self.primary
    }

    /// The domain that the name is in, in lower case, and what it means there; `None` if it is in
    /// none of them.
    pub fn parse(&self, name: &[u8], qtype: u16) -> Option<(&Name, Lookup)> {
        self.all.iter().find_map(|domain| {
            let end = offset_of_suffix(name, domain.as_wire())?;
            Some((domain, parse_relative(&name[..end], qtype)))
        })
    }
}

/// The meaning of the labels left of the domain.
fn parse_relative(wire: &[u8], qtype: u16) -> Lookup {
    let lower = wire.to_ascii_lowercase();
    // Labels further left may mean nothing, so an odd one is no reason to give up.
    let labels: Vec<&str> = labels(&lower)
        .map(|label| plain_label(label).unwrap_or(ODD_LABEL))
        .collect();
    if labels.is_empty() {
        return Lookup::Apex;
    }
    // The rightmost keyword wins, so services and nodes may bear a keyword's name.
    let mut underscore = None;
    for (at, label) in labels.iter().enumerate().rev() {
        if let Some(keyword) = Keyword::of(label) {
            return by_keyword(keyword, &labels[..at], &labels[at + 1..]);
        }
        if label.starts_with('_') && underscore.is_none() {
            underscore = Some(at);
            // Only for SRV does it end the search for a keyword.
            if qtype == types::SRV {
                break;
            }
        }
    }
    if let Some(at) = underscore {
        return rfc2782(&labels[..=at], &labels[at + 1..], qtype);
    }
    // `dc1`, `dc1.dc` and `dc` have names below them.
    match labels[..] {
        ["dc" | "peer" | "port" | "ns" | "ap"] => Lookup::EmptyNonTerminal(Scope::default()),
        _ => Place::parse(&labels).map_or(Lookup::Nothing, |place| {
            Lookup::EmptyNonTerminal(place.scope)
        }),
    }
}

/// Stands for a label that no name in Consul has.
const ODD_LABEL: &str = "\u{FFFD}";

/// No name in Consul has a label that is not UTF-8 or that has a dot in it; the latter would be
/// taken for two labels once they are joined.
fn plain_label(label: &[u8]) -> Option<&str> {
    std::str::from_utf8(label)
        .ok()
        .filter(|label| !label.contains('.'))
}

/// `_NAME._TAG` with no `.service` behind it.
fn rfc2782(parts: &[&str], suffix: &[&str], qtype: u16) -> Lookup {
    let Some(place) = Place::parse(suffix) else {
        return Lookup::Nothing;
    };
    // `_tcp` alone is above names that exist; asked for SRV it could be a service of that name.
    if parts.len() == 1 && qtype != types::SRV {
        return Lookup::EmptyNonTerminal(place.scope);
    }
    match by_keyword(Keyword::Instances(Kind::Service), parts, suffix) {
        Lookup::Service {
            kind,
            name,
            tag,
            scope,
            port,
            ..
        } => Lookup::Service {
            kind,
            name,
            tag,
            scope,
            port,
            only_srv: qtype != types::SRV,
        },
        other => other,
    }
}

fn by_keyword(keyword: Keyword, parts: &[&str], suffix: &[&str]) -> Lookup {
    if keyword == Keyword::Addr && !parts.is_empty() {
        return address(parts).map_or(Lookup::Nothing, Lookup::Address);
    }
    let Some(Place { mut scope, port }) = Place::parse(suffix) else {
        return Lookup::Nothing;
    };
    let Some((last, before)) = parts.split_last() else {
        return Lookup::EmptyNonTerminal(scope);
    };
    // Only services have ports with names.
    if port.is_some() && keyword != Keyword::Instances(Kind::Service) {
        return Lookup::Nothing;
    }
    match keyword {
        Keyword::Instances(kind) => {
            let (name, tag) = match kind {
                Kind::Service => name_and_tag(before, last),
                // Labels further left mean nothing there, as in Consul.
                Kind::Connect | Kind::Ingress => ((*last).to_owned(), None),
            };
            Lookup::Service {
                kind,
                name,
                tag,
                scope,
                port,
                only_srv: false,
            }
        }
        Keyword::Virtual => {
            // Here a single label is a peer.
            if suffix.len() == 1 {
                scope.peer = scope.datacenter.take();
            }
            Lookup::Virtual {
                name: (*last).to_owned(),
                scope,
            }
        }
        Keyword::Query if suffix.len() > 1 => Lookup::Nothing,
        Keyword::Query => Lookup::Query {
            name: match parts {
                [name, any] if name.starts_with('_') && any.starts_with('_') => {
                    name[1..].to_owned()
                }
                _ => parts.join("."),
            },
            scope,
        },
        Keyword::Node => Lookup::Node {
            name: parts.join("."),
            scope,
        },
        Keyword::Addr => Lookup::Nothing,
    }
}

/// The service and the tag that the labels left of `service` mean.
fn name_and_tag(before: &[&str], last: &str) -> (String, Option<String>) {
    match before {
        [] => (last.to_owned(), None),
        [name] if name.starts_with('_') && last.starts_with('_') => {
            // `_tcp` says nothing; anything else in the protocol's place is a tag.
            let tag = Some(&last[1..]).filter(|tag| !matches!(*tag, "tcp" | ""));
            (name[1..].to_owned(), tag.map(str::to_owned))
        }
        _ => (last.to_owned(), Some(before.join("."))),
    }
}

/// Eight hexadecimal digits are IPv4, 32 are IPv6; anything else is no address.
fn address(parts: &[&str]) -> Option<IpAddr> {
    let [hex] = parts else { return None };
    if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match hex.len() {
        8 => u32::from_str_radix(hex, 16)
            .ok()
            .map(|bits| Ipv4Addr::from(bits).into()),
        32 => u128::from_str_radix(hex, 16)
            .ok()
            .map(|bits| Ipv6Addr::from(bits).into()),
        _ => None,
    }
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
