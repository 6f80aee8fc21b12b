//! Reads a reply's bytes, strictly and without any code of Portolan's, into rows that compare.

use portolan::dns::{Data, Name, Record, types};

/// A record. Names in `owner` and `rdata` are complete and in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub owner: Vec<u8>,
    pub rtype: u16,
    pub ttl: u32,
    pub rdata: Vec<u8>,
    /// The owner in its own case.
    pub owner_as_sent: Vec<u8>,
}

/// An OPT record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opt {
    pub size: u16,
    pub extended_rcode: u8,
    pub version: u8,
    pub flags: u16,
    pub options: Vec<u8>,
}

/// A reply.
#[derive(Debug, Clone)]
pub struct Sections {
    pub question_end: usize,
    pub answers: Vec<Row>,
    pub authority: Vec<Row>,
    /// Without OPT, which is last or there is none.
    pub additional: Vec<Row>,
    pub opt: Option<Opt>,
}

impl Row {
    /// The row that a record must come out as.
    pub fn of(record: &Record) -> Self {
        Self {
            owner: lower(&record.owner),
            rtype: record.data.rtype(),
            ttl: record.ttl,
            rdata: rdata(&record.data),
            owner_as_sent: record.owner.as_wire().to_vec(),
        }
    }

    /// The bytes that it takes without compression.
    pub fn len(&self) -> usize {
        self.owner.len() + 10 + self.rdata.len()
    }

    /// The same record, whatever the case of its owner?
    pub fn same_as(&self, other: &Self) -> bool {
        (&self.owner, self.rtype, self.ttl, &self.rdata)
            == (&other.owner, other.rtype, other.ttl, &other.rdata)
    }

    /// The name that an SRV, NS or CNAME record points at, in lower case.
    pub fn target(&self) -> Option<&[u8]> {
        match self.rtype {
            types::SRV => Some(&self.rdata[6..]),
            types::NS | types::CNAME => Some(&self.rdata),
            _ => None,
        }
    }
}

fn lower(name: &Name) -> Vec<u8> {
    name.as_wire().to_ascii_lowercase()
}

fn rdata(data: &Data) -> Vec<u8> {
    match data {
        Data::A(ip) => ip.octets().to_vec(),
        Data::Aaaa(ip) => ip.octets().to_vec(),
        Data::Srv {
            priority,
            weight,
            port,
            target,
        } => {
            let numbers = [priority, weight, port].map(|value| value.to_be_bytes());
            [numbers.concat(), lower(target)].concat()
        }
        Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => lower(name),
        Data::Soa {
            mname,
            rname,
            serial,
            refresh,
            retry,
            expire,
            minimum,
        } => {
            let numbers = [serial, refresh, retry, expire, minimum];
            let numbers = numbers.map(|value| value.to_be_bytes());
            [lower(mname), lower(rname), numbers.concat()].concat()
        }
        Data::Txt(strings) if strings.is_empty() => vec![0],
        Data::Txt(strings) => strings
            .iter()
            .flat_map(|string| [&[string.len() as u8], string.as_slice()].concat())
            .collect(),
        Data::Other { rdata, .. } => rdata.clone(),
    }
}

/// Reads a reply.
///
/// # Panics
/// It is not a message of RFC 1035 that ends where it should, an SRV target is compressed, a
/// pointer does not point at an earlier name, or something follows OPT.
pub fn read(bytes: &[u8]) -> Sections {
    let mut reader = Reader { bytes, at: 12 };
    let count = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    assert_eq!(count(4), 1, "one question");
    reader.name();
    reader.at += 4;
    let question_end = reader.at;
    let mut opt = None;
    let mut section = |count: u16| -> Vec<Row> {
        let rows = (0..count).filter_map(|_| {
            assert!(opt.is_none(), "nothing follows OPT");
            reader.record(&mut opt)
        });
        rows.collect()
    };
    let sections = [6, 8, 10].map(|at| section(count(at)));
    let [answers, authority, additional] = sections;
    assert_eq!(reader.at, bytes.len(), "the message ends with its records");
    Sections {
        question_end,
        answers,
        authority,
        additional,
        opt,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> &[u8] {
        self.at += count;
        &self.bytes[self.at - count..self.at]
    }

    fn u16(&mut self) -> u16 {
        let bytes = self.take(2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    /// The name that stands here, in its own case.
    fn name(&mut self) -> Vec<u8> {
        let mut name = Vec::new();
        let mut at = self.at;
        let mut end = None;
        let mut before = self.at;
        loop {
            let length = usize::from(self.bytes[at]);
            match length {
                0..=63 => {
                    name.extend_from_slice(&self.bytes[at..=at + length]);
                    at += 1 + length;
                    if length == 0 {
                        break;
                    }
                }
                0xC0.. => {
                    let place = (length & 0x3F) << 8 | usize::from(self.bytes[at + 1]);
                    end = end.or(Some(at + 2));
                    assert!((12..before).contains(&place), "pointers point back");
                    (at, before) = (place, place);
                }
                _ => panic!("{length} is no length of a label"),
            }
        }
        assert!(name.len() <= 255, "a name has at most 255 bytes");
        self.at = end.unwrap_or(at);
        name
    }

    fn record(&mut self, opt: &mut Option<Opt>) -> Option<Row> {
        let owner = self.name();
        let (rtype, class) = (self.u16(), self.u16());
        let ttl = u32::from_be_bytes(self.take(4).try_into().expect("four bytes"));
        let length = usize::from(self.u16());
        let end = self.at + length;
        let rdata = match rtype {
            types::CNAME | types::NS | types::PTR => self.name().to_ascii_lowercase(),
            types::SOA => {
                let names = [self.name(), self.name()].concat();
                let numbers = self.take(20);
                [&names.to_ascii_lowercase(), numbers].concat()
            }
            types::SRV => {
                let numbers = self.take(6).to_vec();
                let target = self.name();
                assert_eq!(length, 6 + target.len(), "SRV targets are not compressed");
                // HAProxy compares them byte by byte (D16).
                assert_eq!(
                    target,
                    target.to_ascii_lowercase(),
                    "SRV targets in lower case"
                );
                [numbers, target].concat()
            }
            _ => self.take(length).to_vec(),
        };
        assert_eq!(self.at, end, "RDLENGTH is the length of the data");
        if rtype == types::OPT {
            assert_eq!(owner, [0], "OPT belongs to the root");
            let [extended_rcode, version, high, low] = ttl.to_be_bytes();
            *opt = Some(Opt {
                size: class,
                extended_rcode,
                version,
                flags: u16::from_be_bytes([high, low]),
                options: rdata,
            });
            return None;
        }
        assert_eq!(class, types::CLASS_IN);
        Some(Row {
            owner: owner.to_ascii_lowercase(),
            rtype,
            ttl,
            rdata,
            owner_as_sent: owner,
        })
    }
}
