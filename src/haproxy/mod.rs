//! Keeps an HAProxy configured from Consul: keys of the KV store and services by tag become
//! haproxy.cfg, which is proven before it is put in place and loaded without a dropped request.
//!
//! A change goes through these steps, and whatever fails leaves what runs as it is: what Consul says
//! and is believed ([`Feeds`]), a template rendered from it, `haproxy -c` on the result, the file
//! replaced with one backup, a reload whose result is read. Instances come and go by DNS alone.

mod apply;
mod children;
mod errands;
mod file;
mod inputs;
mod life;
mod master;
mod metrics;
mod process;
mod slots;
mod state;
mod status;
mod supervisor;
mod template;
mod values;
mod watchdog;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use inputs::Feeds;
pub use metrics::Metrics;
pub use status::Status;
pub use supervisor::{Error, Supervisor};
pub use template::TemplateError;

/// What to keep, and how.
// No `Debug`: it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The prefix of the keys, without a final slash.
    pub prefix: String,
    /// Services with this tag get a backend.
    pub tag: String,
    /// The template; `None` for the one in the program.
    pub template: Option<PathBuf>,
    /// The file that HAProxy reads.
    pub output: PathBuf,
    /// HAProxy.
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
    /// Where its statistics are, if that is said.
    pub stats_bind: Option<SocketAddr>,
    /// `USER:PASSWORD` for them.
    pub stats_auth: Option<String>,
    /// Server slots of a backend at least.
    pub min_slots: usize,
    /// How long much must have been gone before that is believed.
    pub doubt: Duration,
    /// How long it may hold other servers than Consul has.
    pub heal_after: Duration,
    /// How long requests in flight may take when it is stopped.
    pub stop_timeout: Duration,
}
