//! `[docker]` and `[register]`: the settings and their defaults.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::docker::DockerAddress;

/// How to reach Docker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Docker {
    /// The API. Default `unix:///var/run/docker.sock`.
    pub address: DockerAddress,
    /// The directory of `ca.pem`, `cert.pem` and `key.pem`, for TLS. Default: whom the system
    /// trusts, and no certificate of our own.
    pub cert_path: Option<PathBuf>,
    /// Whether `serve` answers for the running containers. Default false.
    pub serve: bool,
    /// The address at which `serve` says that published ports are. Default: the first address of
    /// `server.listen` that others can reach, else the one that this host sends from.
    pub ip: Option<IpAddr>,
}

/// How containers are registered in Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// The name that our services bear in Consul, and by which they are known as ours. Default:
    /// the ID of the Docker engine.
    pub owner: Option<String>,
    /// The address of published ports. Default: that of Consul's agent.
    pub ip: Option<IpAddr>,
    /// Tags that every service gets. Default none.
    pub tags: Vec<String>,
    /// Whether containers are registered with their own address and ports. Default false.
    pub internal: bool,
    /// Whether only containers with a `SERVICE_NAME` are registered. Default false.
    pub explicit: bool,
    /// When the services of a container that ended are taken away. Default `always`.
    pub deregister: Deregister,
    /// What becomes of all services when the registrar ends. Default `keep`.
    pub on_exit: OnExit,
    /// How often everything is compared, whatever Docker says. Default 30 s.
    pub resync: Duration,
}

impl Default for Register {
    fn default() -> Self {
        Self {
            owner: None,
            ip: None,
            tags: Vec::new(),
            internal: false,
            explicit: false,
            deregister: Deregister::Always,
            on_exit: OnExit::Keep,
            resync: Duration::from_secs(30),
        }
    }
}

/// When the services of a container that ended are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deregister {
    /// Whatever it ended with.
    Always,
    /// Only when it ended with 0 or by a signal.
    OnSuccess,
}

/// What becomes of all services when the registrar ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// They stay: the next start takes them up again.
    Keep,
    /// They are taken away.
    Deregister,
}
