//! What is registered: many services, whose right answers are known beforehand.

use crate::{
    asking::Question,
    support::{
        consul::{Consul, instance},
        eventually, http,
        portolan::Portolan,
        wire::rtype::{A, SRV},
    },
};
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

/// Operations in one transaction: Consul takes no more.
const TRANSACTION: usize = 64;

/// The one node that all is on.
const NODE: (&str, &str) = ("w", "10.9.9.9");

/// An instance, by its number among the instances of its service.
pub(crate) fn json_of(service: &str, number: usize, address: Ipv4Addr, port: u16) -> Value {
    json!({ "Service": service, "ID": format!("{service}-{number}"), "Address": address.to_string(),
        "Port": port, "Weights": { "Passing": 1, "Warning": 1 } })
}

/// The entry for `Consul::register` of an instance on the one node.
pub(crate) fn entry(service: &Value) -> Value {
    instance(NODE.0, NODE.1, service)
}

/// Registers these instances, many at a time; Consul has to take them all.
pub(crate) fn register(http: SocketAddr, services: &[Value]) {
    let node = json!({ "Node": NODE.0, "Address": NODE.1 }).to_string();
    let put = |path: &str, body: &str| {
        let answer = http::put(http, path, body).unwrap_or_else(|error| panic!("{error}"));
        let reason = answer.body.get(..300).unwrap_or(&answer.body);
        assert_eq!(answer.status, 200, "PUT {path}: {reason}");
    };
    put("/v1/catalog/register", &node);
    for some in services.chunks(TRANSACTION) {
        let operations: Vec<Value> = some
            .iter()
            .map(|service| {
                json!({ "Service": { "Verb": "set", "Node": NODE.0, "Service": service } })
            })
            .collect();
        put("/v1/txn", &Value::from(operations).to_string());
    }
}

/// A group of services of one to three instances each.
pub(crate) struct Services {
    prefix: &'static str,
    count: usize,
    /// The second byte of all addresses.
    network: u8,
}

impl Services {
    pub(crate) fn new(prefix: &'static str, count: usize, network: u8) -> Self {
        Self {
            prefix,
            count,
            network,
        }
    }

    /// Registers them all.
    pub(crate) fn register(&self, consul: &Consul) {
        let all: Vec<Value> = (0..self.count)
            .flat_map(|number| {
                (0..=number % 3).map(move |which| {
                    let service = format!("{}{number}", self.prefix);
                    json_of(&service, which, self.address(number, which), port(number))
                })
            })
            .collect();
        register(consul.http(), &all);
    }

    /// The name of one of them, for DNS.
    pub(crate) fn name(&self, number: usize) -> String {
        format!("{}{number}.service.consul", self.prefix)
    }

    /// Two questions for each, with the answers.
    pub(crate) fn questions(&self) -> Vec<Question> {
        (0..self.count)
            .flat_map(|number| [A, SRV].map(|rtype| self.question(number, rtype)))
            .collect()
    }

    fn question(&self, number: usize, rtype: u16) -> Question {
        let mut answer: Vec<String> = (0..=number % 3)
            .map(|which| self.address(number, which))
            .map(|address| match rtype {
                A => address.to_string(),
                _ => {
                    let (port, hex) = (port(number), u32::from(address));
                    format!("1 1 {port} {hex:08x}.addr.dc1.consul.")
                }
            })
            .collect();
        answer.sort();
        Question {
            name: self.name(number),
            rtype,
            answer,
        }
    }

    fn address(&self, number: usize, which: usize) -> Ipv4Addr {
        let [high, low] = u16::try_from(number)
            .expect("a number below 65536")
            .to_be_bytes();
        let which = u8::try_from(which).expect("a few instances");
        // The last byte tells the instances of a service apart, the two before it the services.
        Ipv4Addr::new(10, self.network + high, low, 1 + which)
    }
}

fn port(number: usize) -> u16 {
    u16::try_from(1000 + number % 60_000).expect("a port")
}

/// Registers a service that is new and an instance of `known`, and gives how long it took until
/// Portolan showed both, from the moment when Consul had taken them.
pub(crate) fn new_data(consul: &Consul, portolan: SocketAddr, known: &str, number: u8) -> Duration {
    let address = Ipv4Addr::new(10, 8, 8, number);
    let new = format!("new{number}");
    for service in [&new, known] {
        consul.register(&entry(&json_of(service, number.into(), address, 80)));
    }
    let start = Instant::now();
    for service in [&new, known] {
        let name = format!("{service}.service.consul");
        let what = format!("{name} has {address}");
        eventually(Duration::from_secs(30), &what, || {
            let reply = crate::support::dns::Query::new(&name, A).edns(4096);
            let reply = reply.try_ask(portolan)?;
            match reply.data().contains(&address.to_string()) {
                true => Ok(()),
                false => Err(reply.summary()),
            }
        });
    }
    start.elapsed()
}

/// For how many seconds Portolan says that Consul has been away; 0 while it is not.
pub(crate) fn stale_seconds(portolan: &Portolan) -> f64 {
    portolan.metric("portolan_sources_consul_stale_seconds{datacenter=\"dc1\"}")
}

/// How late new data may be.
pub(crate) const NEW_DATA: Duration = Duration::from_secs(2);
