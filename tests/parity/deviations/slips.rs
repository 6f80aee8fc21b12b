//! Where Consul slips, beyond section 8.

use super::{Deviation, ttls_are};
use crate::{
    judge::{is_nodata, texts},
    support::{
        compare::Part::{Aa, Answers, Authority, Edns, Extras, Glue, Rcode, Ttl},
        wire::{
            Reply,
            rcode::{NOERROR, NXDOMAIN, REFUSED, SERVFAIL},
            rtype,
        },
    },
};

pub(super) const LIST: &[Deviation] = &[
    Deviation {
        name: "DS is not asked of strangers",
        because: "NODATA, or the alias; Consul's DNS library hands DS to the parent zone, so Consul asks its \
                  recursors about its own names",
        parts: &[Rcode, Aa, Answers, Authority],
        holds: |x, _| {
            x.rtype() == rtype::DS
                && (x.labels().is_some() || x.is_reverse())
                && x.ours.answers.iter().all(|r| r.rtype == rtype::CNAME)
        },
    },
    Deviation {
        name: "OPT for those who sent one",
        because: "RFC 6891, 7: Consul refuses without",
        parts: &[Edns],
        holds: |x, d| x.rcodes() == (REFUSED, REFUSED) && d.theirs == ["none"],
    },
    Deviation {
        name: "a loop is told once",
        because: "section 2.2: Consul repeats its records until it is at its depth",
        parts: &[Answers, Glue],
        holds: |x, d| {
            let ours = texts(&x.ours.answers);
            let aliases = |text: &String| text.contains(" cname ");
            d.ours.is_empty()
                && d.theirs.iter().all(aliases)
                && (d.part == Glue || d.theirs.iter().all(|text| ours.contains(text)))
        },
    },
    Deviation {
        name: "an alias is followed to its end",
        because: "section 2.2: Consul stops at a depth of 3, and after 5 records without EDNS",
        parts: &[Answers, Glue],
        holds: |x, d| {
            let followed = x.all_of_theirs().len().max(x.theirs.glue().count());
            let more = |text: &String| {
                [" a ", " aaaa ", " cname "]
                    .iter()
                    .any(|k| text.contains(k))
            };
            d.theirs.is_empty() && d.ours.iter().all(more) && followed >= 4
        },
    },
    Deviation {
        name: "an alias to itself is none, in any case of its letters",
        because: "section 2.1: the node's address is taken; Consul compares byte for byte",
        parts: &[Answers, Authority, Glue],
        holds: |x, _| {
            let own = x.owner().trim_end().to_owned();
            x.theirs.answers.iter().any(|record| {
                matches!(record.rtype, rtype::CNAME | rtype::SRV)
                    && record.data.to_lowercase().ends_with(&own)
            })
        },
    },
    Deviation {
        name: "an address beside an alias wins for every type",
        because: "section 2.2, RFC 1034, 3.6.2: a name that has addresses is no alias; Consul drops \
                  the alias for addresses only",
        parts: &[Answers],
        holds: |x, _| {
            is_nodata(&x.ours)
                && x.theirs.answers.iter().any(|r| r.rtype == rtype::CNAME)
                && x.ours_for(rtype::ANY)
                    .answers
                    .iter()
                    .any(|r| r.is_address())
        },
    },
    Deviation {
        name: "always the same of several aliases",
        because: "D6, section 2.2: Consul takes another one each time",
        parts: &[Answers],
        holds: |x, _| {
            let first = |reply: &Reply| {
                let first = reply.answers.first();
                first
                    .filter(|r| r.rtype == rtype::CNAME)
                    .map(|r| r.data.clone())
            };
            let (theirs, ours) = (first(&x.theirs), first(&x.ours));
            let name = x.query.name.to_lowercase();
            theirs.is_some() && ours.is_some() && theirs != ours && name.starts_with("hosttwo.")
        },
    },
    Deviation {
        name: "a node is known by its name alone",
        because: "Consul finds it by the beginning of its ID too, hyphens apart: `---.node` is whichever \
                  node alone has an ID",
        parts: &[Rcode, Answers, Glue, Extras],
        holds: |x, _| {
            let labels = x.labels().unwrap_or_default();
            let is_of_an_id = |c: char| c.is_ascii_hexdigit() || c == '-';
            x.keyword() == "node"
                && x.rcodes() == (NOERROR, NXDOMAIN)
                && labels
                    .first()
                    .is_some_and(|label| label.len() > 1 && label.chars().all(is_of_an_id))
        },
    },
    Deviation {
        name: "an alias is the answer to CNAME",
        because: "RFC 1034, 3.6.2: Consul gives nodes whose address is a name no CNAME for CNAME",
        parts: &[Answers],
        holds: |x, d| {
            x.rtype() == rtype::CNAME
                && x.keyword() == "node"
                && d.theirs.is_empty()
                && d.ours.len() == 1
        },
    },
    Deviation {
        name: "TXT is served as it was registered",
        because: "Consul's DNS library takes backslashes in it for its own",
        parts: &[Answers],
        holds: |_, d| {
            let bare = |texts: &[String]| texts.concat().replace('\\', "");
            bare(&d.theirs) == bare(&d.ours)
        },
    },
    Deviation {
        name: "a tagged address has to be one of its family",
        because: "Consul answers A with an alias to `10.0.0.17.` if lan_ipv6 says 10.0.0.17",
        parts: &[Answers],
        holds: |x, _| x.query.name.to_lowercase().contains("badtag"),
    },
    Deviation {
        name: "blanks and other bytes can be asked for",
        because: "section 1.5: Consul compares with its library's escapes and finds nothing",
        parts: &[Rcode, Answers, Authority, Glue],
        holds: |x, _| x.query.name.contains('\\') && x.rcodes() == (NXDOMAIN, NOERROR),
    },
    Deviation {
        name: "a service without a name does not exist",
        because: "Consul says SERVFAIL, for its own API refuses the question",
        parts: &[Rcode],
        holds: |x, _| x.rcodes() == (SERVFAIL, NXDOMAIN) && x.owner().starts_with("_."),
    },
    Deviation {
        name: "TTL tables in any case",
        because: "section 2.5: Consul finds no key that has capitals",
        parts: &[Ttl],
        holds: |x, d| {
            x.query.name.to_lowercase().starts_with("upperttl.")
                && ttls_are(d, |theirs, ours| (theirs, ours) == (1, 3))
        },
    },
];
