//! The servers of one comparison, all running on the same data, and the rounds in which each is
//! measured in its turn.

use crate::cpu;
use crate::load::{Load, Pace};
use crate::measure::{Measured, median, until_idle};
use crate::peers::{Peer, consul, knot};
use crate::question::{Asked, Question};
use crate::results::Row;
use crate::server::Server;
use crate::upstream;
use crate::world::World;
use hickory_proto::op::Message;
use std::{io, time::Duration};
use tempfile::TempDir;

/// The core of the servers, and that of the load.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const LOAD_CORE: usize = 1;

/// Queries a second that every server is offered.
pub(crate) const RATE: f64 = 40_000.0;

/// Queries under way when a server is to have always something to do: twice what Portolan and the echo
/// take at once, so that a full batch waits while one is answered.
pub(crate) const OUTSTANDING: usize = 64;

/// Sockets that ask, as so many clients would.
pub(crate) const SOCKETS: usize = 16;

/// A server that loses more than this share at a rate is measured at its limit instead.
const OVERRUN: f64 = 0.01;

/// How long a rate is tried.
const TRIAL: Duration = Duration::from_millis(300);

/// A server that gets more than this share of replies wrong is not measured.
const WRONG: f64 = 0.01;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) lasting: Duration,
}

/// A server and what it is asked.
struct Contender {
    peer: Peer,
    server: Server,
    asked: Vec<Asked>,
    /// What is not as in Portolan's replies.
    note: String,
}

/// The servers of a comparison.
pub(crate) struct Field {
    contenders: Vec<Contender>,
    order: Vec<u32>,
    over_tcp: bool,
    wildcard: Option<Server>,
    // Dropped last: the processes have to end before their files go.
    _directory: TempDir,
}

/// Who is behind the servers, for names that are not theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    Nobody,
    /// A thread of the benchmark, for names that are asked for once.
    Own,
    /// Knot with a wildcard, on the core of the load.
    Knot,
}

/// What is asked of whom.
pub(crate) struct Questions {
    pub(crate) all: Vec<Question>,
    /// Which of them in what order, over and over.
    pub(crate) order: Vec<u32>,
}

impl Questions {
    /// These in turn.
    pub(crate) fn in_turn(all: Vec<Question>) -> Self {
        let order = (0..all.len() as u32).collect();
        Self { all, order }
    }
}

