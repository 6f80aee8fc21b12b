//! Names that nobody thought of: made of the pieces of the grammar, and of any bytes.

use crate::{
    judge::Tally,
    questions::{EVERY, Way},
    start,
    support::{dns::Query, soak},
};
use proptest::{prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};
use std::time::Duration;

/// The longest name, in bytes on the wire.
const LONGEST_NAME: usize = 255;

/// What names are made of, between dots.
const KEYWORDS: &[&str] = &[
    "service", "node", "query", "addr", "connect", "ingress", "virtual",
];

/// What the world has, and what looks like it.
const KNOWN: &[&str] = &[
    "web",
    "api",
    "mesh",
    "hs",
    "multi",
    "n1",
    "n6",
    "UPPER",
    "dotted.node.name",
    "a.service",
    "pq-web",
    "pq.dotted",
    "geo-web",
    "tagged-web-primary",
    "outside",
    "alias",
    "chain1",
    "loopa",
    "0a010203",
    "fd000000000000000000000000010001",
    "_web",
    "_api",
    "_tcp",
    "_udp",
    "_primary",
    "primary",
    "ver.1.2",
    "nope",
    "my_svc",
    "_lead",
    "_",
    "*",
    "1234",
];

/// Names that have answers, but for their ends.
const FRONTS: &[&str] = &[
    "web.service",
    "primary.web.service",
    "_web._tcp.service",
    "_api._primary",
    "ver.1.2.api.service",
    "dual.service",
    "hs.service",
    "multi.service",
    "forty.service",
    "outdual.service",
    "alias.service",
    "chain1.service",
    "casesvc.service",
    "n1.node",
    "meta.node",
    "UPPER.node",
    "ext.node",
    "dual.node",
    "dotted.node.name.node",
    "pq-web.query",
    "pq-ttl.query",
    "geo-api.query",
    "tagged-web-primary.query",
    "mesh.connect",
    "native.connect",
    "web.ingress",
    "0a010203.addr",
    "fd000000000000000000000000010001.addr",
];

/// What may follow a keyword.
const PLACES: &[&str] = &[
    "dc1",
    "dc1.dc",
    "dc9",
    "dc9.dc",
    "peer1.peer",
    "default.ns",
    "default.ap",
    "x.sg",
    "http.port",
    "dc",
    "a.b",
    "a.b.c",
];

const DOMAINS: &[&str] = &["consul", "consul", "consul", "sd.example.org"];

type Labels = Vec<Vec<u8>>;

fn words(text: &str) -> Labels {
    text.split('.')
        .map(|label| label.as_bytes().to_vec())
        .collect()
}

fn one_of(pieces: &'static [&'static str]) -> impl Strategy<Value = Labels> {
    select(pieces).prop_map(words)
}

/// A label of letters that names are made of, or of any bytes.
fn label() -> impl Strategy<Value = Labels> {
    prop_oneof![
        3 => "[a-zA-Z0-9_-]{1,12}".prop_map(|text| vec![text.into_bytes()]),
        1 => prop::collection::vec(any::<u8>(), 1..=63).prop_map(|bytes| vec![bytes]),
        1 => "[ -~]{1,8}".prop_map(|text| vec![text.into_bytes()]),
    ]
}

fn some(
    strategy: impl Strategy<Value = Labels>,
    count: std::ops::RangeInclusive<usize>,
) -> impl Strategy<Value = Labels> {
    prop::collection::vec(strategy, count).prop_map(|pieces| pieces.concat())
}

/// A name as it should be: what is known, a keyword, perhaps a place.
fn proper() -> impl Strategy<Value = Labels> {
    let parts = (
        some(one_of(KNOWN), 0..=2),
        one_of(KEYWORDS),
        some(one_of(PLACES), 0..=1),
        one_of(DOMAINS),
    );
    parts.prop_map(|(left, keyword, place, domain)| [left, keyword, place, domain].concat())
}

