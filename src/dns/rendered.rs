//! An answer as wire bytes: everything behind the question, once, for every client and size.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use hashbrown::HashTable;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Name, types};

use super::answer::{Answer, Cut, Data, ExtendedError, Rcode, Record};

/// Length of a message header (RFC 1035 section 4.1.1).
pub(super) const HEADER: usize = 12;
/// The largest offset that a compression pointer can hold (RFC 1035 section 4.1.4).
pub(super) const MAX_POINTER: usize = 0x3FFF;

/// An answer as bytes, for one name of a question. The question itself, the header and OPT are
/// the client's and are put around it when it is sent.
///
/// Offsets count from the end of the question. Compression pointers count from the start of the
/// message; they are right because the question has a fixed length.
#[derive(Debug, Clone)]
pub struct Rendered {
    pub(super) rcode: Rcode,
    pub(super) authoritative: bool,
    pub(super) cut: Cut,
    pub(super) authentic: bool,
    pub(super) errors: Box<[ExtendedError]>,
    pub(super) for_client: bool,
    pub(super) rotate: bool,
    /// Length of the question: name, type, class.
    pub(super) question: usize,
    /// Answer, Authority and Additional, one behind the other.
    pub(super) body: Vec<u8>,
    pub(super) answers: Vec<AnswerPiece>,
    /// How many aliases stand in front of the answers proper.
    pub(super) aliases: usize,
    /// Ends of the Authority records.
    pub(super) authority: Vec<usize>,
    pub(super) additional: Vec<GluePiece>,
    /// Where the records have their TTLs.
    pub(super) ttls: Vec<u32>,
}

/// Where one answer stands.
#[derive(Debug, Clone)]
pub(super) struct AnswerPiece {
    pub(super) end: usize,
    /// Where its target's name starts; equal to `end` if it has none.
    pub(super) target: usize,
    /// What the record is, for rendezvous hashing: type and data, not TTL or weight, so that a
    /// changed weight moves no client.
    pub(super) identity: u64,
}

/// Where one record of the Additional section stands.
#[derive(Debug, Clone)]
pub(super) struct GluePiece {
    pub(super) end: usize,
    /// Where its owner's name ends.
    pub(super) owner_end: usize,
    /// Its owner is the target of that answer, and moves with it.
    pub(super) is_of_target: bool,
    /// The answer it belongs to.
    pub(super) of: usize,
}

impl Rendered {
    /// Renders an answer to a question for `name`.
    pub fn new(answer: &Answer, name: &Name) -> Self {
        let mut writer = Writer::new(name);
        let mut answers = Vec::with_capacity(answer.answers.len());
        for record in &answer.answers {
            // Records of a subset may stand anywhere, so nothing may point at them but their own
            // glue, which is pointed anew.
            let target = writer.record(record, answer.cut == Cut::Prefix);
            answers.push(AnswerPiece {
                end: writer.body.len(),
                target,
                identity: identity(&record.data),
            });
        }
        let mut authority = Vec::with_capacity(answer.authority.len());
        for record in &answer.authority {
            writer.record(record, answer.cut == Cut::Prefix);
            authority.push(writer.body.len());
        }
        let mut additional = Vec::with_capacity(answer.additional.len());
        for glue in &answer.additional {
            // Only glue of an SRV record stands under the target that it is moved with.
            let of = answer.answers.get(glue.of).map(|record| &record.data);
            let target = match (of, answers.get(glue.of)) {
                (Some(Data::Srv { target, .. }), Some(piece)) if *target == glue.record.owner => {
                    Some(piece.target)
                }
                _ => None,
            };
            let owner_end = writer.glue(&glue.record, target);
            additional.push(GluePiece {
                end: writer.body.len(),
                owner_end,
                is_of_target: target.is_some(),
                of: glue.of,
            });
        }
        Self {
            rcode: answer.rcode,
            authoritative: answer.authoritative,
            cut: answer.cut,
            authentic: answer.authentic,
            errors: answer.errors.clone().into(),
            for_client: answer.for_client,
            // In any other answer records may point at those before them.
            rotate: answer.rotate && answer.cut != Cut::Prefix,
            question: name.as_wire().len() + 4,
            ttls: writer.ttls,
            body: writer.body,
            aliases: answer
                .answers
                .iter()
                .take_while(|record| matches!(record.data, Data::Cname(_)))
                .count(),
            answers,
            authority,
            additional,
        }
    }

