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
        Command::Dev(flags) => commands::dev(flags),
        Command::Check(flags) => commands::check(&flags),
        Command::Register(flags, mode) => commands::register(&flags, mode),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("portolan: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
