//! What a lookup yields from one state of the catalog.

use crate::names::Name;

use super::record::Record;

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

/// A record of the Additional section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glue {
    /// The index of the answer whose target it is the address of; it goes where that goes.
    pub of: usize,
    /// The record.
    pub record: Record,
}

/// A name outside our domains that has to be looked up to complete an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// The SRV answer, and its target, that the addresses are for; `None` if they continue the
    /// alias at the end of the answers.
    pub of: Option<(usize, Name)>,
    /// The name to look up.
    pub target: Name,
    /// The TTL that what is found has at most, in seconds.
    pub max_ttl: u32,
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
    /// What is still missing, for who can recurse; without it the answer is right as it is.
    pub outside: Vec<Outside>,
    /// How it is shortened.
    pub cut: Cut,
    /// The answer is for this client's network (RFC 7871), not for everybody.
    pub for_client: bool,
    /// An Extended DNS Error (RFC 8914) for clients with EDNS.
    pub extended_error: Option<u16>,
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
            outside: Vec::new(),
            cut: Cut::Prefix,
            for_client: false,
            extended_error: None,
            rotate: false,
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