    /// Bytes of memory that it takes, about.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + self.body.capacity()
            + self.answers.capacity() * size_of::<AnswerPiece>()
            + self.authority.capacity() * size_of::<usize>()
            + self.additional.capacity() * size_of::<GluePiece>()
            + self.ttls.capacity() * size_of::<u32>()
            + (self.errors.iter())
                .map(|error| size_of::<ExtendedError>() + error.text.len())
                .sum::<usize>()
    }

    /// The response code.
    pub fn rcode(&self) -> Rcode {
        self.rcode
    }
}

/// A reply that is a header alone: the query's id, opcode and RD with an rcode. `query` holds at
/// least a header.
pub fn error_reply(query: &[u8; HEADER], rcode: Rcode) -> [u8; HEADER] {
    let mut reply = [0; HEADER];
    reply[..2].copy_from_slice(&query[..2]);
    reply[2] = 0x80 | (query[2] & 0x79);
    reply[3] = (rcode.0 & 0x0F) as u8;
    reply
}

fn identity(data: &Data) -> u64 {
    match data {
        Data::A(ip) => xxh3_64(&ip.octets()),
        Data::Aaaa(ip) => xxh3_64(&ip.octets()),
        Data::Srv { port, target, .. } => {
            let mut bytes = target.as_wire().to_vec();
            bytes.extend_from_slice(&port.to_be_bytes());
            xxh3_64(&bytes)
        }
        Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => xxh3_64(name.as_wire()),
        Data::Txt(strings) => xxh3_64(&strings.concat()),
        Data::Other { rdata, .. } => xxh3_64(rdata),
        Data::Soa { serial, .. } => xxh3_64(&serial.to_be_bytes()),
    }
}

/// Where names end up in the tables of [`Writer`]: they are chosen by clients and upstreams, that must not be.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0_u64));

/// Writes records with compression.
struct Writer<'a> {
    question: &'a Name,
    body: Vec<u8>,
    /// Length of what stands before the body.
    before: usize,
    /// Names that can be pointed at: the hash of each in lower case, and where it starts in the message.
    known: HashTable<(u64, u16)>,
    ttls: Vec<u32>,
}

impl<'a> Writer<'a> {
    fn new(question: &'a Name) -> Self {
        let mut writer = Self {
            question,
            body: Vec::new(),
            before: HEADER + question.as_wire().len() + 4,
            known: HashTable::with_capacity(7),
            ttls: Vec::new(),
        };
        writer.learned(question, HEADER, true);
        writer
    }

    fn u16(&mut self, value: u16) {
        self.body.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.body.extend_from_slice(&value.to_be_bytes());
    }

    /// How much of a name is new, and where its rest stands. If it is to `learn`, the new part can be
    /// pointed at from now on, `at` its place in the message.
    fn learned(&mut self, name: &Name, at: usize, learn: bool) -> (usize, Option<u16>) {
        let wire = name.as_wire();
        let mut lower = [0; 255];
        lower[..wire.len()].copy_from_slice(wire);
        // The lengths of labels are no letters.
        lower.make_ascii_lowercase();
        let mut start = 0;
        while wire[start] != 0 {
            let suffix = &lower[start..wire.len()];
            let hash = xxh3_64_with_seed(suffix, *SEED);
            let is_it = |&(own, place): &(u64, u16)| own == hash && self.stands(suffix, place);
            if let Some(&(_, place)) = self.known.find(hash, is_it) {
                return (start, Some(place));
            }
            if learn && at + start <= MAX_POINTER {
                let entry = (hash, (at + start) as u16);
                self.known.insert_unique(hash, entry, |&(hash, _)| hash);
            }
            start += usize::from(wire[start]) + 1;
        }
        (start, None)
    }

