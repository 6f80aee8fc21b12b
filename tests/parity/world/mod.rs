//! A Consul with something of everything that its DNS distinguishes. All of it is registered past any
//! agent, so that nodes, addresses and health are free.

mod addresses;
mod health;
mod mesh;
mod queries;
mod services;

use crate::support::consul::{Consul, Options};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A second domain, of several labels.
pub(crate) const ALT_DOMAIN: &str = "sd.example.org";

/// Settings that both servers get, so that TTLs can be compared: Consul's `dns_config`.
pub(crate) fn dns_config() -> Value {
    json!({
        "node_ttl": "5s",
        "service_ttl": { "*": "1s", "web": "7s", "api*": "8s", "api-long*": "9s", "UPPERTTL": "3s" },
        "soa": { "min_ttl": 2, "refresh": 3601, "retry": 601, "expire": 86401 },
    })
}

/// The same for Portolan.
pub(crate) const PORTOLAN_TOML: &str = r#"
alt_domain = "sd.example.org"

[answers]
node_ttl = "5s"

[answers.service_ttl]
"*" = "1s"
web = "7s"
"api*" = "8s"
"api-long*" = "9s"
UPPERTTL = "3s"

[answers.soa]
min_ttl = "2s"
refresh = "3601s"
retry = "601s"
expire = "86401s"
"#;

/// A Consul with these recursors and the settings above, filled.
pub(crate) fn start(recursors: &[SocketAddr]) -> Consul {
    let recursors: Vec<String> = recursors.iter().map(SocketAddr::to_string).collect();
    let consul = Consul::start_with(Options {
        extra: json!({ "recursors": recursors, "alt_domain": ALT_DOMAIN,
            "dns_config": dns_config() }),
        ..Options::default()
    });
    fill(&consul);
    consul
}

/// Fills the catalog.
pub(crate) fn fill(consul: &Consul) {
    let entries = nodes()
        .into_iter()
        .chain(services::all())
        .chain(addresses::all())
        .chain(health::all())
        .chain(mesh::all());
    for entry in entries {
        consul.register(&entry);
    }
    mesh::expose(consul);
    queries::define(consul);
}

/// What `node` answers, by node: all that `on` may put a service on.
const NODES: &[(&str, &str)] = &[
    ("n1", "10.0.0.1"),
    ("n2", "10.0.0.2"),
    ("n3", "10.0.0.3"),
    ("n4", "10.0.0.4"),
    ("n5", "10.0.0.5"),
    ("n6", "fd00::6"),
    ("UPPER", "10.0.0.9"),
    ("dotted.node.name", "10.0.0.10"),
    // Names that look like something else.
    ("my_node", "10.0.0.20"),
    ("node", "10.0.0.21"),
    ("service", "10.0.0.22"),
    ("dc1", "10.0.0.23"),
    ("query", "10.0.0.24"),
    ("a.service", "10.0.0.25"),
    ("-dash-", "10.0.0.26"),
    ("space node", "10.0.0.27"),
    // External nodes, whose addresses are names: outside the domain, aliases there, inside.
    ("ext", "www.example.com"),
    ("extalias", "alias.example.com"),
    ("extdual", "dual.example.com"),
    ("extsix", "six.example.com"),
    ("extgone", "gone.example.com"),
    ("extdot", "www.example.com."),
    ("extin", "web.service.consul"),
    ("extnode", "n1.node.consul"),
    ("extself", "extself.node.consul"),
    // Addresses that are none, or odd ones.
    ("badport", "10.1.1.1:99"),
    ("mapped", "::ffff:10.2.2.3"),
    ("zero", "0.0.0.0"),
    ("zerosix", "::"),
];

fn nodes() -> Vec<Value> {
    let plain = NODES
        .iter()
        .map(|(node, address)| json!({ "Node": node, "Address": address }));
    let special = [
        json!({ "Node": "n3", "Address": "10.0.0.3", "NodeMeta": { "az": "z3" } }),
        // RFC 1464 quotes `=`, backquotes and blanks at the ends; `rfc1035-` means the value alone.
        json!({ "Node": "meta", "Address": "10.0.0.14", "NodeMeta": { "rfc1035-v": "a b",
            "RFC1035-": "c", "key=eq": "v=w", " x` ": " y ", "e": "", "": "nokey",
            "quote": "\"\\" } }),
        json!({ "Node": "metasix", "Address": "fd00::14", "NodeMeta": { "az": "six" } }),
        json!({ "Node": "ext", "Address": "www.example.com", "NodeMeta": {
            "external-node": "true", "external-probe": "false" } }),
        // Both families; and tagged addresses that are not the node's address.
        json!({ "Node": "dual", "Address": "10.0.0.11", "TaggedAddresses": {
            "lan": "10.0.0.11", "lan_ipv4": "10.0.0.11", "lan_ipv6": "fd00::b" } }),
        json!({ "Node": "dualsix", "Address": "fd00::c", "TaggedAddresses": {
            "lan_ipv4": "10.0.0.12", "lan_ipv6": "fd00::c" } }),
        json!({ "Node": "apart", "Address": "10.0.0.13", "TaggedAddresses": {
            "lan_ipv4": "10.0.1.13" } }),
        json!({ "Node": "wan", "Address": "10.0.0.16", "TaggedAddresses": {
            "lan": "10.0.0.16", "wan": "198.51.100.16", "wan_ipv4": "198.51.100.16" } }),
        json!({ "Node": "badtag", "Address": "10.0.0.17", "TaggedAddresses": {
            "lan_ipv4": "no-address", "lan_ipv6": "10.0.0.17" } }),
    ];
    plain.chain(special).collect()
}

/// One instance on a node of `NODES`, or on one that `nodes` describes.
fn on(node: &str, service: Value) -> Value {
    json!({ "Node": node, "SkipNodeUpdate": true, "Service": service })
}
