//! DNS in its own words: names, requests, answers, and their bytes on the wire. Pure: no socket, no
//! clock, and no Consul.
//!
//! A datagram becomes a [`Request`]; what is said to it is an [`Answer`], which is written once, for
//! everybody, as [`Rendered`] bytes; those are cut to a client's size and put under its question as
//! its [`Reply`].

mod answer;
mod frame;
pub(crate) mod hickory;
mod name;
mod opt;
mod rendered;
mod reply;
mod request;
mod response;

pub use answer::{Answer, Cut, Data, ExtendedError, Glue, Open, Rcode, Reach, Record, Subset};
pub use frame::{begin_frame, end_frame, split_frame};
pub use name::{Name, NameError};
pub(crate) use name::{labels, offset_of_suffix};
pub use opt::ReplyEdns;
pub use rendered::{Rendered, error_reply};
pub use reply::{Excerpt, Fit, Reply, Transport};
pub use request::{ClientSubnet, Edns, Malformed, Query, QueryEdns, Request};
pub use response::{RawRecord, Response, ResponseEdns, Unreadable};

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
    /// A mail exchange.
    pub const MX: u16 = 15;
    /// Text strings.
    pub const TXT: u16 = 16;
    /// An IPv6 host address.
    pub const AAAA: u16 = 28;
    /// A server selection.
    pub const SRV: u16 = 33;
    /// The EDNS pseudo-record.
    pub const OPT: u16 = 41;
    /// A redirection of all names below one (RFC 6672).
    pub const DNAME: u16 = 39;
    /// A signature (RFC 4034 section 3).
    pub const RRSIG: u16 = 46;
    /// The next name, to prove that there is none between (RFC 4034 section 4).
    pub const NSEC: u16 = 47;
    /// The same of hashed names (RFC 5155 section 3).
    pub const NSEC3: u16 = 50;
    /// Incremental zone transfer.
    pub const IXFR: u16 = 251;
    /// Zone transfer.
    pub const AXFR: u16 = 252;
    /// Any type.
    pub const ANY: u16 = 255;
    /// The Internet class.
    pub const CLASS_IN: u16 = 1;
}

#[cfg(test)]
mod tests;
