//! Keeps an HAProxy configured from Consul: keys of the KV store and services by tag become
//! haproxy.cfg, which is proven before it is put in place and loaded without a dropped request.
//!
//! A change goes through these steps, and whatever fails leaves what runs as it is: what Consul says
//! and is believed ([`Feeds`]), a template rendered from it, `haproxy -c` on the result, the file
//! replaced with one backup, a reload whose result is read. Instances come and go by DNS alone.

mod account;
mod backends;
mod changes;
mod children;
mod claim;
mod file;
mod helpers;
mod inputs;
mod installed;
mod master;
mod metrics;
mod names;
mod process;
mod program;
mod prover;
mod quoting;
mod rollout;
mod supervisor;
mod suspects;
mod template;
mod values;
mod watchdog;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Token;

pub use claim::ClaimError;
pub use inputs::Feeds;
pub use metrics::{Metrics, Report};
pub use supervisor::{Error, Supervisor};
pub use template::TemplateError;

/// What an operator may set about HAProxy: the keys of `[haproxy]`, and the domain of services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The prefix of the keys, without a final slash.
    pub prefix: String,
    /// Services with this tag get a backend.
    pub tag: String,
    /// The template; `None` for the one in the program.
    pub template: Option<PathBuf>,
    /// The file that HAProxy reads.
    pub output: PathBuf,
    /// HAProxy itself, as a path or as a name on the `PATH`.
    pub program: PathBuf,
    /// The socket of its master process.
    pub master_socket: PathBuf,
    /// Start it, rather than manage one that runs.
    pub exec: bool,
    /// The DNS server that it asks.
    pub resolver: SocketAddr,
    /// The domain of services.
    pub domain: String,
    /// Where it takes requests.
    pub bind: SocketAddr,
    /// Where its statistics are; if that is not said, port 1936 of all addresses with credentials, else
    /// of 127.0.0.1.
    pub stats_bind: Option<SocketAddr>,
    /// `USER:PASSWORD` for them.
    pub stats_auth: Option<Token>,
    /// Server slots of a backend at least.
    pub min_slots: usize,
    /// How long the backend of a service that has gone stays, empty.
    pub linger: Duration,
    /// How far reloads are apart at least, but for the first few.
    pub reload_pace: Duration,
    /// How long much must have been gone before that is believed.
    pub doubt: Duration,
    /// How long it may hold other servers than Consul has.
    pub heal_after: Duration,
    /// How long requests in flight may take when it is stopped; the default leaves room within the 10 s
    /// that Docker gives a container.
    pub stop_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: "service/haproxy".to_owned(),
            tag: "rest".to_owned(),
            template: None,
            output: "/etc/haproxy/haproxy.cfg".into(),
            program: "haproxy".into(),
            master_socket: "/run/haproxy-master.sock".into(),
            exec: true,
            resolver: SocketAddr::from(([127, 0, 0, 1], 53)),
            domain: "consul".to_owned(),
            bind: SocketAddr::from(([0, 0, 0, 0], 80)),
            stats_bind: None,
            stats_auth: None,
            min_slots: 32,
            linger: Duration::from_secs(300),
            reload_pace: Duration::from_secs(10),
            doubt: Duration::from_secs(30),
            heal_after: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(8),
        }
    }
}
