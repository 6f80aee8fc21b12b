//! Consul's HTTP API as a source (D1 to D3).
//!
//! Always watched: the names of all services, and all nodes. A service's instances are watched
//! from the first question for them on, until nobody asks any more or a service that is asked
//! for needs the connection. Every read is `?stale`: it survives a lost leader and costs the
//! servers least.
//!
//! For whoever keeps other programs configured, the tags of all services and the keys under a
//! prefix are watched in the same way.

mod agent;
mod client;
mod contact;
mod failures;
mod json;
mod metrics;
mod pace;
mod probe;
mod reads;
mod saved;
mod settings;
mod source;
mod subjects;
mod watch;

pub use agent::{Agent, AgentCheck, AgentError, AgentService, DnsConfig};
pub use client::{Client, ClientError};
pub use json::TagsByName;
pub use metrics::Metrics;
pub use saved::SavedCatalog;
pub use settings::{Authorities, Settings};
pub use source::Source;
pub use subjects::KeyValues;
