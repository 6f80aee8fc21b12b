//! Portolan beside other DNS servers: see README.md.

mod cpu;
mod load;
mod question;

use clap::{Args, Parser, Subcommand};
use load::{Load, Pace};
use question::{Asked, Question};
use std::{net::SocketAddr, process::ExitCode, time::Duration};

#[derive(Debug, Parser)]
#[command(about = "Measures DNS servers against each other, and against an echo")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Asks one server that runs already
    Load(LoadArguments),
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
    /// The server is the echo: its replies are as long as those of this server
    #[arg(long, value_name = "IP:PORT")]
    like: Option<SocketAddr>,
    /// Queries that are always under way
    #[arg(long, default_value_t = 64)]
    outstanding: usize,
    /// Queries a second, instead
    #[arg(long)]
    rate: Option<f64>,
    /// How long
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Sockets that ask, each as a client of its own
    #[arg(long, default_value_t = 16)]
    sockets: usize,
    /// The core to do it on
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// How often
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Load(arguments) => load_one(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn load_one(arguments: &LoadArguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut asked = Vec::new();
    for question in &arguments.questions {
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
        asked.push(if arguments.like.is_some() {
            one.for_echo()
        } else {
            one
        });
    }
    let order: Vec<u32> = (0..asked.len() as u32).collect();
    cpu::pin(&[arguments.core])?;
    let load = Load {
        server: arguments.server,
        asked: &asked,
        order: &order,
        pace: arguments
            .rate
            .map_or(Pace::Outstanding(arguments.outstanding), Pace::Rate),
        sockets: arguments.sockets,
        pid: arguments.pid,
    };
    load.run(Duration::from_millis(300))?;
    for _ in 0..arguments.rounds {
        let measured = load.run(Duration::from_secs_f64(arguments.seconds))?;
        println!(
            "{:.2} us/query (busiest thread {:.2}), {:.0} answers/s, server busy {:.0} %, \
             p50 {:.0} p99 {:.0} p99.9 {:.0} us, {} wrong, {} lost",
            measured.cost(),
            measured.busiest.as_secs_f64() * 1e6 / measured.answered as f64,
            measured.throughput(),
            100.0 * measured.cpu.as_secs_f64() / measured.took.as_secs_f64(),
            measured.latency_at(0.5),
            measured.latency_at(0.99),
            measured.latency_at(0.999),
            measured.wrong,
            measured.lost,
        );
    }
    Ok(())
}
