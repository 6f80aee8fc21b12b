//! A reply of an upstream, read: who it is to, what it says, and its records with data that nobody here
//! has to understand. Only names that a server may have compressed are written out (RFC 3597 section 4),
//! so a record of any type passes as it came.

use std::time::Duration;

use super::answer::{ExtendedError, Rcode};
use super::rendered::HEADER;
use super::{Name, types};

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

impl RawRecord<'_> {
    /// Is this name its owner, whatever the case of either?
    pub fn is_of(&self, name: &Name) -> bool {
        self.owner.eq_ignore_ascii_case(name.as_wire())
    }
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
            // RFC 6891 section 6.1.1: there is one at most.
            if opt.replace(own).is_some() {
                return Err(Unreadable);
            }
        }
        let upper = opt.as_ref().map_or(0, |(upper, _)| *upper);
        Ok(Self {
            id: field(0),
            rcode: Rcode(u16::from(header[3] & 0x0F) | u16::from(upper) << 4),
            truncated: header[2] & 0x02 != 0,
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
