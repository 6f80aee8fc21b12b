//! Health, maintenance, weights, and everything that comes and goes.

use crate::support::{
    compare::settles,
    consul::{Consul, instance},
    portolan::Portolan,
    wire::rtype::{A, SRV},
};
use serde_json::{Value, json};

/// A check on a node (`service` empty) or on an instance.
fn check(node: &str, service: &str, status: &str) -> Value {
    let mut check = json!({ "CheckID": format!("{node}-{service}"), "Name": "a check", "Node": node,
        "Status": status });
    if !service.is_empty() {
        check["ServiceID"] = service.into();
    }
    check
}

/// One instance of `hs` on a node of its own, `10.2.0.N`, with a check.
fn checked(number: u8, on: &str, status: &str) -> Value {
    let node = format!("h{number}");
    let service = json!({ "Service": "hs", "ID": "hs", "Port": 80,
        "Weights": { "Passing": 10, "Warning": 3 } });
    let mut entry = instance(&node, &format!("10.2.0.{number}"), &service);
    entry["Check"] = check(&node, on, status);
    entry
}

#[test]
fn health_filters_and_weighs() {
    let consul = Consul::start();
    consul.register(&checked(1, "hs", "passing"));
    consul.register(&checked(2, "hs", "warning"));
    consul.register(&checked(3, "hs", "critical"));
    consul.register(&checked(4, "", "passing"));
    consul.register(&checked(5, "", "warning"));
    consul.register(&checked(6, "", "critical"));
    // A check of another service on the same node does not count.
    let other = json!({ "Service": "other", "ID": "other", "Port": 81 });
    let mut entry = instance("h1", "10.2.0.1", &other);
    entry["Check"] = check("h1", "other", "critical");
    consul.register(&entry);
    let portolan = Portolan::beside(&consul);
    let srv = |expected: &[&str]| settles(&consul, &portolan, "hs.service.consul", SRV, expected);

    let healthy = [
        "1 10 80 h1.node.dc1.consul.",
        "1 10 80 h4.node.dc1.consul.",
        "1 3 80 h2.node.dc1.consul.",
        "1 3 80 h5.node.dc1.consul.",
    ];
    srv(&healthy);
    settles(&consul, &portolan, "other.service.consul", A, &[]);
    // Nodes answer whatever their health.
    settles(&consul, &portolan, "h6.node.consul", A, &["10.2.0.6"]);

    // Every way from one state to another.
    consul.register(&checked(1, "hs", "critical"));
    srv(&healthy[1..]);
    consul.register(&checked(3, "hs", "passing"));
    srv(&[
        "1 10 80 h3.node.dc1.consul.",
        healthy[1],
        healthy[2],
        healthy[3],
    ]);
    consul.register(&checked(5, "", "critical"));
    consul.register(&checked(4, "", "warning"));
    srv(&[
        "1 10 80 h3.node.dc1.consul.",
        "1 3 80 h2.node.dc1.consul.",
        "1 3 80 h4.node.dc1.consul.",
    ]);

    // With nobody healthy left the name is gone, as it is for Consul; then it is back.
    for (number, on) in [(2, "hs"), (3, "hs"), (4, "")] {
        consul.register(&checked(number, on, "critical"));
    }
    srv(&[]);
    consul.register(&checked(2, "hs", "passing"));
    srv(&["1 10 80 h2.node.dc1.consul."]);
}

#[test]
fn registrations_come_and_go() {
    let consul = Consul::start();
    let portolan = Portolan::beside(&consul);
    let name = "app.service.consul";
    let app = |address: &str, tags: &[&str]| {
        let service = json!({ "Service": "app", "ID": format!("app-{address}"), "Address": address,
            "Port": 80, "Tags": tags });
        instance("host", "10.3.0.1", &service)
    };
    let settled = |name: &str, expected: &[&str]| settles(&consul, &portolan, name, A, expected);

    settled(name, &[]);
    consul.register(&app("10.3.1.1", &[]));
    settled(name, &["10.3.1.1"]);
    consul.register(&app("10.3.1.2", &["blue"]));
    settled(name, &["10.3.1.1", "10.3.1.2"]);
    settled("blue.app.service.consul", &["10.3.1.2"]);

    // A tag moves.
    settled("green.app.service.consul", &[]);
    consul.register(&app("10.3.1.2", &["green"]));
    settled("green.app.service.consul", &["10.3.1.2"]);
    settled("blue.app.service.consul", &[]);

    // An instance goes, then the service, then it is back.
    consul.deregister("host", "app-10.3.1.1");
    settled(name, &["10.3.1.2"]);
    consul.deregister("host", "app-10.3.1.2");
    settled(name, &[]);
    consul.register(&app("10.3.1.3", &[]));
    settled(name, &["10.3.1.3"]);

    // The node moves, and goes with all it has.
    settled("host.node.consul", &["10.3.0.1"]);
    let mut moved = app("10.3.1.3", &[]);
    moved["Address"] = "10.3.0.2".into();
    consul.register(&moved);
    settled("host.node.consul", &["10.3.0.2"]);
    consul.deregister_node("host");
    settled("host.node.consul", &[]);
    settled(name, &[]);
}

#[test]
fn what_an_agent_does_is_followed() {
    let consul = Consul::start();
    let portolan = Portolan::beside(&consul);
    let name = "job.service.consul";
    let settled = |expected: &[&str]| settles(&consul, &portolan, name, A, expected);

    consul.agent_register(
        &json!({ "Name": "job", "ID": "job", "Address": "10.4.0.1", "Port": 80,
        "Check": { "CheckID": "alive", "TTL": "1h" } }),
    );
    // A TTL check is critical until it is first heard of.
    settled(&[]);
    consul.set_check("alive", "passing");
    settled(&["10.4.0.1"]);
    consul.set_check("alive", "warning");
    settled(&["10.4.0.1"]);
    consul.set_check("alive", "critical");
    settled(&[]);
    consul.set_check("alive", "passing");
    settled(&["10.4.0.1"]);

    // Maintenance, of the service and of the node.
    for path in ["/v1/agent/service/maintenance/job", "/v1/agent/maintenance"] {
        consul.put(&format!("{path}?enable=true"), &Value::Null);
        settled(&[]);
        consul.put(&format!("{path}?enable=false"), &Value::Null);
        settled(&["10.4.0.1"]);
    }

    consul.agent_deregister("job");
    settled(&[]);
}
