//! Consul's JSON, as far as we read it, and what it becomes in the catalog.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::catalog::{
    Health, Instance, NamedPort, Node, Prepared, Service, TaggedAddress, Weights,
};

use crate::duration;

/// The tags of each service, which are those of all its instances. Names are in lower case.
pub type TagsByName = BTreeMap<String, BTreeSet<String>>;

/// An element of `/v1/catalog/nodes`, and the `Node` of `/v1/health/service`. Consul writes
/// `null` for empty maps and lists.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeJson {
    node: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    datacenter: String,
    #[serde(default)]
    tagged_addresses: Option<BTreeMap<String, String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

/// The body of `/v1/catalog/node/NAME`, without its services.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FoundNodeJson {
    #[serde(default)]
    node: Option<NodeJson>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryJson {
    node: NodeJson,
    service: ServiceJson,
    #[serde(default)]
    checks: Option<Vec<CheckJson>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceJson {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    address: String,
    #[serde(default)]
    tagged_addresses: Option<BTreeMap<String, TaggedJson>>,
    #[serde(default)]
    port: i64,
    #[serde(default)]
    ports: Option<Vec<PortJson>>,
    #[serde(default)]
    weights: Option<WeightsJson>,
}

/// A port of a multi-port service (Consul 2).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PortJson {
    #[serde(default)]
    name: String,
    #[serde(default)]
    port: i64,
    #[serde(default)]
    default: bool,
}

/// The body of `/v1/query/NAME/execute`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExecutedJson {
    #[serde(default)]
    service: String,
    #[serde(default)]
    datacenter: String,
    #[serde(default)]
    nodes: Option<Vec<EntryJson>>,
    /// Empty where it was found in a datacenter.
    #[serde(default)]
    peer_name: String,
    #[serde(rename = "DNS", default)]
    dns: Option<DnsJson>,
}

#[derive(Debug, Deserialize)]
struct DnsJson {
    #[serde(rename = "TTL", default)]
    ttl: String,
}

/// An element of `/v1/peerings`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PeerJson {
    name: String,
    #[serde(default)]
    stream_status: Option<StreamStatusJson>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StreamStatusJson {
    #[serde(default)]
    imported_services: Option<Vec<String>>,
}

/// An element of `/v1/config/KIND`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryNameJson {
    name: String,
}

/// An element of `/v1/catalog/gateway-services/GATEWAY`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GatewayServiceJson {
    service: EntryNameJson,
    #[serde(default)]
    gateway_kind: String,
    #[serde(default)]
    port: i64,
}

