//! A request's bytes: header, question, EDNS and its client subnet option (RFC 7871), without
//! allocation. And the queries that we send ourselves.

use super::name::Name;
use super::types;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 12;

/// What we need of a well-formed request with one question (RFC 1035 section 4.1). Borrows the
/// datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The message id.
    pub id: u16,
    /// RD: the client asks for recursion.
    pub recursion_desired: bool,
    /// AD: the client wants to know whether the answer was checked (RFC 6840 section 5.7).
    pub authentic_data: bool,
    /// CD: the client checks by itself (RFC 4035 section 3.2.2).
    pub checking_disabled: bool,
    /// The question as it was asked: name, type and class.
    question: &'a [u8],
    /// The OPT record, if there is one.
    pub edns: Option<Edns>,
}

/// The parts of an OPT record that matter here (RFC 6891 section 6.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// The largest UDP payload that the client takes, in bytes, as it said it.
    pub udp_size: u16,
    /// The EDNS version.
    pub version: u8,
    /// DO: the client takes signatures (RFC 3225).
    pub dnssec_ok: bool,
    /// The network of the client behind the one that asks (RFC 7871).
    pub client_subnet: Option<ClientSubnet>,
}

/// What to do with bytes that are not a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Too short for a header, or itself a response: no reply, or two servers could talk forever.
    Ignore,
    /// The header can be answered, with this rcode and nothing else.
    Refuse {
        /// FORMERR (1) or NOTIMP (4).
        rcode: u8,
    },
}

const FORMERR: Malformed = Malformed::Refuse { rcode: 1 };
const NOTIMP: Malformed = Malformed::Refuse { rcode: 4 };

impl<'a> Request<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Malformed`]: what to do instead of answering. Every opcode but QUERY is NOTIMP; not
    /// exactly one question, a name that is cut off, compressed or too long, or two OPT records
    /// (RFC 6891 section 6.1.1) are FORMERR.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = bytes.first_chunk::<HEADER>().ok_or(Malformed::Ignore)?;
        if header[2] & 0x80 != 0 {
            return Err(Malformed::Ignore);
        }
        if header[2] & 0x78 != 0 {
            return Err(NOTIMP);
        }
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        if count(4) != 1 {
            return Err(FORMERR);
        }
        let name_end = skip_plain_name(bytes, HEADER).ok_or(FORMERR)?;
        let end = name_end + 4;
        let question = bytes.get(HEADER..end).ok_or(FORMERR)?;
        let records = u32::from(count(6)) + u32::from(count(8)) + u32::from(count(10));
        let edns = read_edns(bytes, end, records)?;
        Ok(Self {
            id: u16::from_be_bytes([header[0], header[1]]),
            recursion_desired: header[2] & 0x01 != 0,
            authentic_data: header[3] & 0x20 != 0,
            checking_disabled: header[3] & 0x10 != 0,
            question,
            edns,
        })
    }

    /// The question section as asked, in the client's case.
    pub fn question(&self) -> &'a [u8] {
        self.question
    }

    /// The name's wire bytes as asked, in the client's case.
    pub fn name_wire(&self) -> &'a [u8] {
        &self.question[..self.question.len() - 4]
    }

    /// The name as asked, in the client's case.
    pub fn name(&self) -> Name {
        Name::from_checked_wire(self.name_wire())
    }

    /// QTYPE.
    pub fn qtype(&self) -> u16 {
        self.tail(4)
    }

    /// QCLASS.
    pub fn qclass(&self) -> u16 {
        self.tail(2)
    }

    /// Does the client take signatures?
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Does the client want to know whether the answer was checked (RFC 6840 section 5.8)?
    pub fn wants_authentic(&self) -> bool {
        self.authentic_data || self.dnssec_ok()
    }

    fn tail(&self, back: usize) -> u16 {
        let at = self.question.len() - back;
        u16::from_be_bytes([self.question[at], self.question[at + 1]])
    }
}

