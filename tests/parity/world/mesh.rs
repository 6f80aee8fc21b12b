//! Connect proxies, native services, an ingress gateway.

use super::on;
use crate::support::consul::Consul;
use serde_json::{Value, json};

pub(super) fn all() -> Vec<Value> {
    let proxy = |node: &str, id: &str, of: &str, rest: Value| {
        let mut service = json!({ "Kind": "connect-proxy", "Service": format!("{of}-proxy"), "ID": id,
            "Port": 21000, "Proxy": { "DestinationServiceName": of } });
        for (key, value) in rest.as_object().into_iter().flatten() {
            service[key] = value.clone();
        }
        on(node, service)
    };
    let mut sick = proxy("n4", "mesh-proxy4", "mesh", json!({}));
    sick["Check"] = json!({ "CheckID": "sick", "Name": "a check", "Node": "n4",
        "ServiceID": "mesh-proxy4", "Status": "critical" });
    let plain = |name: &str| on("n1", json!({ "Service": name, "Port": 80 }));
    vec![
        plain("mesh"),
        plain("MeshCase"),
        plain("meshsix"),
        plain("meshext"),
        proxy("n1", "mesh-proxy1", "mesh", json!({})),
        proxy(
            "n2",
            "mesh-proxy2",
            "mesh",
            json!({ "Address": "10.7.0.2", "Port": 21001, "Tags": ["primary"] }),
        ),
        proxy(
            "n3",
            "mesh-proxy3",
            "mesh",
            json!({ "Weights": { "Passing": 4, "Warning": 1 } }),
        ),
        sick,
        proxy("n1", "case-proxy", "MeshCase", json!({})),
        proxy("n6", "six-proxy", "meshsix", json!({})),
        proxy("ext", "ext-proxy", "meshext", json!({})),
        // No service of this name: only its proxy exists.
        proxy("n2", "lonely-proxy", "lonely", json!({})),
        on(
            "n1",
            json!({ "Service": "native", "Port": 8443, "Connect": { "Native": true } }),
        ),
        on(
            "n1",
            json!({ "Kind": "ingress-gateway", "Service": "gate", "Port": 8888 }),
        ),
        on(
            "n2",
            json!({ "Kind": "ingress-gateway", "Service": "gate", "Address": "10.7.1.2",
                "Port": 8888 }),
        ),
        on(
            "n3",
            json!({ "Kind": "mesh-gateway", "Service": "meshgate", "Port": 8443 }),
        ),
        on(
            "n3",
            json!({ "Kind": "terminating-gateway", "Service": "termgate", "Port": 8443 }),
        ),
        // An address for `.virtual`, which Consul has from 1.11 on.
        plain("virt"),
        proxy(
            "n1",
            "virt-proxy",
            "virt",
            json!({ "TaggedAddresses": {
                "consul-virtual": { "Address": "240.0.0.7", "Port": 80 } } }),
        ),
    ]
}

/// Lets the ingress gateway expose services: those that are there, one that is not, one twice.
pub(super) fn expose(consul: &Consul) {
    let listener = |port: u16, service: &str| json!({ "Port": port, "Protocol": "tcp", "Services": [{ "Name": service }] });
    consul.put(
        "/v1/config",
        &json!({ "Kind": "ingress-gateway", "Name": "gate", "Listeners": [
            listener(8080, "web"), listener(8081, "mesh"), listener(8082, "web"),
            listener(8083, "notthere") ] }),
    );
}
