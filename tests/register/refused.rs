//! One service that Consul refuses stops no other.

use crate::{
    support::{
        consul::{Consul, Options},
        ensure, eventually, http, write_file,
    },
    world::{Host, SOON},
};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) const ROOT: &str = "00000000-1111-2222-3333-444444444444";

/// A Consul that registers nothing without a token.
pub(crate) fn with_acl() -> Host {
    let acl = json!({ "acl": { "enabled": true, "default_policy": "deny",
        "tokens": { "master": ROOT, "agent": ROOT } } });
    let consul = Consul::launch(Options {
        extra: acl,
        ..Options::default()
    });
    eventually(
        Duration::from_secs(30),
        "Consul has a leader and its ACLs",
        || {
            let policies = http::get(consul.http(), &format!("/v1/acl/policies?token={ROOT}"))?;
            ensure(policies.status == 200, || format!("{policies:?}"))
        },
    );
    Host::with(consul)
}

/// A token with these rules.
pub(crate) fn token(host: &Host, rules: &str) -> String {
    let put = |path: &str, body: Value| {
        let path = format!("{path}?token={ROOT}");
        let response = http::put(host.consul.http(), &path, &body.to_string()).expect("an answer");
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    };
    let name = format!("policy-{}", rules.len());
    put("/v1/acl/policy", json!({ "Name": name, "Rules": rules }));
    let token = put("/v1/acl/token", json!({ "Policies": [{ "Name": name }] }));
    token["SecretID"].as_str().expect("a token").to_owned()
}

/// What Consul says to the root of all rights.
pub(crate) fn root_get(host: &Host, path: &str) -> Value {
    let path = format!("{path}?token={ROOT}");
    let response = http::get(host.consul.http(), &path).expect("an answer");
    response.json()
}

/// Deletes a token.
pub(crate) fn delete_token(host: &Host, token: &str) {
    let path = format!("/v1/acl/token/self?token={token}");
    let own = http::get(host.consul.http(), &path)
        .expect("an answer")
        .json();
    let accessor = own["AccessorID"].as_str().expect("its ID");
    let path = format!("/v1/acl/token/{accessor}?token={ROOT}");
    let deleted = http::request(host.consul.http(), "DELETE", &path, "").expect("an answer");
    assert_eq!(deleted.status, 200, "{deleted:?}");
}

/// A write with all rights.
pub(crate) fn root_put(host: &Host, path: &str, body: &Value) {
    let sign = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{sign}token={ROOT}");
    let answer = http::put(host.consul.http(), &path, &body.to_string()).expect("an answer");
    assert_eq!(answer.status, 200, "PUT {path}: {answer:?}");
}

/// The names of the agent's services.
fn names(host: &Host) -> Vec<String> {
    let path = format!("/v1/agent/services?token={ROOT}");
    let services = http::get(host.consul.http(), &path)
        .expect("an answer")
        .json();
    let services = services.as_object().expect("services by ID").values();
    services
        .map(|service| service["Service"].as_str().expect("a name").to_owned())
        .collect()
}

/// The token may register one name and not the other; a better one in its file is followed.
#[test]
fn a_token_that_may_not_register_all_registers_what_it_may() {
    let host = with_acl();
    let rules = r#"agent_prefix "" { policy = "read" }
        service_prefix "" { policy = "read" }
        service "allowed" { policy = "write" }"#;
    let better = format!("{rules} service \"denied\" {{ policy = \"write\" }}");
    let directory = host.proxy.directory();
    let file = write_file(directory, "token", &token(&host, rules))
        .display()
        .to_string();
    let _services = [host.service("a", "denied"), host.service("b", "allowed")];
    let registrar = host.registrar(&["--token-file", &file]);
    eventually(SOON, "what may be is registered", || {
        let names = names(&host);
        ensure(names == ["allowed"], || format!("{names:?}"))
    });
    assert_eq!(registrar.metric("portolan_register_failing"), 1.0);
    let told = registrar.log();
    assert!(
        told.contains("refuses to register this service") && told.contains("Permission denied"),
        "{told}"
    );

    write_file(directory, "token", &token(&host, &better));
    registrar.signal("HUP");
    eventually(Duration::from_secs(5), "all is registered", || {
        let mut names = names(&host);
        names.sort();
        ensure(names == ["allowed", "denied"], || format!("{names:?}"))
    });
    let failing = || registrar.metric("portolan_register_failing");
    eventually(SOON, "none is refused", || {
        ensure(failing() == 0.0, || failing().to_string())
    });
    let log = registrar.log();
    assert!(!log.contains(ROOT), "{log}");
}
