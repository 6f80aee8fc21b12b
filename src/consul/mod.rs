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
mod ages;
mod client;
mod contact;
mod freshness;
mod json;
mod keys;
mod local;
mod metrics;
mod pace;
mod query;
mod request;
mod reverse;
mod service;
mod settings;
mod source;
mod state;
mod tags;
mod trouble;
mod watch;
mod world;

pub use agent::AgentDns;
pub use client::{Client, ClientError};
pub use keys::KeyValues;
pub use local::{AgentCheck, AgentError, AgentService, LocalAgent};
pub use metrics::Metrics;
pub use settings::{Authorities, Settings};
pub use source::Source;
pub use state::State;
pub use tags::TagsByName;