/// The body of `/v1/discovery-chain/NAME`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChainBodyJson {
    chain: ChainJson,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChainJson {
    #[serde(default)]
    datacenter: String,
    /// What the mesh gave the service by itself, which is what DNS answers with.
    #[serde(rename = "AutoVirtualIPs", default)]
    auto_virtual_ips: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaggedJson {
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WeightsJson {
    #[serde(default)]
    passing: i64,
    #[serde(default)]
    warning: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CheckJson {
    #[serde(default)]
    status: String,
}

/// The body of `/v1/catalog/services`: names in lower case. Tags come with the instances.
pub(super) fn service_names(body: &[u8]) -> serde_json::Result<HashSet<Arc<str>>> {
    // The tags are not used, but another form than a list of them is not Consul's.
    let names: HashMap<String, Option<Vec<IgnoredAny>>> = serde_json::from_slice(body)?;
    Ok(names
        .into_keys()
        .map(|name| name.to_ascii_lowercase().into())
        .collect())
}

/// The same body with the tags, each once and in order.
pub(super) fn service_tags(body: &[u8]) -> serde_json::Result<TagsByName> {
    let names: HashMap<String, Option<Vec<String>>> = serde_json::from_slice(body)?;
    let mut tags = TagsByName::new();
    for (name, own) in names {
        let known = tags.entry(name.to_ascii_lowercase()).or_default();
        known.extend(own.unwrap_or_default());
    }
    Ok(tags)
}

/// The body of `/v1/catalog/datacenters`, in lower case.
pub(super) fn datacenters(body: &[u8]) -> serde_json::Result<BTreeSet<String>> {
    let names: Vec<String> = serde_json::from_slice(body)?;
    Ok(names.iter().map(|name| name.to_ascii_lowercase()).collect())
}

/// The body of `/v1/catalog/nodes`.
pub(super) fn nodes(body: &[u8]) -> serde_json::Result<Vec<Arc<Node>>> {
    let nodes: Option<Vec<NodeJson>> = serde_json::from_slice(body)?;
    Ok(nodes
        .unwrap_or_default()
        .into_iter()
        .map(|node| Arc::new(node.into()))
        .collect())
}

/// The body of `/v1/catalog/node/NAME`; nothing if there is no such node.
pub(super) fn node(body: &[u8]) -> serde_json::Result<Option<Node>> {
    let found: Option<FoundNodeJson> = serde_json::from_slice(body)?;
    Ok(found.and_then(|found| found.node).map(Into::into))
}

/// A body that is a list: is there nothing in it?
pub(super) fn is_empty(body: &[u8]) -> serde_json::Result<bool> {
    let entries: Option<Vec<IgnoredAny>> = serde_json::from_slice(body)?;
    Ok(entries.is_none_or(|entries| entries.is_empty()))
}

/// The body of `/v1/health/service/NAME`.
pub(super) fn service(body: &[u8]) -> serde_json::Result<Service> {
    let entries: Option<Vec<EntryJson>> = serde_json::from_slice(body)?;
    let entries = entries.unwrap_or_default();
    Ok(Service::new(entries.into_iter().map(Into::into).collect()))
}

/// The body of `/v1/config/KIND`: the names of the entries.
pub(super) fn entry_names(body: &[u8]) -> serde_json::Result<Vec<String>> {
    let entries: Option<Vec<EntryNameJson>> = serde_json::from_slice(body)?;
    let entries = entries.unwrap_or_default().into_iter();
    Ok(entries.map(|entry| entry.name).collect())
}

/// The body of `/v1/catalog/gateway-services/GATEWAY`: the ports at which an API gateway leads to the service, each
/// once.
pub(super) fn gateway_ports(body: &[u8], service: &str) -> serde_json::Result<BTreeSet<u16>> {
    let bound: Option<Vec<GatewayServiceJson>> = serde_json::from_slice(body)?;
    let leads_there = |bound: &GatewayServiceJson| {
        bound.gateway_kind == "api-gateway" && bound.service.name.eq_ignore_ascii_case(service)
    };
    let bound = bound.unwrap_or_default().into_iter().filter(leads_there);
    Ok(bound.map(|bound| port(bound.port)).collect())
}

/// The body of `/v1/discovery-chain/NAME`: the addresses that the mesh gives the service.
pub(super) fn virtual_addresses(body: &[u8]) -> serde_json::Result<Service> {
    let ChainBodyJson { chain } = serde_json::from_slice(body)?;
    let node = Arc::new(Node {
        name: String::new(),
        datacenter: chain.datacenter,
        address: String::new(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
    });
    let addresses = chain.auto_virtual_ips.unwrap_or_default();
    let at = |address: String| Instance {
        id: address.clone(),
        address,
        tagged_addresses: BTreeMap::new(),
        port: 0,
        ports: Vec::new(),
        tags: Vec::new(),
        weights: Weights::default(),
        health: Health::Passing,
        node: Arc::clone(&node),
    };
    Ok(Service::new(addresses.into_iter().map(at).collect()))
}

/// The body of `/v1/query/NAME/execute`, with the instances in Consul's order.
pub(super) fn executed(body: &[u8]) -> serde_json::Result<Prepared> {
    let json: ExecutedJson = serde_json::from_slice(body)?;
    let nodes = json.nodes.unwrap_or_default();
    Ok(Prepared {
        service: json.service,
        datacenter: json.datacenter,
        peer: Some(json.peer_name.to_ascii_lowercase()).filter(|peer| !peer.is_empty()),
        ttl: json
            .dns
            .and_then(|dns| go_duration(&dns.ttl))
            .map(|ttl| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)),
        instances: nodes.into_iter().map(Into::into).collect(),
    })
}

/// The body of `/v1/peerings`: the peers, and the services that each exports to us, in lower case.
pub(super) fn peers(body: &[u8]) -> serde_json::Result<BTreeMap<String, BTreeSet<String>>> {
    let peers: Option<Vec<PeerJson>> = serde_json::from_slice(body)?;
    let peers = peers.unwrap_or_default().into_iter().map(|peer| {
        let status = peer.stream_status.unwrap_or_default();
        let imported = status.imported_services.unwrap_or_default();
        let lower = |name: &String| name.to_ascii_lowercase();
        (lower(&peer.name), imported.iter().map(lower).collect())
    });
    Ok(peers.collect())
}

/// A Go duration such as `1h30m`, `10s` or `500ms`; `None` if it is none.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(duration::seconds(text)?).ok()
}

impl From<NodeJson> for Node {
    fn from(json: NodeJson) -> Self {
        let tagged = json.tagged_addresses.unwrap_or_default();
        Self {
            name: json.node,
            datacenter: json.datacenter,
            address: json.address,
            tagged_addresses: tagged
                .into_iter()
                .map(|(tag, address)| (tag, TaggedAddress { address, port: 0 }))
                .collect(),
            meta: json.meta.unwrap_or_default(),
        }
    }
}

impl From<EntryJson> for Instance {
    fn from(json: EntryJson) -> Self {
        let EntryJson {
            node,
            service,
            checks,
        } = json;
        let tagged = service.tagged_addresses.unwrap_or_default();
        Self {
            id: service.id,
            address: service.address,
            tagged_addresses: tagged
                .into_iter()
                .map(|(tag, tagged)| {
                    let port = port(tagged.port);
                    let address = tagged.address;
                    (tag, TaggedAddress { address, port })
                })
                .collect(),
            port: port(service.port),
            ports: service
                .ports
                .unwrap_or_default()
                .into_iter()
                .map(|json| NamedPort {
                    name: json.name,
                    port: port(json.port),
                    default: json.default,
                })
                .collect(),
            tags: service.tags.unwrap_or_default(),
            weights: service
                .weights
                .map_or_else(Weights::default, |weights| Weights {
                    passing: weight(weights.passing),
                    warning: weight(weights.warning),
                }),
            health: checks
                .unwrap_or_default()
                .iter()
                .map(|check| health(&check.status))
                .max()
                .unwrap_or(Health::Passing),
            node: Arc::new(node.into()),
        }
    }
}

/// Consul takes any number for a port, and its DNS server sends the low 16 bits.
fn port(number: i64) -> u16 {
    number as u16
}

/// Consul's DNS server sends 1 for a weight that is not positive.
fn weight(number: i64) -> u16 {
    number.clamp(1, i64::from(u16::MAX)) as u16
}

/// A status that is not one of Consul's three is not passing, as in Consul's aggregation.
fn health(status: &str) -> Health {
    match status {
        "passing" => Health::Passing,
        "warning" => Health::Warning,
        _ => Health::Critical,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_entry_with_nulls() {
        let body = br#"[{"Node":{"ID":"x","Node":"n1","Address":"10.0.0.1","Datacenter":"dc1",
            "TaggedAddresses":null,"Meta":null,"CreateIndex":7},
            "Service":{"ID":"web-1","Service":"web","Tags":null,"Address":"","Meta":null,
            "Port":70000,"Weights":{"Passing":0,"Warning":3},"Proxy":{"MeshGateway":{}}},
            "Checks":[{"Status":"passing"},{"Status":"warning","Output":"x"}]}]"#;
        let service = service(body).expect("Consul's own form");
        let [instance] = service.instances() else {
            panic!("one instance");
        };
        assert_eq!((instance.id.as_str(), instance.port), ("web-1", 4464));
        assert_eq!((instance.weights.passing, instance.weights.warning), (1, 3));
        assert_eq!(instance.health, Health::Warning);
        assert_eq!(instance.node.datacenter, "dc1");
    }

    #[test]
    fn what_is_not_consuls_is_an_error() {
        for body in [
            "",
            "<html>",
            "[{\"Node\":",
            "{}",
            "[{\"Node\":{\"Node\":\"n\"}}]",
        ] {
            assert!(service(body.as_bytes()).is_err(), "{body}");
        }
        assert!(service_names(b"[]").is_err());
        assert!(service_names(br#"{"errors": 7}"#).is_err());
        assert!(nodes(b"{}").is_err());
    }

    #[test]
    fn go_durations() {
        assert_eq!(go_duration("1h1m1s"), Some(Duration::from_secs(3661)));
        assert_eq!(go_duration("1500ms"), Some(Duration::from_millis(1500)));
        assert_eq!(go_duration("0s"), Some(Duration::ZERO));
        for text in ["", "s", "10", "10x", "-1s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_multi_port_service() {
        let body = br#"[{"Node":{"Node":"n1"},"Service":{"ID":"w","Ports":[
            {"Name":"http","Port":80,"Default":true},{"Name":"admin","Port":81}]}}]"#;
        let service = service(body).expect("the newer form");
        let ports = &service.instances()[0].ports;
        assert_eq!((ports[0].port, ports[0].default), (80, true));
        assert_eq!((ports[1].name.as_str(), ports[1].default), ("admin", false));
    }

    #[test]
    fn names_are_lowered_and_merged() {
        let names = service_names(br#"{"Web":["a"],"web":[],"db":null}"#).expect("a map");
        assert_eq!(names, HashSet::from(["web".into(), "db".into()]));
    }
}
