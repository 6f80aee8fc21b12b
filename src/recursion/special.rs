//! Questions that never go to an upstream.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::dns::{Answer, Data, Name, Rcode, Record, types};

/// For how long a client may remember what never changes.
pub(super) const TTL: u32 = 3600;

/// Types that mean something between two servers, not a record: zone transfers, transaction
/// keys and signatures, EDNS itself, and the mail types that RFC 973 made obsolete in 1986.
pub(super) fn is_not_recursed(qtype: u16) -> bool {
    const TKEY_TSIG_IXFR_AXFR_MAILB_MAILA: std::ops::RangeInclusive<u16> = 249..=254;
    qtype == types::OPT || TKEY_TSIG_IXFR_AXFR_MAILB_MAILA.contains(&qtype)
}

/// Names that must not be asked for on the network: `localhost` is this host (RFC 6761 section
/// 6.3), and `invalid` and `onion` do not exist in the DNS (RFC 6761 section 6.4, RFC 7686 section
/// 2). Static zones come first, so a `localhost.zone` of the user's is what counts.
pub(super) fn answer(name: &Name, qtype: u16) -> Option<Answer> {
    let top = name.labels().last()?;
    if top.eq_ignore_ascii_case(b"invalid") || top.eq_ignore_ascii_case(b"onion") {
        return Some(Answer::empty(Rcode::NXDOMAIN, false));
    }
    if !top.eq_ignore_ascii_case(b"localhost") {
        return None;
    }
    let v4 = Some(Data::A(Ipv4Addr::LOCALHOST)).filter(|_| qtype != types::AAAA);
    let v6 = Some(Data::Aaaa(Ipv6Addr::LOCALHOST)).filter(|_| qtype != types::A);
    let has_some = matches!(qtype, types::A | types::AAAA | types::ANY);
    let data = v4.into_iter().chain(v6).filter(|_| has_some);
    let answers = data.map(|data| Record {
        owner: name.clone(),
        ttl: TTL,
        data,
    });
    Some(Answer {
        answers: answers.collect(),
        ..Answer::empty(Rcode::NOERROR, false)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, qtype: u16) -> Option<Answer> {
        answer(&Name::from_text(name).expect("a name"), qtype)
    }

    #[test]
    fn localhost_is_here() {
        const MX: u16 = 15;
        for (name, qtype, count) in [
            ("localhost.", types::A, 1),
            ("App.LocalHost.", types::AAAA, 1),
            ("localhost.", types::ANY, 2),
            ("localhost.", MX, 0),
        ] {
            let answer = ask(name, qtype).expect("an answer");
            assert_eq!(answer.rcode, Rcode::NOERROR);
            assert_eq!(answer.answers.len(), count, "{name} {qtype}");
        }
    }

    #[test]
    fn some_names_do_not_exist() {
        for name in ["invalid.", "a.INVALID.", "x.onion."] {
            let answer = ask(name, types::A).expect("an answer");
            assert_eq!(answer.rcode, Rcode::NXDOMAIN, "{name}");
        }
        for name in [".", "localhost.test.", "xlocalhost.", "onion.test."] {
            assert_eq!(ask(name, types::A), None, "{name}");
        }
    }

    #[test]
    fn transfers_are_not_recursed_and_any_is() {
        const TSIG: u16 = 250;
        const CAA: u16 = 257;
        for qtype in [types::AXFR, types::IXFR, types::OPT, TSIG] {
            assert!(is_not_recursed(qtype), "{qtype}");
        }
        for qtype in [types::ANY, types::A, CAA, 65] {
            assert!(!is_not_recursed(qtype), "{qtype}");
        }
    }
}
