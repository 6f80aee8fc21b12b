//! Decisions of the design, and what newer Consuls do.

use super::Deviation;
use crate::{
    judge::{data_of, is_nodata},
    support::{
        compare::Part::{Aa, Answers, Authority, Case, Glue, Ra, Rcode, Size},
        wire::{
            rcode::{NOERROR, NXDOMAIN, SERVFAIL},
            rtype,
        },
    },
};

/// So frequent that it is counted apart.
pub(crate) const SIZE_OF_OPT: &str = "we take what we can, not what the client can";

/// Found before anything else is.
pub(crate) const SECOND_DOMAIN: &str = "the second domain's names stay in it";

pub(super) const LIST: &[Deviation] = &[
    Deviation {
        name: "one stable case",
        because: "D16: targets and what belongs to them in lower case, where Consul keeps the case \
                  that a node was registered with; HAProxy compares byte for byte",
        parts: &[Case],
        holds: |_, d| {
            let owners: Vec<_> = d.theirs.iter().map(|text| text.split(' ').next()).collect();
            d.ours.iter().all(|text| {
                let mut words = text.split(' ');
                let owner = words.next();
                let is_low = |word: &str| word == word.to_lowercase();
                let mut names = words.filter(|word| word.ends_with('.'));
                names.all(is_low) && (owners.contains(&owner) || owner.is_some_and(is_low))
            })
        },
    },
    Deviation {
        name: "names share the question's letters",
        because: "a name that ends as the question does points into it (RFC 1035, 4.1.4), so it has \
                  the client's case there",
        parts: &[Case],
        holds: |x, d| {
            // An alias in the second domain is not moved to the first.
            let asked = [x.asked(), format!("{}.", x.query.name)];
            // Up to where it shares them it is as it was registered, or in lower case.
            let plain = |front: &str| {
                front == front.to_lowercase() || d.theirs.iter().any(|text| text.contains(front))
            };
            let shares = |name: &str| {
                let mut starts = name.char_indices().map(|(at, _)| at);
                starts.any(|at| {
                    asked.iter().any(|asked| asked.ends_with(&name[at..])) && plain(&name[..at])
                }) || plain(name)
            };
            d.ours.iter().all(|text| {
                let mut names = text.split(' ').filter(|word| word.ends_with('.'));
                names.all(shares)
            })
        },
    },
    Deviation {
        name: "addresses of an alias under the target's own name",
        because: "D21: HAProxy looks for nothing but the target among the additional records",
        parts: &[Glue],
        holds: |x, d| {
            x.rtype() == rtype::SRV
                && x.glue_is_of_answers()
                && d.theirs.iter().any(|text| text.contains(" cname "))
        },
    },
    Deviation {
        name: SIZE_OF_OPT,
        because: "RFC 6891, 6.2.3: the size in OPT is the sender's own; Consul sends the client's \
                  back",
        parts: &[Size],
        holds: |_, d| d.ours == ["1232"],
    },
    // ---- Newer Consul ------------------------------------------------------------------------
    Deviation {
        name: "`.DC.dc`",
        because: "section 1.1: from Consul 1.9 or so on; 1.8.7 has NXDOMAIN",
        parts: &[Rcode, Answers, Authority, Glue],
        holds: |x, _| {
            let name = x.query.name.to_lowercase();
            name.contains(".dc1.dc.")
                && x.rcodes() == (NXDOMAIN, NOERROR)
                && data_of(&x.ours) == data_of(&x.ours_at(&name.replace(".dc1.dc.", ".dc1.")))
        },
    },
    Deviation {
        name: "`_QUERY._tcp.query`",
        because: "section 1.2: in current Consul; 1.8.7 has NXDOMAIN",
        parts: &[Rcode, Answers, Authority, Glue],
        holds: |x, _| {
            let plain = x
                .query
                .name
                .to_lowercase()
                .replace("_pq-web._tcp.", "pq-web.");
            plain.starts_with("pq-web.query.")
                && x.theirs.rcode() == NXDOMAIN
                && x.ours.rcode() == NOERROR
                && data_of(&x.ours) == data_of(&x.ours_at(&plain))
        },
    },
    Deviation {
        name: "`.virtual`",
        because: "section 1.2: from Consul 1.11 on; 1.8.7 has NXDOMAIN. Another type than A is NODATA \
                  (row 4)",
        parts: &[Rcode, Answers, Authority],
        holds: |x, _| {
            let address = if x.rtype() == rtype::A {
                vec!["240.0.0.7".to_owned()]
            } else {
                vec![]
            };
            x.keyword() == "virtual"
                && x.theirs.rcode() == NXDOMAIN
                && (x.ours.rcode() == NXDOMAIN || is_nodata(&x.ours) || data_of(&x.ours) == address)
        },
    },
    Deviation {
        name: "a reverse name that is nobody's, without recursion",
        because: "section 1.3: NXDOMAIN from Consul 1.17 on; 1.8.7 has SERVFAIL and says that it recurses",
        parts: &[Rcode, Aa, Ra, Authority],
        holds: |x, _| x.is_reverse() && x.rcodes() == (SERVFAIL, NXDOMAIN),
    },
    Deviation {
        name: "`.addr` of another length",
        because: "section 1.3: NXDOMAIN from Consul 1.18 or so on; 1.8.7 has NOERROR",
        parts: &[Rcode],
        holds: |x, _| x.rcodes() == (NOERROR, NXDOMAIN) && x.keyword() == "addr",
    },
    Deviation {
        name: SECOND_DOMAIN,
        because: "section 1.4: targets and SOA follow the domain that was asked, as in current \
                  Consul; in 1.8.7 they are the first domain's",
        // Both are moved to the first domain before they are compared.
        parts: &[],
        holds: |_, _| false,
    },
];
