//! Where answers differ from those of newer Consuls, recorded of 1.16.4.

use super::Deviation;
use crate::{
    judge::{data_of, is_nodata, texts},
    support::{
        compare::Part::{Aa, Answers, Authority, Edns, Extras, Glue, Rcode},
        wire::{
            rcode::{NOERROR, NXDOMAIN, SERVFAIL},
            rtype,
        },
    },
};

pub(super) const LIST: &[Deviation] = &[
    Deviation {
        name: "OPT stays where an answer is cut",
        because: "RFC 6891, 6.1.1: who sends OPT gets one back, which may take the room of an answer; Consul \
                  drops it with what it cuts",
        parts: &[Edns, Answers],
        holds: |x, d| {
            let is_dropped = x.query.payload_size().is_some() && x.theirs.opt().is_none();
            let has_its_room = || {
                let theirs = texts(&x.theirs.answers);
                x.ours_is_cut()
                    && x.ours.answers.len() + 1 == theirs.len()
                    && theirs.iter().all(|text| x.all_of_ours().contains(text))
            };
            is_dropped && x.theirs_is_cut() && (d.part == Edns || has_its_room())
        },
    },
    Deviation {
        name: "no address beside another type of `.addr`",
        because: "row 4: NODATA, where Consul puts the address in Additional",
        parts: &[Glue],
        holds: |x, d| x.keyword() == "addr" && is_nodata(&x.ours) && d.ours.is_empty(),
    },
    Deviation {
        name: "AA is set for names of ours",
        because: "RFC 1035, 4.1.1: what is not ours has no authority of ours; Consul passes on what its \
                  recursor said",
        parts: &[Aa],
        holds: |x, _| x.labels().is_none() && x.theirs.aa() && !x.ours.aa(),
    },
    Deviation {
        name: "long metadata is sent as far as it fits",
        because: "Consul cannot pack its own answer, and sends nothing but where it has to cut it",
        parts: &[Answers, Edns],
        holds: |x, d| {
            x.all_of_theirs().is_empty()
                && d.theirs.iter().all(|text| text == "none")
                && texts(&x.theirs.answers)
                    .iter()
                    .all(|text| x.all_of_ours().contains(text))
        },
    },
    Deviation {
        name: "a place is named once",
        because: "`.dc1.dc.dc1.dc` and the like are no names: NXDOMAIN, where Consul takes one of them",
        parts: &[Rcode, Answers, Authority, Glue, Extras],
        holds: |x, _| {
            let labels = x.labels().unwrap_or_default();
            let is_place = |label: &&String| matches!(label.as_str(), "dc" | "peer");
            x.ours.rcode() == NXDOMAIN && labels.iter().filter(is_place).count() > 1
        },
    },
    Deviation {
        name: "the mesh of a peer is the peer's",
        because: "Consul shows its own proxies and gateways under the name of any peer; here `.connect` has \
                  those of the peer, and `.ingress` nothing, since no peer exports its gateways",
        parts: &[Rcode, Answers, Authority, Glue, Extras],
        holds: |x, _| {
            let labels = x.labels().unwrap_or_default();
            let of_the_peer =
                |text: &String| text.starts_with("10.90.") || text.contains(" 0a5a0002.addr.");
            matches!(x.keyword().as_str(), "connect" | "ingress")
                && labels.last().is_some_and(|label| label == "peer")
                && (x.ours.rcode() == NXDOMAIN || data_of(&x.ours).iter().all(of_the_peer))
        },
    },
    Deviation {
        name: "what may not be seen does not exist",
        because: "Consul says SERVFAIL for `.connect` and `.virtual` of a service that its token may not read, \
                  and NXDOMAIN for all else",
        parts: &[Rcode],
        holds: |x, _| {
            x.rcodes() == (SERVFAIL, NXDOMAIN)
                && matches!(x.keyword().as_str(), "connect" | "virtual")
        },
    },
    Deviation {
        name: "what the mesh does not know does not exist",
        because: "Consul says NOERROR for `.virtual` of any name; here one that nobody has is NXDOMAIN",
        parts: &[Rcode],
        holds: |x, _| x.rcodes() == (NOERROR, NXDOMAIN) && x.keyword() == "virtual",
    },
    Deviation {
        name: "an address of the mesh is of type A",
        because: "row 4: NODATA for a type that it is not, where Consul answers with what it has",
        parts: &[Answers],
        holds: |x, _| x.keyword() == "virtual" && x.rtype() != rtype::A && is_nodata(&x.ours),
    },
];