impl Field {
    /// Starts the servers, and asks each of them every question once. The echo takes the sizes of its
    /// replies from Portolan, and Portolan its data from Consul if that takes part.
    pub(crate) fn start(
        peers: &[Peer],
        world: &World,
        questions: &Questions,
        behind: Behind,
    ) -> io::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("portolan-peers-")
            .tempdir()?;
        let cores = [LOAD_CORE];
        let wildcard = match behind {
            Behind::Knot => Some(knot::start_wildcard(&cores, directory.path())?),
            Behind::Nobody | Behind::Own => None,
        };
        let upstream = match behind {
            Behind::Own => Some(upstream::start()?),
            Behind::Nobody | Behind::Knot => wildcard.as_ref().map(|server| server.address),
        };
        let mut started = Vec::new();
        let mut catalog = None;
        // Consul first: Portolan reads from it.
        let mut peers = peers.to_vec();
        peers.sort_by_key(|peer| *peer != Peer::Consul);
        for peer in peers {
            let cores = [SERVER_CORE];
            let mut server = peer
                .start(world, upstream, catalog, &cores, directory.path())
                .map_err(|error| io::Error::other(format!("{}: {error}", peer.name())))?;
            if peer == Peer::Consul {
                catalog = Some(consul::http(server.address));
            }
            if peer != Peer::Echo {
                server
                    .wait_until_it_answers(&questions.all[0])
                    .map_err(|error| io::Error::other(format!("{}: {error}", peer.name())))?;
            }
            started.push((peer, server));
        }
        started.sort_by_key(|(peer, _)| *peer);
        let portolan = started.iter().find(|(peer, _)| *peer == Peer::Portolan);
        let portolan = portolan.map(|(_, server)| server.address);
        let portolan = portolan.ok_or_else(|| io::Error::other("Portolan has to take part"))?;
        let model = probe(portolan, questions)?;
        let mut contenders = Vec::new();
        for (peer, server) in started {
            let (asked, note) = match peer {
                Peer::Echo => (
                    model.iter().map(|(one, _)| one.for_echo()).collect(),
                    String::new(),
                ),
                _ => {
                    let own = probe(server.address, questions)?;
                    let note = difference(&own, &model);
                    (own.into_iter().map(|(one, _)| one).collect(), note)
                }
            };
            contenders.push(Contender {
                peer,
                server,
                asked,
                note,
            });
        }
        Ok(Self {
            contenders,
            order: questions.order.clone(),
            over_tcp: false,
            wildcard,
            _directory: directory,
        })
    }

    /// From now on, over TCP.
    pub(crate) fn over_tcp(mut self) -> Self {
        self.over_tcp = true;
        self
    }

    /// Measures each server in its turn, round after round.
    pub(crate) fn measure(
        &self,
        what: &str,
        offered: Pace,
        effort: Effort,
    ) -> io::Result<Vec<Row>> {
        cpu::pin(&[LOAD_CORE])?;
        let mut paces = Vec::new();
        for contender in &self.contenders {
            paces.push(self.bearable(contender, offered)?);
        }
        let mut rounds: Vec<Vec<Measured>> = Vec::new();
        for round in 0..effort.rounds {
            let mut measured = Vec::new();
            for turn in 0..self.contenders.len() {
                // Another one begins each round: nobody always comes after the same.
                let at = (round + turn) % self.contenders.len();
                let contender = &self.contenders[at];
                measured.push((at, self.once(contender, paces[at], effort.lasting)?));
            }
            measured.sort_by_key(|(at, _)| *at);
            rounds.push(measured.into_iter().map(|(_, measured)| measured).collect());
        }
        let reference = self.reference();
        let rows = self.contenders.iter().zip(&paces).enumerate();
        let rows = rows.map(|(at, (contender, pace))| {
            let of =
                |value: &dyn Fn(&Measured) -> f64| median(rounds.iter().map(|r| value(&r[at])));
            let ratios = rounds.iter().map(|round| {
                let reference = reference.map_or(f64::NAN, |own| round[own].cost());
                round[at].cost() / reference
            });
            Row {
                what: what.to_owned(),
                server: contender.peer.name().to_owned(),
                offered: describe(offered),
                pace: describe(*pace),
                cost_us: of(&Measured::cost),
                ratio: median(ratios),
                answers_per_second: of(&|m| m.outcome.throughput()),
                p50_us: of(&|m| m.outcome.latency_at(0.5)),
                p99_us: of(&|m| m.outcome.latency_at(0.99)),
                p999_us: of(&|m| m.outcome.latency_at(0.999)),
                reply_bytes: self.mean_size(contender),
                lost: rounds.iter().map(|r| r[at].outcome.lost).sum(),
                note: contender.note.clone(),
            }
        });
        Ok(rows.collect())
    }

    /// By whose cost the others' are divided: the echo's, below which nobody can go. What goes on to an upstream has no
    /// echo, and is compared with Unbound; over TCP, with Knot.
    fn reference(&self) -> Option<usize> {
        let peers: &[Peer] = match self.wildcard {
            Some(_) => &[Peer::Unbound],
            None => &[Peer::Echo, Peer::Knot],
        };
        let place = |peer: &Peer| self.contenders.iter().position(|own| own.peer == *peer);
        peers.iter().find_map(place)
    }

    /// The pace, or the server's limit if it cannot keep it.
    fn bearable(&self, contender: &Contender, pace: Pace) -> io::Result<Pace> {
        let Pace::Rate(_) = pace else {
            return Ok(pace);
        };
        let outcome = self.load(contender, pace).run(TRIAL)?;
        if outcome.lost as f64 <= outcome.answered as f64 * OVERRUN {
            return Ok(pace);
        }
        // It may have taken more than it could answer by now.
        until_idle(contender.server.pid())?;
        Ok(Pace::Outstanding(OUTSTANDING))
    }

    fn load<'a>(&'a self, contender: &'a Contender, pace: Pace) -> Load<'a> {
        Load {
            server: contender.server.address,
            asked: &contender.asked,
            order: &self.order,
            pace,
            sockets: SOCKETS,
            over_tcp: self.over_tcp,
        }
    }

    fn once(&self, contender: &Contender, pace: Pace, lasting: Duration) -> io::Result<Measured> {
        let name = contender.peer.name();
        let measured = Measured::of(&self.load(contender, pace), contender.server.pid(), lasting)
            .map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        let outcome = &measured.outcome;
        if outcome.answered == 0 {
            return Err(io::Error::other(format!("{name}: not one right answer")));
        }
        if outcome.wrong as f64 > outcome.answered as f64 * WRONG {
            return Err(io::Error::other(format!(
                "{name}: {} of {} replies are wrong",
                outcome.wrong,
                outcome.wrong + outcome.answered
            )));
        }
        Ok(measured)
    }

    /// From now on asks for nothing but the question of this number.
    pub(crate) fn ask_only(&mut self, question: u32) {
        self.order = vec![question];
    }

    /// Answers a second of a server at its limit.
    pub(crate) fn capacity(&self, peer: Peer, lasting: Duration) -> io::Result<f64> {
        cpu::pin(&[LOAD_CORE])?;
        let mut contenders = self.contenders.iter();
        let contender = contenders.find(|contender| contender.peer == peer);
        let contender = contender.ok_or_else(|| io::Error::other("it does not take part"))?;
        let pace = Pace::Outstanding(OUTSTANDING);
        let measured = self.once(contender, pace, lasting)?;
        Ok(measured.outcome.throughput())
    }

    /// Bytes of a reply, as often as each is asked for.
    fn mean_size(&self, contender: &Contender) -> f64 {
        let sizes = self
            .order
            .iter()
            .map(|at| contender.asked[*at as usize].size as f64);
        sizes.sum::<f64>() / self.order.len() as f64
    }
}