/// A query of ours to an upstream, which is asked to recurse.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    /// Name, type and class in wire form.
    question: Box<[u8]>,
    /// DO: signatures, too.
    dnssec_ok: bool,
    /// CD: unchecked.
    checking_disabled: bool,
    /// The reply has to have the letters of the name in the same case.
    is_exact: bool,
}

/// Padded queries are a multiple of so many bytes long.
const PADDED_TO: usize = 128;

/// What goes into the OPT record of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryEdns {
    /// The largest UDP payload that we take, in bytes.
    pub udp_size: u16,
    /// Ask how long the connection may be silent (RFC 7828).
    pub keepalive: bool,
    /// Fill the query up, so that its length tells little of what it asks (RFC 8467 section 4.1).
    pub is_padded: bool,
}

impl Query {
    /// A question of class IN.
    pub fn new(name: &Name, qtype: u16, dnssec_ok: bool, checking_disabled: bool) -> Self {
        let wire = name.as_wire();
        let mut question = Vec::with_capacity(wire.len() + 4);
        question.extend_from_slice(wire);
        question.extend_from_slice(&qtype.to_be_bytes());
        question.extend_from_slice(&types::CLASS_IN.to_be_bytes());
        Self {
            question: question.into(),
            dnssec_ok,
            checking_disabled,
            is_exact: false,
        }
    }

    /// The same query with letters in another case, one for each bit that is set. Who forges a reply has
    /// to guess them as well (draft-vixie-dnsext-dns0x20).
    #[must_use]
    pub fn in_case(&self, bits: [u8; 32]) -> Self {
        let mut query = self.clone();
        let name = query.question.len() - 4;
        for (at, byte) in query.question[..name].iter_mut().enumerate() {
            // Length bytes are below 64, so they are no letters.
            if byte.is_ascii_alphabetic() && bits[at / 8 % 32] & 1 << (at % 8) != 0 {
                *byte ^= 0x20;
            }
        }
        query.is_exact = true;
        query
    }

    /// Name, type and class in wire form.
    pub fn question(&self) -> &[u8] {
        &self.question
    }

    /// Is a reply with this question one to this query? A reply may leave the question out that says
    /// nothing but an error.
    pub fn is_answered_by(&self, response: &super::Response) -> bool {
        match response.question() {
            Some(question) => {
                let (name, fixed) = self.question.split_at(self.question.len() - 4);
                (!self.is_exact || *question == *self.question)
                    && question.len() == self.question.len()
                    && question[..name.len()].eq_ignore_ascii_case(name)
                    && question.ends_with(fixed)
            }
            None => response.rcode != super::Rcode::NOERROR,
        }
    }

    /// Appends the query. AD asks whether the answer was checked (RFC 6840 section 5.7).
    pub fn write(&self, id: u16, edns: Option<QueryEdns>, out: &mut Vec<u8>) {
        const RECURSION_DESIRED: u8 = 0x01;
        const AUTHENTIC_DATA: u8 = 0x20;
        const CHECKING_DISABLED: u8 = 0x10;
        let begin = out.len();
        let [high, low] = id.to_be_bytes();
        let checking_disabled = if self.checking_disabled {
            CHECKING_DISABLED
        } else {
            0
        };
        // Who does not know EDNS is older than AD.
        let authentic_data = edns.map_or(0, |_| AUTHENTIC_DATA);
        let flags = authentic_data | checking_disabled;
        let additional = u8::from(edns.is_some());
        out.extend_from_slice(&[high, low, RECURSION_DESIRED, flags, 0, 1]);
        out.extend_from_slice(&[0, 0, 0, 0, 0, additional]);
        out.extend_from_slice(&self.question);
        let Some(edns) = edns else { return };
        let [high, low] = edns.udp_size.to_be_bytes();
        let dnssec_ok = if self.dnssec_ok { 0x80 } else { 0 };
        out.extend_from_slice(&[0, 0, types::OPT as u8, high, low, 0, 0, dnssec_ok, 0]);
        let keepalive: &[u8] = if edns.keepalive { &[0, 11, 0, 0] } else { &[] };
        // A head of four bytes goes before what fills it up.
        let padding = edns.is_padded.then(|| {
            let before = out.len() - begin + 2 + keepalive.len() + 4;
            before.next_multiple_of(PADDED_TO) - before
        });
        let length = keepalive.len() + padding.map_or(0, |padding| 4 + padding);
        out.extend_from_slice(&(length as u16).to_be_bytes());
        out.extend_from_slice(keepalive);
        if let Some(padding) = padding {
            let [high, low] = (padding as u16).to_be_bytes();
            out.extend_from_slice(&[0, 12, high, low]);
            out.resize(out.len() + padding, 0);
        }
    }
}

