//! What Portolans cost the Consul that they read from: see `benches/fleet/README.md`.

mod catalog;
mod relay;
mod visible;

use crate::cpu::Used;
use crate::measure::median;
use crate::peers::Peer;
use crate::question::{Asked, Question};
use crate::server::{Server, free_port};
use crate::world::World;
use catalog::Catalog;
use clap::{Args, ValueEnum};
use hickory_proto::rr::RecordType;
use relay::Relay;
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Services that each Portolan has in use.
const IN_USE: u32 = 10;

/// How often each of them is asked for.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// How long Consul is left alone before it is measured without a Portolan.
const SETTLING: Duration = Duration::from_secs(3);

/// New services are deregistered when so many have come after them.
const NEW_STAY: u32 = 50;

/// Both cores.
const CORES: [usize; 2] = [0, 1];

#[derive(Debug, Args)]
pub(crate) struct FleetArguments {
    /// Which cases; all but `visible` and `junk` if none is named
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// How many services Consul has
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
    services: Vec<u32>,
    /// How many Portolans read from it
    #[arg(long, value_delimiter = ',', default_value = "1")]
    portolans: Vec<usize>,
    /// How long each case is measured
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// How long each Portolan runs before that: its first queries are short ones
    #[arg(long, default_value_t = 30.0)]
    settling: f64,
    /// The Portolan; may be repeated, to put an older one beside it
    #[arg(long, value_name = "PATH")]
    binary: Vec<PathBuf>,
}

/// What happens in Consul meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Nothing
    Rest,
    /// Once a second, a service that nobody asks for gets another port
    #[value(name = "changes-1")]
    Changes1,
    /// Ten times a second
    #[value(name = "changes-10")]
    Changes10,
    /// Fifty times a second
    #[value(name = "changes-50")]
    Changes50,
    /// Ten new names a second, which go five seconds later
    #[value(name = "new-10")]
    New10,
    /// The services in use change, fifty times a second together
    Flips,
    /// A node joins each second
    Nodes,
    /// How soon new, changed and deregistered services are seen, with ten other changes a second
    Visible,
    /// 100,000 questions for 20,000 names that do not exist
    Junk,
}

impl Case {
    const TABLE: [Self; 7] = [
        Self::Rest,
        Self::Changes1,
        Self::Changes10,
        Self::Changes50,
        Self::New10,
        Self::Flips,
        Self::Nodes,
    ];

    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Changes in a second.
    fn rate(self) -> f64 {
        match self {
            Self::Rest => 0.0,
            Self::Changes1 | Self::Nodes => 1.0,
            Self::Changes10 | Self::New10 | Self::Visible | Self::Junk => 10.0,
            Self::Changes50 | Self::Flips => 50.0,
        }
    }

    /// Makes the change of this number.
    fn change(self, catalog: &Catalog, number: u32) -> Result<(), String> {
        match self {
            Self::Flips => catalog.change(number % IN_USE, number),
            Self::Nodes => catalog.join(number),
            Self::New10 => {
                catalog.appear(&new(number))?;
                // Of an earlier phase, they may be gone already.
                number
                    .checked_sub(NEW_STAY)
                    .map_or(Ok(()), |gone| catalog.vanish(&new(gone)))
            }
            _ => catalog.change(IN_USE + number % (catalog.services - IN_USE), number),
        }
    }
}

/// A Portolan, and what it and Consul say to each other.
struct Follower {
    server: Server,
    relay: Relay,
}

impl Follower {
    /// Starts it and has it answer for the services in use.
    fn start(
        binary: &Path,
        consul: SocketAddr,
        directory: &Path,
        number: usize,
    ) -> io::Result<Self> {
        let relay = Relay::before(consul, number)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(binary);
        command
            .args([
                "serve",
                "--admin",
                "none",
                "--upstream",
                "none",
                "--workers",
                "1",
            ])
            .args(["--listen", &address.to_string()])
            .args(["--consul", &format!("http://{}", relay.address())]);
        let log = directory.join(format!("portolan-{number}.log"));
        let mut server = Server::start(&command, &CORES, address, log)?;
        for number in 0..IN_USE {
            server.wait_until_it_answers(&question(&catalog::service(number)))?;
        }
        Ok(Self { server, relay })
    }
}

/// The name of a new service.
fn new(number: u32) -> String {
    format!("new-{number}")
}

fn question(service: &str) -> Question {
    Question::new(&format!("{service}.service.consul."), RecordType::SRV, 4096)
}

/// What one Portolan cost in a second.
struct Cost {
    consul_ms: f64,
    own_ms: f64,
    rss_mib: f64,
    bytes: f64,
    requests: f64,
}

