//! Words, addresses and domains that mean something, so that questions and the catalog meet.

use std::net::Ipv4Addr;

use crate::input::Input;

/// The datacenter of every layer.
pub const DATACENTER: &str = "dc1";

/// Labels. The first ones are names of services and nodes.
pub const WORDS: &[&str] = &[
    "web",
    "db",
    "api",
    "consul",
    "n1",
    "n2",
    "Web",
    "service",
    "node",
    "addr",
    "query",
    "connect",
    "ingress",
    "virtual",
    "dc",
    "dc1",
    "dc2",
    "peer",
    "port",
    "ns",
    "ap",
    "_web",
    "_tcp",
    "_udp",
    "_db",
    "tcp",
    "primary",
    "1",
    "2",
    "ver",
    "10",
    "in-addr",
    "arpa",
    "ip6",
    "0a000001",
    "0A000102",
    "0a0102",
    "20010db8000000000000000000000001",
    "alt",
    "example",
    "default",
    "_",
    "x.y",
    "m\u{fc}ller",
    "a b",
    "\0",
    "long-label-long-label-long-label-long-label-long-label-long-lab",
];

/// Addresses as they stand in Consul, the empty one first.
const ADDRESSES: &[&str] = &[
    "",
    "10.0.0.1",
    "10.0.1.2",
    "0.0.0.0",
    "2001:db8::1",
    "::ffff:10.2.2.2",
    "::",
    "www.example.com",
    "WWW.Example.COM.",
    "web.service.consul",
    "DB.service.consul",
    "db.service.dc1.consul",
    "api.service.consul",
    "n1.node.consul",
    "n2.node.dc1.consul",
    "0a000001.addr.dc1.consul",
    "_web._tcp.service.consul",
    "web.service.alt.example",
    "consul",
    "nothing.service.consul",
    "nobody.consul",
    "web.service.dc2.consul",
    "10.1.1.1:99",
    "[2001:db8::5]",
    "a..b",
    ".",
    "-",
    "primary.web.service.consul",
    "db.query.consul",
];

/// Tags of addresses.
pub const TAGGED: &[&str] = &[
    "lan_ipv4",
    "lan_ipv6",
    "wan",
    "wan_ipv4",
    "wan_ipv6",
    "consul-virtual",
    "lan",
];

/// The primary domain and `alt_domain`.
pub const DOMAINS: &[(&str, Option<&str>)] = &[
    ("consul", None),
    ("consul", Some("alt.example")),
    ("consul", Some("alt.consul")),
    ("Consul.Example.Test", Some("example.test")),
];

/// A word, or anything else that is text.
pub fn text(input: &mut Input<'_>) -> String {
    let at = usize::from(input.byte());
    if at < 192 {
        return WORDS[at % WORDS.len()].to_owned();
    }
    String::from_utf8_lossy(input.bytes(at - 191)).into_owned()
}

/// A label of a question: a word, or any bytes.
pub fn label(input: &mut Input<'_>) -> Vec<u8> {
    let at = usize::from(input.byte());
    if at < 192 {
        return WORDS[at % WORDS.len()].as_bytes().to_vec();
    }
    input.bytes(at - 191).to_vec()
}

/// What may stand in an address field.
pub fn address(input: &mut Input<'_>) -> String {
    match usize::from(input.byte()) {
        at if at < 128 => ADDRESSES[at % ADDRESSES.len()].to_owned(),
        at if at < 192 => Ipv4Addr::new(10, 0, 0, at as u8).to_string(),
        at if at < 224 => format!("2001:db8::{at:x}"),
        _ => format!("{}.service.consul", text(input)),
    }
}
