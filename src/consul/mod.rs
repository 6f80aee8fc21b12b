//! Consul's HTTP API as a source (D1 to D3).
//!
//! Always watched: the names of all services, and all nodes. These lists wake with every change of
//! anything and come back whole, so they are read within a budget; what they do not have while they
//! may be behind is asked for by name. A service's instances are watched from the first question for
//! them on, until nobody asks any more or a service that is asked for needs the connection. Every
//! read is `?stale`: it survives a lost leader and costs the servers least.
//!
//! For whoever keeps other programs configured, the tags of all services and the keys under a
//! prefix are watched in the same way.

mod agent;
mod client;
mod connections;
mod contact;
mod failures;
mod gateways;
mod json;
mod kept;
mod lists;
mod metrics;
mod pace;
mod probe;
mod reads;
mod remembered;
mod saved;
mod source;
mod subjects;
mod throttle;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use crate::http::Endpoint;
use crate::secret::TokenSource;

pub use agent::{
    Agent, AgentCheck, AgentError, AgentNode, AgentService, DnsConfig, Entered, TokenMark,
};
pub use client::{Client, ClientError};
pub use json::TagsByName;
pub use metrics::Metrics;
pub use saved::SavedCatalog;
pub use source::Source;
pub use subjects::KeyValues;

/// What an operator may set about Consul: the keys of `[consul]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The HTTP API; `None` without Consul.
    pub address: Option<Endpoint>,
    /// Other agents of the same datacenter, asked in this order while the first is not well.
    pub fallback_addresses: Vec<Endpoint>,
    /// Who we are.
    pub token: TokenSource,
    /// The datacenter to read as the local one, if not the agent's own.
    pub datacenter: Option<String>,
    /// Connections to Consul at most (D2); an agent resets the 201st of one host.
    pub max_watches: usize,
    /// Bytes that the lists of all services and nodes may bring in a second, on average.
    pub list_rate: u32,
    /// Names beyond those lists that Consul is asked for in a second at most.
    pub unknown_rate: u32,
    /// For how long at most the last known good is served while Consul is away.
    pub max_stale: Duration,
    /// Who may vouch for Consul's certificate.
    pub authorities: Authorities,
    /// Our own certificate, where Consul asks for one.
    pub client_cert: Option<PathBuf>,
    /// Its key.
    pub client_key: Option<PathBuf>,
    /// The name to expect in Consul's certificate, if not the host of the address.
    pub tls_server_name: Option<String>,
    /// Is Consul's certificate checked?
    pub verify: bool,
}

/// Who may vouch for Consul's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authorities {
    /// Those that the system trusts.
    #[default]
    System,
    /// Those in one PEM file.
    File(PathBuf),
    /// Those in the PEM files of a directory.
    Directory(PathBuf),
}

impl Default for Settings {
    fn default() -> Self {
        let address = "http://127.0.0.1:8500".parse().ok();
        Self {
            address: address.map(Endpoint::Http),
            fallback_addresses: Vec::new(),
            token: TokenSource::Anonymous,
            datacenter: None,
            max_watches: 80,
            list_rate: 20_000,
            unknown_rate: 45,
            max_stale: Duration::MAX,
            authorities: Authorities::System,
            client_cert: None,
            client_key: None,
            tls_server_name: None,
            verify: true,
        }
    }
}
