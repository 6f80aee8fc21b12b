//! What changes of the catalog cost: a real Consul whose services change one after the other, and
//! Portolan beside it, which watches and is asked for all of them.
//!
//! Consul has the core of the load, so that its own work for the changes is not taken for Portolan's.
//! That slows the load, and so another Portolan, which has the same services from files and hears of
//! no change, is asked at the same time of changes, in its turn. What is compared is the processor
//! time per answer of the whole processes, the reading of the changes included.

use crate::cpu;
use crate::field::{
    Effort, LOAD_CORE, OUTSTANDING, Questions, RATE, SERVER_CORE, SOCKETS, describe,
};
use crate::load::{Load, Pace};
use crate::measure::{Measured, median};
use crate::peers::{
    Peer,
    consul::{self, Api},
};
use crate::question::{Asked, Question};
use crate::results::Row;
use crate::server::Server;
use crate::world::{Instance, World};
use hickory_proto::rr::{RData, RecordType};
use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

const SERVICES: u32 = 100;

/// Each service is changed once a second.
const CHANGES_A_SECOND: u32 = 100;

/// Clients that change them: Consul, which shares its core, may take a while for one change.
const CHANGERS: usize = 4;

/// Share of the changes that Consul has to take in time.
const TAKEN: f64 = 0.95;

/// How soon the last change has to be seen.
const PATIENCE: Duration = Duration::from_secs(5);

/// A round is this many times as long as one of other cases: changes come in at their own pace.
const LONGER: u32 = 2;

pub(crate) fn run(effort: Effort) -> io::Result<Vec<Row>> {
    let directory = tempfile::Builder::new()
        .prefix("portolan-peers-")
        .tempdir()?;
    let world = World::new(SERVICES, 3);
    let start = |peer: Peer, catalog, core, folder| {
        let folder = directory.path().join(folder);
        peer.start(&world, None, catalog, &[core], &folder)
    };
    let names = world.services.iter();
    let names = names.map(|(name, _)| format!("{name}.service.consul."));
    let questions = names.map(|name| Question::new(&name, RecordType::A, 1232));
    let questions = Questions::in_turn(questions.collect());
    let consul = start(Peer::Consul, None, LOAD_CORE, "consul")?;
    let http = consul::http(consul.address);
    let mut files = start(Peer::Portolan, None, SERVER_CORE, "files")?;
    let mut watching = start(Peer::Portolan, Some(http), SERVER_CORE, "watching")?;
    let mut asked = Vec::new();
    for server in [&mut files, &mut watching] {
        server.wait_until_it_answers(&questions.all[0])?;
        asked = questions
            .all
            .iter()
            .map(|question| Ok(Asked::probe(question, server.address)?.0))
            .collect::<io::Result<Vec<_>>>()?;
    }

    cpu::pin(&[LOAD_CORE])?;
    let mut rows = Vec::new();
    let mut changer = Changer {
        http,
        world: &world,
        done: 0,
    };
    for pace in [Pace::Rate(RATE), Pace::Outstanding(OUTSTANDING)] {
        let load = |server: &Server| Load {
            server: server.address,
            asked: &asked,
            order: &questions.order,
            pace,
            sockets: SOCKETS,
            over_tcp: false,
        };
        let once = |server| Measured::of(&load(server), server.pid(), effort.lasting * LONGER);
        let mut rounds = Vec::new();
        for _ in 0..effort.rounds {
            let round = changer.during(|| Ok((once(&files)?, once(&watching)?)))?;
            rounds.push(round);
        }
        let reply_bytes = asked[0].size as f64;
        let row = |what: String, side: &dyn Fn(&(Measured, Measured)) -> &Measured| {
            let of = |value: &dyn Fn(&Measured) -> f64| {
                median(rounds.iter().map(|round| value(side(round))))
            };
            Row {
                what,
                server: Peer::Portolan.name().to_owned(),
                offered: describe(pace),
                pace: describe(pace),
                cost_us: of(&Measured::cost),
                ratio: median(
                    rounds
                        .iter()
                        .map(|round| side(round).cost() / round.0.cost()),
                ),
                answers_per_second: of(&|m| m.outcome.throughput()),
                p50_us: of(&|m| m.outcome.latency_at(0.5)),
                p99_us: of(&|m| m.outcome.latency_at(0.99)),
                p999_us: of(&|m| m.outcome.latency_at(0.999)),
                reply_bytes,
                lost: rounds.iter().map(|round| side(round).outcome.lost).sum(),
                note: format!("the worker alone {:.2} us", of(&Measured::cost_of_busiest)),
            }
        };
        rows.push(row("hears of none".to_owned(), &|round| &round.0));
        rows.push(row("follows them".to_owned(), &|round| &round.1));
    }
    changer.was_seen_by(watching.address)?;
    Ok(rows)
}

/// Somebody who changes a port of one service after the other.
struct Changer<'a> {
    http: SocketAddr,
    world: &'a World,
    done: usize,
}

impl Changer<'_> {
    fn service(&self, number: usize) -> &(String, Vec<Instance>) {
        &self.world.services[number % self.world.services.len()]
    }

    /// The port of a service's first instance after so many changes.
    fn port(done: usize) -> u16 {
        10_000 + (done % 50_000) as u16
    }

    /// Changes at the pace while something is done.
    fn during<T>(&mut self, what: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let (ended, done) = (AtomicBool::new(false), AtomicUsize::new(self.done));
        let (start, before) = (Instant::now(), self.done);
        let change = || -> io::Result<()> {
            let api = Api::new(self.http);
            while !ended.load(Ordering::Relaxed) {
                let number = done.fetch_add(1, Ordering::Relaxed);
                let due =
                    start + Duration::from_secs(1) / CHANGES_A_SECOND * (number - before) as u32;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let (name, instances) = self.service(number);
                let port = Self::port(number);
                let changed = api.register(
                    name,
                    0,
                    Instance {
                        port,
                        ..instances[0]
                    },
                );
                changed.map_err(io::Error::other)?;
            }
            Ok(())
        };
        let result = thread::scope(|scope| {
            let changers: Vec<_> = (0..CHANGERS).map(|_| scope.spawn(change)).collect();
            let result = what();
            ended.store(true, Ordering::Relaxed);
            for changer in changers {
                let ended = changer.join();
                ended.unwrap_or_else(|_| Err(io::Error::other("the changes ended in a panic")))?;
            }
            result
        });
        self.done = done.into_inner();
        let (number, wanted) = (
            self.done - before,
            f64::from(CHANGES_A_SECOND) * start.elapsed().as_secs_f64(),
        );
        if (number as f64) < wanted * TAKEN {
            let error = format!("Consul took {number} changes in the time of {wanted:.0}");
            return Err(io::Error::other(error));
        }
        result
    }

    /// Waits for the last change to be answered.
    fn was_seen_by(&self, portolan: SocketAddr) -> io::Result<()> {
        let last = self.done - 1;
        let name = format!("{}.service.consul.", self.service(last).0);
        let question = Question::new(&name, RecordType::SRV, 1232);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let (_, reply) = Asked::probe(&question, portolan)?;
            let seen = reply.answers.iter().any(
                |record| matches!(&record.data, RData::SRV(srv) if srv.port == Self::port(last)),
            );
            if seen {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other("Portolan did not see the last change"))
    }
}
