//! A Consul that shows nothing to those without a token.

use crate::support::{
    consul::{Consul, Options},
    eventually, http,
};
use serde_json::{Value, json};
use std::time::Duration;

/// The document that has the policy.
pub(crate) const POLICY: &str = "docs/consul.md";

/// The token that may do everything.
pub(crate) const MANAGEMENT: &str = "11111111-2222-3333-4444-555555555555";

/// Starts it, with a service `web`, and gives a token that has the policy of these rules.
pub(crate) fn start(rules: &str) -> (Consul, String) {
    let consul = Consul::launch(Options {
        extra: json!({ "acl": { "enabled": true, "default_policy": "deny",
            "tokens": { "master": MANAGEMENT, "agent": MANAGEMENT } } }),
        ..Options::default()
    });
    // Until there is a leader, and it knows its tokens, none of this works.
    put(
        &consul,
        "acl/policy",
        &json!({ "Name": "portolan", "Rules": rules }),
    );
    let token = json!({ "Policies": [{ "Name": "portolan" }] });
    let token = put(&consul, "acl/token", &token);
    let service = json!({ "Service": "web", "Address": "10.1.0.1", "Port": 80 });
    let web = json!({ "Node": "n1", "Address": "10.0.0.1", "Service": service });
    put(&consul, "catalog/register", &web);
    let secret = token["SecretID"].as_str();
    let secret = secret.unwrap_or_else(|| panic!("no token: {token}"));
    (consul, secret.to_owned())
}

fn put(consul: &Consul, path: &str, body: &Value) -> Value {
    let path = format!("/v1/{path}?token={MANAGEMENT}");
    eventually(
        Duration::from_secs(30),
        "Consul takes it",
        || match http::put(consul.http(), &path, &body.to_string())? {
            taken if taken.status == 200 => Ok(taken.json()),
            other => Err(format!("{other:?}")),
        },
    )
}
