//! Portolan beside other DNS servers: see README.md.

mod cases;
mod changes;
mod chart;
mod cpu;
mod field;
mod fleet;
mod load;
mod measure;
mod peers;
mod publish;
mod question;
mod results;
mod server;
mod streams;
#[cfg(test)]
mod tests;
mod upstream;
mod workers;
mod world;

use cases::CASES;
use clap::{Args, Parser, Subcommand};
use field::{Effort, LOAD_CORE, OUTSTANDING, SOCKETS};
use load::{Load, Pace};
use measure::Measured;
use question::{Asked, Question};
use results::Results;
use std::{fs, io, net::SocketAddr, process::ExitCode, time::Duration};

#[derive(Debug, Parser)]
#[command(about = "Measures DNS servers against each other, and against an echo")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures the cases, all of them if none is named
    Cases(CasesArguments),
    /// Asks one server that runs already
    Load(LoadArguments),
    /// Measures what Portolans cost Consul: see benches/fleet
    Fleet(fleet::FleetArguments),
}

#[derive(Debug, Args)]
struct CasesArguments {
    /// Which of them
    #[arg(value_parser = CASES.iter().map(|case| case.name).collect::<Vec<_>>())]
    cases: Vec<String>,
    /// Two minutes instead of ten
    #[arg(long)]
    quick: bool,
    /// Only that it works, with the echo and Portolan alone, in a second
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// Puts tables, chart and figures into the repository
    #[arg(long, conflicts_with = "smoke")]
    publish: bool,
}

#[derive(Debug, Args)]
struct LoadArguments {
    /// Where it listens
    #[arg(long, value_name = "IP:PORT")]
    server: SocketAddr,
    /// Its process
    #[arg(long)]
    pid: u32,
    /// NAME:TYPE:SIZE, asked in turn
    #[arg(long = "question", required = true, value_name = "QUESTION")]
    questions: Vec<Question>,
    /// Each name begins with eight other digits each time, so that none was asked for before
    #[arg(long)]
    fresh: bool,
    /// The server is the echo: its replies are as long as those of this server
    #[arg(long, value_name = "IP:PORT")]
    like: Option<SocketAddr>,
    /// Queries that are always under way
    #[arg(long, default_value_t = OUTSTANDING)]
    outstanding: usize,
    /// Queries a second, instead
    #[arg(long)]
    rate: Option<f64>,
    /// Over TCP, with --outstanding
    #[arg(long, conflicts_with = "rate")]
    tcp: bool,
    /// How long
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Sockets that ask, each as a client of its own
    #[arg(long, default_value_t = SOCKETS)]
    sockets: usize,
    /// The core to do it on
    #[arg(long, default_value_t = LOAD_CORE)]
    core: usize,
    /// How often
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Cases(arguments) => measure_cases(&arguments),
        Command::Load(arguments) => load_one(&arguments),
        Command::Fleet(arguments) => fleet::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases, and keeps what they find beside what others found before.
fn measure_cases(arguments: &CasesArguments) -> io::Result<()> {
    let (rounds, milliseconds) = match (arguments.smoke, arguments.quick) {
        (true, _) => (1, 100),
        // Many short rounds: what the machine does meanwhile then hits few of them.
        (_, true) => (7, 120),
        (_, false) => (15, 400),
    };
    let effort = Effort {
        rounds,
        lasting: Duration::from_millis(milliseconds),
    };
    let folder = peers::repository().join("target/peers");
    fs::create_dir_all(&folder)?;
    let file = folder.join("results.json");
    let mut results = Results::load(&file)?;
    results.machine = results::machine();
    for case in CASES {
        let chosen = match arguments.cases.as_slice() {
            [] if arguments.smoke => case.name == "services",
            [] => true,
            names => names.iter().any(|name| name == case.name),
        };
        if !chosen {
            continue;
        }
        let rows = (case.run)(effort)?;
        results::print(&format!("{}: {}", case.name, case.title), &rows);
        for row in &rows {
            let version = peers::version(&row.server);
            results.versions.insert(row.server.clone(), version);
        }
        results.cases.insert(case.name.to_owned(), rows);
        if !arguments.smoke {
            results.save(&file)?;
        }
    }
    if arguments.publish {
        publish::publish(&results, &peers::repository())?;
    }
    Ok(())
}

fn load_one(arguments: &LoadArguments) -> io::Result<()> {
    let mut asked = Vec::new();
    for question in &arguments.questions {
        let question = &Question {
            is_fresh: arguments.fresh,
            ..question.clone()
        };
        let (one, first) = Asked::probe(question, arguments.like.unwrap_or(arguments.server))?;
        println!(
            "{} {}: {}, {} answers, {} additional, {} bytes",
            question.name,
            question.rtype,
            first.metadata.response_code,
            first.answers.len(),
            first.additionals.len(),
            one.size
        );
        asked.push(match arguments.like {
            Some(_) => one.for_echo(),
            None => one,
        });
    }
    let order: Vec<u32> = (0..asked.len() as u32).collect();
    cpu::pin(&[arguments.core])?;
    let outstanding = Pace::Outstanding(arguments.outstanding);
    let load = Load {
        server: arguments.server,
        asked: &asked,
        order: &order,
        pace: arguments.rate.map_or(outstanding, Pace::Rate),
        sockets: arguments.sockets,
        over_tcp: arguments.tcp,
    };
    for _ in 0..arguments.rounds {
        let lasting = Duration::from_secs_f64(arguments.seconds);
        let measured = Measured::of(&load, arguments.pid, lasting)?;
        let outcome = &measured.outcome;
        println!(
            "{:.2} us/query (busiest thread {:.2}), {:.0} answers/s, server busy {:.0} %, \
             p50 {:.0} p99 {:.0} p99.9 {:.0} us, {} wrong, {} lost",
            measured.cost(),
            measured.cost_of_busiest(),
            outcome.throughput(),
            100.0 * measured.used.total().as_secs_f64() / outcome.took.as_secs_f64(),
            outcome.latency_at(0.5),
            outcome.latency_at(0.99),
            outcome.latency_at(0.999),
            outcome.wrong,
            outcome.lost,
        );
    }
    Ok(())
}
