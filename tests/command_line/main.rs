//! What goes wrong before anything is served: the exit code and the one line that explains it.

#[path = "../support/mod.rs"]
mod support;

mod checking;
mod service_manager;
mod signals;
mod starting;

use std::path::{Path, PathBuf};
use support::{portolan::Outcome, write_file};

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

/// A file with six mistakes of six kinds beside each other, in `files`, and what is said of each: its place,
/// and what is expected.
fn six_mistakes(files: &Path) -> (PathBuf, Vec<(String, &'static str)>) {
    let zones = files.join("bad-zones");
    std::fs::create_dir(&zones).expect("a directory");
    let zone = "$TTL 60\n@ SOA ns admin 1 2 3 4 5\nwww A 300.1.2.3\n";
    let zone = write_file(&zones, "a.test.zone", zone);
    let text = format!(
        "[server]\nworkrs = 4\nqueue_size = \"many\"\nmax_tcp_connections = 0\n\
         [consul]\ntoken = \"a\"\ntoken_file = \"b\"\nca_file = \"/nowhere/ca.pem\"\n\
         [zones]\ndirectory = {:?}\n",
        zone.parent().expect("a directory")
    );
    let file = write_file(files, "six.toml", &text);
    let at = |line: usize, key: &str| format!("{}:{line}: key `{key}`: ", file.display());
    let said = vec![
        (at(2, "server.workrs"), "did you mean `server.workers`?"),
        (
            at(3, "server.queue_size"),
            "expected a number, got a string",
        ),
        (
            at(4, "server.max_tcp_connections"),
            "expected 1 to 1000000, got 0",
        ),
        (at(7, "consul.token_file"), "keep one of the two"),
        (at(8, "consul.ca_file"), "expected a PEM file"),
        (
            format!("{}:3: ", zone.display()),
            "expected an IPv4 address",
        ),
    ];
    (file, said)
}

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
