//! DNS messages as they are on the wire: a parser of our own, so that the tests see what a client
//! sees (record order, where OPT is, the question's bytes) and judge Portolan by something other than
//! the library it is built on.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// The EDNS option of an extended error (RFC 8914 section 2).
const EXTENDED_ERROR: u16 = 15;

/// Record types by number.
pub(crate) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const DS: u16 = 43;
    pub(crate) const SVCB: u16 = 64;
    pub(crate) const HTTPS: u16 = 65;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const ANY: u16 = 255;
    pub(crate) const CAA: u16 = 257;

    /// A type's name.
    pub(crate) fn name(rtype: u16) -> String {
        let known = match rtype {
            A => "A",
            NS => "NS",
            CNAME => "CNAME",
            SOA => "SOA",
            PTR => "PTR",
            MX => "MX",
            TXT => "TXT",
            AAAA => "AAAA",
            SRV => "SRV",
            OPT => "OPT",
            DS => "DS",
            SVCB => "SVCB",
            HTTPS => "HTTPS",
            AXFR => "AXFR",
            ANY => "ANY",
            CAA => "CAA",
            other => return format!("TYPE{other}"),
        };
        known.to_owned()
    }
}

/// Response codes by number; BADVERS comes out of the OPT record.
pub(crate) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const FORMERR: u16 = 1;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
    pub(crate) const NOTIMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const BADVERS: u16 = 16;

    /// A code's name.
    pub(crate) fn name(rcode: u16) -> String {
        let known = match rcode {
            NOERROR => "NOERROR",
            FORMERR => "FORMERR",
            SERVFAIL => "SERVFAIL",
            NXDOMAIN => "NXDOMAIN",
            NOTIMP => "NOTIMP",
            REFUSED => "REFUSED",
            BADVERS => "BADVERS",
            other => return format!("RCODE{other}"),
        };
        known.to_owned()
    }
}

/// One record. `data` is text as in a master file; types without a text form here are hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: String,
}

impl Record {
    /// The record without its TTL, for comparing answers.
    pub(crate) fn without_ttl(&self) -> String {
        format!("{} {} {}", self.name, rtype::name(self.rtype), self.data)
    }

    /// Whether it is an A or AAAA record.
    pub(crate) fn is_address(&self) -> bool {
        matches!(self.rtype, rtype::A | rtype::AAAA)
    }

    /// The n-th word of the data: of an SRV record priority, weight, port, target.
    pub(crate) fn word(&self, n: usize) -> &str {
        let word = self.data.split(' ').nth(n);
        word.unwrap_or_else(|| panic!("{self} has no word {n}"))
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = rtype::name(self.rtype);
        write!(f, "{} {} {kind} {}", self.name, self.ttl, self.data)
    }
}

/// A parsed message.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) wire: Vec<u8>,
    pub(crate) id: u16,
    flags: u16,
    pub(crate) questions: u16,
    /// The bytes of the question section.
    pub(crate) question: Vec<u8>,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
}

