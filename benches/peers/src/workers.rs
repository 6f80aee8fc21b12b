//! Two workers on two cores against one on one. There is no third core for the load, so that a half of it
//! runs on each of the two, for one worker as for two.

use crate::cpu;
use crate::field::{Effort, LOAD_CORE, OUTSTANDING, SERVER_CORE, SOCKETS, describe};
use crate::load::{Load, Pace};
use crate::measure::{Measured, median};
use crate::peers::Peer;
use crate::question::Asked;
use crate::results::Row;
use crate::server::Server;
use crate::world::World;
use std::{io, thread, time::Duration};
use tempfile::TempDir;

/// A server with so many workers.
struct Contender {
    peer: Peer,
    workers: usize,
    server: Server,
    asked: Vec<Asked>,
}

pub(crate) fn run(effort: Effort) -> io::Result<Vec<Row>> {
    let world = World::new(1, 3);
    let questions = crate::cases::web(1232);
    let cores = [SERVER_CORE, LOAD_CORE];
    let mut directories: Vec<TempDir> = Vec::new();
    let mut contenders = Vec::new();
    for workers in [1, 2] {
        let directory = tempfile::Builder::new()
            .prefix("portolan-peers-")
            .tempdir()?;
        let start =
            |peer: Peer| peer.start(&world, None, None, &cores[..workers], directory.path());
        let mut portolan = start(Peer::Portolan)?;
        portolan.wait_until_it_answers(&questions.all[0])?;
        let asked = questions
            .all
            .iter()
            .map(|question| Ok(Asked::probe(question, portolan.address)?.0))
            .collect::<io::Result<Vec<_>>>()?;
        contenders.push(Contender {
            peer: Peer::Echo,
            workers,
            server: start(Peer::Echo)?,
            asked: asked.iter().map(Asked::for_echo).collect(),
        });
        contenders.push(Contender {
            peer: Peer::Portolan,
            workers,
            server: portolan,
            asked,
        });
        directories.push(directory);
    }
    let mut rounds: Vec<Vec<Measured>> = Vec::new();
    for _ in 0..effort.rounds {
        let round = contenders.iter();
        let round = round.map(|contender| contender.measure(&questions.order, effort.lasting));
        rounds.push(round.collect::<io::Result<_>>()?);
    }
    let rows = contenders.iter().enumerate().map(|(at, contender)| {
        let of = |value: &dyn Fn(&Measured) -> f64| median(rounds.iter().map(|r| value(&r[at])));
        // The echo with as many workers stands right before.
        let echo = at - at % 2;
        let pace = describe(Pace::Outstanding(OUTSTANDING));
        Row {
            what: format!("workers: {}", contender.workers),
            server: contender.peer.name().to_owned(),
            offered: pace.clone(),
            pace,
            cost_us: of(&Measured::cost),
            ratio: median(
                rounds
                    .iter()
                    .map(|round| round[at].cost() / round[echo].cost()),
            ),
            answers_per_second: of(&|m| m.outcome.throughput()),
            p50_us: of(&|m| m.outcome.latency_at(0.5)),
            p99_us: of(&|m| m.outcome.latency_at(0.99)),
            p999_us: of(&|m| m.outcome.latency_at(0.999)),
            reply_bytes: contender
                .asked
                .iter()
                .map(|asked| asked.size as f64)
                .sum::<f64>()
                / contender.asked.len() as f64,
            lost: rounds.iter().map(|round| round[at].outcome.lost).sum(),
            note: String::new(),
        }
    });
    Ok(rows.collect())
}

impl Contender {
    fn measure(&self, order: &[u32], lasting: Duration) -> io::Result<Measured> {
        let load = Load {
            server: self.server.address,
            asked: &self.asked,
            order,
            pace: Pace::Outstanding(OUTSTANDING / 2),
            sockets: SOCKETS,
            over_tcp: false,
        };
        let ask = |core| {
            cpu::pin(&[core])?;
            load.run(lasting)
        };
        Measured::during(self.server.pid(), || {
            thread::scope(|scope| {
                let first = scope.spawn(|| ask(SERVER_CORE));
                let second = scope.spawn(|| ask(LOAD_CORE));
                let ended = |half: thread::ScopedJoinHandle<'_, io::Result<_>>| {
                    let ended = half.join();
                    ended.unwrap_or_else(|_| Err(io::Error::other("the load ended in a panic")))
                };
                let (first, second) = (ended(first), ended(second));
                Ok(first?.and(&second?))
            })
        })
    }
}
