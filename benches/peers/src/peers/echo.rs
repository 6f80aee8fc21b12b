//! The echo: see echo.c.

use super::{Setup, built};
use std::process::Command;

pub(super) fn command(setup: &Setup<'_>) -> Command {
    let mut command = Command::new(built("peers/release/echo"));
    command.args([
        setup.address.ip().to_string(),
        setup.address.port().to_string(),
        setup.workers.to_string(),
    ]);
    command
}
