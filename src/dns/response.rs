//! A reply of an upstream, read: who it is to, what it says, and its records with data that nobody here
//! has to understand. Only names that a server may have compressed are written out (RFC 3597 section 4),
//! so a record of any type passes as it came.

use std::time::Duration;

use super::answer::{ExtendedError, Rcode};
use super::rendered::HEADER;
use super::types;

/// Bytes of text that are kept of an Extended DNS Error.
const MAX_ERROR_TEXT: usize = 128;

/// EDNS options that are read (RFC 7828, RFC 8914).
const TCP_KEEPALIVE: u16 = 11;
const EXTENDED_DNS_ERROR: u16 = 15;

/// What came is not a reply that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a DNS reply")]
pub struct Unreadable;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The id of the query that it is to.
    pub id: u16,
    /// The response code, with what OPT adds to it.
    pub rcode: Rcode,
    /// TC: the rest has to be asked for over TCP.
    pub truncated: bool,
    /// RA: the server recurses.
    pub recursion_available: bool,
    /// AD: the server has checked it (RFC 6840 section 5.8).
    pub authentic: bool,
    /// The OPT record, if there is one.
    pub edns: Option<ResponseEdns>,
    /// Names and data, one behind the other, without compression. The question's comes first.
    pool: Vec<u8>,
    /// Length of the question in the pool: name, type, class. 0 if there is none.
    question: usize,
    records: Vec<Piece>,
    /// How many of them are answers; the others are of the Authority section.
    answers: usize,
}

/// What an OPT record says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseEdns {
    /// Why there is no answer, or no good one (RFC 8914).
    pub errors: Vec<ExtendedError>,
    /// How long the connection may be silent (RFC 7828).
    pub keepalive: Option<Duration>,
}

/// A record of class IN in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    owner: usize,
    data: usize,
    end: usize,
    rtype: u16,
    ttl: u32,
}

/// A record as it came, but for compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// The name that owns it, in wire form.
    pub owner: &'a [u8],
    /// Its type.
    pub rtype: u16,
    /// Its time to live as it stands there, in seconds.
    pub ttl: u32,
    /// Its data.
    pub rdata: &'a [u8],
}

impl Response {
    /// Reads a reply. Records of other classes than IN are left out; of the Additional section only OPT
    /// is read.
    ///
    /// # Errors
    /// [`Unreadable`] if it is a query, or does not hold what it says it holds.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(Unreadable)?;
        let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let opcode = header[2] >> 3 & 0x0F;
        if header[2] & 0x80 == 0 || opcode != 0 || field(4) > 1 {
            return Err(Unreadable);
        }
        let mut reader = Reader {
            bytes,
            at: HEADER,
            // Most replies are longer than they arrive by their names alone.
            pool: Vec::with_capacity(bytes.len() + 64),
        };
        if field(4) == 1 {
            reader.name()?;
            let fixed = reader.take(4)?;
            reader.pool.extend_from_slice(fixed);
        }
        let question = reader.pool.len();
        let counts = [field(6), field(8)].map(usize::from);
        let mut records = Vec::with_capacity((counts[0] + counts[1]).min(bytes.len() / 11));
        for _ in 0..counts[0] {
            records.extend(reader.record()?);
        }
        let answers = records.len();
        for _ in 0..counts[1] {
            records.extend(reader.record()?);
        }
        let mut opt: Option<(u8, ResponseEdns)> = None;
        for _ in 0..field(10) {
            let Some(own) = reader.additional()? else {
                continue;
            };
            // There is one at most (RFC 6891 section 6.1.1); of more the first counts.
            opt.get_or_insert(own);
        }
        let upper = opt.as_ref().map_or(0, |(upper, _)| *upper);
        Ok(Self {
            id: field(0),
            rcode: Rcode(u16::from(header[3] & 0x0F) | u16::from(upper) << 4),
            truncated: header[2] & 0x02 != 0,
            recursion_available: header[3] & 0x80 != 0,
            authentic: header[3] & 0x20 != 0,
            edns: opt.map(|(_, edns)| edns),
            pool: reader.pool,
            question,
            records,
            answers,
        })
    }

    /// The question that it repeats: name, type and class in wire form. `None` if it has none.
    pub fn question(&self) -> Option<&[u8]> {
        self.pool.get(..self.question).filter(|own| !own.is_empty())
    }

    /// The Answer section.
    pub fn answers(&self) -> impl Iterator<Item = RawRecord<'_>> {
        self.records[..self.answers].iter().map(|own| self.raw(own))
    }

    /// The Authority section.
    pub fn authority(&self) -> impl Iterator<Item = RawRecord<'_>> {
        self.records[self.answers..].iter().map(|own| self.raw(own))
    }

    /// The Extended DNS Errors of the server.
    pub fn errors(&self) -> &[ExtendedError] {
        self.edns.as_ref().map_or(&[], |edns| &edns.errors)
    }

    fn raw(&self, piece: &Piece) -> RawRecord<'_> {
        RawRecord {
            owner: &self.pool[piece.owner..piece.data],
            rtype: piece.rtype,
            ttl: piece.ttl,
            rdata: &self.pool[piece.data..piece.end],
        }
    }
}

