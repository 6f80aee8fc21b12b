//! Services by name, tag, port and weight.

use super::on;
use serde_json::{Value, json};

pub(super) fn all() -> Vec<Value> {
    [named(), counted(), with_ttls()].concat()
}

fn named() -> Vec<Value> {
    let plain = |service: &str, port: u16| on("n1", json!({ "Service": service, "Port": port }));
    let mut all = vec![
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
                "Tags": ["primary", "ver.1.2", "_x", "_a._b"],
                "Weights": { "Passing": 5, "Warning": 1 } }),
        ),
        on(
            "n2",
            json!({ "Service": "api", "ID": "api2", "Address": "10.1.0.2", "Port": 9002,
                "Tags": ["udp", "a b", "tcp"], "Weights": { "Passing": 10, "Warning": 1 } }),
        ),
        // Case: of the node, of the service, and the same service registered in two.
        on("UPPER", json!({ "Service": "oncase", "Port": 80 })),
        on("n1", json!({ "Service": "CaseSvc", "Port": 81 })),
        on("n2", json!({ "Service": "casesvc", "Port": 82 })),
        on(
            "dotted.node.name",
            json!({ "Service": "ondotted", "Port": 80 }),
        ),
        on("my_node", json!({ "Service": "onunder", "Port": 80 })),
        on("space node", json!({ "Service": "onspace", "Port": 80 })),
        on("meta", json!({ "Service": "onmeta", "Port": 80 })),
        // No port: Consul says 0. Too big a port: it wraps. Registered weight 0: Consul says 1.
        on("n1", json!({ "Service": "noport" })),
        on("n1", json!({ "Service": "bigport", "Port": 70000 })),
        on("n1", json!({ "Service": "negport", "Port": -1 })),
        on(
            "n1",
            json!({ "Service": "noweight", "Port": 86,
                "Weights": { "Passing": 0, "Warning": 0 } }),
        ),
        on(
            "n1",
            json!({ "Service": "bigweight", "Port": 87,
                "Weights": { "Passing": 65535, "Warning": 1 } }),
        ),
    ];
    // Names that look like something else, and names that DNS cannot say.
    let names = [
        "node",
        "service",
        "query",
        "connect",
        "addr",
        "dc1",
        "tcp",
        "my_svc",
        "_lead",
        "1234",
        "0a010203",
        "my.dotted.service",
        "spaced name",
        "Ünïcode",
    ];
    all.extend(names.into_iter().map(|name| plain(name, 83)));
    all
}

/// How many records come of how many instances.
fn counted() -> Vec<Value> {
    let mut all = Vec::new();
    // Several ports on one node, two of them the same; ids that differ in nothing else.
    for (id, port) in [("multi1", 1001), ("multi2", 1002), ("multi3", 1002)] {
        all.push(on(
            "n1",
            json!({ "Service": "multi", "ID": id, "Port": port }),
        ));
    }
    for id in ["twice1", "twice2"] {
        all.push(on(
            "n1",
            json!({ "Service": "twice", "ID": id, "Port": 1003 }),
        ));
    }
    // One address on several nodes.
    for node in ["n1", "n2"] {
        all.push(on(
            node,
            json!({ "Service": "shared", "Address": "10.1.0.9", "Port": 80 }),
        ));
    }
    // More than three, more than eight, more than fit into 512 and 1232 bytes.
    for node in ["n1", "n2", "n3", "n4", "n5"] {
        all.push(on(node, json!({ "Service": "five", "Port": 80 })));
    }
    for n in 1..=40 {
        all.push(on(
            "n1",
            json!({ "Service": "forty", "ID": format!("forty{n}"),
                "Address": format!("10.6.0.{n}"), "Port": 8000 + n }),
        ));
    }
    for n in 1..=40 {
        all.push(on(
            "n6",
            json!({ "Service": "fortysix", "ID": format!("fortysix{n}"),
                "Address": format!("fd00::6:{n}"), "Port": 8000 + n }),
        ));
    }
    all
}

/// Names that the TTL table tells apart.
fn with_ttls() -> Vec<Value> {
    ["api-x", "api-long", "api-longer", "upperttl"]
        .into_iter()
        .map(|name| {
            on(
                "n1",
                json!({ "Service": name, "Address": "10.1.0.7", "Port": 80 }),
            )
        })
        .collect()
}
