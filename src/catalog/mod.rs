//! The catalog: our in-memory copy of what exists, as immutable pieces behind versions.
//!
//! A [`Layer`] is what one source knows. The [`Catalog`] asks its layers in order; a name belongs
//! to the first layer that has it. Readers never wait for a writer: they take an `Arc` of what is
//! published. A service of a lazy source (Consul) is loaded by the first question for it: the
//! lookup leaves an [`Interest`] and hands back a [`Pending`] to wait on.
//!
//! This room knows no DNS, no HTTP and no Docker.

use std::sync::LazyLock;
use std::time::Instant;

mod basis;
mod interest;
mod layer;
mod model;
mod query;
mod reader;
mod realm;
mod reverse;
mod scope;
mod slot;
mod whole;

pub use basis::{Basis, new_epoch};
pub use interest::{Interest, Interests};
pub use layer::{Layer, Loaded, Patience};
pub use model::{
    Health, Instance, Kind, NamedPort, Node, Service, ServiceKey, TaggedAddress, Weights,
};
pub use query::{Executed, QueryKey, QueryResult, QuerySlot};
pub use reader::Reader;
pub use realm::Realm;
pub use scope::Scope;
pub use slot::{Pending, Slot};
pub use whole::Catalog;

/// Seconds on the catalog's clock, which starts when it is first read and never goes back: the
/// `now` of lookups.
pub fn seconds() -> u64 {
    millis() / 1000
}

/// Milliseconds on the same clock.
pub fn millis() -> u64 {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    // It starts at one second: 0 stands for never.
    STARTED.elapsed().as_millis() as u64 + 1000
}

/// What a lookup in the catalog found.
#[derive(Debug, Clone)]
pub enum Found<T> {
    /// It exists and is loaded.
    Here(T),
    /// It exists, or may; its source has been told to load it.
    Loading(Pending),
    /// The source that would know says that it does not exist.
    Absent,
    /// The source that would know has had no data yet, so nothing can be said (D5).
    Unready,
}

impl<T> Found<T> {
    /// Looks further with what is here; any other verdict stands.
    pub fn and_then<U>(self, f: impl FnOnce(T) -> Found<U>) -> Found<U> {
        match self {
            Self::Here(value) => f(value),
            Self::Loading(pending) => Found::Loading(pending),
            Self::Absent => Found::Absent,
            Self::Unready => Found::Unready,
        }
    }
}