/// Runs the cases and prints a line for each.
pub(crate) fn run(arguments: &FleetArguments) -> io::Result<()> {
    let mut binaries = arguments.binary.clone();
    if binaries.is_empty() {
        binaries.push(crate::peers::repository().join("target/release/portolan"));
    }
    let cases = match arguments.cases.as_slice() {
        [] => Case::TABLE.to_vec(),
        cases => cases.to_vec(),
    };
    println!(
        "per Portolan and second: Consul's CPU beyond what the changes cost by themselves, bytes and \
         requests to it, Portolan's own CPU and memory\n"
    );
    println!(
        "services  case        Portolans  binary  Consul ms/s     kB/s  requests/s  own ms/s  MiB"
    );
    for services in &arguments.services {
        let directory = tempfile::Builder::new()
            .prefix("portolan-fleet-")
            .tempdir()?;
        let consul = Peer::Consul.start(&World::default(), None, None, &CORES, directory.path())?;
        let http = crate::peers::consul::http(consul.address);
        let catalog = Catalog::fill(http, *services).map_err(io::Error::other)?;
        for case in &cases {
            let lasting = Duration::from_secs_f64(arguments.seconds);
            for portolans in &arguments.portolans {
                for (number, binary) in binaries.iter().enumerate() {
                    let directory = directory.path().join(format!("{}-{number}", case.name()));
                    fs::create_dir_all(&directory)?;
                    // In every round: what the changes cost by themselves is not the same twice.
                    let nobody = match case {
                        Case::Visible | Case::Junk => Duration::ZERO,
                        _ => during(*case, &catalog, || consul_used(&consul, lasting))?,
                    };
                    let fleet = (0..*portolans)
                        .map(|number| Follower::start(binary, http, &directory, number))
                        .collect::<io::Result<Vec<_>>>()?;
                    let place = format!(
                        "{services:>8}  {:<10}  {portolans:>9}  {number:>6}",
                        case.name()
                    );
                    match case {
                        Case::Visible => {
                            let seen =
                                during(*case, &catalog, || visible::visible(&catalog, &fleet[0]))?;
                            println!("{place}  {seen}");
                        }
                        Case::Junk => {
                            let seen = during(*case, &catalog, || visible::junk(&fleet[0]))?;
                            println!("{place}  {seen}");
                        }
                        _ => {
                            let settling = Duration::from_secs_f64(arguments.settling);
                            let cost = during(*case, &catalog, || {
                                measure(&consul, &fleet, nobody, settling, lasting)
                            })?;
                            println!(
                                "{place}  {:>11.1}  {:>7.1}  {:>10.1}  {:>8.1}  {:>3.0}",
                                cost.consul_ms,
                                cost.bytes / 1000.0,
                                cost.requests,
                                cost.own_ms,
                                cost.rss_mib,
                            );
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Makes the changes of a case while something is done.
fn during<T>(case: Case, catalog: &Catalog, what: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let changer = scope.spawn(|| -> Result<(), String> {
            let (start, mut done) = (Instant::now(), 0_u32);
            while !ended.load(Ordering::Relaxed) {
                if case.rate() == 0.0 {
                    thread::sleep(Duration::from_millis(50));
                    continue;
                }
                let due = start + Duration::from_secs_f64(f64::from(done) / case.rate());
                thread::sleep(due.saturating_duration_since(Instant::now()));
                case.change(catalog, catalog.next())?;
                done += 1;
            }
            Ok(())
        });
        let result = what();
        ended.store(true, Ordering::Relaxed);
        let changed = changer
            .join()
            .unwrap_or_else(|_| Err("the changes ended in a panic".to_owned()));
        changed.map_err(io::Error::other)?;
        result
    })
}

/// The processor time that Consul uses in a while, once it has settled.
fn consul_used(consul: &Server, lasting: Duration) -> io::Result<Duration> {
    thread::sleep(SETTLING);
    let before = Used::by(consul.pid())?;
    thread::sleep(lasting);
    Ok(Used::by(consul.pid())?.since(&before).total())
}

/// What each of them costs, while all are asked for what they have in use.
fn measure(
    consul: &Server,
    fleet: &[Follower],
    nobody: Duration,
    settling: Duration,
    lasting: Duration,
) -> io::Result<Cost> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let ask = || -> io::Result<()> {
            while !ended.load(Ordering::Relaxed) {
                for follower in fleet {
                    for number in 0..IN_USE {
                        Asked::probe(
                            &question(&catalog::service(number)),
                            follower.server.address,
                        )?;
                    }
                }
                thread::sleep(ASKED_EVERY);
            }
            Ok(())
        };
        let asking = scope.spawn(ask);
        thread::sleep(settling);
        let used = |server: &Server| Used::by(server.pid());
        let before = used(consul)?;
        let own = fleet
            .iter()
            .map(|f| Ok((used(&f.server)?, f.relay.counted())));
        let own = own.collect::<io::Result<Vec<_>>>()?;
        thread::sleep(lasting);
        let consul_used = used(consul)?.since(&before).total();
        let (seconds, each) = (lasting.as_secs_f64(), fleet.len() as f64);
        let mut cost = Cost {
            consul_ms: (consul_used.as_secs_f64() - nobody.as_secs_f64()) * 1000.0 / seconds / each,
            own_ms: 0.0,
            rss_mib: median(fleet.iter().map(|f| resident(f.server.pid()))),
            bytes: 0.0,
            requests: 0.0,
        };
        for (follower, (before, counted)) in fleet.iter().zip(own) {
            let now = follower.relay.counted();
            let own = used(&follower.server)?.since(&before).total();
            cost.own_ms += own.as_secs_f64() * 1000.0 / seconds / each;
            cost.bytes += (now.bytes - counted.bytes) as f64 / seconds / each;
            cost.requests += (now.requests - counted.requests) as f64 / seconds / each;
        }
        ended.store(true, Ordering::Relaxed);
        let asked = asking.join();
        asked.unwrap_or_else(|_| Err(io::Error::other("the questions ended in a panic")))?;
        Ok(cost)
    })
}

/// Memory of a process, in MiB; nothing if it cannot be read.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
