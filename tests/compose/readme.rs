//! `docker/README.md`, typed word for word: every command is run, in its order, and what it shows is
//! what comes, but for the names of containers and their addresses.

use crate::world::{World, compose_command, root};
use std::fs;

/// Blocks for a shell, and those that `snippets_are_well_formed` looks at.
const SHELL: [&str; 2] = ["sh", "console"];

struct Block {
    language: String,
    lines: Vec<String>,
}

fn readme() -> String {
    fs::read_to_string(root().join("docker/README.md")).expect("docker/README.md is readable")
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in readme().lines() {
        match (open, line.strip_prefix("```")) {
            (false, Some(language)) => blocks.push(Block {
                language: language.to_owned(),
                lines: Vec::new(),
            }),
            (true, None) => {
                let last = blocks.last_mut().expect("an open block");
                last.lines.push(line.to_owned());
                continue;
            }
            (false, None) => continue,
            (true, Some(rest)) => assert_eq!(rest, "", "a block is not closed"),
        }
        open = !open;
    }
    blocks
}

/// Commands, each with the output that is shown for it, if any.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for block in blocks() {
        for line in &block.lines {
            match (block.language.as_str(), line.strip_prefix("$ ")) {
                ("sh", _) => commands.push((line.clone(), Vec::new())),
                ("console", Some(command)) => commands.push((command.to_owned(), Vec::new())),
                ("console", None) => {
                    let last = commands.last_mut().expect("output of a command");
                    last.1.push(line.clone());
                }
                _ => {}
            }
        }
    }
    commands
}

/// Without what differs from one machine to the next: ids and addresses in hexadecimal.
fn same_everywhere(text: &str) -> String {
    let hexadecimal =
        |word: &str| matches!(word.len(), 8 | 12) && word.chars().all(|c| c.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(|word| {
            let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            match hexadecimal(bare) {
                true => word.replace(bare, "HEX"),
                false => word.to_owned(),
            }
        })
        .collect()
}

#[test]
fn the_commands_do_what_is_shown() {
    let world = World::new();
    world.assert_ports_are_free();
    let commands = commands();
    assert!(commands.len() > 8, "{commands:?}");
    for (command, shown) in commands {
        eprintln!("docker/README.md: {command}");
        // Here the resolver of the network is a scripted one.
        let typed = command
            .replace("docker compose", compose_command())
            .replace("192.0.2.53", world.variable("UPSTREAM"));
        let said = world
            .shell(&typed)
            .unwrap_or_else(|error| panic!("{error}"));
        if !shown.is_empty() {
            let shown = same_everywhere(&shown.join("\n"));
            assert_eq!(same_everywhere(said.trim_end()), shown, "{command}");
        }
    }
}

/// What is not for a shell is at least what it says it is.
#[test]
fn snippets_are_well_formed() {
    for block in blocks() {
        let text = block.lines.join("\n");
        match block.language.as_str() {
            language if SHELL.contains(&language) => {}
            "json" => {
                let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert!(value["dns"].is_array(), "{value}");
            }
            "toml" => {
                let files = crate::support::directory();
                let file = crate::support::write_file(files.path(), "portolan.toml", &text);
                let file = file.to_str().expect("text");
                let check = ["check", "--config", file];
                let outcome = crate::support::portolan::run_to_end(&check, &[]);
                assert_eq!(outcome.code, Some(0), "{outcome:?}");
            }
            "ini" => assert!(text.contains("[Resolve]"), "{text}"),
            "yaml" => {
                let files = crate::support::directory();
                let file = crate::support::write_file(files.path(), "compose.yaml", &text);
                let check = format!("{} -f {} config -q", compose_command(), file.display());
                let checked = std::process::Command::new("sh")
                    .args(["-c", &check])
                    .output();
                let checked = checked.expect("running sh");
                assert!(checked.status.success(), "{checked:?}");
            }
            other => panic!("nothing tests blocks of {other:?}"),
        }
    }
}

/// Every variable of the files is in the table, and no other.
#[test]
fn every_variable_is_listed() {
    use std::collections::BTreeSet;
    let mut used = BTreeSet::new();
    for file in ["compose.yaml", "compose.host.yaml"] {
        let text = fs::read_to_string(root().join("docker").join(file)).expect("a compose file");
        for rest in text.split("${").skip(1) {
            let end = rest.find([':', '}']).expect("the end of a variable");
            used.insert(rest[..end].to_owned());
        }
    }
    let listed: BTreeSet<String> = readme()
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| line.split('|').nth(1).map(str::to_owned))
        .flat_map(|cell| {
            cell.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|word| word.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    assert_eq!(listed, used);
}
