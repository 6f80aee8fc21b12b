//! Upstreams that say odd things. Each row has what Unbound 1.17 makes of it, measured here, and what
//! Portolan does.

use crate::{
    scripts::{Reply, TC, a, cname, name, of_class, question, record, soa},
    servers::{Server, launch},
    support::{
        dns::Query,
        portolan::Portolan,
        upstream::{Action, Transport, Upstream},
        wire::{self, rcode, rtype},
    },
};
use hickory_proto::op::Message;
use std::time::Duration;

/// How long a resolver may take: Unbound asks five times.
const PATIENCE: Duration = Duration::from_secs(15);

type Script = fn(&Message, Transport) -> Action;

/// An odd upstream, and what comes of it.
struct Row {
    what: &'static str,
    /// The first label of the name that is asked for.
    asked: &'static str,
    rtype: u16,
    says: Script,
    unbound: &'static str,
    ours: &'static str,
}

/// The domain of all names here.
const DOMAIN: &str = "odd.example.com";

fn full(label: &str) -> String {
    format!("{label}.{DOMAIN}.")
}

fn raw(reply: &Reply) -> Action {
    Action::Raw(reply.bytes())
}

/// The name that was asked for.
fn asked(query: &Message) -> String {
    query.queries[0].name().to_ascii().to_lowercase()
}

fn good(query: &Message) -> Reply {
    Reply::to(query).answer(a(&asked(query), 60, 1))
}

/// The aliases of a name, from the `first` one on.
fn chain(query: &Message, of: &str, first: usize, links: usize) -> Reply {
    let mut reply = Reply::to(query);
    let link = |at: usize| match at {
        0 => full(of),
        at => full(&format!("{of}-{at}")),
    };
    for at in first..links {
        reply = reply.answer(cname(&link(at), &link(at + 1)));
    }
    reply.answer(a(&link(links), 60, 1))
}

/// What is said of the names that aliases of the rows lead to.
fn behind(query: &Message, label: &str) -> Action {
    let place = |of: &str| label.strip_prefix(of)?.strip_prefix('-')?.parse().ok();
    match (place("shuffled"), place("twelve"), label) {
        (Some(first), _, _) => raw(&chain(query, "shuffled", first, 3)),
        (_, Some(first), _) => raw(&chain(query, "twelve", first, 12)),
        (_, _, "one") => raw(&Reply::to(query).answer(a(&asked(query), 60, 1))),
        (_, _, "two") => raw(&Reply::to(query).answer(a(&asked(query), 60, 2))),
        (_, _, "circle2") => raw(&Reply::to(query).answer(cname(&asked(query), &full("circle")))),
        _ if is_of_the_longest(label) => match usize::from_str_radix(label, 36) {
            Ok(first) => raw(&very_long_chain(query, first, 2700)),
            Err(_) => raw(&good(query)),
        },
        _ => raw(&good(query)),
    }
}

/// Is it a name of the chain of 2,700? They have three digits, most of which are letters.
fn is_of_the_longest(label: &str) -> bool {
    label.len() == 3 && label != "one" && label != "two"
}

/// As many aliases as fit into a message.
fn very_long_chain(query: &Message, first: usize, links: usize) -> Reply {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // The domain stands in the question, behind the first label.
    let domain = 12 + 1 + u16::from(name(&asked(query))[0]);
    let link = |at: usize| -> Vec<u8> {
        let digits = [at / 1296 % 36, at / 36 % 36, at % 36].map(|digit| DIGITS[digit]);
        [&[3][..], &digits, &(0xC000 | domain).to_be_bytes()].concat()
    };
    let mut reply = Reply::to(query);
    for at in first..links {
        let owner = if at == first {
            vec![0xC0, 12]
        } else {
            link(at)
        };
        reply = reply.answer(of_class(1, &owner, rtype::CNAME, 60, &link(at + 1)));
    }
    reply.answer(of_class(1, &link(links), rtype::A, 60, &[192, 0, 2, 1]))
}

