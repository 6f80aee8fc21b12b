//! Three Consul servers that elect a leader, and a client agent as on a host that runs services.

use super::{
    consul::{Consul, Options},
    ensure, eventually, http,
};
use serde_json::json;
use std::{net::SocketAddr, time::Duration};

/// How long an election, or finding each other again, may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A datacenter `dc1`.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Consul>,
    /// The client agent: what Portolan is pointed at.
    pub(crate) agent: Consul,
}

impl Cluster {
    /// Starts it and waits until the agent reads and writes through a leader.
    pub(crate) fn start() -> Self {
        let mut servers: Vec<Consul> = Vec::new();
        for _ in 0..3 {
            servers.push(Consul::launch(Options {
                bootstrap_expect: 3,
                join: lans(&servers),
                ..Options::default()
            }));
        }
        let agent = Consul::launch(Options {
            server: false,
            join: lans(&servers),
            // Its own DNS answers as long as it can, as Portolan does.
            extra: json!({ "dns_config": { "max_stale": "87600h" } }),
            ..Options::default()
        });
        agent.wait_until_ready();
        Self { servers, agent }
    }

    /// The number of the server that leads, once the running ones other than `but` agree on one.
    pub(crate) fn leader(&self, but: &[usize]) -> usize {
        let running = || (0..self.servers.len()).filter(|server| !but.contains(server));
        eventually(PATIENCE, "the servers have a leader", || {
            let mut leaders = Vec::new();
            for server in running() {
                let told = http::get(self.servers[server].http(), "/v1/status/leader")?;
                leaders.push(told.body.trim().trim_matches('"').to_owned());
            }
            leaders.dedup();
            let [leader] = leaders.as_slice() else {
                return Err(format!("they disagree: {leaders:?}"));
            };
            running()
                .find(|server| self.servers[*server].raft().to_string() == *leader)
                .ok_or_else(|| format!("{leader:?} does not lead any more"))
        })
    }

    /// Starts every server again that is not running, and the agent.
    pub(crate) fn restart(&mut self, servers: &[usize]) {
        for server in servers {
            self.servers[*server].restart();
        }
    }

    /// Waits until `consul` can write, that is, it has found a leader. What it writes is a node that
    /// nobody asks for.
    pub(crate) fn wait_until_writable(consul: &Consul) {
        let entry = json!({ "Node": "is-writable", "Address": "10.255.255.1" }).to_string();
        eventually(PATIENCE, "Consul takes a registration", || {
            let answer = http::put(consul.http(), "/v1/catalog/register", &entry)?;
            ensure(answer.status == 200, || format!("{answer:?}"))
        });
    }
}

fn lans(servers: &[Consul]) -> Vec<SocketAddr> {
    servers.iter().map(Consul::lan).collect()
}
