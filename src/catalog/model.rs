//! Services, instances, nodes, and where they are, as Consul means them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The part of the world that a name speaks of. All names are in lower case; the default is the
/// local datacenter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Scope {
    /// Another datacenter, joined over WAN.
    pub datacenter: Option<String>,
    /// A cluster peer (Consul 1.13 and later); never together with a datacenter.
    pub peer: Option<String>,
    /// An Enterprise namespace.
    pub namespace: Option<String>,
    /// An Enterprise admin partition.
    pub partition: Option<String>,
}

impl Scope {
    /// Does it need Consul Enterprise?
    pub fn is_enterprise(&self) -> bool {
        self.namespace.is_some() || self.partition.is_some()
    }
}

/// An address under a tag such as `lan_ipv4` or `wan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedAddress {
    /// An IP address, or a host name.
    pub address: String,
    /// The port that goes with it; 0 where the tag sets none (nodes never do).
    pub port: u16,
}

/// A machine that instances run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, in the case it was registered with.
    pub name: String,
    /// The datacenter that it belongs to.
    pub datacenter: String,
    /// An IP address, or a host name for external nodes.
    pub address: String,
    /// Addresses by tag: `lan`, `lan_ipv4`, `lan_ipv6`, `wan`, `wan_ipv4`, `wan_ipv6`.
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// Node metadata, served as TXT.
    pub meta: BTreeMap<String, String>,
}

/// The health of an instance: the worst of its own checks and its node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Health {
    /// All checks pass, or there are none.
    Passing,
    /// At least one check warns and none is critical.
    Warning,
    /// At least one check is critical; maintenance is an ordinary critical check.
    Critical,
}

/// A port of a service that has several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// The number.
    pub port: u16,
    /// The one that names without `.port` mean.
    pub default: bool,
}

/// SRV weights by health (Consul 1.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// Weight while passing.
    pub passing: u16,
    /// Weight while warning.
    pub warning: u16,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

/// One instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The service id, unique on its node.
    pub id: String,
    /// The service's own address: an IP address, a host name, or empty for the node's address.
    pub address: String,
    /// Addresses by tag, as for nodes.
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// The port; 0 if none was registered.
    pub port: u16,
    /// The ports of a multi-port service; empty for all others.
    pub ports: Vec<NamedPort>,
    /// Tags in the order they were registered.
    pub tags: Vec<String>,
    /// SRV weights.
    pub weights: Weights,
    /// Its health.
    pub health: Health,
    /// The node that it runs on.
    pub node: Arc<Node>,
}

impl Instance {
    /// Does the instance carry the tag? Tags compare case-insensitively, as in Consul's DNS.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own.eq_ignore_ascii_case(tag))
    }

    /// The port where it serves: of several, the one that is its default, or else the first.
    pub fn served_port(&self) -> u16 {
        let first = self.ports.first().filter(|_| self.port == 0);
        let default = self.ports.iter().find(|port| port.default);
        default.or(first).map_or(self.port, |port| port.port)
    }

    /// The weight that its health calls for. A critical instance is only ever answered when a
    /// prepared query ignores its check; Consul gives it 0.
    pub fn weight(&self) -> u16 {
        match self.health {
            Health::Passing => self.weights.passing,
            Health::Warning => self.weights.warning,
            Health::Critical => 0,
        }
    }
}

/// One service with all its instances, healthy or not. Never changed once published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    instances: Vec<Instance>,
}

impl Service {
    /// Takes the instances in any order and keeps them in one that every replica arrives at, so
    /// that the same catalog renders to the same bytes everywhere.
    pub fn new(mut instances: Vec<Instance>) -> Self {
        instances.sort_by_cached_key(|instance| {
            let address = if instance.address.is_empty() {
                &instance.node.address
            } else {
                &instance.address
            };
            (
                address.clone(),
                instance.port,
                instance.node.name.clone(),
                instance.id.clone(),
            )
        });
        Self { instances }
    }

    /// The instances in their stable order.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }
}

/// Which of Consul's lists of instances is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// The instances of the service itself (`/v1/health/service`).
    Service,
    /// Its mesh-capable instances (`/v1/health/connect`).
    Connect,
    /// The ingress gateways that expose it (`/v1/health/ingress`).
    Ingress,
    /// The API gateways that a bound route leads from, with the ports of their listeners (Consul 2.1).
    ApiGateway,
    /// The addresses that the mesh gives it, each as if it were an instance (`/v1/discovery-chain`).
    Virtual,
}

/// Names a list of instances within one datacenter. Service names compare case-insensitively, so
/// the name is held in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    kind: Kind,
    name: Arc<str>,
}

impl ServiceKey {
    /// The key of `name`, whatever its case.
    pub fn new(kind: Kind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_ascii_lowercase().into(),
        }
    }

    /// Which list.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The service's name, in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Service => "service",
            Kind::Connect => "connect",
            Kind::Ingress => "ingress",
            Kind::ApiGateway => "api-gateway",
            Kind::Virtual => "virtual",
        };
        write!(f, "{}.{kind}", self.name)
    }
}
