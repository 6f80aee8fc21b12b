//! Consul, with the services in its catalog: a server, or a client agent in front of one.

use super::{Setup, built};
use crate::server::{Server, free_port, write};
use crate::world::Instance;
use serde_json::{Value, json};
use std::{
    env, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
};

/// The node that all instances are on.
const NODE: &str = "n1";

pub(super) fn program() -> PathBuf {
    env::var_os("PORTOLAN_CONSUL")
        .map_or_else(|| built("programs/consul/usr/bin/consul"), PathBuf::from)
}

const HTTP_PORT: u16 = 8500;
const LAN_PORT: u16 = 8301;

/// Where the HTTP API is of the Consul whose DNS is at that address.
pub(crate) fn http(dns: SocketAddr) -> SocketAddr {
    // An address of its own keeps its other ports apart from everybody else's.
    (dns.ip(), HTTP_PORT).into()
}

/// Starts a server and registers the services.
pub(super) fn start_server(setup: &Setup<'_>) -> io::Result<Server> {
    server_at(setup, own_loopback(1))
}

/// Starts a client agent, and a server for it alone.
pub(super) fn start_agent(setup: &Setup<'_>) -> io::Result<Server> {
    let server = server_at(setup, own_loopback(2))?;
    let join = SocketAddr::new(server.address.ip(), LAN_PORT);
    let config = json!({ "retry_join": [join.to_string()], "retry_interval": "200ms" });
    let agent = start(setup, "agent", own_loopback(3), config)?;
    Ok(agent.in_front_of(server))
}

fn server_at(setup: &Setup<'_>, ip: Ipv4Addr) -> io::Result<Server> {
    let config = json!({ "server": true, "bootstrap_expect": 1 });
    let mut server = start(setup, "server", ip, config)?;
    let api = Api::new(http(server.address));
    server.wait(|_| match api.get("status/leader")? {
        leader if leader.len() > 2 => Ok(()),
        _ => Err("no leader".to_owned()),
    })?;
    for (name, instances) in &setup.world.services {
        for (number, instance) in instances.iter().enumerate() {
            let registered = api.register(name, number, *instance);
            registered.map_err(io::Error::other)?;
        }
    }
    Ok(server)
}

/// Starts one with what is particular to it.
fn start(setup: &Setup<'_>, node: &str, ip: Ipv4Addr, config: Value) -> io::Result<Server> {
    let dns = SocketAddr::from((ip, free_port()?));
    let mut whole = json!({
        "datacenter": "dc1",
        "node_name": node,
        "data_dir": setup.directory.join(node),
        "bind_addr": ip,
        "client_addr": ip.to_string(),
        "ports": { "http": HTTP_PORT, "dns": dns.port(), "serf_lan": LAN_PORT, "grpc": -1 },
        "performance": { "raft_multiplier": 1 },
        "disable_update_check": true,
        "log_level": "WARN",
    });
    if let (Value::Object(whole), Value::Object(config)) = (&mut whole, config) {
        whole.extend(config);
    }
    let file = write(
        &setup.directory,
        &format!("{node}.json"),
        &whole.to_string(),
    )?;
    let mut command = Command::new(program());
    command.args(["agent", "-config-file"]).arg(file);
    let log = setup.directory.join(format!("{node}.log"));
    Server::start(&command, setup.cores, dns, log)
}

/// A loopback address that belongs to this process.
fn own_loopback(number: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 50 + number, high, low.clamp(1, 254))
}

/// Consul's HTTP API over one connection.
pub(crate) struct Api {
    agent: ureq::Agent,
    address: SocketAddr,
}

impl Api {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            agent: ureq::Agent::new_with_defaults(),
            address,
        }
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let url = format!("http://{}/v1/{path}", self.address);
        let mut reply = self.agent.get(url).call().map_err(|e| e.to_string())?;
        let text = reply.body_mut().read_to_string();
        text.map(|text| text.trim().to_owned())
            .map_err(|e| e.to_string())
    }

    /// Registers one instance, or changes it.
    pub(crate) fn register(
        &self,
        service: &str,
        number: usize,
        instance: Instance,
    ) -> Result<(), String> {
        let body = json!({
            "Node": NODE, "Address": "10.255.0.1", "SkipNodeUpdate": number > 0,
            "Service": { "ID": format!("{service}-{number}"), "Service": service,
                "Address": instance.address.to_string(), "Port": instance.port },
        });
        let url = format!("http://{}/v1/catalog/register", self.address);
        let sent = self.agent.put(url).send(body.to_string());
        let mut reply = sent.map_err(|error| format!("registering {service}: {error}"))?;
        // Read to its end, so that the connection can be used again.
        let text = reply.body_mut().read_to_string();
        text.map(drop).map_err(|error| error.to_string())
    }
}