/// The end of the uncompressed name at `at`. A question is the first name of its message, so a
/// pointer in it could only point at the header or itself.
fn skip_plain_name(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    loop {
        let len = usize::from(*bytes.get(end)?);
        end += 1;
        match len {
            0 => return (end - at <= 255).then_some(end),
            1..=63 => end += len,
            _ => return None,
        }
    }
}

/// Reads through the records after the question for the one OPT.
fn read_edns(bytes: &[u8], start: usize, records: u32) -> Result<Option<Edns>, Malformed> {
    let mut at = start;
    let mut edns = None;
    for _ in 0..records {
        let is_root = bytes.get(at) == Some(&0);
        at = skip_name(bytes, at).ok_or(FORMERR)?;
        let fixed = bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<10>())
            .ok_or(FORMERR)?;
        let end = at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        if end > bytes.len() {
            return Err(FORMERR);
        }
        if u16::from_be_bytes([fixed[0], fixed[1]]) == types::OPT {
            if !is_root || edns.is_some() {
                return Err(FORMERR);
            }
            edns = Some(Edns {
                udp_size: u16::from_be_bytes([fixed[2], fixed[3]]),
                version: fixed[5],
                dnssec_ok: fixed[6] & 0x80 != 0,
                client_subnet: ClientSubnet::find(&bytes[at + 10..end]).map_err(|()| FORMERR)?,
            });
        }
        at = end;
    }
    Ok(edns)
}

/// The end of a name that may end in a pointer; where it points is of no interest.
fn skip_name(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    loop {
        let len = *bytes.get(end)?;
        end += 1;
        match len {
            0 => return Some(end),
            1..=63 => end += usize::from(len),
            0xC0.. => return Some(end + 1),
            _ => return None,
        }
    }
}

/// The option's code.
const CODE: u16 = 8;

/// The network that a resolver asks for, on behalf of a client in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSubnet {
    /// The network's address; the bits behind the prefix are 0.
    pub address: IpAddr,
    /// Length of the prefix, in bits.
    pub prefix: u8,
}

impl ClientSubnet {
    /// Looks for the option in the data of an OPT record: `Ok(None)` if it is not there.
    fn find(mut options: &[u8]) -> Result<Option<Self>, ()> {
        while !options.is_empty() {
            let head = options.first_chunk::<4>().ok_or(())?;
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let data = options.get(4..4 + length).ok_or(())?;
            if u16::from_be_bytes([head[0], head[1]]) == CODE {
                return Self::parse(data).map(Some);
            }
            options = &options[4 + length..];
        }
        Ok(None)
    }

    fn parse(data: &[u8]) -> Result<Self, ()> {
        let (head, octets) = data.split_first_chunk::<4>().ok_or(())?;
        let prefix = head[2];
        // Section 6: as many octets as the prefix needs, and SCOPE 0 in a query.
        if octets.len() != usize::from(prefix).div_ceil(8) || head[3] != 0 {
            return Err(());
        }
        let mut all = [0; 16];
        all.get_mut(..octets.len())
            .ok_or(())?
            .copy_from_slice(octets);
        let address = match (u16::from_be_bytes([head[0], head[1]]), prefix) {
            (1, 0..=32) => Ipv4Addr::new(all[0], all[1], all[2], all[3]).into(),
            (2, 0..=128) => Ipv6Addr::from(all).into(),
            _ => return Err(()),
        };
        let behind = prefix % 8;
        if behind != 0 && octets.last().is_some_and(|last| last << behind != 0) {
            return Err(());
        }
        Ok(Self { address, prefix })
    }

