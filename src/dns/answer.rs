//! What is said to a question: an rcode and records, before they are wire bytes.

use super::{Name, types};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A response code (RFC 1035 section 4.1.1, RFC 6895; BADVERS: RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The query could not be read.
    pub const FORMERR: Self = Self(1);
    /// No answer could be found in time.
    pub const SERVFAIL: Self = Self(2);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);
    /// This kind of query is not served.
    pub const NOTIMP: Self = Self(4);
    /// Not for this client, or not asked of the right server.
    pub const REFUSED: Self = Self(5);
    /// An EDNS version that we do not speak.
    pub const BADVERS: Self = Self(16);
}

/// How an answer is shortened when it does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The first records that fit; TC says that some are missing.
    Prefix,
    /// Some of them, and always the same ones (D6).
    Subset(Subset),
}

/// Which records are kept of a set that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subset {
    /// Those that are this client's by rendezvous hashing; else the first ones.
    pub by_client: bool,
    /// Does TC say that some are missing (D7)?
    pub truncated: bool,
    /// At most this many answers, even if more fit; 0 for no limit.
    pub at_most: usize,
    /// The same for clients that take no more than 512 bytes over UDP.
    pub at_most_in_512: usize,
}

/// A number of answers of which 0 is no limit.
pub(super) fn no_limit(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

/// A record of the Additional section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glue {
    /// The index of the answer whose target it is the address of; it goes where that goes.
    pub of: usize,
    /// The record.
    pub record: Record,
}

/// A name that an answer leads to and that others may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The name.
    pub to: Name,
    /// The answer whose host it is, by its index: its addresses are glue. `None`: the answers end in
    /// an alias, and go on behind it.
    pub of: Option<usize>,
    /// The TTL that what is found has at most, in seconds.
    pub max_ttl: u32,
    /// What is found at the end of the alias says the rcode (RFC 6604); Consul's own names stay
    /// NOERROR.
    pub decides: bool,
    /// For whom it is looked up outside.
    pub reach: Reach,
}

/// For whom an open end is looked up at upstreams; what is known in the house is everybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// For nobody.
    House,
    /// For those who may recurse, and ask for it.
    Recursive,
    /// For every client: the operator chose the name.
    Everyone,
}

/// rcode + records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub rcode: Rcode,
    /// AA: the data is ours.
    pub authoritative: bool,
    /// The Answer section.
    pub answers: Vec<Record>,
    /// The Authority section.
    pub authority: Vec<Record>,
    /// The Additional section, without OPT; all A before any AAAA (D8).
    pub additional: Vec<Glue>,
    /// What it leads to; without that it is right as it is.
    pub open: Vec<Open>,
    /// How it is shortened.
    pub cut: Cut,
    /// The answer is for this client's network (RFC 7871), not for everybody.
    pub for_client: bool,
    /// AD: an upstream has checked all of it (RFC 6840 section 5.8).
    pub authentic: bool,
    /// Extended DNS Errors (RFC 8914) for clients with EDNS.
    pub errors: Vec<ExtendedError>,
    /// May the order of the Answer section rotate while everything fits (D9)?
    pub rotate: bool,
}

impl Answer {
    /// An answer without records.
    pub fn empty(rcode: Rcode, authoritative: bool) -> Self {
        Self {
            rcode,
            authoritative,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            open: Vec::new(),
            cut: Cut::Prefix,
            for_client: false,
            authentic: false,
            errors: Vec::new(),
            rotate: false,
        }
    }

    /// That there is no answer, with the Extended DNS Error that says why.
    pub fn failed(error: u16) -> Self {
        Self {
            errors: vec![ExtendedError::new(error, b"")],
            ..Self::empty(Rcode::SERVFAIL, false)
        }
    }

    /// A negative answer of ours: NXDOMAIN or NODATA with its SOA (RFC 2308).
    pub fn negative(rcode: Rcode, soa: Record) -> Self {
        Self {
            authority: vec![soa],
            ..Self::empty(rcode, true)
        }
    }
}

/// An Extended DNS Error (RFC 8914): why there is no answer, or no good one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedError {
    /// Its INFO-CODE, of section 4 or registered since.
    pub code: u16,
    /// Its EXTRA-TEXT, in UTF-8.
    pub text: Box<[u8]>,
}

impl ExtendedError {
    /// So many are kept of one answer.
    pub const MOST: usize = 3;

    /// An error with a text, which may be empty.
    pub fn new(code: u16, text: &[u8]) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// Adds those of another answer, as far as there is room.
    pub fn add(errors: &mut Vec<Self>, more: &[Self]) {
        let room = Self::MOST.saturating_sub(errors.len());
        errors.extend(more.iter().take(room).cloned());
    }

    /// The length of the option in a reply, with its head.
    pub(super) fn option_length(&self) -> usize {
        6 + self.text.len()
    }
}

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
    /// Data of this type from its bytes without compression. What is not as its type has it stays as it
    /// is.
    pub fn from_rdata(rtype: u16, rdata: &[u8]) -> Self {
        let known = match rtype {
            types::A => rdata.try_into().ok().map(|ip: [u8; 4]| Self::A(ip.into())),
            types::AAAA => (rdata.try_into().ok()).map(|ip: [u8; 16]| Self::Aaaa(ip.into())),
            types::CNAME => whole_name(rdata).map(Self::Cname),
            types::NS => whole_name(rdata).map(Self::Ns),
            types::PTR => whole_name(rdata).map(Self::Ptr),
            types::SRV => srv(rdata),
            types::SOA => soa(rdata),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other {
            rtype,
            rdata: rdata.to_vec(),
        })
    }

    /// The host that a record leads to, whose addresses go with it: of NS, MX and SRV.
    pub fn host(&self) -> Option<Name> {
        match self {
            Self::Ns(host) => Some(host.clone()),
            Self::Srv { target, .. } => Some(target.clone()),
            Self::Other {
                rtype: types::MX,
                rdata,
            } => whole_name(rdata.get(2..)?),
            _ => None,
        }
    }

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

/// A name that takes all of the bytes.
fn whole_name(wire: &[u8]) -> Option<Name> {
    let (name, rest) = Name::split_from(wire)?;
    rest.is_empty().then_some(name)
}

fn srv(rdata: &[u8]) -> Option<Data> {
    let (fixed, target) = rdata.split_first_chunk::<6>()?;
    let field = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    Some(Data::Srv {
        priority: field(0),
        weight: field(2),
        port: field(4),
        target: whole_name(target)?,
    })
}

fn soa(rdata: &[u8]) -> Option<Data> {
    let (mname, rest) = Name::split_from(rdata)?;
    let (rname, rest) = Name::split_from(rest)?;
    let fixed: &[u8; 20] = rest.try_into().ok()?;
    let field = |at: usize| {
        let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        u32::from_be_bytes(bytes)
    };
    Some(Data::Soa {
        mname,
        rname,
        serial: field(0),
        refresh: field(4),
        retry: field(8),
        expire: field(12),
        minimum: field(16),
    })
}
