//! Resource records, before they are wire bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::names::{Name, types};

/// A record of class IN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The name that owns it.
    pub owner: Name,
    /// Time to live, in seconds.
    pub ttl: u32,
    /// Type and data.
    pub data: Data,
}

/// The types that we make ourselves, and all others as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// RFC 1035 section 3.4.1.
    A(Ipv4Addr),
    /// RFC 3596.
    Aaaa(Ipv6Addr),
    /// RFC 2782.
    Srv {
        /// Lower is tried first; Consul's is always 1.
        priority: u16,
        /// Share among equals.
        weight: u16,
        /// The port.
        port: u16,
        /// The host; never compressed.
        target: Name,
    },
    /// RFC 1035 section 3.3.1.
    Cname(Name),
    /// RFC 1035 section 3.3.11.
    Ns(Name),
    /// RFC 1035 section 3.3.12.
    Ptr(Name),
    /// RFC 1035 section 3.3.13.
    Soa {
        /// The primary server.
        mname: Name,
        /// The mailbox of the person responsible.
        rname: Name,
        /// Serial number.
        serial: u32,
        /// Refresh interval, in seconds.
        refresh: u32,
        /// Retry interval, in seconds.
        retry: u32,
        /// Expiry, in seconds.
        expire: u32,
        /// Negative TTL, in seconds (RFC 2308 section 4).
        minimum: u32,
    },
    /// RFC 1035 section 3.3.14; strings of at most 255 bytes.
    Txt(Vec<Vec<u8>>),
    /// Any other type: its RDATA without compression (RFC 3597).
    Other {
        /// The type's number.
        rtype: u16,
        /// The data.
        rdata: Vec<u8>,
    },
}

impl Data {
    /// The type's number.
    pub fn rtype(&self) -> u16 {
        match self {
            Self::A(_) => types::A,
            Self::Aaaa(_) => types::AAAA,
            Self::Srv { .. } => types::SRV,
            Self::Cname(_) => types::CNAME,
            Self::Ns(_) => types::NS,
            Self::Ptr(_) => types::PTR,
            Self::Soa { .. } => types::SOA,
            Self::Txt(_) => types::TXT,
            Self::Other { rtype, .. } => *rtype,
        }
    }
}
