//! Questions that never go to an upstream.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::Outcome;

/// For how long a client may remember what never changes.
const TTL: u32 = 3600;

/// Types that mean something between two servers, not a record: zone transfers, transaction
/// keys and signatures, EDNS itself, and the mail types that RFC 973 made obsolete in 1986.
pub(super) fn is_not_recursed(rtype: RecordType) -> bool {
    const OPT: u16 = 41;
    const TKEY_TSIG_IXFR_AXFR_MAILB_MAILA: std::ops::RangeInclusive<u16> = 249..=254;
    let code = u16::from(rtype);
    code == OPT || TKEY_TSIG_IXFR_AXFR_MAILB_MAILA.contains(&code)
}

/// Names that must not be asked for on the network: `localhost` is this host (RFC 6761 section
/// 6.3), and `invalid` and `onion` do not exist in the DNS (RFC 6761 section 6.4, RFC 7686 section
/// 2). Static zones come first, so a `localhost.zone` of the user's is what counts.
pub(super) fn answer(name: &Name, rtype: RecordType) -> Option<Outcome> {
    let top = name.iter().next_back()?;
    if top.eq_ignore_ascii_case(b"invalid") || top.eq_ignore_ascii_case(b"onion") {
        return Some(Outcome::failed(ResponseCode::NXDomain, None));
    }
    if !top.eq_ignore_ascii_case(b"localhost") {
        return None;
    }
    let mut outcome = Outcome::failed(ResponseCode::NoError, None);
    let v4 = || RData::A(A(Ipv4Addr::LOCALHOST));
    let v6 = || RData::AAAA(AAAA(Ipv6Addr::LOCALHOST));
    let data = match rtype {
        RecordType::A => vec![v4()],
        RecordType::AAAA => vec![v6()],
        RecordType::ANY => vec![v4(), v6()],
        _ => Vec::new(),
    };
    for data in data {
        let record = Record::from_rdata(name.clone(), TTL, data);
        outcome.answers.push(record);
    }
    Some(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, rtype: RecordType) -> Option<Outcome> {
        answer(&Name::from_ascii(name).expect("a name"), rtype)
    }

    #[test]
    fn localhost_is_here() {
        for (name, rtype, count) in [
            ("localhost.", RecordType::A, 1),
            ("App.LocalHost.", RecordType::AAAA, 1),
            ("localhost.", RecordType::ANY, 2),
            ("localhost.", RecordType::MX, 0),
        ] {
            let outcome = ask(name, rtype).expect("an answer");
            assert_eq!(outcome.rcode, ResponseCode::NoError);
            assert_eq!(outcome.answers.len(), count, "{name} {rtype}");
        }
    }

    #[test]
    fn some_names_do_not_exist() {
        for name in ["invalid.", "a.INVALID.", "x.onion."] {
            let outcome = ask(name, RecordType::A).expect("an answer");
            assert_eq!(outcome.rcode, ResponseCode::NXDomain, "{name}");
        }
        for name in [".", "localhost.test.", "xlocalhost.", "onion.test."] {
            assert_eq!(ask(name, RecordType::A), None, "{name}");
        }
    }

    #[test]
    fn transfers_are_not_recursed_and_any_is() {
        for rtype in [
            RecordType::AXFR,
            RecordType::IXFR,
            RecordType::OPT,
            RecordType::TSIG,
        ] {
            assert!(is_not_recursed(rtype), "{rtype}");
        }
        for rtype in [
            RecordType::ANY,
            RecordType::A,
            RecordType::CAA,
            RecordType::from(65),
        ] {
            assert!(!is_not_recursed(rtype), "{rtype}");
        }
    }
}
