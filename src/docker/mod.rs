//! Running containers as a source: what Docker says exists becomes service instances, by
//! Registrator's labels.
//!
//! The Docker API is read with a thin client of our own over `reqwest`, with `GET` alone, so that
//! a read-only socket proxy is enough. (bollard was weighed and not taken: it writes every inspected
//! container, environment and all, to its debug log; one value that its closed enums do not know
//! fails the whole list; and its requests carry no API version.)
//!
//! A [`Follower`] keeps a [`Snapshot`] of what runs. Events are only wake-ups for an inspection of
//! the container that they name; the list is read after every connect and every resync (D14).
//! [`desired`] turns the containers of a snapshot into [`Registration`]s in Consul's terms; it is
//! pure, and nothing that one container says affects another.

mod client;
mod container;
mod containers;
mod events;
mod follower;
mod health;
mod labels;
mod metrics;
mod source;

pub use client::{Client, Engine, Error};
pub use container::{Attachment, Binding, Container, Port, Protocol, Run};
pub use containers::{Deregister, Ended, Snapshot};
pub use follower::{Follow, Follower, View};
pub use health::Healthcheck;
pub use labels::{
    Check, Desired, Probe, Problem, Reach, Registration, Settings, Severity, desired, tell,
};
pub use source::{Host, Source, host_address};