/// A name that has answers, with perhaps something before it.
fn likely() -> impl Strategy<Value = Labels> {
    let before = prop_oneof![6 => Just(Labels::new()), 1 => one_of(KNOWN), 1 => label()];
    let place = prop_oneof![4 => Just(Labels::new()), 2 => Just(words("dc1")), 1 => one_of(PLACES)];
    let parts = (before, one_of(FRONTS), place, one_of(DOMAINS));
    parts.prop_map(|(before, front, place, domain)| [before, front, place, domain].concat())
}

/// Pieces in any order.
fn jumbled() -> impl Strategy<Value = Labels> {
    let piece = prop_oneof![
        3 => one_of(KNOWN),
        3 => one_of(KEYWORDS),
        2 => one_of(PLACES),
        2 => label(),
    ];
    (some(piece, 0..=6), one_of(DOMAINS)).prop_map(|(left, domain)| [left, domain].concat())
}

/// Any bytes, below the domain or where the domain is not.
fn wild() -> impl Strategy<Value = Labels> {
    let ends = prop_oneof![
        3 => one_of(DOMAINS),
        2 => (one_of(KEYWORDS), one_of(DOMAINS)).prop_map(|(k, d)| [k, d].concat()),
        1 => one_of(&["example.com", "notconsul", "in-addr.arpa", "ip6.arpa"]),
    ];
    (some(label(), 1..=4), ends).prop_map(|(left, end)| [left, end].concat())
}

/// Reverse names, whole, short, long and broken.
fn reverse() -> impl Strategy<Value = Labels> {
    let octet = prop_oneof![
        4 => (0..=12_u8).prop_map(|n| vec![n.to_string().into_bytes()]),
        1 => label(),
    ];
    (
        some(octet, 1..=5),
        one_of(&["10.in-addr.arpa", "in-addr.arpa"]),
    )
        .prop_map(|(left, end)| [left, end].concat())
}

/// A question: a name in any case, a type, a way.
fn question() -> impl Strategy<Value = Query> {
    let name =
        prop_oneof![6 => likely(), 4 => proper(), 4 => jumbled(), 3 => wild(), 1 => reverse()];
    let short = |labels: &Labels| labels.iter().map(|l| l.len() + 1).sum::<usize>() < LONGEST_NAME;
    let way = select(&[Way::Plain, Way::Edns(1232), Way::Edns(4096), Way::Tcp][..]);
    let parts = (
        name.prop_filter("it fits", short),
        any::<u64>(),
        select(EVERY),
        way,
    );
    parts.prop_map(|(mut labels, case, rtype, way)| {
        for (at, byte) in labels.iter_mut().flatten().enumerate() {
            if case >> (at % 64) & 3 == 3 && byte.is_ascii_alphabetic() {
                *byte ^= 0x20;
            }
        }
        way.query(&presentation(&labels), rtype)
    })
}

/// The name as `Reply` prints it, without the last dot.
fn presentation(labels: &Labels) -> String {
    let escaped = |byte: &u8| match byte {
        b'.' | b'\\' => format!("\\{}", char::from(*byte)),
        b'!'..=b'~' => char::from(*byte).to_string(),
        byte => format!("\\{byte:03}"),
    };
    let text = |label: &Vec<u8>| label.iter().map(escaped).collect::<String>();
    labels.iter().map(text).collect::<Vec<_>>().join(".")
}

#[test]
fn any_name_is_answered_as_consul_answers_it() {
    let (portolan, consul, _upstream) = start();
    // Always the same names in a plain run: what fails here fails everywhere. A long one finds others.
    let is_long = soak(Duration::ZERO, Duration::MAX) > Duration::ZERO;
    let (count, mut runner) = if is_long {
        (40_000, TestRunner::default())
    } else {
        (2_000, TestRunner::deterministic())
    };
    let questions = question();
    let mut tally = Tally::default();
    for _ in 0..count {
        let tree = questions.new_tree(&mut runner).expect("a question");
        tally.ask(&tree.current(), &consul.dns(), portolan.dns());
    }
    tally.conclude("generated");
}