const ROWS: &[Row] = &[
    Row {
        what: "a header alone that says FORMERR, to EDNS",
        asked: "formerr",
        rtype: rtype::A,
        says: |query, _| match query.edns {
            Some(_) => Action::Raw(Reply::to(query).rcode(rcode::FORMERR).header()),
            None => raw(&good(query)),
        },
        unbound: "NOERROR; formerr 60 A 192.0.2.1",
        ours: "NOERROR; formerr 60 A 192.0.2.1",
    },
    Row {
        what: "a header alone that says SERVFAIL",
        asked: "servfail",
        rtype: rtype::A,
        says: |query, _| Action::Raw(Reply::to(query).rcode(rcode::SERVFAIL).header()),
        unbound: "SERVFAIL",
        ours: "SERVFAIL",
    },
    Row {
        what: "a header alone that says REFUSED",
        asked: "refused",
        rtype: rtype::A,
        says: |query, _| Action::Raw(Reply::to(query).rcode(rcode::REFUSED).header()),
        unbound: "SERVFAIL",
        ours: "SERVFAIL",
    },
    Row {
        what: "an answer without a question",
        asked: "unasked",
        rtype: rtype::A,
        says: |query, _| {
            let mut reply = good(query);
            reply.question.clear();
            raw(&reply)
        },
        unbound: "SERVFAIL",
        ours: "SERVFAIL",
    },
    Row {
        what: "an answer to another question",
        asked: "other",
        rtype: rtype::A,
        says: |query, _| {
            let mut reply = good(query);
            reply.question = question(&full("another"), rtype::A, 1);
            raw(&reply)
        },
        unbound: "SERVFAIL",
        ours: "SERVFAIL",
    },
    Row {
        what: "an answer with another id",
        asked: "id",
        rtype: rtype::A,
        says: |query, _| {
            let id = query.metadata.id.wrapping_add(1);
            raw(&good(query).id(id))
        },
        unbound: "SERVFAIL",
        ours: "SERVFAIL",
    },
    Row {
        what: "records of other names beside the answer",
        asked: "foreign",
        rtype: rtype::A,
        says: |query, _| {
            let reply = good(query)
                .answer(a("www.bank.example", 60, 66))
                .answer(cname("mail.bank.example", "evil.example"))
                .authority(record(
                    "bank.example",
                    rtype::NS,
                    60,
                    &name("ns.evil.example"),
                ));
            raw(&reply)
        },
        unbound: "NOERROR; foreign 60 A 192.0.2.1",
        ours: "NOERROR; foreign 60 A 192.0.2.1",
    },
    Row {
        what: "two aliases for one name",
        asked: "twice",
        rtype: rtype::A,
        says: |query, _| {
            let reply = Reply::to(query)
                .answer(cname(&asked(query), &full("one")))
                .answer(cname(&asked(query), &full("two")))
                .answer(a(&full("one"), 60, 1))
                .answer(a(&full("two"), 60, 2));
            raw(&reply)
        },
        unbound: "NOERROR; twice 60 CNAME one; one 60 A 192.0.2.1",
        ours: "NOERROR; twice 60 CNAME one; one 60 A 192.0.2.1",
    },
    Row {
        what: "a chain in another order",
        asked: "shuffled",
        rtype: rtype::A,
        says: |query, _| {
            let mut reply = chain(query, "shuffled", 0, 3);
            reply.answers.reverse();
            raw(&reply)
        },
        unbound: "NOERROR; shuffled 60 CNAME shuffled-1; shuffled-1 60 CNAME shuffled-2; shuffled-2 60 CNAME shuffled-3; shuffled-3 60 A 192.0.2.1",
        ours: "NOERROR; shuffled 60 CNAME shuffled-1; shuffled-1 60 CNAME shuffled-2; shuffled-2 60 CNAME shuffled-3; shuffled-3 60 A 192.0.2.1",
    },
    Row {
        what: "12 aliases",
        asked: "twelve",
        rtype: rtype::A,
        says: |query, _| raw(&chain(query, "twelve", 0, 12)),
        unbound: "SERVFAIL",
        ours: "NOERROR; 13 records, the last one twelve-12 60 A 192.0.2.1",
    },
    Row {
        what: "aliases in a circle",
        asked: "circle",
        rtype: rtype::A,
        says: |query, _| {
            let (first, second) = (full("circle"), full("circle2"));
            raw(&Reply::to(query)
                .answer(cname(&first, &second))
                .answer(cname(&second, &first)))
        },
        unbound: "SERVFAIL",
        ours: "NOERROR; circle 60 CNAME circle2; circle2 60 CNAME circle",
    },
    Row {
        what: "an alias of itself",
        asked: "self",
        rtype: rtype::A,
        says: |query, _| raw(&Reply::to(query).answer(cname(&full("self"), &full("self")))),
        unbound: "SERVFAIL",
        ours: "NOERROR; self 60 CNAME self",
    },
    Row {
        what: "2,700 aliases",
        asked: "longest",
        rtype: rtype::A,
        says: |query, transport| match transport {
            Transport::Udp => Action::Truncated,
            Transport::Tcp => raw(&very_long_chain(query, 0, 2700)),
        },
        unbound: "SERVFAIL",
        ours: "NOERROR; 2701 records, the last one 230 60 A 192.0.2.1",
    },
    Row {
        what: "a TTL of 2^31",
        asked: "ttl31",
        rtype: rtype::A,
        says: |query, _| raw(&Reply::to(query).answer(a(&asked(query), 1 << 31, 1))),
        unbound: "NOERROR; ttl31 0 A 192.0.2.1",
        ours: "NOERROR; ttl31 0 A 192.0.2.1",
    },
    Row {
        what: "a TTL of 2^32 - 1",
        asked: "ttl32",
        rtype: rtype::A,
        says: |query, _| raw(&Reply::to(query).answer(a(&asked(query), u32::MAX, 1))),
        unbound: "NOERROR; ttl32 0 A 192.0.2.1",
        ours: "NOERROR; ttl32 0 A 192.0.2.1",
    },
    Row {
        what: "a TTL of a year",
        asked: "year",
        rtype: rtype::A,
        says: |query, _| raw(&Reply::to(query).answer(a(&asked(query), 31_536_000, 1))),
        unbound: "NOERROR; year 86400 A 192.0.2.1",
        ours: "NOERROR; year 604800 A 192.0.2.1",
    },
    Row {
        what: "an SOA whose timers are 2^31 and more",
        asked: "timers",
        rtype: rtype::A,
        says: |query, _| {
            let timers = [u32::MAX, 1 << 31, u32::MAX, 1 << 31, u32::MAX];
            raw(&Reply::to(query)
                .rcode(rcode::NXDOMAIN)
                .authority(soa(DOMAIN, 60, timers)))
        },
        unbound: "NXDOMAIN; odd.example.com 60 SOA ns.test admin.test 4294967295 2147483648 4294967295 21474836…",
        ours: "NXDOMAIN; odd.example.com 60 SOA ns.test admin.test 4294967295 2147483648 4294967295 21474836…",
    },
    Row {
        what: "NODATA with NS and without SOA",
        asked: "referral",
        rtype: rtype::A,
        says: |query, _| {
            let ns = record(DOMAIN, rtype::NS, 60, &name(&full("ns")));
            raw(&Reply::to(query).authority(ns))
        },
        unbound: "NOERROR; odd.example.com 60 NS ns",
        ours: "NOERROR",
    },
    Row {
        what: "NXDOMAIN without SOA",
        asked: "bare",
        rtype: rtype::A,
        says: |query, _| raw(&Reply::to(query).rcode(rcode::NXDOMAIN)),
        unbound: "NXDOMAIN",
        ours: "NXDOMAIN",
    },
    Row {
        what: "NXDOMAIN with the SOA of another zone",
        asked: "alien",
        rtype: rtype::A,
        says: |query, _| {
            let soa = soa("bank.example", 60, [1, 2, 3, 4, 60]);
            raw(&Reply::to(query).rcode(rcode::NXDOMAIN).authority(soa))
        },
        unbound: "NXDOMAIN; bank.example 60 SOA ns.test admin.test 1 2 3 4 60",
        ours: "NXDOMAIN; bank.example 60 SOA ns.test admin.test 1 2 3 4 60",
    },
    Row {
        what: "4,000 bytes over UDP where 1,232 were asked for",
        asked: "large",
        rtype: rtype::A,
        says: |query, transport| {
            let mut reply = Reply::to(query);
            let records = if transport == Transport::Udp { 100 } else { 1 };
            for last in 0..records {
                reply = reply.answer(a(&asked(query), 60, last));
            }
            raw(&reply)
        },
        unbound: "NOERROR; 100 records",
        ours: "NOERROR; 100 records",
    },
    Row {
        what: "an answer that is cut in the middle over UDP",
        asked: "cut",
        rtype: rtype::A,
        says: |query, transport| {
            let mut bytes = good(query).bytes();
            if transport == Transport::Udp {
                bytes.truncate(bytes.len() - 7);
            }
            Action::Raw(bytes)
        },
        unbound: "SERVFAIL",
        ours: "NOERROR; cut 60 A 192.0.2.1",
    },
    Row {
        what: "an answer that is cut in the middle, always",
        asked: "cuts",
        rtype: rtype::A,
        says: |query, _| {
            let mut bytes = good(query).bytes();
            bytes.truncate(bytes.len() - 7);
            Action::Raw(bytes)
        },
        unbound: "SERVFAIL",
        ours: "SERVFAIL",
    },
    Row {
        what: "bytes behind the last record",
        asked: "behind",
        rtype: rtype::A,
        says: |query, _| {
            let mut reply = good(query);
            reply.rest = b"and more".to_vec();
            raw(&reply)
        },
        unbound: "NOERROR; behind 60 A 192.0.2.1",
        ours: "NOERROR; behind 60 A 192.0.2.1",
    },
    Row {
        what: "an answer of another class",
        asked: "chaos",
        rtype: rtype::A,
        says: |query, _| {
            let mut reply = Reply::to(query);
            reply.question = question(&asked(query), rtype::A, 3);
            raw(&reply.answer(of_class(
                3,
                &name(&asked(query)),
                rtype::A,
                60,
                &[192, 0, 2, 1],
            )))
        },
        unbound: "SERVFAIL",
        ours: "SERVFAIL",
    },
    Row {
        what: "a record of another class beside the answer",
        asked: "mixed",
        rtype: rtype::A,
        says: |query, _| {
            let chaos = of_class(3, &name(&asked(query)), rtype::TXT, 60, b"\x01x");
            raw(&good(query).answer(chaos))
        },
        unbound: "NOERROR; mixed 60 A 192.0.2.1",
        ours: "NOERROR; mixed 60 A 192.0.2.1",
    },
    Row {
        what: "a type that nobody knows, whose data looks like a pointer",
        asked: "unknown",
        rtype: 65_280,
        says: |query, _| {
            raw(&Reply::to(query).answer(record(&asked(query), 65_280, 60, b"\xc0\x0c\x00")))
        },
        unbound: "NOERROR; unknown 60 TYPE65280 c00c00",
        ours: "NOERROR; unknown 60 TYPE65280 c00c00",
    },
    Row {
        what: "an address of three bytes",
        asked: "short",
        rtype: rtype::A,
        says: |query, _| {
            raw(&Reply::to(query).answer(record(&asked(query), rtype::A, 60, &[192, 0, 2])))
        },
        unbound: "a reply that the test cannot read, or none",
        ours: "a reply that the test cannot read, or none",
    },
    Row {
        what: "two OPT records",
        asked: "opts",
        rtype: rtype::A,
        says: |query, _| {
            let mut reply = good(query);
            let opt = of_class(1232, &[0], rtype::OPT, 0, &[]);
            reply.additional = vec![opt.clone(), opt];
            raw(&reply)
        },
        unbound: "NOERROR; opts 60 A 192.0.2.1",
        ours: "NOERROR; opts 60 A 192.0.2.1",
    },
    Row {
        what: "TC over TCP as well",
        asked: "tc",
        rtype: rtype::A,
        says: |query, _| {
            let mut reply = Reply::to(query);
            reply.flags |= TC;
            raw(&reply)
        },
        unbound: "SERVFAIL",
        ours: "SERVFAIL",
    },
];

