//! The grammar of names below Consul's domain (Consul `agent/dns.go`: `dispatch`, `parseLocality`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::catalog::{Kind, Scope};

use crate::dns::{Name, labels, offset_of_suffix, types};

/// The meaning of a name below the domain. All names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The domain itself.
    Apex,
    /// `[tag.]NAME.service`, `_NAME._TAG[.service]`, `NAME.connect`, `NAME.ingress`, `NAME.api-gateway`: the
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
    /// `[PORT.]NAME.virtual`: the address that the mesh gives a service, or one of its ports.
    Virtual {
        /// The service.
        name: String,
        /// The label left of it. It means a port where the service has ports with names, and nothing elsewhere.
        port: Option<String>,
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
struct Locality {
    scope: Scope,
    port: Option<String>,
}

impl Locality {
    /// Nothing, `DC`, or pairs such as `DC.dc`, `PEER.peer`, `NAME.port`, `NS.ns`, `AP.ap` in any
    /// order (Consul 1.9 and later, `agent/dns/parser.go`); `NS.DC` is Enterprise's older form.
    fn parse(suffix: &[&str]) -> Option<Self> {
        let mut locality = Self {
            scope: Scope::default(),
            port: None,
        };
        match suffix {
            [] => {}
            [datacenter] => locality.scope.datacenter = Some((*datacenter).to_owned()),
            _ if suffix.len() > 8 || !suffix.len().is_multiple_of(2) => return None,
            _ => {
                for pair in suffix.chunks_exact(2) {
                    let field = match pair[1] {
                        "dc" => &mut locality.scope.datacenter,
                        "peer" => &mut locality.scope.peer,
                        "ns" => &mut locality.scope.namespace,
                        "ap" => &mut locality.scope.partition,
                        "port" => &mut locality.port,
                        datacenter if suffix.len() == 2 => {
                            locality.scope.datacenter = Some(datacenter.to_owned());
                            &mut locality.scope.namespace
                        }
                        _ => return None,
                    };
                    if field.replace(pair[0].to_owned()).is_some() {
                        return None;
                    }
                }
                if locality.scope.datacenter.is_some() && locality.scope.peer.is_some() {
                    return None;
                }
            }
        }
        Some(locality)
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
            "api-gateway" => Self::Instances(Kind::ApiGateway),
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
    if !is_reverse(name) {
        return None;
    }
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

    /// Is the name in one of the domains?
    pub fn contain(&self, name: &[u8]) -> bool {
        let is_in = |domain: &Name| offset_of_suffix(name, domain.as_wire()).is_some();
        self.all.iter().any(is_in)
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
        _ => Locality::parse(&labels).map_or(Lookup::Nothing, |locality| {
            Lookup::EmptyNonTerminal(locality.scope)
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
    let Some(locality) = Locality::parse(suffix) else {
        return Lookup::Nothing;
    };
    // `_tcp` alone is above names that exist; asked for SRV it could be a service of that name.
    if parts.len() == 1 && qtype != types::SRV {
        return Lookup::EmptyNonTerminal(locality.scope);
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
    let Some(Locality { mut scope, port }) = Locality::parse(suffix) else {
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
                _ => ((*last).to_owned(), None),
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
                port: before.last().map(|&port| port.to_owned()),
                scope,
            }
        }
        Keyword::Query if suffix.len() > 1 => Lookup::Nothing,
        Keyword::Query => Lookup::Query {
            name: match parts {
                // RFC 2782's form, of a name that may have dots.
                [first, .., last] if first.starts_with('_') && last.starts_with('_') => {
                    before.join(".")[1..].to_owned()
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
            // `_tcp` says nothing; anything else in the protocol's locality is a tag.
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
mod tests {
    // The grammar as a table, and as properties.

    use super::*;
    use proptest::prelude::*;

    fn domains() -> Domains {
        let name = |text| Name::from_text(text).expect("a valid name");
        Domains::new(&name("consul"), Some(&name("alt.consul")))
    }

    fn lookup(text: &str, qtype: u16) -> Lookup {
        let name = Name::from_text(text).expect("a valid name");
        let domains = domains();
        let (_, lookup) = domains
            .parse(name.as_wire(), qtype)
            .expect("below the domain");
        lookup
    }

    fn scope(datacenter: &str) -> Scope {
        Scope {
            datacenter: Some(datacenter.to_owned()).filter(|name| !name.is_empty()),
            ..Scope::default()
        }
    }

    fn service(name: &str, tag: &str, datacenter: &str) -> Lookup {
        Lookup::Service {
            kind: Kind::Service,
            name: name.to_owned(),
            tag: Some(tag.to_owned()).filter(|tag| !tag.is_empty()),
            scope: scope(datacenter),
            port: None,
            only_srv: false,
        }
    }

    fn list(kind: Kind, name: &str, datacenter: &str) -> Lookup {
        Lookup::Service {
            kind,
            name: name.to_owned(),
            tag: None,
            scope: scope(datacenter),
            port: None,
            only_srv: false,
        }
    }

    fn node(name: &str, datacenter: &str) -> Lookup {
        Lookup::Node {
            name: name.to_owned(),
            scope: scope(datacenter),
        }
    }

    fn query(name: &str, datacenter: &str) -> Lookup {
        Lookup::Query {
            name: name.to_owned(),
            scope: scope(datacenter),
        }
    }

    fn empty(datacenter: &str) -> Lookup {
        Lookup::EmptyNonTerminal(scope(datacenter))
    }

    /// `web` somewhere: `key=value` words.
    fn web_at(words: &str) -> Lookup {
        let mut scope = Scope::default();
        let mut port = None;
        for (key, value) in words.split(' ').filter_map(|word| word.split_once('=')) {
            let value = Some(value.to_owned());
            match key {
                "dc" => scope.datacenter = value,
                "peer" => scope.peer = value,
                "ns" => scope.namespace = value,
                "ap" => scope.partition = value,
                _ => port = value,
            }
        }
        Lookup::Service {
            kind: Kind::Service,
            name: "web".to_owned(),
            tag: None,
            scope,
            port,
            only_srv: false,
        }
    }

    #[test]
    fn every_form_of_name() {
        let cases: &[(&str, Lookup)] = &[
            ("consul", Lookup::Apex),
            ("CONSUL", Lookup::Apex),
            ("web.service.consul", service("web", "", "")),
            ("WEB.Service.DC1.Consul", service("web", "", "dc1")),
            ("web.service.dc1.dc.consul", service("web", "", "dc1")),
            ("primary.web.service.consul", service("web", "primary", "")),
            (
                "ver.1.2.web.service.dc2.consul",
                service("web", "ver.1.2", "dc2"),
            ),
            ("web.service.alt.consul", service("web", "", "")),
            ("web.service.a.b.consul", web_at("ns=a dc=b")),
            ("web.service.a.b.c.consul", Lookup::Nothing),
            ("_web._tcp.service.consul", service("web", "", "")),
            (
                "_web._primary.service.dc1.consul",
                service("web", "primary", "dc1"),
            ),
            ("_web._udp.service.consul", service("web", "udp", "")),
            ("_a._b.c.service.consul", service("c", "_a._b", "")),
            ("x._web._tcp.service.consul", service("_tcp", "x._web", "")),
            ("_web.service.consul", service("_web", "", "")),
            ("_web._tcp.consul", service("web", "", "")),
            ("_web._tcp.dc1.consul", service("web", "", "dc1")),
            ("n1.node.consul", node("n1", "")),
            ("n1.node.dc1.consul", node("n1", "dc1")),
            ("rack.7.n1.node.consul", node("rack.7.n1", "")),
            ("node.node.consul", node("node", "")),
            ("service.service.consul", service("service", "", "")),
            (
                "0a010203.addr.dc1.consul",
                Lookup::Address([10, 1, 2, 3].into()),
            ),
            (
                "0A010203.addr.consul",
                Lookup::Address([10, 1, 2, 3].into()),
            ),
            (
                "0a010203.addr.a.b.c.consul",
                Lookup::Address([10, 1, 2, 3].into()),
            ),
            (
                "20010db8000000000000000000000005.addr.dc1.consul",
                Lookup::Address("2001:db8::5".parse().expect("an address")),
            ),
            ("0a0102.addr.consul", Lookup::Nothing),
            ("+a010203.addr.consul", Lookup::Nothing),
            ("xx.0a010203.addr.consul", Lookup::Nothing),
            ("service.consul", empty("")),
            ("service.dc1.consul", empty("dc1")),
            ("node.consul", empty("")),
            ("query.consul", empty("")),
            ("addr.dc1.consul", empty("dc1")),
            ("dc1.consul", empty("dc1")),
            ("dc1.dc.consul", empty("dc1")),
            ("dc.consul", empty("")),
            ("_tcp.consul", service("_tcp", "", "")),
            ("a.b.c.consul", Lookup::Nothing),
            ("db.query.consul", query("db", "")),
            ("my.db.query.dc1.consul", query("my.db", "dc1")),
            ("_db._any.query.consul", query("db", "")),
            ("db.query.dc1.dc.consul", Lookup::Nothing),
            ("web.connect.consul", list(Kind::Connect, "web", "")),
            (
                "foo.web.connect.dc1.consul",
                list(Kind::Connect, "web", "dc1"),
            ),
            ("web.ingress.consul", list(Kind::Ingress, "web", "")),
            ("web.api-gateway.consul", list(Kind::ApiGateway, "web", "")),
            ("web.connect.http.port.consul", Lookup::Nothing),
            ("web.service.http.port.consul", web_at("port=http")),
            (
                "_web._tcp.service.dc1.dc.http.port.consul",
                web_at("dc=dc1 port=http"),
            ),
            ("web.service.east.peer.consul", web_at("peer=east")),
            (
                "web.service.n.ns.p.ap.dc1.dc.consul",
                web_at("ns=n ap=p dc=dc1"),
            ),
            ("web.service.east.peer.dc1.dc.consul", Lookup::Nothing),
            ("web.service.dc1.dc.dc2.dc.consul", Lookup::Nothing),
            ("web.service.x.sg.dc1.dc.consul", Lookup::Nothing),
            (
                "web.virtual.east.consul",
                Lookup::Virtual {
                    name: "web".to_owned(),
                    port: None,
                    scope: Scope {
                        peer: Some("east".to_owned()),
                        ..Scope::default()
                    },
                },
            ),
            ("port.consul", empty("")),
        ];
        for (name, expected) in cases {
            assert_eq!(lookup(name, types::SRV), *expected, "{name}");
        }
    }

    #[test]
    fn rfc_2782_names_without_service_own_only_srv() {
        let expected = Lookup::Service {
            kind: Kind::Service,
            name: "web".to_owned(),
            tag: None,
            scope: Scope::default(),
            port: None,
            only_srv: true,
        };
        assert_eq!(lookup("_web._tcp.consul", types::A), expected);
        assert_eq!(lookup("_tcp.consul", types::A), empty(""));
        assert_eq!(
            lookup("_web._tcp.service.consul", types::A),
            service("web", "", "")
        );
    }

    #[test]
    fn reverse_names_are_addresses() {
        let address = |text: &str| {
            let name = Name::from_text(text).expect("a valid name");
            reverse_address(name.as_wire()).map(|address| address.to_string())
        };
        let v6 = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(
            address("4.3.2.10.in-addr.ARPA").as_deref(),
            Some("10.2.3.4")
        );
        assert_eq!(address(v6).as_deref(), Some("2001:db8::5"));
        for text in [
            "2.10.in-addr.arpa",
            "256.3.2.10.in-addr.arpa",
            "04.3.2.10.in-addr.arpa",
            "x.4.3.2.10.in-addr.arpa",
            &v6[2..],
            "4.3.2.10.in-addr.arpa.consul",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn names_outside_the_domain_are_not_ours() {
        for name in ["example.com", "notconsul", "consul.example.com", "."] {
            let name = Name::from_text(name).expect("a valid name");
            assert!(
                domains().parse(name.as_wire(), types::A).is_none(),
                "{name}"
            );
        }
    }

    #[test]
    fn odd_labels_are_no_names() {
        for label in [b"a.b".as_slice(), b"\xff\xfe"] {
            let name = Name::from_labels([label, b"node", b"consul"]).expect("a valid name");
            let domains = domains();
            let found = domains.parse(name.as_wire(), types::A);
            assert_eq!(found.expect("ours").1, node("\u{FFFD}", ""));
        }
    }

    proptest! {
        #[test]
        fn service_tag_and_datacenter_come_back(
            name in "[a-zA-Z0-9][a-zA-Z0-9-]{0,30}",
            tag in proptest::option::of("[a-zA-Z0-9][a-zA-Z0-9-]{0,9}(\\.[a-z0-9]{1,9}){0,3}"),
            datacenter in proptest::option::of("dc[0-9]{1,3}"),
        ) {
            let mut text = String::new();
            for part in [tag.as_deref(), Some(&name), Some("service"), datacenter.as_deref()]
                .into_iter().flatten()
            {
                text.push_str(part);
                text.push('.');
            }
            text.push_str("consul");
            let expected = service(
                &name.to_lowercase(),
                &tag.unwrap_or_default().to_lowercase(),
                &datacenter.unwrap_or_default(),
            );
            prop_assert_eq!(lookup(&text, types::A), expected);
        }

        #[test]
        fn node_names_come_back(name in "[a-zA-Z0-9-]{1,20}(\\.[a-zA-Z0-9-]{1,20}){0,3}") {
            let text = format!("{name}.node.consul");
            prop_assert_eq!(lookup(&text, types::A), node(&name.to_lowercase(), ""));
        }

        #[test]
        fn no_name_panics(
            labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..12), 0..12),
            qtype in any::<u16>(),
        ) {
            let labels = labels.iter().map(Vec::as_slice).chain([b"consul".as_slice()]);
            let name = Name::from_labels(labels).expect("within the limits");
            prop_assert!(domains().parse(name.as_wire(), qtype).is_some());
        }
    }
}
