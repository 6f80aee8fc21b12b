//! Prepared queries.

use crate::support::consul::Consul;
use serde_json::{Value, json};

/// IDs are Consul's own choice; this query is also asked by its ID.
pub(crate) const BY_ID: &str = "pq-web";

pub(super) fn define(consul: &Consul) {
    for query in all() {
        consul.define_query(&query);
    }
}

fn query(name: &str, service: Value) -> Value {
    json!({ "Name": name, "Service": service })
}

fn all() -> Vec<Value> {
    let mut with_ttl = query("pq-ttl", json!({ "Service": "api" }));
    with_ttl["DNS"] = json!({ "TTL": "17s" });
    let template = |name: &str, regexp: &str, service: Value| {
        let mut query = query(name, service);
        query["Template"] = json!({ "Type": "name_prefix_match", "Regexp": regexp });
        query
    };
    vec![
        query(BY_ID, json!({ "Service": "web" })),
        query("pq.dotted", json!({ "Service": "web" })),
        query("PQ-Upper", json!({ "Service": "web" })),
        query("pq-tag", json!({ "Service": "web", "Tags": ["primary"] })),
        query(
            "pq-tags",
            json!({ "Service": "web", "Tags": ["v1", "!primary"] }),
        ),
        query("pq-addr", json!({ "Service": "api" })),
        with_ttl,
        query("pq-warning", json!({ "Service": "hs" })),
        query(
            "pq-passing",
            json!({ "Service": "hs", "OnlyPassing": true }),
        ),
        query("pq-critical", json!({ "Service": "onlycritical" })),
        query(
            "pq-ignored",
            json!({ "Service": "onlycritical", "IgnoreCheckIDs": ["c-onlycritical"] }),
        ),
        query("pq-none", json!({ "Service": "nope" })),
        query(
            "pq-meta",
            json!({ "Service": "web", "NodeMeta": { "az": "z3" } }),
        ),
        query("pq-six", json!({ "Service": "six" })),
        query("pq-dual", json!({ "Service": "dual" })),
        query("pq-host", json!({ "Service": "outside" })),
        query("pq-alias", json!({ "Service": "alias" })),
        query("pq-many", json!({ "Service": "forty" })),
        query("pq-connect", json!({ "Service": "mesh", "Connect": true })),
        query("pq-case", json!({ "Service": "CASESVC" })),
        query("pq-agent", json!({ "Service": "web", "Near": "_agent" })),
        template("geo-", "", json!({ "Service": "${name.suffix}" })),
        template(
            "tagged-",
            "^tagged-(.*?)-([^\\-]+?)$",
            json!({ "Service": "${match(1)}", "Tags": ["${match(2)}"] }),
        ),
        template(
            "whole-",
            "^(.*)$",
            json!({ "Service": "${name.full}-no-such", "Tags": ["${agent.segment}"] }),
        ),
        // Templates match the longest prefix; an exact name beats both.
        template("geo-api", "", json!({ "Service": "five" })),
        query("geo-six", json!({ "Service": "onsix" })),
    ]
}
