//! Nodes and services made from the fuzzer's bytes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use portolan::catalog::{
    Health, Instance, Kind, NamedPort, Node, Service, ServiceKey, TaggedAddress, Weights,
};

use crate::input::Input;
use crate::words::{DATACENTER, TAGGED, address, text};

/// How many instances a service has.
const FLEETS: &[usize] = &[
    1, 2, 3, 0, 1, 2, 4, 5, 6, 8, 12, 20, 1, 2, 3, 1, 2, 3, 4, 5, 1, 2, 3, 4, 6, 1, 2, 3, 40, 90,
    200, 1100,
];

/// The order in which a catalog is filled; replicas may differ in it and in nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Forwards,
    Backwards,
}

/// What a source knows.
#[derive(Debug, Clone)]
pub struct Contents {
    pub services: BTreeMap<ServiceKey, Service>,
    pub nodes: Vec<Arc<Node>>,
}

impl Contents {
    /// Reads a few nodes and services.
    pub fn read(input: &mut Input<'_>, order: Order) -> Self {
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        for _ in 0..=input.below(4) {
            let node = node(input);
            // Consul keeps the names of nodes unique.
            if nodes
                .iter()
                .all(|other| !other.name.eq_ignore_ascii_case(&node.name))
            {
                nodes.push(Arc::new(node));
            }
        }
        let mut services = BTreeMap::new();
        for _ in 0..=input.below(8) {
            let kinds = [Kind::Service, Kind::Service, Kind::Connect, Kind::Ingress];
            let key = ServiceKey::new(input.one_of(&kinds), &text(input));
            let mut instances = instances(input, &nodes);
            if order == Order::Backwards {
                instances.reverse();
            }
            services.insert(key, Service::new(instances));
        }
        if order == Order::Backwards {
            nodes.reverse();
        }
        Self { services, nodes }
    }

    /// The names of the nodes, in alphabetical order.
    pub fn node_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        names.sort();
        names
    }
}

fn node(input: &mut Input<'_>) -> Node {
    let mut name = text(input);
    for _ in 0..few(input) {
        name = format!("{}.{name}", text(input));
    }
    let mut meta = BTreeMap::new();
    for _ in 0..few(input) {
        let key = if input.flag() {
            format!("rfc1035-{}", text(input))
        } else {
            text(input)
        };
        let value = text(input).repeat(input.below(8) * 4);
        meta.insert(key, value);
    }
    let datacenter = if input.below(8) == 1 {
        "dc2"
    } else {
        DATACENTER
    };
    Node {
        name,
        datacenter: datacenter.to_owned(),
        address: address(input),
        tagged_addresses: tagged_addresses(input),
        meta,
    }
}

/// A service's instances: few that differ in everything, or many that differ in their address.
fn instances(input: &mut Input<'_>, nodes: &[Arc<Node>]) -> Vec<Instance> {
    let count = input.one_of(FLEETS);
    if count <= 6 {
        return (0..count).map(|at| instance(input, nodes, at)).collect();
    }
    let like = instance(input, nodes, 0);
    let is_v6 = input.flag();
    (0..count)
        .map(|at| {
            let bits = at as u32 + 1;
            let own: IpAddr = if is_v6 {
                Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(bits)).into()
            } else {
                Ipv4Addr::from(0x0A03_0000 | bits).into()
            };
            Instance {
                id: format!("i{at}"),
                address: own.to_string(),
                ..like.clone()
            }
        })
        .collect()
}

fn instance(input: &mut Input<'_>, nodes: &[Arc<Node>], at: usize) -> Instance {
    let node = Arc::clone(&nodes[input.below(nodes.len())]);
    let address = address(input);
    let tagged_addresses = tagged_addresses(input);
    let mut tags = Vec::new();
    for _ in 0..few(input) {
        let tag = text(input);
        tags.push(if input.flag() {
            format!("{tag}.{}", text(input))
        } else {
            tag
        });
    }
    let mut ports = Vec::new();
    for _ in 0..few(input) {
        ports.push(NamedPort {
            name: text(input),
            port: input.byte().into(),
            default: input.flag(),
        });
    }
    let healths = [
        Health::Passing,
        Health::Passing,
        Health::Warning,
        Health::Critical,
    ];
    Instance {
        id: format!("i{at}"),
        address,
        tagged_addresses,
        port: 8000 + u16::from(input.byte() & 3),
        ports,
        tags,
        weights: Weights {
            passing: u16::from(input.byte()) * 17,
            warning: 1,
        },
        health: input.one_of(&healths),
        node,
    }
}

fn tagged_addresses(input: &mut Input<'_>) -> BTreeMap<String, TaggedAddress> {
    let mut tagged = BTreeMap::new();
    for _ in 0..few(input) {
        let tag = input.one_of(TAGGED).to_owned();
        let address = address(input);
        let port = input.byte().into();
        tagged.insert(tag, TaggedAddress { address, port });
    }
    tagged
}

/// None, mostly; at most two.
fn few(input: &mut Input<'_>) -> usize {
    input.below(5).saturating_sub(2)
}