    /// Does this name, in lower case, stand there in the message?
    fn stands(&self, name: &[u8], place: u16) -> bool {
        let (mut at, mut rest) = (usize::from(place), name);
        loop {
            let Some(here) = self.from(at) else {
                return false;
            };
            match *here {
                [high, low, ..] if high >= 0xC0 => {
                    at = usize::from(u16::from_be_bytes([high & 0x3F, low]))
                }
                [0, ..] => return rest == [0],
                [len, ..] => {
                    let label = usize::from(len) + 1;
                    let (Some(own), Some(other)) = (rest.get(..label), here.get(..label)) else {
                        return false;
                    };
                    if !own.eq_ignore_ascii_case(other) {
                        return false;
                    }
                    (at, rest) = (at + label, &rest[label..]);
                }
                [] => return false,
            }
        }
    }

    /// What has been written from there on: of the question, or of the body.
    fn from(&self, at: usize) -> Option<&[u8]> {
        match at.checked_sub(self.before) {
            Some(at) => self.body.get(at..),
            None => self.question.as_wire().get(at.checked_sub(HEADER)?..),
        }
    }

    /// Writes a name, as far as needed, and a pointer to the rest.
    fn name(&mut self, name: &Name, learn: bool) {
        let at = self.before + self.body.len();
        let (new, place) = self.learned(name, at, learn);
        self.body.extend_from_slice(&name.as_wire()[..new]);
        match place {
            Some(place) => self.u16(0xC000 | place),
            None => self.body.push(0),
        }
    }

    /// Writes a record. Returns where its target's name starts, or its end if it has none.
    fn record(&mut self, record: &Record, learn: bool) -> usize {
        self.name(&record.owner, learn);
        self.tail(record, learn)
    }

    /// Writes an address record that belongs to the answer whose target stands at `target`.
    /// Returns where the owner ends.
    fn glue(&mut self, record: &Record, target: Option<usize>) -> usize {
        match target.map(|target| self.before + target) {
            Some(place) if place <= MAX_POINTER => self.u16(0xC000 | place as u16),
            Some(_) => self.body.extend_from_slice(record.owner.as_wire()),
            None => self.name(&record.owner, false),
        }
        let owner_end = self.body.len();
        self.tail(record, false);
        owner_end
    }

    /// Type, class, TTL, data.
    fn tail(&mut self, record: &Record, learn: bool) -> usize {
        self.u16(record.data.rtype());
        self.u16(types::CLASS_IN);
        // Bodies end long before: a message has 65 535 bytes.
        self.ttls
            .push(u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        self.u32(record.ttl);
        let length_at = self.body.len();
        self.u16(0);
        let start = self.body.len();
        let mut target = None;
        match &record.data {
            Data::A(ip) => self.body.extend_from_slice(&ip.octets()),
            Data::Aaaa(ip) => self.body.extend_from_slice(&ip.octets()),
            Data::Srv {
                priority,
                weight,
                port,
                target: name,
            } => {
                self.u16(*priority);
                self.u16(*weight);
                self.u16(*port);
                target = Some(self.body.len());
                // RFC 2782: the target is not compressed.
                self.body.extend_from_slice(name.as_wire());
            }
            Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => {
                target = Some(start);
                self.name(name, learn);
            }
            Data::Soa {
                mname,
                rname,
                serial,
                refresh,
                retry,
                expire,
                minimum,
            } => {
                self.name(mname, learn);
                self.name(rname, learn);
                for value in [serial, refresh, retry, expire, minimum] {
                    self.u32(*value);
                }
            }
            Data::Txt(strings) => {
                for string in strings {
                    let string = &string[..string.len().min(255)];
                    self.body.push(string.len() as u8);
                    self.body.extend_from_slice(string);
                }
                if strings.is_empty() {
                    self.body.push(0);
                }
            }
            Data::Other { rdata, .. } => self.body.extend_from_slice(rdata),
        }
        // RDATA comes from names, addresses and upstream records, none of which can be longer;
        // node metadata is bounded by Consul at 512 bytes a value.
        let length = u16::try_from(self.body.len() - start).unwrap_or(u16::MAX);
        self.body[length_at..start].copy_from_slice(&length.to_be_bytes());
        target.unwrap_or(self.body.len())
    }
}
