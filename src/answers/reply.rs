//! What is the client's own in a reply.

use std::net::IpAddr;

use crate::names::ClientSubnet;

use super::answer::Subset;

/// The UDP payload that every client takes (RFC 1035 section 4.2.1).
const PLAIN_UDP: usize = 512;
/// How a client's query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
}

/// The OPT record of a reply (RFC 6891); a reply has one if its query had one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyEdns {
    /// What the client said it can take in a datagram, in bytes.
    pub client_size: u16,
    /// What we can take, in bytes.
    pub own_size: u16,
    /// The client's network, echoed (RFC 7871).
    pub client_subnet: Option<ClientSubnet>,
}

/// What is the client's own in a reply.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The query's id.
    pub id: u16,
    /// The question as asked, in the client's case.
    pub question: &'a [u8],
    /// RD, echoed.
    pub recursion_desired: bool,
    /// CD, echoed.
    pub checking_disabled: bool,
    /// RA: this client could have recursion.
    pub recursion_available: bool,
    /// How the query came.
    pub transport: Transport,
    /// The largest datagram to send, in bytes, whatever the client takes.
    pub max_udp_size: u16,
    /// OPT, if the query had one.
    pub edns: Option<ReplyEdns>,
    /// Who asks: decides which subset it gets when not all fits (D6).
    pub client: IpAddr,
    /// Turns the order of addresses while they all fit (D9).
    pub rotation: usize,
    /// Seconds by which the TTLs have run down since the answer was rendered.
    pub elapsed: u32,
}

impl Reply<'_> {
    /// How many answers of a set the reply may have.
    pub(super) fn at_most(&self, subset: Subset) -> usize {
        let no_limit = |limit: usize| if limit == 0 { usize::MAX } else { limit };
        let small = self.transport == Transport::Udp && self.limit() == PLAIN_UDP;
        let in_512 = if small { subset.at_most_in_512 } else { 0 };
        no_limit(subset.at_most).min(no_limit(in_512))
    }

    /// Bytes that the reply may have.
    pub(super) fn limit(&self) -> usize {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => PLAIN_UDP,
            (Transport::Udp, Some(edns)) => {
                usize::from(edns.client_size.min(self.max_udp_size)).max(PLAIN_UDP)
            }
        }
    }
}
