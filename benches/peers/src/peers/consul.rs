//! Consul: one server, with the services in its catalog.

use super::{Setup, built};
use crate::server::{Server, free_port, write};
use crate::world::{Instance, World};
use serde_json::json;
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

/// Where the HTTP API is of the Consul whose DNS is at that address.
pub(crate) fn http(dns: SocketAddr) -> SocketAddr {
    // An address of its own keeps the other ports apart from everybody else's.
    (dns.ip(), HTTP_PORT).into()
}

const HTTP_PORT: u16 = 8500;

/// Starts it and registers the services.
pub(super) fn start(setup: &Setup<'_>) -> io::Result<Server> {
    let ip = own_loopback();
    let dns = SocketAddr::from((ip, free_port()?));
    let config = json!({
        "datacenter": "dc1",
        "node_name": "consul-1",
        "server": true,
        "bootstrap_expect": 1,
        "data_dir": setup.directory.join("data"),
        "bind_addr": ip,
        "client_addr": ip.to_string(),
        "ports": { "http": HTTP_PORT, "dns": dns.port(), "grpc": -1 },
        "performance": { "raft_multiplier": 1 },
        "disable_update_check": true,
        "log_level": "WARN",
    });
    let file = write(&setup.directory, "consul.json", &config.to_string())?;
    let mut command = Command::new(program());
    command.args(["agent", "-config-file"]).arg(file);
    let log = setup.directory.join("log");
    let mut server = Server::start(&command, setup.cores, dns, log)?;
    let mut api = Api::new(http(dns));
    server.wait(|_| {
        let leader = Api::new(http(dns)).get("status/leader")?;
        if leader.len() > 2 {
            Ok(())
        } else {
            Err("no leader".to_owned())
        }
    })?;
    api.register_all(setup.world).map_err(io::Error::other)?;
    Ok(server)
}

/// A loopback address that belongs to this process.
fn own_loopback() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 53, high, low.clamp(1, 254))
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

    fn register_all(&mut self, world: &World) -> Result<(), String> {
        for (name, instances) in &world.services {
            for (number, instance) in instances.iter().enumerate() {
                self.register(name, number, *instance)?;
            }
        }
        Ok(())
    }

    /// Registers one instance, or changes it.
    pub(crate) fn register(
        &mut self,
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
