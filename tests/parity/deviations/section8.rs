//! Section 8 of the reference: where matching Consul would be wrong.

use super::{Deviation, ttls_are};
use crate::{
    judge::is_nodata,
    model,
    support::{
        compare::Part::{Answers, Authority, Edns, Extras, Glue, Rcode, Tc, Ttl},
        wire::{
            rcode::{NOERROR, NXDOMAIN, SERVFAIL},
            rtype,
        },
    },
};

pub(super) const LIST: &[Deviation] = &[
    Deviation {
        name: "more fits, and a cut is told",
        because: "row 1, D6, D7: Consul sends 3 answers where 512 bytes hold more, any others each \
                  time, and never sets TC",
        parts: &[Answers, Glue, Extras, Tc],
        holds: |x, d| match d.part {
            Tc => x.ours.tc() && x.rtype() == rtype::SRV && x.ours_is_cut(),
            // What is left of the glue follows what is left of the answers.
            Glue | Extras => {
                let theirs_is_a_part =
                    || !d.theirs.is_empty() && is_part_of(&d.theirs, &x.all_glue_of_ours());
                (x.theirs_is_cut() || x.ours_is_cut() || theirs_is_a_part())
                    && x.glue_is_of_answers()
            }
            _ => {
                (x.theirs_is_cut() || x.ours_is_cut())
                    // What Consul has of an alias's target is cut even by TCP, any part each time.
                    && (x.all_of_theirs() == x.all_of_ours()
                        || !d.theirs.is_empty()
                            && is_part_of(x.all_of_theirs(), x.all_of_ours())
                            && is_part_of(&d.theirs, x.all_of_ours()))
                    && x.ours.answers.len() >= x.theirs.answers.len()
            }
        },
    },
    Deviation {
        name: "a name above others exists",
        because: "row 2, RFC 8020: NODATA; a resolver that minimises names would stop at Consul's \
                  NXDOMAIN",
        parts: &[Rcode],
        holds: |x, _| {
            x.rcodes() == (NXDOMAIN, NOERROR)
                && is_nodata(&x.ours)
                && x.labels()
                    .is_some_and(|labels| model::is_above_others(&labels))
        },
    },
    Deviation {
        name: "a name with SRV records exists",
        because: "row 2, RFC 2308: NODATA; a resolver that remembers Consul's NXDOMAIN for \
                  `_web._tcp.consul A` denies the SRV as well",
        parts: &[Rcode],
        holds: |x, _| {
            x.rcodes() == (NXDOMAIN, NOERROR)
                && is_nodata(&x.ours)
                && x.rtype() != rtype::SRV
                && !x.ours_for(rtype::SRV).answers.is_empty()
        },
    },
    Deviation {
        name: "an unknown node does not exist",
        because: "row 3: NXDOMAIN for every type, where Consul says NOERROR for all but addresses",
        parts: &[Rcode],
        holds: |x, _| {
            x.rcodes() == (NOERROR, NXDOMAIN)
                && x.keyword() == "node"
                && x.theirs_for(rtype::A).rcode() == NXDOMAIN
        },
    },
    Deviation {
        name: "a SOA in every negative answer",
        because: "row 3, RFC 2308: without it nobody may remember the answer",
        parts: &[Authority],
        holds: |x, d| {
            d.theirs.is_empty()
                && x.ours.answers.is_empty()
                && matches!(&d.ours[..], [soa] if soa.contains(" soa "))
        },
    },
    Deviation {
        name: "no addresses for TXT of a service",
        because: "row 4: NODATA, where Consul puts A records in the answer",
        parts: &[Answers],
        holds: |x, d| {
            x.rtype() == rtype::TXT
                && x.keyword() != "node"
                && is_nodata(&x.ours)
                && d.theirs.iter().all(|text| !text.contains(" txt "))
        },
    },
    Deviation {
        name: "no A record for AAAA of `.addr`",
        because: "row 4: NODATA for a type that it is not, where Consul answers with what it has",
        parts: &[Answers],
        holds: |x, _| {
            x.keyword() == "addr"
                && is_nodata(&x.ours)
                && x.theirs.answers.iter().all(|r| r.rtype != x.rtype())
        },
    },
    Deviation {
        name: "both families of an SRV target",
        because: "row 6, D21: Consul prefers IPv6 and leaves IPv4 clients with nothing",
        parts: &[Glue],
        holds: |x, d| d.theirs.is_empty() && x.rtype() == rtype::SRV && x.glue_is_of_answers(),
    },
    Deviation {
        name: "recursion remembers",
        because: "row 7: answers come from a cache, with the time they have left",
        parts: &[Ttl],
        holds: |x, d| {
            let of_others = |text: &String| text.contains("example.com. ");
            (x.labels().is_none() || d.ours.iter().all(of_others))
                && ttls_are(d, |theirs, ours| ours <= theirs)
        },
    },
    Deviation {
        name: "a failure that is remembered says so",
        because: "row 7, RFC 8914: the Extended DNS Error 13, Cached Error, of names that are not ours",
        parts: &[Edns],
        holds: |x, d| {
            x.labels().is_none()
                && x.rcodes() == (SERVFAIL, SERVFAIL)
                && d.ours
                    .iter()
                    .all(|text| text.ends_with("options [000f0002000d]"))
        },
    },
    Deviation {
        name: "an alias without the type asked says so to its end",
        because: "row 7, RFC 2308: the SOA of what an alias leads to is brought, where Consul's \
                  recursor did not bring it of itself",
        parts: &[Authority],
        holds: |x, d| {
            x.labels().is_none()
                && d.theirs.is_empty()
                && x.theirs.answers.iter().all(|r| r.rtype == rtype::CNAME)
        },
    },
    Deviation {
        name: "an alias brings the type asked",
        because: "row 9: Consul chases A whatever was asked, or IPv6 where there is both",
        parts: &[Answers],
        holds: |x, d| {
            let other = |text: &String| {
                let kind = text.split(' ').nth(1).unwrap_or_default();
                let own = rtype::name(x.rtype()).to_lowercase();
                match own.as_str() {
                    "any" => false,
                    // The alias itself is what was asked for; what it leads to is not.
                    "cname" => !text.starts_with(&x.owner()),
                    _ => matches!(kind, "a" | "aaaa") && kind != own,
                }
            };
            // Consul has no address at all where it did not come to the end.
            let came_to_the_end = match x.rtype() {
                rtype::AAAA => true,
                rtype::ANY => {
                    x.theirs.answers.iter().any(|r| r.is_address())
                        || d.ours.iter().all(|text| text.contains(" aaaa "))
                }
                _ => !d.theirs.is_empty(),
            };
            came_to_the_end
                && x.theirs.answers.iter().any(|r| r.rtype == rtype::CNAME)
                && d.theirs.iter().all(other)
                && d.ours.iter().all(|text| !other(text))
        },
    },
    Deviation {
        name: "nothing but addresses in Additional",
        because: "row 10, D8: HAProxy's parser loses what follows a TXT record",
        parts: &[Extras],
        holds: |_, d| d.ours.is_empty() && d.theirs.iter().all(|text| text.contains(" txt ")),
    },
    Deviation {
        name: "an address of ours has a name and nothing else",
        because: "row 4: NODATA for a type that it is not, where Consul answers with the PTR record",
        parts: &[Answers],
        holds: |x, d| {
            x.is_reverse()
                && ![rtype::PTR, rtype::ANY].contains(&x.rtype())
                && is_nodata(&x.ours)
                && d.theirs.iter().all(|text| text.contains(" ptr "))
        },
    },
    Deviation {
        name: "reverse names live as long as nodes",
        because: "row 11: `node_ttl`, where Consul has 0",
        parts: &[Ttl],
        holds: |x, d| x.is_reverse() && ttls_are(d, |theirs, ours| theirs == 0 && ours == 5),
    },
];

/// Whether `whole` has all of `part`.
fn is_part_of(part: &[String], whole: &[String]) -> bool {
    part.iter().all(|text| whole.contains(text))
}
