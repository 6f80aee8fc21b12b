//! What is measured.

use crate::field::{Behind, Effort, Field, OUTSTANDING, Questions, RATE};
use crate::load::Pace;
use crate::peers::{Peer, knot};
use crate::question::Question;
use crate::results::Row;
use crate::world::World;
use crate::{changes, workers};
use hickory_proto::rr::RecordType;
use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Zipf};
use std::io;

/// Everything is offered the same, and then as much as it can take.
const BOTH: [Pace; 2] = [Pace::Rate(RATE), Pace::Outstanding(OUTSTANDING)];

/// Questions that are drawn beforehand where the mix is random.
const DRAWN: usize = 1 << 16;

/// Names a second that were never asked for before.
const UNCACHED: f64 = 4000.0;

/// Names that are recursed.
const RECURSED: usize = 100;

/// A case by its name.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) run: fn(Effort) -> io::Result<Vec<Row>>,
}

/// All of them, in the order in which they are run and shown.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "services",
        title: "a service of 3 instances, A and SRV in turn",
        run: services,
    },
    Case {
        name: "large",
        title: "a service of 60 instances, SRV with all addresses in 4 KiB",
        run: large,
    },
    Case {
        name: "recursion",
        title: "other names, from the cache",
        run: recursion,
    },
    Case {
        name: "uncached",
        title: "other names, each asked for the first time, × of Unbound",
        run: uncached,
    },
    Case {
        name: "tcp",
        title: "the same over 16 connections of TCP, × of Knot",
        run: tcp,
    },
    Case {
        name: "latency",
        title: "latency at a tenth of Portolan's capacity",
        run: latency,
    },
    Case {
        name: "instances",
        title: "more and more instances",
        run: instances,
    },
    Case {
        name: "catalog",
        title: "more and more services, one of them asked or all by a Zipf law",
        run: catalog,
    },
    Case {
        name: "changes",
        title: "100 changes of the catalog a second",
        run: changes::run,
    },
    Case {
        name: "workers",
        title: "two workers on two cores, which they share with the load",
        run: workers::run,
    },
];

/// A and SRV of `web`.
pub(crate) fn web(size: u16) -> Questions {
    let question = |rtype| Question::new("web.service.consul.", rtype, size);
    Questions::in_turn(vec![question(RecordType::A), question(RecordType::SRV)])
}

fn at_both_paces(field: &Field, effort: Effort) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for pace in BOTH {
        rows.extend(field.measure("", pace, effort)?);
    }
    Ok(rows)
}

fn services(effort: Effort) -> io::Result<Vec<Row>> {
    let peers = if effort.rounds > 1 {
        &Peer::ALL[..]
    } else {
        // To see that it works, without anything that has to be installed.
        &[Peer::Echo, Peer::Portolan]
    };
    let field = Field::start(peers, &World::new(1, 3), &web(1232), Behind::Nobody)?;
    at_both_paces(&field, effort)
}

fn large(effort: Effort) -> io::Result<Vec<Row>> {
    let srv = Question::new("web.service.consul.", RecordType::SRV, 4096);
    let questions = Questions::in_turn(vec![srv]);
    let field = Field::start(&Peer::ALL, &World::new(1, 60), &questions, Behind::Nobody)?;
    at_both_paces(&field, effort)
}

fn recursion(effort: Effort) -> io::Result<Vec<Row>> {
    let peers = [
        Peer::Echo,
        Peer::Portolan,
        Peer::Unbound,
        Peer::Dnsmasq,
        Peer::HickoryDns,
    ];
    let name = |number| format!("host{number}.example.com.");
    let names = (0..RECURSED).map(|number| Question::new(&name(number), RecordType::A, 1232));
    let questions = Questions::in_turn(names.collect());
    let field = Field::start(&peers, &World::new(1, 3), &questions, Behind::Own)?;
    at_both_paces(&field, effort)
}

fn uncached(effort: Effort) -> io::Result<Vec<Row>> {
    let peers = [Peer::Portolan, Peer::Unbound, Peer::Dnsmasq];
    let questions = Questions::in_turn(vec![Question::fresh(knot::WILDCARD, 1232)]);
    let field = Field::start(&peers, &World::new(1, 3), &questions, Behind::Knot)?;
    let mut rows = Vec::new();
    // The upstream shares a core with the load: more of them it could not answer.
    for pace in [Pace::Rate(UNCACHED), Pace::Outstanding(OUTSTANDING)] {
        rows.extend(field.measure("", pace, effort)?);
    }
    Ok(rows)
}

fn tcp(effort: Effort) -> io::Result<Vec<Row>> {
    let peers = [Peer::Portolan, Peer::Knot];
    let field = Field::start(&peers, &World::new(1, 3), &web(1232), Behind::Nobody)?.over_tcp();
    field.measure("", Pace::Outstanding(OUTSTANDING), effort)
}

fn latency(effort: Effort) -> io::Result<Vec<Row>> {
    let peers = [Peer::Echo, Peer::Portolan, Peer::Knot, Peer::Unbound];
    let field = Field::start(&peers, &World::new(1, 3), &web(1232), Behind::Nobody)?;
    let capacity = field.capacity(Peer::Portolan, effort.lasting)?;
    let pace = Pace::Rate((capacity / 10_000.0).round() * 1000.0);
    let lasting = effort.lasting * 2;
    field.measure("", pace, Effort { lasting, ..effort })
}

fn instances(effort: Effort) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (instances, size, what) in [
        (3, 65_507, "3, whole"),
        (60, 65_507, "60, whole"),
        (200, 65_507, "200, whole"),
        (200, 8192, "200, cut to 8192 bytes"),
        (1000, 65_507, "1000, cut to 65507 bytes"),
        (1000, 8192, "1000, cut to 8192 bytes"),
    ] {
        let srv = Question::new("web.service.consul.", RecordType::SRV, size);
        let questions = Questions::in_turn(vec![srv]);
        let world = World::new(1, instances);
        let field = Field::start(
            &[Peer::Echo, Peer::Portolan],
            &world,
            &questions,
            Behind::Nobody,
        )?;
        // What is sent weighs more than how it is made: a lower rate loses nothing of it.
        rows.extend(field.measure(what, Pace::Rate(RATE / 4.0), effort)?);
    }
    Ok(rows)
}

fn catalog(effort: Effort) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for number in [100, 10_000_u32] {
        let name = |at| format!("web{at}.service.consul.");
        let names = (0..number).map(|at| Question::new(&name(at), RecordType::A, 1232));
        let mut questions = Questions::in_turn(names.collect());
        let zipf = Zipf::new(f64::from(number), 1.0).map_err(io::Error::other)?;
        let mut random = SmallRng::seed_from_u64(u64::from(number));
        let mut draw = || zipf.sample(&mut random) as u32 - 1;
        questions.order = (0..DRAWN).map(|_| draw()).collect();
        let world = World::new(number, 3);
        let peers = [Peer::Echo, Peer::Portolan, Peer::Knot];
        let mut field = Field::start(&peers, &world, &questions, Behind::Nobody)?;
        let what = format!("{number}, by a Zipf law");
        rows.extend(field.measure(&what, Pace::Rate(RATE), effort)?);
        field.ask_only(0);
        let what = format!("{number}, one asked");
        rows.extend(field.measure(&what, Pace::Rate(RATE), effort)?);
    }
    Ok(rows)
}
