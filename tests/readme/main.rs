//! The README is true: its commands do what it shows, its snippets are accepted by the programs they
//! are for, its tables are complete. A block or a command that nothing here knows fails.

#[path = "../support/mod.rs"]
mod support;

mod acl;
mod blocks;
mod commands;
mod haproxy;
mod snippets;
mod tables;

use std::path::Path;

/// What a heading is linked by: its letters, digits and hyphens in lower case, and hyphens for blanks.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// What a link leads to is there.
#[test]
fn every_link_leads_somewhere() {
    let readme = blocks::readme();
    let links = readme.split("](").skip(1);
    let targets: Vec<&str> = links.filter_map(|rest| rest.split(')').next()).collect();
    assert!(targets.len() > 3, "{targets:?}");
    let headings = readme.lines().filter_map(|line| line.split_once("# "));
    let anchors: Vec<String> = headings.map(|(_, heading)| anchor(heading)).collect();
    for target in targets {
        let is_there = match target.strip_prefix('#') {
            Some(target) => anchors.iter().any(|anchor| anchor == target),
            None => Path::new(target).exists(),
        };
        assert!(is_there, "no {target}");
    }
}

/// Every kind of block has somebody who looks at it.
#[test]
fn every_block_is_of_a_kind_that_is_tested() {
    for block in blocks::blocks() {
        let tested = ["console", "sh", "toml", "haproxy", "json", "hcl"];
        assert!(
            tested.contains(&block.language.as_str()),
            "README.md:{}: nothing tests blocks of {:?}",
            block.line,
            block.language
        );
    }
}
