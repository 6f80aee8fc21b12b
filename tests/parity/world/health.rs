//! Services by the health of their instances.

use super::on;
use serde_json::{Value, json};

pub(super) fn all() -> Vec<Value> {
    let mut all = states();
    all.extend(others());
    all
}

/// A check on a node (`service` empty) or on an instance.
fn check(node: &str, id: &str, service: &str, status: &str) -> Value {
    let mut check = json!({ "CheckID": id, "Name": "a check", "Node": node, "Status": status });
    if !service.is_empty() {
        check["ServiceID"] = service.into();
    }
    check
}

/// `hs` in every state, each on a node of its own, 10.2.0.N.
fn states() -> Vec<Value> {
    let maintenance = "_service_maintenance:hs";
    /// CheckID, service (none for a check on the node), status.
    type Check<'a> = (&'a str, &'a str, &'a str);
    let states: [(u8, &[Check<'_>]); 11] = [
        (1, &[("c", "hs", "passing")]),
        (2, &[("c", "hs", "warning")]),
        (3, &[("c", "hs", "critical")]),
        (4, &[("c", "", "passing")]),
        (5, &[("c", "", "warning")]),
        (6, &[("c", "", "critical")]),
        (
            7,
            &[(maintenance, "hs", "critical"), ("c", "hs", "passing")],
        ),
        (
            8,
            &[
                ("_node_maintenance", "", "critical"),
                ("c", "hs", "passing"),
            ],
        ),
        (9, &[]),
        (
            10,
            &[
                ("c1", "hs", "passing"),
                ("c2", "hs", "warning"),
                ("c3", "", "passing"),
            ],
        ),
        // A check of another service on the node does not count.
        (
            11,
            &[("c1", "hs", "passing"), ("c2", "hs-other", "critical")],
        ),
    ];
    let mut all = Vec::new();
    for (number, checks) in states {
        let node = format!("h{number}");
        let service = |name: &str| {
            json!({ "Node": node, "Address": format!("10.2.0.{number}"), "Service": {
                "Service": name, "ID": name, "Port": 80, "Tags": [format!("t{number}")],
                "Weights": { "Passing": 10, "Warning": 3 } } })
        };
        if number == 11 {
            all.push(service("hs-other"));
        }
        let mut entry = service("hs");
        entry["Checks"] = checks
            .iter()
            .map(|(id, on, status)| check(&node, id, on, status))
            .collect();
        all.push(entry);
    }
    all
}

/// Services of which only some states, or none, are left.
fn others() -> Vec<Value> {
    let one = |name: &str, status: &str| {
        let mut entry = on(
            "n1",
            json!({ "Service": name, "Port": 80, "Weights": { "Passing": 9, "Warning": 2 } }),
        );
        entry["Check"] = check("n1", &format!("c-{name}"), name, status);
        entry
    };
    vec![
        one("onlycritical", "critical"),
        one("onlywarning", "warning"),
        one("onlypassing", "passing"),
    ]
}