impl Reply {
    /// Parses a message. Anything that a strict client would not accept is an error: bytes that are
    /// left over, pointers that do not point back, records that end early.
    pub(crate) fn parse(wire: &[u8]) -> Result<Self, String> {
        let mut reader = Reader { wire, at: 0 };
        let id = reader.u16()?;
        let flags = reader.u16()?;
        let questions = reader.u16()?;
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?];
        let start = reader.at;
        for _ in 0..questions {
            reader.name()?;
            reader.take(4)?;
        }
        let question = wire[start..reader.at].to_vec();
        let [answers, authority, additional] = counts.map(|count| {
            (0..count)
                .map(|_| reader.record())
                .collect::<Result<Vec<_>, _>>()
        });
        let reply = Self {
            wire: wire.to_vec(),
            id,
            flags,
            questions,
            question,
            answers: answers?,
            authority: authority?,
            additional: additional?,
        };
        match wire.len() - reader.at {
            0 => Ok(reply),
            extra => Err(format!("{extra} bytes after the last record: {reply:?}")),
        }
    }

    /// What was written down of a reply: its question, its flags with the response code, and its sections.
    pub(crate) fn told(question: Vec<u8>, flags: u16, sections: [Vec<Record>; 3]) -> Self {
        let [answers, authority, additional] = sections;
        Self {
            wire: Vec::new(),
            id: 0,
            flags: flags | 0x8000,
            questions: 1,
            question,
            answers,
            authority,
            additional,
        }
    }

    pub(crate) fn is_response(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    pub(crate) fn opcode(&self) -> u8 {
        (self.flags >> 11) as u8 & 0x0f
    }

    pub(crate) fn aa(&self) -> bool {
        self.flags & 0x0400 != 0
    }

    pub(crate) fn tc(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    pub(crate) fn rd(&self) -> bool {
        self.flags & 0x0100 != 0
    }

    pub(crate) fn ra(&self) -> bool {
        self.flags & 0x0080 != 0
    }

    /// The response code, with the bits that an OPT record adds.
    pub(crate) fn rcode(&self) -> u16 {
        let high = self.opt().map_or(0, |opt| opt.ttl >> 24) as u16;
        high << 4 | self.flags & 0x0f
    }

    /// The OPT record.
    pub(crate) fn opt(&self) -> Option<&Record> {
        self.additional.iter().find(|r| r.rtype == rtype::OPT)
    }

    /// The info codes of its extended errors (RFC 8914).
    pub(crate) fn extended_errors(&self) -> Vec<u16> {
        let mut codes = Vec::new();
        let mut rest = self.opt().map_or("", |opt| opt.data.as_str());
        let number = |hex: Option<&str>| hex.and_then(|hex| u16::from_str_radix(hex, 16).ok());
        while let (Some(code), Some(length)) = (number(rest.get(..4)), number(rest.get(4..8))) {
            if code == EXTENDED_ERROR {
                codes.extend(number(rest.get(8..12)));
            }
            let end = 8 + 2 * usize::from(length);
            rest = rest.get(end..).unwrap_or_default();
        }
        codes
    }

    /// The additional section without OPT.
    pub(crate) fn glue(&self) -> impl Iterator<Item = &Record> {
        self.additional.iter().filter(|r| r.rtype != rtype::OPT)
    }

    /// The data of the answers: addresses, or whatever was asked for, sorted.
    pub(crate) fn data(&self) -> Vec<String> {
        let mut data: Vec<String> = self.answers.iter().map(|r| r.data.clone()).collect();
        data.sort();
        data
    }

    /// One line that says what came back, for failures.
    pub(crate) fn summary(&self) -> String {
        let section = |records: &[Record]| {
            let records: Vec<String> = records.iter().map(Record::to_string).collect();
            records.join(" | ")
        };
        format!(
            "{} aa {} tc {} ra {} [{}] authority [{}] additional [{}]",
            rcode::name(self.rcode()),
            self.aa(),
            self.tc(),
            self.ra(),
            section(&self.answers),
            section(&self.authority),
            section(&self.additional),
        )
    }
}

struct Reader<'a> {
    wire: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let bytes = self.wire.get(self.at..self.at + count);
        self.at += count;
        bytes.ok_or_else(|| format!("the message ends early, at {}", self.wire.len()))
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// A name in presentation form, with a dot at the end, in the case it has on the wire.
    fn name(&mut self) -> Result<String, String> {
        let mut text = String::new();
        // Where reading goes on after the first pointer.
        let mut back = None;
        loop {
            let start = self.at;
            match self.u8()? {
                0 => break,
                high if high & 0xc0 == 0xc0 => {
                    let target = usize::from(high & 0x3f) << 8 | usize::from(self.u8()?);
                    back.get_or_insert(self.at);
                    if target >= start {
                        return Err(format!("a pointer at {start} to {target}, not backwards"));
                    }
                    self.at = target;
                }
                length if length < 64 => {
                    for &byte in self.take(length.into())? {
                        match byte {
                            b'.' | b'\\' => text.extend(['\\', byte.into()]),
                            b'!'..=b'~' => text.push(byte.into()),
                            byte => text.push_str(&format!("\\{byte:03}")),
                        }
                    }
                    text.push('.');
                }
                other => return Err(format!("a label length of {other} at {start}")),
            }
        }
        self.at = back.unwrap_or(self.at);
        Ok(if text.is_empty() {
            ".".to_owned()
        } else {
            text
        })
    }

    fn record(&mut self) -> Result<Record, String> {
        let name = self.name()?;
        let (rtype, class, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        let data = match rtype {
            rtype::A => {
                let bytes: [u8; 4] = self.sized(length)?;
                Ipv4Addr::from(bytes).to_string()
            }
            rtype::AAAA => {
                let bytes: [u8; 16] = self.sized(length)?;
                Ipv6Addr::from(bytes).to_string()
            }
            rtype::NS | rtype::CNAME | rtype::PTR => self.name()?,
            rtype::MX => format!("{} {}", self.u16()?, self.name()?),
            rtype::SRV => {
                let (priority, weight, port) = (self.u16()?, self.u16()?, self.u16()?);
                format!("{priority} {weight} {port} {}", self.name()?)
            }
            rtype::SOA => {
                let mut text = format!("{} {}", self.name()?, self.name()?);
                for _ in 0..5 {
                    text.push_str(&format!(" {}", self.u32()?));
                }
                text
            }
            rtype::TXT => {
                let mut strings = Vec::new();
                while self.at < end {
                    let length = self.u8()?;
                    let bytes = self.take(length.into())?;
                    strings.push(format!("{:?}", String::from_utf8_lossy(bytes)));
                }
                strings.join(" ")
            }
            _ => self
                .take(length)?
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect(),
        };
        if self.at != end {
            return Err(format!(
                "{name} {rtype}: data of {length} bytes do not end there"
            ));
        }
        Ok(Record {
            name,
            rtype,
            class,
            ttl,
            data,
        })
    }

    fn sized<const N: usize>(&mut self, length: usize) -> Result<[u8; N], String> {
        let bytes = self.take(length)?;
        bytes
            .try_into()
            .map_err(|_| format!("an address of {length} bytes"))
    }
}
