//! What goes wrong before anything is served: the exit code and the one line that explains it.

#[path = "../support/mod.rs"]
mod support;

mod checking;
mod service_manager;
mod signals;
mod starting;

use std::path::Path;
use support::portolan::Outcome;

/// The arguments of a `serve` that touches nothing of this machine.
const ALONE: [&str; 9] = [
    "serve",
    "--consul",
    "none",
    "--upstream",
    "none",
    "--admin",
    "none",
    "--listen",
    "127.0.0.1:0",
];

/// The configuration is wrong: exit code 78, and the last line says in which file, on which line, and
/// has the `words`.
fn assert_wrong_configuration(outcome: &Outcome, file: &Path, line: usize, words: &[&str]) {
    assert_eq!(outcome.code, Some(78), "{outcome:?}");
    let said = outcome.last_line();
    let file = file.display().to_string();
    let place = [format!("{file}:{line}:"), format!("{file}, line {line}")];
    assert!(
        place.iter().any(|place| said.contains(place)),
        "does not name {file} and line {line}: {outcome:?}"
    );
    for word in words {
        assert!(said.contains(word), "does not say `{word}`: {outcome:?}");
    }
}
