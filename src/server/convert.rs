//! hickory's names and records, as zones and recursion give them, and ours.

use hickory_proto::rr::{Name as HickoryName, RData, Record as HickoryRecord};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use crate::answers::{Answer, Cut, Data, Glue, Rcode, Record};
use crate::names::Name;
use crate::{recursion, zones};

/// Our name as hickory's. Both have the same limits, so that `None` is a defect of one of them.
pub(super) fn to_hickory(name: &Name) -> Option<HickoryName> {
    let mut converted = HickoryName::from_labels(name.labels()).ok()?;
    converted.set_fqdn(true);
    Some(converted)
}

fn from_hickory(name: &HickoryName) -> Option<Name> {
    Name::from_labels(name.iter()).ok()
}

/// What a zone says, as an answer.
pub(super) fn from_zone(outcome: zones::Outcome) -> Answer {
    let glue = outcome.additional.iter().filter_map(record);
    let mut answer = Answer {
        additional: glue.map(|record| Glue { of: 0, record }).collect(),
        ..sections(
            outcome.rcode.into(),
            outcome.authoritative,
            &outcome.answers,
            &outcome.authority,
        )
    };
    // A goes first and AAAA next, so that HAProxy can read the glue of zones as well.
    answer
        .additional
        .sort_by_key(|glue| glue.record.data.rtype());
    answer
}

/// What an upstream said, as an answer.
pub(super) fn from_recursion(outcome: recursion::Outcome) -> Answer {
    Answer {
        extended_error: outcome.extended_error,
        ..sections(
            outcome.rcode.into(),
            false,
            &outcome.answers,
            &outcome.authority,
        )
    }
}

fn sections(
    rcode: u16,
    authoritative: bool,
    answers: &[HickoryRecord],
    authority: &[HickoryRecord],
) -> Answer {
    Answer {
        answers: answers.iter().filter_map(record).collect(),
        authority: authority.iter().filter_map(record).collect(),
        cut: Cut::Prefix,
        ..Answer::empty(Rcode(rcode), authoritative)
    }
}

fn record(record: &HickoryRecord) -> Option<Record> {
    Some(Record {
        owner: from_hickory(&record.name)?,
        ttl: record.ttl,
        data: data(&record.data)?,
    })
}

fn data(data: &RData) -> Option<Data> {
    Some(match data {
        RData::A(ip) => Data::A(ip.0),
        RData::AAAA(ip) => Data::Aaaa(ip.0),
        RData::CNAME(name) => Data::Cname(from_hickory(name)?),
        RData::NS(name) => Data::Ns(from_hickory(name)?),
        RData::PTR(name) => Data::Ptr(from_hickory(name)?),
        RData::SRV(srv) => Data::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: from_hickory(&srv.target)?,
        },
        RData::SOA(soa) => Data::Soa {
            mname: from_hickory(&soa.mname)?,
            rname: from_hickory(&soa.rname)?,
            serial: soa.serial,
            refresh: u32::try_from(soa.refresh).ok()?,
            retry: u32::try_from(soa.retry).ok()?,
            expire: u32::try_from(soa.expire).ok()?,
            minimum: soa.minimum,
        },
        other => {
            let mut rdata = Vec::new();
            let mut encoder = BinEncoder::new(&mut rdata);
            // Records are moved about when they are cut, so nothing in them may point anywhere.
            encoder.set_name_encoding(NameEncoding::Uncompressed);
            other.emit(&mut encoder).ok()?;
            Data::Other {
                rtype: other.record_type().into(),
                rdata,
            }
        }
    })
}
