//! The catalog of the real Consul: filled at once, then changed through its HTTP API.

use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Operations in one transaction; Consul takes 64 at most.
const AT_ONCE: usize = 64;

const INSTANCES: u32 = 3;

/// Nodes that the instances are on, and that are there before any joins.
const NODES: u32 = 500;

/// The name of a service.
pub(super) fn service(number: u32) -> String {
    format!("svc-{number}")
}

/// Consul's catalog.
pub(super) struct Catalog {
    agent: ureq::Agent,
    address: SocketAddr,
    pub(super) services: u32,
    /// Changes so far. Consul takes one that changes nothing for none, so no two may be the same.
    made: AtomicU32,
}

impl Catalog {
    /// Registers the services of three instances and two tags, on nodes of their own.
    pub(super) fn fill(address: SocketAddr, services: u32) -> Result<Self, String> {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(30)));
        let catalog = Self {
            agent: config.build().into(),
            address,
            services,
            made: AtomicU32::new(0),
        };
        let nodes = (0..NODES).map(|number| {
            json!({ "Node": { "Verb": "set", "Node": node(&format!("node-{number}"), number) } })
        });
        let instances = (0..services).flat_map(|number| {
            (0..INSTANCES).map(move |which| {
                let on = format!("node-{}", (number * INSTANCES + which) % NODES);
                json!({ "Service": { "Verb": "set", "Node": on,
                    "Service": instance(&service(number), which, 8000) } })
            })
        });
        let all: Vec<Value> = nodes.chain(instances).collect();
        for some in all.chunks(AT_ONCE) {
            catalog.put("txn", &Value::Array(some.to_vec()))?;
        }
        Ok(catalog)
    }

    /// The number of the next change, which no other has had.
    pub(super) fn next(&self) -> u32 {
        self.made.fetch_add(1, Ordering::Relaxed)
    }

    /// A service gets another port.
    pub(super) fn change(&self, number: u32, generation: u32) -> Result<(), String> {
        let port = 10_000 + generation % 50_000;
        self.register(
            &service(number),
            &format!("node-{}", (number * INSTANCES) % NODES),
            port,
        )
    }

    /// A new service.
    pub(super) fn appear(&self, name: &str) -> Result<(), String> {
        self.register(name, "node-0", 8000)
    }

    /// It is gone.
    pub(super) fn vanish(&self, name: &str) -> Result<(), String> {
        let id = format!("{name}-0");
        self.put(
            "catalog/deregister",
            &json!({ "Node": "node-0", "ServiceID": id }),
        )
    }

    /// A node joins.
    pub(super) fn join(&self, number: u32) -> Result<(), String> {
        let mut body = node(&format!("joined-{number}"), NODES + number);
        // The two ways to register a node have two names for it.
        body["NodeMeta"] = body["Meta"].take();
        if let Some(body) = body.as_object_mut() {
            body.remove("Meta");
        }
        self.put("catalog/register", &body)
    }

    pub(super) fn register(&self, name: &str, on: &str, port: u32) -> Result<(), String> {
        let body =
            json!({ "Node": on, "SkipNodeUpdate": true, "Service": instance(name, 0, port) });
        self.put("catalog/register", &body)
    }

    fn put(&self, path: &str, body: &Value) -> Result<(), String> {
        let url = format!("http://{}/v1/{path}", self.address);
        let sent = self.agent.put(url).send(body.to_string());
        let mut reply = sent.map_err(|error| format!("{path}: {error}"))?;
        // Read to its end, so that the connection can be used again.
        let text = reply.body_mut().read_to_string();
        text.map(drop).map_err(|error| error.to_string())
    }
}

fn node(name: &str, number: u32) -> Value {
    json!({ "Node": name, "Address": Ipv4Addr::from(0x0aff_0000 + number).to_string(),
        "Meta": { "rack": format!("r{}", number % 20) } })
}

fn instance(name: &str, which: u32, port: u32) -> Value {
    let hash = name.bytes().fold(which, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    });
    json!({ "ID": format!("{name}-{which}"), "Service": name, "Tags": ["http", "v1"], "Port": port,
        "Address": Ipv4Addr::from(0x0a00_0000 + hash % 0x00fe_0000).to_string() })
}