/// What a resolver says, in one line.
fn told(resolver: std::net::SocketAddr, row: &Row) -> String {
    let query = Query::new(&full(row.asked), row.rtype)
        .edns(4096)
        .tcp()
        .patience(PATIENCE);
    let Ok(reply) = query.try_ask(resolver) else {
        return "a reply that the test cannot read, or none".to_owned();
    };
    let label = |name: &str| {
        name.trim_end_matches('.')
            .replace(&format!(".{DOMAIN}"), "")
    };
    let tell = |record: &wire::Record| {
        let data = record
            .data
            .split(' ')
            .map(label)
            .collect::<Vec<_>>()
            .join(" ");
        let data = if data.len() > 60 {
            format!("{}…", &data[..60])
        } else {
            data
        };
        format!(
            "{} {} {} {data}",
            label(&record.name),
            record.ttl,
            rtype::name(record.rtype)
        )
    };
    let mut records: Vec<String> = reply.answers.iter().map(tell).collect();
    // Where addresses stand is the resolver's own affair.
    let is_chain = reply
        .answers
        .iter()
        .any(|record| record.rtype == rtype::CNAME);
    if records.len() > 6 {
        let last = records.last().filter(|_| is_chain);
        let last = last.map_or_else(String::new, |last| format!(", the last one {last}"));
        records = vec![format!("{} records{last}", records.len())];
    }
    let soa = reply.authority.iter().map(tell);
    let told = [vec![rcode::name(reply.rcode())], records, soa.collect()].concat();
    told.join("; ")
}

