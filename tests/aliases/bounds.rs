//! Chains that are long: they end, and cost no more than their length.

use crate::{
    support::{
        dns::Query,
        portolan::{Launch, Portolan},
        resources::cpu,
        upstream::{self, Action, Transport, Upstream},
        wire::{Record, Reply, rcode, rtype, rtype::A},
    },
    table::none_wrong,
    world::{CHAIN, MIXED, consul, house, leaked, upstream},
};
use hickory_proto::{op::Message, serialize::binary::BinEncodable};
use std::time::Duration;

/// Aliases that are followed, over all sources.
const MAX_STEPS: usize = 16;

/// The records from the `first` name of a chain to its end.
fn chain(first: usize, of: &Chain) -> Vec<String> {
    let names: Vec<String> = (first..=of.length).flat_map(of.names).collect();
    let (last, aliases) = names.split_last().expect("a chain has a name");
    let next = |n: usize| aliases.get(n + 1).unwrap_or(last);
    let aliases = aliases.iter().enumerate();
    let mut records: Vec<String> = aliases
        .map(|(n, name)| format!("{name} CNAME {}", next(n)))
        .collect();
    records.push(format!("{last} A {}", of.address));
    records
}

/// A chain of the world, whose names come one or two at a time.
struct Chain {
    length: usize,
    names: fn(usize) -> Vec<String>,
    address: &'static str,
}

const IN_THE_ZONE: Chain = Chain {
    length: CHAIN,
    names: |n| vec![format!("c{n}.corp.example.")],
    address: "10.9.9.20",
};

const TO_AND_FRO: Chain = Chain {
    length: MIXED,
    names: |n| match n {
        MIXED => vec![format!("m{n}.corp.example.")],
        _ => vec![
            format!("m{n}.corp.example."),
            format!("m{n}.service.consul."),
        ],
    },
    address: "10.9.9.13",
};

fn judge(reply: &Reply, expected: &[String]) -> Result<(), String> {
    let found: Vec<String> = reply.answers.iter().map(Record::without_ttl).collect();
    let all = expected.len() <= MAX_STEPS;
    // Whether the last alias is told whose target was not looked at any more is not said anywhere.
    let enough = [MAX_STEPS, MAX_STEPS + 1].contains(&found.len()) && expected.starts_with(&found);
    let right = if all { found == expected } else { enough };
    let is_fine = right && reply.rcode() == rcode::NOERROR && !reply.tc();
    if is_fine {
        Ok(())
    } else {
        Err(reply.summary())
    }
}

/// However a chain runs, sixteen steps of it are gone, and what was found is the answer.
#[test]
fn a_long_chain_ends() {
    let (consul, upstream) = (consul(), upstream());
    let house = house(&consul.url(), Some(&upstream), true);
    let mut wrong = Vec::new();
    // The first of each is too long by some, the second just short enough.
    for (of, first) in [
        (&IN_THE_ZONE, 1),
        (&IN_THE_ZONE, 5),
        (&TO_AND_FRO, 1),
        (&TO_AND_FRO, 6),
    ] {
        let name = &(of.names)(first)[0];
        for query in [Query::new(name, A).edns(1232), Query::new(name, A).tcp()] {
            for query in [query.clone(), query.no_recursion()] {
                let judged = query
                    .try_ask(house.dns())
                    .and_then(|reply| judge(&reply, &chain(first, of)));
                wrong.extend(judged.err().map(|said| format!("{query}: {said}")));
            }
        }
    }
    wrong.extend(leaked(&upstream));
    none_wrong(&wrong);
}

/// As many aliases as one message takes.
const MANY: usize = 2700;

/// A tenth of them.
const FEW: usize = 270;

/// Ten times is in proportion, less what every answer costs. Where each alias is looked for among all
/// others it is 36 times.
const AT_MOST: u32 = 20;

/// An upstream that answers `0000.LINKS.N.test.` with that many aliases, the last one first, and an
/// address. They are bytes of our own: no name is written twice, so that the most fit.
fn backwards(query: &Message, transport: Transport) -> Action {
    if transport == Transport::Udp {
        return Action::Truncated;
    }
    let question = upstream::question(query);
    let name = question.name.to_ascii();
    let links = name.split('.').nth(1).and_then(|links| links.parse().ok());
    let links: usize = links.expect("a name of the test");
    let mut bytes = query.metadata.id.to_be_bytes().to_vec();
    let answers = u16::try_from(links + 1).expect("not too many");
    for field in [0x8180, 1, answers, 0, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(question.to_bytes().expect("a question of the test"));
    // A label of four digits, and a pointer to what stands behind the question's first one.
    let name = |n: usize| {
        let mut name = vec![4];
        name.extend(format!("{n:04}").into_bytes());
        name.extend([0xc0, 12 + 5]);
        name
    };
    for n in (0..links).rev() {
        bytes.extend(name(n));
        bytes.extend([0, 5, 0, 1, 0, 0, 0, 0, 0, 7]);
        bytes.extend(name(n + 1));
    }
    bytes.extend(name(links));
    bytes.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 7]);
    Action::Raw(bytes)
}

/// Asks for the chain that nobody has asked for before, `n`; gives what it cost.
fn cost(portolan: &Portolan, links: usize, n: usize) -> Duration {
    let before = cpu(portolan.pid());
    let query = Query::new(&format!("0000.{links}.{n}.test."), A).tcp();
    let reply = query.ask(portolan.dns());
    let took = cpu(portolan.pid()) - before;
    let (rcode, found) = (rcode::name(reply.rcode()), reply.answers.len());
    let expected = ("NOERROR".to_owned(), links + 1);
    assert_eq!((rcode, found), expected, "{query}: rcode, records");
    for (at, record) in reply.answers.iter().enumerate() {
        let owner = format!("{at:04}.{links}.{n}.test.");
        let kind = if at < links { rtype::CNAME } else { A };
        assert_eq!((&record.name, record.rtype), (&owner, kind), "{query}");
    }
    took
}

/// Whoever may recurse can have an upstream of his own answer, so what that says must cost little.
#[test]
fn a_chain_costs_what_its_length_is() {
    let upstream = Upstream::start(backwards);
    let address = upstream.address().to_string();
    let portolan = Launch::new("serve")
        .args(["--consul", "none", "--upstream", &address])
        .start();
    // The first question opens a connection.
    cost(&portolan, FEW, 0);
    let best = |links| {
        let costs = (1..=5).map(|n| cost(&portolan, links, n));
        costs.min().expect("five of them")
    };
    let (few, many) = (best(FEW), best(MANY));
    println!("{FEW} aliases cost {few:?}, {MANY} cost {many:?}");
    assert!(
        many < few * AT_MOST,
        "{MANY} aliases cost {many:?}, {FEW} cost {few:?}"
    );
}
