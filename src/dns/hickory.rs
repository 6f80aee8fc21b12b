//! hickory's names and records, and ours: for zones, which are read with hickory.

use hickory_proto::rr::{Name as HickoryName, RData, Record as HickoryRecord};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use super::{Data, Name, Record};

/// Our name as hickory's. Both have the same limits, so that `None` is a defect of one of them.
pub(crate) fn to_hickory(name: &Name) -> Option<HickoryName> {
    let mut converted = HickoryName::from_labels(name.labels()).ok()?;
    converted.set_fqdn(true);
    Some(converted)
}

/// hickory's name as ours.
pub(crate) fn from_hickory(name: &HickoryName) -> Option<Name> {
    Name::from_labels(name.iter()).ok()
}

/// hickory's record as ours; `None` for data that cannot be written.
pub(crate) fn record(record: &HickoryRecord) -> Option<Record> {
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