/// Takes a message apart from its beginning to its end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    pool: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let end = self.at + length;
        let taken = self.bytes.get(self.at..end).ok_or(Unreadable)?;
        self.at = end;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Unreadable> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, Unreadable> {
        let high = u32::from(self.u16()?) << 16;
        Ok(high | u32::from(self.u16()?))
    }

    /// Writes out a name, with what its pointers lead to. A pointer leads to what stands before the
    /// labels that it ends (RFC 1035 section 4.1.4), so there is no circle.
    fn name(&mut self) -> Result<(), Unreadable> {
        const MAX_NAME: usize = 255;
        let begin = self.pool.len();
        let (mut at, mut least) = (self.at, self.at);
        let mut after = None;
        loop {
            let length = *self.bytes.get(at).ok_or(Unreadable)?;
            match length {
                0..=63 => {
                    let end = at + 1 + usize::from(length);
                    let label = self.bytes.get(at..end).ok_or(Unreadable)?;
                    self.pool.extend_from_slice(label);
                    if self.pool.len() - begin > MAX_NAME {
                        return Err(Unreadable);
                    }
                    at = end;
                    if length == 0 {
                        self.at = after.unwrap_or(at);
                        return Ok(());
                    }
                }
                0xC0.. => {
                    let low = *self.bytes.get(at + 1).ok_or(Unreadable)?;
                    after = after.or(Some(at + 2));
                    at = usize::from(length & 0x3F) << 8 | usize::from(low);
                    if at >= least || at < HEADER {
                        return Err(Unreadable);
                    }
                    least = at;
                }
                _ => return Err(Unreadable),
            }
        }
    }

    /// Reads a record; `None` if it is of another class.
    fn record(&mut self) -> Result<Option<Piece>, Unreadable> {
        let owner = self.pool.len();
        self.name()?;
        let data = self.pool.len();
        let (rtype, class, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        if end > self.bytes.len() {
            return Err(Unreadable);
        }
        if class != types::CLASS_IN {
            self.at = end;
            self.pool.truncate(owner);
            return Ok(None);
        }
        self.data(rtype, end)?;
        Ok(Some(Piece {
            owner,
            data,
            end: self.pool.len(),
            rtype,
            ttl,
        }))
    }

    /// Writes out data that ends at `end`: where a name of it may be compressed, with that name whole.
    fn data(&mut self, rtype: u16, end: usize) -> Result<(), Unreadable> {
        let (before, names) = names_in(rtype);
        if names > 0 {
            // Names are read to their own ends, which have to be within the data.
            let start = self.at;
            match before {
                Before::Bytes(length) => self.copy(length, end)?,
                Before::Naptr => {
                    self.copy(4, end)?;
                    for _ in 0..3 {
                        let length = *self.bytes.get(self.at).ok_or(Unreadable)?;
                        self.copy(1 + usize::from(length), end)?;
                    }
                }
            }
            for _ in 0..names {
                self.name()?;
            }
            if self.at > end || self.at == start {
                return Err(Unreadable);
            }
        }
        self.copy(end - self.at, end)
    }

    fn copy(&mut self, length: usize, end: usize) -> Result<(), Unreadable> {
        if self.at + length > end {
            return Err(Unreadable);
        }
        let bytes = self.take(length)?;
        self.pool.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads a record of the Additional section: of OPT the upper bits of the rcode, and the options.
    fn additional(&mut self) -> Result<Option<(u8, ResponseEdns)>, Unreadable> {
        let before = self.pool.len();
        self.name()?;
        let is_root = self.pool.len() == before + 1;
        self.pool.truncate(before);
        let (rtype, _size, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let length = usize::from(self.u16()?);
        let options = self.take(length)?;
        if rtype != types::OPT || !is_root {
            return Ok(None);
        }
        Ok(Some(((ttl >> 24) as u8, ResponseEdns::parse(options)?)))
    }
}

impl ResponseEdns {
    fn parse(mut options: &[u8]) -> Result<Self, Unreadable> {
        let mut edns = Self::default();
        while let Some((head, rest)) = options.split_first_chunk::<4>() {
            let code = u16::from_be_bytes([head[0], head[1]]);
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (data, rest) = rest.split_at_checked(length).ok_or(Unreadable)?;
            options = rest;
            match (code, data.split_first_chunk::<2>()) {
                (EXTENDED_DNS_ERROR, Some((code, text)))
                    if edns.errors.len() < ExtendedError::MOST =>
                {
                    edns.errors
                        .push(ExtendedError::new(u16::from_be_bytes(*code), cut(text)));
                }
                (TCP_KEEPALIVE, Some((tenths, []))) => {
                    let tenths = u64::from(u16::from_be_bytes(*tenths));
                    edns.keepalive = Some(Duration::from_millis(100 * tenths));
                }
                _ => {}
            }
        }
        if !options.is_empty() {
            return Err(Unreadable);
        }
        Ok(edns)
    }
}

/// A text that is not too long, and ends where a character of it ends.
fn cut(text: &[u8]) -> &[u8] {
    let text = &text[..text.len().min(MAX_ERROR_TEXT)];
    match std::str::from_utf8(text) {
        Ok(_) => text,
        // RFC 8914 section 2: it is UTF-8; what is not goes no further.
        Err(error) => &text[..error.valid_up_to()],
    }
}

/// What stands in the data before its names.
enum Before {
    Bytes(usize),
    Naptr,
}

/// What stands before the names in data of a type, and how many names there are, of those types whose
/// names a server may compress, or may once have (RFC 3597 section 4).
fn names_in(rtype: u16) -> (Before, usize) {
    match rtype {
        types::NS | types::CNAME | types::PTR | types::DNAME => (Before::Bytes(0), 1),
        // MD, MF, MB, MG, MR: obsolete since 1986, but named in RFC 1035; NXT.
        3 | 4 | 7..=9 | 30 => (Before::Bytes(0), 1),
        // SOA; MINFO, RP.
        types::SOA | 14 | 17 => (Before::Bytes(0), 2),
        // MX; AFSDB, RT, KX.
        types::MX | 18 | 21 | 36 => (Before::Bytes(2), 1),
        // PX.
        26 => (Before::Bytes(2), 2),
        types::SRV => (Before::Bytes(6), 1),
        // SIG.
        24 => (Before::Bytes(18), 1),
        // NAPTR.
        35 => (Before::Naptr, 1),
        _ => (Before::Bytes(0), 0),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use hickory_proto::op::{Message, OpCode, Query as HickoryQuery};
    use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NULL, SOA, SRV, TXT};
    use hickory_proto::rr::{Name as HickoryName, RData, Record as HickoryRecord, RecordType};
    use proptest::prelude::*;

    use super::*;
    use crate::dns::{Data, Name, hickory};

    fn name() -> impl Strategy<Value = HickoryName> {
        let label = prop::sample::select(vec!["a", "www", "mail", "Example", "org", "x-y"]);
        prop::collection::vec(label, 0..6).prop_map(|labels| {
            let labels = labels.iter().map(|label| label.as_bytes());
            HickoryName::from_labels(labels).expect("a name")
        })
    }

    fn rdata() -> impl Strategy<Value = RData> {
        let text = "[a-z]{0,30}";
        prop_oneof![
            any::<Ipv4Addr>().prop_map(|ip| RData::A(A(ip))),
            any::<Ipv6Addr>().prop_map(|ip| RData::AAAA(AAAA(ip))),
            name().prop_map(|to| RData::CNAME(CNAME(to))),
            (name(), any::<u16>()).prop_map(|(to, port)| RData::SRV(SRV::new(1, 2, port, to))),
            (name(), any::<u16>()).prop_map(|(to, order)| RData::MX(MX::new(order, to))),
            (name(), name(), 0..=i32::MAX.cast_unsigned()).prop_map(|(mname, rname, serial)| {
                RData::SOA(SOA::new(mname, rname, serial, 1, 2, 3, 4))
            }),
            text.prop_map(|text| RData::TXT(TXT::new(vec![text]))),
            (prop::collection::vec(any::<u8>(), 1..40), 300_u16..60_000).prop_map(
                |(bytes, code)| RData::Unknown {
                    code: RecordType::from(code),
                    rdata: NULL::with(bytes),
                }
            ),
        ]
    }

    fn records() -> impl Strategy<Value = Vec<HickoryRecord>> {
        let record = (name(), 0..=i32::MAX.cast_unsigned(), rdata())
            .prop_map(|(owner, ttl, rdata)| HickoryRecord::from_rdata(owner, ttl, rdata));
        prop::collection::vec(record, 0..12)
    }

    fn reply(answers: &[HickoryRecord], authority: &[HickoryRecord]) -> Message {
        let mut message = Message::response(0x1234, OpCode::Query);
        let asked = HickoryName::from_ascii("www.example.org.").expect("a name");
        message.add_query(HickoryQuery::query(asked, RecordType::A));
        message.answers = answers.to_vec();
        message.authorities = authority.to_vec();
        message
    }

    /// As an answer of ours would have them.
    fn told<'a>(records: impl Iterator<Item = RawRecord<'a>>) -> Vec<crate::dns::Record> {
        let told = |record: RawRecord<'_>| crate::dns::Record {
            owner: Name::split_from(record.owner).expect("a name").0,
            ttl: record.ttl,
            data: Data::from_rdata(record.rtype, record.rdata),
        };
        records.map(told).collect()
    }

    proptest! {
        /// Whatever hickory writes, compressed as it likes, is read as hickory means it.
        #[test]
        fn what_hickory_writes_is_read(answers in records(), authority in records()) {
            let message = reply(&answers, &authority);
            let response = Response::parse(&message.to_vec().expect("a reply")).expect("readable");
            let ours = |all: &[HickoryRecord]| -> Vec<_> {
                all.iter().map(|record| hickory::record(record).expect("ours")).collect()
            };
            prop_assert_eq!(told(response.answers()), ours(&answers));
            prop_assert_eq!(told(response.authority()), ours(&authority));
            let question = response.question().expect("a question");
            prop_assert_eq!(question, b"\x03www\x07example\x03org\x00\x00\x01\x00\x01");
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut bytes = bytes;
            if let Some(flags) = bytes.get_mut(2) {
                *flags |= 0x80;
            }
            if let Ok(response) = Response::parse(&bytes) {
                let _ = (told(response.answers()), told(response.authority()));
            }
        }

        #[test]
        fn no_damaged_reply_panics(answers in records(), at in 0_usize..600, byte in any::<u8>(), cut in 1_usize..600) {
            let mut bytes = reply(&answers, &[]).to_vec().expect("a reply");
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut);
            if let Ok(response) = Response::parse(&bytes) {
                let _ = told(response.answers());
            }
        }
    }

    const QUESTION: &[u8] = b"\x01a\x04test\x00\x00\x01\x00\x01";

    fn message(counts: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
        let [questions, answers, authority, additional] = counts;
        let mut bytes = vec![0x12, 0x34, 0x81, 0xA0, 0, questions, 0, answers];
        bytes.extend_from_slice(&[0, authority, 0, additional]);
        bytes.extend_from_slice(&parts.concat());
        bytes
    }

    #[test]
    fn what_cannot_be_read() {
        let a = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04";
        let opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        let mut query = message([1, 0, 0, 0], &[QUESTION]);
        query[2] = 0x01;
        for (what, bytes) in [
            ("nothing", vec![]),
            ("half a header", vec![0x12, 0x34, 0x81, 0x80]),
            ("a query", query),
            (
                "two questions",
                message([2, 0, 0, 0], &[QUESTION, QUESTION]),
            ),
            (
                "an answer that is not there",
                message([1, 1, 0, 0], &[QUESTION]),
            ),
            (
                "cut in an answer",
                message([1, 1, 0, 0], &[QUESTION, &a[..14]]),
            ),
            (
                "a pointer to itself",
                message([1, 1, 0, 0], &[QUESTION, b"\xc0\x18", &a[2..]]),
            ),
            (
                "a pointer ahead",
                message([1, 1, 0, 0], &[QUESTION, b"\xc0\x30", &a[2..]]),
            ),
            (
                "a pointer into the header",
                message([1, 1, 0, 0], &[QUESTION, b"\xc0\x02", &a[2..]]),
            ),
            (
                "a name longer than its data",
                message(
                    [1, 1, 0, 0],
                    &[
                        QUESTION,
                        b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x01\x01b\x00",
                    ],
                ),
            ),
        ] {
            assert_eq!(Response::parse(&bytes), Err(Unreadable), "{what}");
        }
        let response = Response::parse(&message([1, 1, 0, 1], &[QUESTION, a, opt]));
        let response = response.expect("readable");
        assert!(response.authentic && response.edns.is_some() && !response.truncated);
        assert_eq!(response.answers().count(), 1);
    }

    #[test]
    fn a_header_alone_is_a_reply() {
        for (code, rcode) in [
            (1, Rcode::FORMERR),
            (2, Rcode::SERVFAIL),
            (5, Rcode::REFUSED),
        ] {
            let mut bytes = message([0, 0, 0, 0], &[]);
            bytes[3] |= code;
            let response = Response::parse(&bytes).expect("readable");
            assert_eq!((response.rcode, response.question()), (rcode, None));
        }
    }

    #[test]
    fn what_opt_says() {
        let options = b"\x00\x0f\x00\x07\x00\x06bogus\x00\x0b\x00\x02\x00\x64\x00\x03\x00\x01x";
        let mut opt = b"\x00\x00\x29\x04\xd0\x01\x00\x80\x00\x00".to_vec();
        opt.push(options.len() as u8);
        opt.extend_from_slice(options);
        let response = Response::parse(&message([1, 0, 0, 1], &[QUESTION, &opt]));
        let response = response.expect("readable");
        assert_eq!(response.rcode, Rcode::BADVERS);
        assert_eq!(response.errors(), [ExtendedError::new(6, b"bogus")]);
        let keepalive = response.edns.and_then(|edns| edns.keepalive);
        assert_eq!(keepalive, Some(Duration::from_secs(10)));
        assert!(
            Response::parse(&message([1, 0, 0, 1], &[QUESTION, &opt[..opt.len() - 1]])).is_err()
        );
    }

    #[test]
    fn records_of_other_classes_are_left_out() {
        let chaos = b"\xc0\x0c\x00\x10\x00\x03\x00\x00\x00\x00\x00\x02\x01x";
        let a = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04";
        let bytes = message([1, 2, 0, 0], &[QUESTION, chaos, a]);
        let response = Response::parse(&bytes).expect("readable");
        let found: Vec<u16> = response.answers().map(|record| record.rtype).collect();
        assert_eq!(found, [types::A]);
    }

    /// Data that is not as its type has it goes on as it came (an address of three bytes).
    #[test]
    fn odd_data_passes() {
        let odd = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x03\x01\x02\x03";
        let bytes = message([1, 1, 0, 0], &[QUESTION, odd]);
        let response = Response::parse(&bytes).expect("readable");
        let expected = Data::Other {
            rtype: types::A,
            rdata: vec![1, 2, 3],
        };
        assert_eq!(told(response.answers())[0].data, expected);
    }
}
