//! Asking all the time, over UDP and TCP, and judging every answer.

use crate::{
    figure, percentile,
    support::{
        dns::{Query, connect_tcp, framed, read_framed},
        ensure, eventually,
        wire::{Reply, rcode, rtype},
    },
};
use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// An answer that takes longer is missing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two questions of one thread: the pace, which leaves the machine to the servers.
const PACE: Duration = Duration::from_millis(1);

/// A question and its one right answer.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) rtype: u16,
    /// The data of the records, in lower case and sorted.
    pub(crate) answer: Vec<String>,
}

impl Question {
    fn query(&self) -> Query {
        Query::new(&self.name, self.rtype).edns(4096)
    }

    /// Says what is wrong with what came, if anything is.
    pub(crate) fn judge(&self, came: Result<Reply, String>) -> Result<(), Failure> {
        let place = format!("{} {}", self.name, rtype::name(self.rtype));
        let reply = came.map_err(|error| Failure::Missing(format!("{place}: {error}")))?;
        let mut data = reply.data();
        data.iter_mut().for_each(|text| text.make_ascii_lowercase());
        data.sort();
        // Enough to see what happened.
        let short: String = reply.summary().chars().take(200).collect();
        let shown = format!("{place}: {short}");
        match reply.rcode() {
            rcode::NOERROR if data == self.answer => Ok(()),
            rcode::NXDOMAIN if self.answer.is_empty() => Ok(()),
            rcode::SERVFAIL | rcode::REFUSED => Err(Failure::Missing(shown)),
            _ => Err(Failure::Wrong(shown)),
        }
    }

    /// Asks once, in the plainest way.
    pub(crate) fn ask(&self, server: SocketAddr) -> Result<(), String> {
        let judged = self.judge(self.query().try_ask(server));
        judged.map_err(|(Failure::Wrong(what) | Failure::Missing(what))| what)
    }
}

/// Waits until every question has its right answer.
pub(crate) fn all_right(server: SocketAddr, questions: &[Question], within: Duration) -> Duration {
    let start = Instant::now();
    let mut left: Vec<&Question> = questions.iter().collect();
    eventually(within, "every name has its right answer", || {
        let mut example = String::new();
        left.retain(|question| {
            // When nothing answers, each of them would cost its patience.
            start.elapsed() > within
                || question.ask(server).is_err_and(|wrong| {
                    example = wrong;
                    true
                })
        });
        ensure(left.is_empty(), || {
            format!("{} have not, such as {example}", left.len())
        })
    });
    start.elapsed()
}

/// What came back in one phase.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phase {
    pub(crate) what: String,
    pub(crate) times: Vec<Duration>,
    /// What a bare echo took meanwhile: the machine's own share of the times.
    echoes: Vec<Duration>,
    wrong: usize,
    missing: usize,
    examples: Vec<String>,
}

impl Phase {
    fn note(&mut self, took: Duration, judged: Result<(), Failure>) {
        self.times.push(took);
        let example = match judged {
            Ok(()) => return,
            Err(Failure::Wrong(example)) => {
                self.wrong += 1;
                example
            }
            Err(Failure::Missing(example)) => {
                self.missing += 1;
                example
            }
        };
        if self.examples.len() < 3 {
            self.examples.push(example);
        }
    }

    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.echoes.extend(other.echoes);
        self.wrong += other.wrong;
        self.missing += other.missing;
        self.examples.extend(other.examples);
        self.examples.truncate(3);
    }

    /// What 99 of 100 echoes did not exceed.
    pub(crate) fn echo_p99(&self) -> Duration {
        percentile(&self.echoes, 99)
    }

    /// What 99 of 100 answers do not exceed.
    pub(crate) fn p99(&self) -> Duration {
        percentile(&self.times, 99)
    }
}

/// Not the right answer.
pub(crate) enum Failure {
    /// Another answer.
    Wrong(String),
    /// None, or one that says that there is none.
    Missing(String),
}

/// Threads that ask until they are stopped.
pub(crate) struct Asking {
    stop: Arc<AtomicBool>,
    phase: Arc<AtomicUsize>,
    phases: Vec<String>,
    questions: usize,
    asked: Vec<Arc<AtomicUsize>>,
    threads: Vec<JoinHandle<Vec<Phase>>>,
}