/// How a pace is called in the results.
pub(crate) fn describe(pace: Pace) -> String {
    match pace {
        Pace::Rate(rate) => format!("{rate:.0}/s"),
        Pace::Outstanding(number) => format!("{number} under way"),
    }
}

fn probe(server: std::net::SocketAddr, questions: &Questions) -> io::Result<Vec<(Asked, Message)>> {
    questions
        .all
        .iter()
        .map(|one| Asked::probe(one, server))
        .collect()
}

/// What is different in the first reply that is.
fn difference(own: &[(Asked, Message)], model: &[(Asked, Message)]) -> String {
    for ((_, own), (_, model)) in own.iter().zip(model) {
        let name = || {
            let query = model.queries.first();
            query.map_or_else(String::new, |query| query.query_type().to_string())
        };
        let (answers, expected) = (answers(own), answers(model));
        if answers != expected {
            return match answers.len() == expected.len() {
                true => format!("{}: other answers", name()),
                false => format!(
                    "{}: {} of {} answers",
                    name(),
                    answers.len(),
                    expected.len()
                ),
            };
        }
        let (glue, expected) = (own.additionals.len(), model.additionals.len());
        if glue != expected {
            return format!("{}: {glue} of {expected} addresses beside them", name());
        }
    }
    String::new()
}

/// The data of the answers, in no order.
fn answers(message: &Message) -> Vec<String> {
    let records = message.answers.iter();
    let mut answers: Vec<String> = records.map(|record| record.data.to_string()).collect();
    answers.sort();
    answers
}
