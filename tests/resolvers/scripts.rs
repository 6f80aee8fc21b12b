//! Replies byte by byte, for what no server would write.

use crate::support::wire::rtype;
use hickory_proto::op::Message;

/// A reply in the making.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    id: u16,
    /// With the rcode in the last four bits.
    pub(crate) flags: u16,
    pub(crate) question: Vec<u8>,
    pub(crate) answers: Vec<Vec<u8>>,
    pub(crate) authority: Vec<Vec<u8>>,
    pub(crate) additional: Vec<Vec<u8>>,
    /// What stands behind the last record.
    pub(crate) rest: Vec<u8>,
}

/// QR, RD, RA.
const REPLY: u16 = 0x8180;
pub(crate) const TC: u16 = 0x0200;

impl Reply {
    /// NOERROR without records, to this query.
    pub(crate) fn to(query: &Message) -> Self {
        let asked = query.queries.first().expect("a query has a question");
        let rtype = u16::from(asked.query_type());
        Self {
            id: query.metadata.id,
            flags: REPLY,
            question: question(&asked.name().to_ascii(), rtype, 1),
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            rest: Vec::new(),
        }
    }

    pub(crate) fn rcode(mut self, rcode: u16) -> Self {
        self.flags |= rcode;
        self
    }

    pub(crate) fn answer(mut self, record: Vec<u8>) -> Self {
        self.answers.push(record);
        self
    }

    pub(crate) fn authority(mut self, record: Vec<u8>) -> Self {
        self.authority.push(record);
        self
    }

    pub(crate) fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let count = |records: &[Vec<u8>]| records.len() as u16;
        let questions = u16::from(!self.question.is_empty());
        let counts = [
            count(&self.answers),
            count(&self.authority),
            count(&self.additional),
        ];
        let mut bytes = Vec::new();
        for field in [&[self.id, self.flags, questions][..], &counts].concat() {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        bytes.extend_from_slice(&self.question);
        for section in [&self.answers, &self.authority, &self.additional] {
            bytes.extend(section.concat());
        }
        bytes.extend_from_slice(&self.rest);
        bytes
    }

    /// Header, and nothing else.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes
    }
}

pub(crate) fn name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

pub(crate) fn question(text: &str, rtype: u16, class: u16) -> Vec<u8> {
    [
        name(text),
        rtype.to_be_bytes().to_vec(),
        class.to_be_bytes().to_vec(),
    ]
    .concat()
}

/// A record of a class.
pub(crate) fn of_class(class: u16, owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend_from_slice(&rtype.to_be_bytes());
    bytes.extend_from_slice(&class.to_be_bytes());
    bytes.extend_from_slice(&ttl.to_be_bytes());
    bytes.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
    bytes.extend_from_slice(rdata);
    bytes
}

pub(crate) fn record(owner: &str, rtype: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    of_class(1, &name(owner), rtype, ttl, rdata)
}

pub(crate) fn a(owner: &str, ttl: u32, last: u8) -> Vec<u8> {
    record(owner, rtype::A, ttl, &[192, 0, 2, last])
}

pub(crate) fn cname(owner: &str, to: &str) -> Vec<u8> {
    record(owner, rtype::CNAME, 60, &name(to))
}

/// An SOA record with these timers: serial, refresh, retry, expire, minimum.
pub(crate) fn soa(owner: &str, ttl: u32, timers: [u32; 5]) -> Vec<u8> {
    let timers = timers.map(u32::to_be_bytes).concat();
    record(
        owner,
        rtype::SOA,
        ttl,
        &[name("ns.test"), name("admin.test"), timers].concat(),
    )
}
