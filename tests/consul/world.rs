//! A catalog with something of everything that Consul's DNS distinguishes.

use crate::support::consul::{Consul, instance};
use serde_json::{Value, json};

/// Fills the catalog. All of it is registered past any agent, so that addresses and nodes are free.
pub(crate) fn fill(consul: &Consul) {
    for entry in nodes().into_iter().chain(services()) {
        consul.register(&entry);
    }
}

fn nodes() -> Vec<Value> {
    vec![
        json!({ "Node": "n1", "Address": "10.0.0.1" }),
        json!({ "Node": "n2", "Address": "10.0.0.2" }),
        json!({ "Node": "n3", "Address": "10.0.0.3", "NodeMeta": { "az": "z3" } }),
        json!({ "Node": "UPPER", "Address": "10.0.0.9" }),
        json!({ "Node": "dotted.node.name", "Address": "10.0.0.10" }),
        json!({ "Node": "n6", "Address": "fd00::6" }),
    ]
}

fn services() -> Vec<Value> {
    let on = |node: &str, service: Value| {
        let address = match node {
            "n1" => "10.0.0.1",
            "n2" => "10.0.0.2",
            "n3" => "10.0.0.3",
            "n6" => "fd00::6",
            "UPPER" => "10.0.0.9",
            other => panic!("a node that `nodes` does not have: {other}"),
        };
        instance(node, address, &service)
    };
    vec![
        // No address of their own: the SRV target is the node.
        on(
            "n1",
            json!({ "Service": "web", "Port": 8080, "Tags": ["primary", "v1"] }),
        ),
        on(
            "n2",
            json!({ "Service": "web", "Port": 8080, "Tags": ["Replica", "v1"] }),
        ),
        on("n3", json!({ "Service": "web", "Port": 8081 })),
        // Addresses of their own, weights, tags with dots.
        on(
            "n1",
            json!({ "Service": "api", "ID": "api1", "Address": "10.1.0.1", "Port": 9001,
            "Tags": ["primary", "ver.1.2"], "Weights": { "Passing": 5, "Warning": 1 } }),
        ),
        on(
            "n2",
            json!({ "Service": "api", "ID": "api2", "Address": "10.1.0.2", "Port": 9002,
            "Tags": ["udp"], "Weights": { "Passing": 10, "Warning": 1 } }),
        ),
        // An address that is the node's own is still an address of the service.
        on(
            "n1",
            json!({ "Service": "same", "Address": "10.0.0.1", "Port": 80 }),
        ),
        // Two ports on one node: one address, two SRV.
        on(
            "n1",
            json!({ "Service": "multi", "ID": "multi1", "Port": 1001 }),
        ),
        on(
            "n1",
            json!({ "Service": "multi", "ID": "multi2", "Port": 1002 }),
        ),
        // The same instance under two ids: one SRV.
        on(
            "n1",
            json!({ "Service": "twice", "ID": "twice1", "Port": 1003 }),
        ),
        on(
            "n1",
            json!({ "Service": "twice", "ID": "twice2", "Port": 1003 }),
        ),
        on(
            "n6",
            json!({ "Service": "fouronsix", "Address": "10.1.0.6", "Port": 80 }),
        ),
        // An IPv4 address on a node that has none. IPv6: by the service's address, by the node's, and mixed with IPv4.
        on(
            "n1",
            json!({ "Service": "six", "Address": "fd00::1:1", "Port": 80 }),
        ),
        on("n6", json!({ "Service": "onsix", "Port": 80 })),
        on("n1", json!({ "Service": "mixed", "Port": 80 })),
        on("n6", json!({ "Service": "mixed", "Port": 80 })),
        // Both families for one instance.
        on(
            "n1",
            json!({ "Service": "dual", "Address": "10.5.0.1", "Port": 80,
            "TaggedAddresses": {
                "lan_ipv4": { "Address": "10.5.0.1", "Port": 80 },
                "lan_ipv6": { "Address": "fd00::5:1", "Port": 80 } } }),
        ),
        // Case: of the node, of the service, and the same service registered in two.
        on("UPPER", json!({ "Service": "oncase", "Port": 80 })),
        on("n1", json!({ "Service": "CaseSvc", "Port": 81 })),
        on("n2", json!({ "Service": "casesvc", "Port": 82 })),
        // Names that look like something else.
        on("n1", json!({ "Service": "node", "Port": 83 })),
        on("n1", json!({ "Service": "service", "Port": 84 })),
        on("n1", json!({ "Service": "my_svc", "Port": 85 })),
        // No port: Consul says 0. Registered weight 0: Consul says 1.
        on("n1", json!({ "Service": "noport" })),
        on(
            "n1",
            json!({ "Service": "noweight", "Port": 86,
            "Weights": { "Passing": 0, "Warning": 0 } }),
        ),
        // Addresses that are names.
        on(
            "n1",
            json!({ "Service": "outside", "Address": "www.example.com", "Port": 443 }),
        ),
        on(
            "n1",
            json!({ "Service": "alias", "Address": "api.service.consul", "Port": 443 }),
        ),
    ]
}
