//! Arguments -> command -> exit code.

use std::process::ExitCode;

use portolan::cli::{self, Command};
use portolan::commands;

fn main() -> ExitCode {
    let command = match cli::parse_args(std::env::args_os()) {
        Ok(command) => command,
        // Prints help to stdout or the mistake to stderr, and ends with 0 or 2.
        Err(error) => error.exit(),
    };
    let ended = match command {
        Command::Serve(flags) => commands::serve(&flags),
        Command::Dev(flags) => commands::dev(&flags),
        Command::Check { flags, running } => commands::check(&flags, running),
        Command::Register(flags, mode) => commands::register(&flags, mode),
        Command::Haproxy {
            flags,
            errand,
            adopt_config,
        } => commands::haproxy(&flags, errand, adopt_config),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.to_string().lines() {
                eprintln!("portolan: {line}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}