impl Asking {
    /// Asks these questions, round and round, one thread over UDP and one over TCP.
    pub(crate) fn start(server: SocketAddr, questions: &[Question], first_phase: &str) -> Self {
        let mut asking = Self {
            stop: Arc::default(),
            phase: Arc::default(),
            phases: vec![first_phase.to_owned()],
            questions: questions.len(),
            asked: Vec::new(),
            threads: Vec::new(),
        };
        asking.echo();
        for tcp in [false, true] {
            let (stop, phase) = (Arc::clone(&asking.stop), Arc::clone(&asking.phase));
            let (questions, asked) = (questions.to_vec(), Arc::new(AtomicUsize::new(0)));
            asking.asked.push(Arc::clone(&asked));
            asking.threads.push(thread::spawn(move || {
                let mut line = Line::new(server, tcp);
                let mut phases: Vec<Phase> = Vec::new();
                for question in questions.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (took, judged) = line.ask(question);
                    let number = phase.load(Ordering::Relaxed);
                    phases.resize_with(phases.len().max(number + 1), Phase::default);
                    phases[number].note(took, judged);
                    asked.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PACE);
                }
                phases
            }));
        }
        asking
    }

    /// Asks an echo as well, at the same pace.
    fn echo(&mut self) {
        let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = echo.local_addr().expect("a bound socket's address");
        echo.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let stop = Arc::clone(&self.stop);
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, client)) = echo.recv_from(&mut buffer) {
                    // Who asked may have been stopped meanwhile.
                    let _ = echo.send_to(&buffer[..length], client);
                }
            }
        });
        let (stop, phase) = (Arc::clone(&self.stop), Arc::clone(&self.phase));
        self.threads.push(thread::spawn(move || {
            let line = Line::new(address, false);
            let mut phases: Vec<Phase> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                // One that is lost tells as little about the server as one that is late.
                let _ = line.exchange_udp(b"an echo");
                let number = phase.load(Ordering::Relaxed);
                phases.resize_with(phases.len().max(number + 1), Phase::default);
                phases[number].echoes.push(start.elapsed());
                thread::sleep(PACE);
            }
            phases
        }));
    }

    /// What comes from now on belongs to this phase.
    pub(crate) fn phase(&mut self, what: &str) {
        self.phases.push(what.to_owned());
        self.phase.fetch_add(1, Ordering::Relaxed);
    }

    /// Goes on until every question has been asked this often more, over UDP and over TCP.
    pub(crate) fn rounds(&self, rounds: usize) {
        let counts = || self.asked.iter().map(|asked| asked.load(Ordering::Relaxed));
        let wanted: Vec<usize> = counts()
            .map(|asked| asked + rounds * self.questions)
            .collect();
        eventually(Duration::from_secs(600), "all are asked again", || {
            let enough = counts()
                .zip(&wanted)
                .all(|(asked, wanted)| asked >= *wanted);
            ensure(enough, || {
                format!("{:?} of {wanted:?}", counts().collect::<Vec<_>>())
            })
        });
    }

    /// Stops, prints what was measured, and fails if any answer was wrong or missing. Gives the phases.
    pub(crate) fn flawless(mut self, of: &str) -> Vec<Phase> {
        let phases = self.stop();
        let figures: Vec<String> = phases.iter().map(Phase::to_string).collect();
        figure(&format!("{of}: {}", figures.join("; ")));
        let flawed = flawed(&phases);
        assert!(flawed.is_empty(), "{of}: {}", flawed.join("\n"));
        phases
    }

    fn stop(&mut self) -> Vec<Phase> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all: Vec<Phase> = Vec::new();
        for what in &self.phases {
            let what = what.clone();
            all.push(Phase {
                what,
                ..Phase::default()
            });
        }
        for thread in self.threads.drain(..) {
            let phases = thread.join().expect("asking does not panic");
            all.iter_mut()
                .zip(phases)
                .for_each(|(all, of_thread)| all.add(of_thread));
        }
        all.retain(|phase| !phase.times.is_empty());
        for phase in &mut all {
            phase.times.sort();
            phase.echoes.sort();
        }
        all
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // A test that failed must not leave it asking beside the next.
        let flawed = flawed(&self.stop());
        if thread::panicking() && !flawed.is_empty() {
            eprintln!("until then: {}", flawed.join("\n"));
        }
    }
}

/// The phases in which an answer was wrong or missing, with examples.
fn flawed(phases: &[Phase]) -> Vec<String> {
    let flawed = phases
        .iter()
        .filter(|phase| phase.wrong + phase.missing > 0);
    flawed
        .map(|phase| format!("{phase}, such as {:?}", phase.examples))
        .collect()
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, asked) = (&self.what, self.times.len());
        let (wrong, missing) = (self.wrong, self.missing);
        let (p50, p99) = (percentile(&self.times, 50), self.p99());
        let most = percentile(&self.times, 100);
        write!(
            f,
            "{what}: {asked} asked, {wrong} wrong, {missing} missing, "
        )?;
        let echo = self.echo_p99();
        write!(
            f,
            "p50 {p50:.1?} p99 {p99:.1?} most {most:.1?}, echo p99 {echo:.1?}"
        )
    }
}

/// A client that stays: one socket, or one connection for as long as the server keeps it.
pub(crate) struct Line {
    server: SocketAddr,
    udp: UdpSocket,
    tcp: Option<TcpStream>,
    over_tcp: bool,
}

impl Line {
    pub(crate) fn new(server: SocketAddr, over_tcp: bool) -> Self {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        udp.connect(server)
            .and_then(|()| udp.set_read_timeout(Some(PATIENCE)))
            .expect("a socket to the server");
        Self {
            server,
            udp,
            tcp: None,
            over_tcp,
        }
    }

    /// Asks; gives how long that took and what is wrong with the answer, if anything is.
    pub(crate) fn ask(&mut self, question: &Question) -> (Duration, Result<(), Failure>) {
        let query = question.query();
        let start = Instant::now();
        let came = self.exchange(&query.bytes());
        let took = start.elapsed();
        (took, question.judge(came))
    }

    /// Sends a query and gives the reply with its ID.
    pub(crate) fn exchange(&mut self, query: &[u8]) -> Result<Reply, String> {
        let came = if self.over_tcp {
            self.exchange_tcp(query)
        } else {
            self.exchange_udp(query)
        };
        Reply::parse(&came.map_err(|error| error.to_string())?)
    }

    fn exchange_udp(&self, query: &[u8]) -> std::io::Result<Vec<u8>> {
        self.udp.send(query)?;
        let mut buffer = [0; 8192];
        loop {
            let length = self.udp.recv(&mut buffer)?;
            // Another ID is a late answer to what was given up on, and counted, before.
            if buffer[..length].get(..2) == query.get(..2) {
                return Ok(buffer[..length].to_vec());
            }
        }
    }

    fn exchange_tcp(&mut self, query: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = match self.tcp.take() {
            Some(stream) => stream,
            None => connect_tcp(self.server, PATIENCE)?,
        };
        stream.write_all(&framed(query))?;
        let message = read_framed(&mut stream)?;
        // Kept only after an answer.
        self.tcp = Some(stream);
        Ok(message)
    }
}
