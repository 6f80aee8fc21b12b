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

mod check;
mod client;
mod container;
mod desired;
mod event;
mod follower;
mod inspect;
mod meta;
mod metadata;
mod metrics;
mod place;
mod registration;
mod settings;
mod snapshot;
mod source;
mod summary;
mod world;

pub use client::{Client, Error};
pub use container::{Binding, Container, Endpoint, Health, Port, Protocol, Status};
pub use desired::{Desired, Problem, Severity, desired};
pub use follower::{Follower, Pace, View};
pub use registration::{Check, Probe, Registration, Weights};
pub use settings::{Deregister, Reach, Settings};
pub use snapshot::{Ended, Snapshot};
pub use source::{Host, Source, host_address};