    /// The length of the option in a reply, with its head.
    pub fn option_length(&self) -> usize {
        8 + usize::from(self.prefix).div_ceil(8)
    }

    /// Appends the option to a reply: echoed, with the prefix as SCOPE if the answer is for this
    /// network and 0 if it is for everybody (section 7.2.1).
    pub fn write(&self, for_network: bool, out: &mut Vec<u8>) {
        let octets = usize::from(self.prefix).div_ceil(8);
        let scope = if for_network { self.prefix } else { 0 };
        out.extend_from_slice(&CODE.to_be_bytes());
        out.extend_from_slice(&((4 + octets) as u16).to_be_bytes());
        match self.address {
            IpAddr::V4(ip) => {
                out.extend_from_slice(&[0, 1, self.prefix, scope]);
                out.extend_from_slice(&ip.octets()[..octets]);
            }
            IpAddr::V6(ip) => {
                out.extend_from_slice(&[0, 2, self.prefix, scope]);
                out.extend_from_slice(&ip.octets()[..octets]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(flags: [u8; 2], counts: [u8; 4]) -> Vec<u8> {
        let [qd, an, ns, ar] = counts;
        vec![0x12, 0x34, flags[0], flags[1], 0, qd, 0, an, 0, ns, 0, ar]
    }

    const QUESTION: &[u8] = b"\x03WeB\x06consul\x00\x00\x21\x00\x01";
    const OPT: &[u8] = b"\x00\x00\x29\x20\x00\x00\x00\x80\x00\x00\x00";

    fn message(flags: [u8; 2], counts: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = header(flags, counts);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        bytes
    }

    #[test]
    fn a_query_with_edns() {
        let bytes = message([0x01, 0x10], [1, 0, 0, 1], &[QUESTION, OPT]);
        let query = Request::parse(&bytes).expect("well-formed");
        assert_eq!(query.id, 0x1234);
        assert!(query.recursion_desired && query.checking_disabled);
        assert_eq!(query.name().to_string(), "WeB.consul.");
        assert_eq!((query.qtype(), query.qclass()), (types::SRV, 1));
        let edns = query.edns.expect("has an OPT");
        assert_eq!((edns.udp_size, edns.version), (8192, 0));
    }

    #[test]
    fn padded_queries_tell_nothing_by_their_length() {
        for length in 0..60 {
            let name = Name::from_text(&format!("{}.example", "a".repeat(length.max(1))));
            let query = Query::new(&name.expect("a name"), types::A, true, false);
            for keepalive in [true, false] {
                let edns = |is_padded| QueryEdns {
                    udp_size: 1232,
                    keepalive,
                    is_padded,
                };
                let mut bytes = vec![0; 2];
                query.write(7, Some(edns(true)), &mut bytes);
                let message = &bytes[2..];
                assert_eq!(message.len() % 128, 0);
                let request = Request::parse(message).expect("well-formed");
                assert!(request.dnssec_ok() && request.id == 7);
                let mut bare = Vec::new();
                query.write(7, Some(edns(false)), &mut bare);
                // Beside the padding, the one has the other in it but for the length of all options.
                let options = bare.len() - 2 - if keepalive { 4 } else { 0 };
                assert_eq!(message[..options], bare[..options]);
                assert!(message[bare.len() + 4..].iter().all(|byte| *byte == 0));
                assert_eq!(message[bare.len()..][..2], [0, 12]);
                let told = u16::from_be_bytes([message[options], message[options + 1]]);
                assert_eq!(usize::from(told), message.len() - options - 2);
            }
        }
    }

    #[test]
    fn what_is_refused_and_how() {
        let compressed = b"\x03web\xc0\x0c\x00\x01\x00\x01".as_slice();
        let cases: &[(&str, Vec<u8>, Malformed)] = &[
            ("empty", Vec::new(), Malformed::Ignore),
            ("short", vec![0; 11], Malformed::Ignore),
            (
                "response",
                message([0x80, 0], [1, 0, 0, 0], &[QUESTION]),
                Malformed::Ignore,
            ),
            (
                "notify",
                message([0x20, 0], [1, 0, 0, 0], &[QUESTION]),
                NOTIMP,
            ),
            (
                "update",
                message([0x28, 0], [1, 0, 0, 0], &[QUESTION]),
                NOTIMP,
            ),
            ("no question", message([0, 0], [0, 0, 0, 0], &[]), FORMERR),
            (
                "two questions",
                message([0, 0], [2, 0, 0, 0], &[QUESTION, QUESTION]),
                FORMERR,
            ),
            (
                "cut off",
                message([0, 0], [1, 0, 0, 0], &[&QUESTION[..9]]),
                FORMERR,
            ),
            (
                "no class",
                message([0, 0], [1, 0, 0, 0], &[&QUESTION[..14]]),
                FORMERR,
            ),
            (
                "compressed",
                message([0, 0], [1, 0, 0, 0], &[compressed]),
                FORMERR,
            ),
            (
                "missing OPT",
                message([0, 0], [1, 0, 0, 1], &[QUESTION]),
                FORMERR,
            ),
            (
                "cut OPT",
                message([0, 0], [1, 0, 0, 1], &[QUESTION, &OPT[..8]]),
                FORMERR,
            ),
            (
                "two OPT",
                message([0, 0], [1, 0, 0, 2], &[QUESTION, OPT, OPT]),
                FORMERR,
            ),
        ];
        for (what, bytes, expected) in cases {
            assert_eq!(Request::parse(bytes), Err(*expected), "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(query) = Request::parse(&bytes) {
                let _ = (query.name().to_string(), query.qtype(), query.qclass());
            }
        }

        #[test]
        fn no_damaged_query_panics(at in 0usize..40, byte in any::<u8>(), cut in 0usize..41) {
            let mut bytes = message([1, 0], [1, 0, 0, 1], &[QUESTION, OPT]);
            let len = bytes.len();
            bytes[at % len] = byte;
            bytes.truncate(cut.max(1));
            if let Ok(query) = Request::parse(&bytes) {
                let _ = query.name().to_string();
            }
        }
    }

    #[test]
    fn the_option_is_found_among_others_and_comes_back() {
        let options = [0, 10, 0, 2, 1, 2, 0, 8, 0, 7, 0, 1, 24, 0, 10, 1, 2];
        let subnet = ClientSubnet::find(&options)
            .expect("well-formed")
            .expect("there");
        assert_eq!(
            (subnet.address, subnet.prefix),
            (IpAddr::from([10, 1, 2, 0]), 24)
        );
        let mut out = Vec::new();
        subnet.write(true, &mut out);
        assert_eq!(out, [0, 8, 0, 7, 0, 1, 24, 24, 10, 1, 2]);
        assert_eq!(out.len(), subnet.option_length());
        assert_eq!(ClientSubnet::find(&options[..6]), Ok(None));
    }

    #[test]
    fn what_is_malformed() {
        for option in [
            vec![0, 8, 0, 9],
            vec![0, 8, 0, 3, 0, 1, 24],
            vec![0, 8, 0, 6, 0, 1, 24, 0, 10, 1],
            vec![0, 8, 0, 7, 0, 1, 24, 1, 10, 1, 2],
            vec![0, 8, 0, 9, 0, 1, 33, 0, 1, 2, 3, 4, 5],
            vec![0, 8, 0, 4, 0, 3, 0, 0],
            vec![0],
        ] {
            assert_eq!(ClientSubnet::find(&option), Err(()), "{option:?}");
        }
    }
}
