//! What a lookup asks a lazy source to load.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{PreparedKey, PreparedSlot, Realm, Service, ServiceKey, Slot};

/// What a lazy source is asked to load.
#[derive(Debug)]
pub enum Interest {
    /// A datacenter that nobody asked for before: its names and nodes.
    Realm(Arc<Realm>),
    /// The instances of one service.
    Service {
        /// The datacenter it was asked in.
        realm: Arc<Realm>,
        /// Which list.
        key: ServiceKey,
        /// Where to publish it.
        slot: Arc<Slot<Service>>,
    },
    /// The addresses of all services, for reverse names.
    Reverse(Arc<Realm>),
    /// The execution of a prepared query.
    Query {
        /// Which.
        key: PreparedKey,
        /// Where to publish the result.
        slot: Arc<PreparedSlot>,
    },
}

/// Where a lazy source reads what it is to load.
pub type Interests = mpsc::Receiver<Interest>;