#[test]
fn what_is_made_of_odd_upstreams() {
    let upstream = Upstream::start(|query, transport| {
        let name = asked(query);
        let label = name.split('.').next().unwrap_or_default();
        let of_row = |row: &&Row| row.asked == label;
        match ROWS.iter().find(of_row) {
            Some(row) => (row.says)(query, transport),
            None if is_of_the_longest(label) && transport == Transport::Udp => Action::Truncated,
            None => behind(query, label),
        }
    });
    let unbound = Server::unbound(upstream.address(), "");
    let portolan = launch(&[upstream.address()])
        .env("RUST_LOG", "info")
        .start();
    let before = portolan.log();
    let mut wrong = Vec::new();
    for row in ROWS {
        let (theirs, ours) = (told(unbound.address, row), told(portolan.dns(), row));
        // So that the upstream does not fail thrice in a row, which is told of it.
        let well = Query::new(&full(&format!("after-{}", row.asked)), rtype::A);
        assert_eq!(
            well.ask(portolan.dns()).rcode(),
            rcode::NOERROR,
            "after {}",
            row.what
        );
        if theirs != row.unbound {
            wrong.push(format!(
                "{}: Unbound says {theirs:?}, not {:?}",
                row.what, row.unbound
            ));
        }
        if ours != row.ours {
            wrong.push(format!("{}: we say {ours:?}, not {:?}", row.what, row.ours));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // No reply, however odd, is worth a line of the log; each is counted.
    assert_eq!(portolan.log(), before);
    counted(&portolan);
}

fn counted(portolan: &Portolan) {
    let metrics = portolan.metrics();
    for (name, label) in [
        ("portolan_recursion_odd_replies_total", "cause=\"other_id\""),
        (
            "portolan_recursion_odd_replies_total",
            "cause=\"other_question\"",
        ),
        (
            "portolan_recursion_odd_replies_total",
            "cause=\"unreadable\"",
        ),
        ("portolan_recursion_queries_total", "outcome=\"servfail\""),
        ("portolan_recursion_queries_total", "outcome=\"refused\""),
        ("portolan_recursion_queries_total", "outcome=\"timeout\""),
    ] {
        let of_label = |(key, _): &(&String, &f64)| key.starts_with(name) && key.contains(label);
        let count = metrics
            .iter()
            .find(of_label)
            .map_or(0.0, |(_, value)| *value);
        assert!(count > 0.0, "{name} {label}: {metrics:#?}");
    }
}
