//! What was asked: a datagram's bytes become a [`Query`], and its name a [`Lookup`]. Pure: no
//! socket, no clock, no catalog.

mod lookup;
mod name;
mod query;
mod subnet;

pub use lookup::{Domains, Lookup, is_reverse, reverse_address};
pub use name::{Name, NameError};
pub use query::{Edns, Malformed, Query};
pub use subnet::ClientSubnet;

/// DNS numbers that this crate speaks of (IANA registries; RFC 1035, 3596, 2782, 6891).
pub mod types {
    /// A host address.
    pub const A: u16 = 1;
    /// An authoritative name server.
    pub const NS: u16 = 2;
    /// The canonical name.
    pub const CNAME: u16 = 5;
    /// The start of a zone of authority.
    pub const SOA: u16 = 6;
    /// A domain name pointer.
    pub const PTR: u16 = 12;
    /// Text strings.
    pub const TXT: u16 = 16;
    /// An IPv6 host address.
    pub const AAAA: u16 = 28;
    /// A server selection.
    pub const SRV: u16 = 33;
    /// The EDNS pseudo-record.
    pub const OPT: u16 = 41;
    /// Incremental zone transfer.
    pub const IXFR: u16 = 251;
    /// Zone transfer.
    pub const AXFR: u16 = 252;
    /// Any type.
    pub const ANY: u16 = 255;
    /// The Internet class.
    pub const CLASS_IN: u16 = 1;
}
