//! The configuration as it is after all layers: each room's own settings, and the little that is
//! nobody's alone.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::docker::Deregister;
use crate::http::Endpoint;
use crate::{answers, consul, haproxy, recursion, server};

/// Everything that can be set. A field has the name of its key in `portolan.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// The domain that services are under, in lower case, without a final dot.
    pub domain: String,
    /// A second domain with the same names.
    pub alt_domain: Option<String>,
    /// The datacenter that services from files and containers belong to, in lower case.
    pub datacenter: String,
    /// Where the last known catalog is kept across restarts; if nowhere, it is not kept.
    pub state_dir: Option<PathBuf>,
    /// `[server]`.
    pub server: server::Settings,
    /// `[consul]`.
    pub consul: consul::Settings,
    /// `[docker]`.
    pub docker: Docker,
    /// `[register]`.
    pub register: Register,
    /// `[services]`.
    pub services: Services,
    /// `[zones]`.
    pub zones: Zones,
    /// `[recursion]`.
    pub recursion: recursion::Settings,
    /// `[answers]`, and `consul.translate_wan_addrs`.
    pub answers: answers::Settings,
    /// `[haproxy]`; its `domain` is the one above.
    pub haproxy: haproxy::Settings,
    /// `[admin]`.
    pub admin: Admin,
    /// `[log]`.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            domain: "consul".to_owned(),
            alt_domain: None,
            datacenter: "dc1".to_owned(),
            state_dir: None,
            server: server::Settings::default(),
            consul: consul::Settings::default(),
            docker: Docker::default(),
            register: Register::default(),
            services: Services::default(),
            zones: Zones::default(),
            recursion: recursion::Settings::default(),
            answers: answers::Settings::default(),
            haproxy: haproxy::Settings::default(),
            admin: Admin::default(),
            log: Log::default(),
        }
    }
}

/// How to reach Docker, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// The API.
    pub address: Endpoint,
    /// The directory of `ca.pem`, `cert.pem` and `key.pem`, for TLS.
    pub cert_path: Option<PathBuf>,
    /// Does `serve` answer for the running containers?
    pub serve: bool,
    /// The address at which `serve` says that published ports are; if none is set, the first of
    /// `server.listen` that others can reach, else the one that this host sends from.
    pub ip: Option<IpAddr>,
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            address: Endpoint::Unix("/var/run/docker.sock".into()),
            cert_path: None,
            serve: false,
            ip: None,
        }
    }
}

/// How containers are registered in Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// The name that our services bear in Consul; if none is set, the ID of the Docker engine.
    pub owner: Option<String>,
    /// The address of published ports; if none is set, that of Consul's agent.
    pub ip: Option<IpAddr>,
    /// Tags that every service gets.
    pub tags: Vec<String>,
    /// Are containers registered with their own address and ports?
    pub internal: bool,
    /// Are only containers with a `SERVICE_NAME` registered?
    pub explicit: bool,
    /// When the services of a container that ended are taken away.
    pub deregister: Deregister,
    /// What becomes of all services when the registrar ends.
    pub on_exit: OnExit,
    /// How often everything is compared, whatever Docker says.
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

/// What becomes of all services when the registrar ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// They stay: the next start takes them up again.
    Keep,
    /// They are taken away.
    Deregister,
}

/// Consul service-definition files as a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Services {
    /// Where they are, each directory once.
    pub directories: Vec<PathBuf>,
}

/// Static zones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zones {
    /// Where their master files are.
    pub directory: Option<PathBuf>,
}

/// The admin socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where /healthz, /ready and /metrics are, if anywhere.
    pub listen: Option<SocketAddr>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 8054))),
        }
    }
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// The form of its lines.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// For how long `portolan haproxy` is to run, and what it may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Until it is stopped.
    Keep,
    /// Until the file is right once.
    Once,
    /// Until it is known what would change in the file, which is shown.
    DryRun,
}
