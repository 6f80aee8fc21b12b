//! The documents are true: their commands do what they show, their snippets are accepted by the programs
//! they are for, their tables are complete, their links lead somewhere. A block or a command that nothing
//! here knows fails.

#[path = "../support/mod.rs"]
mod support;

mod acl;
mod commands;
mod configuration;
mod documents;
mod haproxy;
mod links;
mod snippets;
mod tables;

/// Every kind of block has somebody who looks at it.
#[test]
fn every_block_is_of_a_kind_that_is_tested() {
    for document in documents::documents() {
        for block in document.blocks() {
            let tested = ["console", "sh", "toml", "haproxy", "json", "hcl", "mermaid"];
            assert!(
                tested.contains(&block.language.as_str()),
                "{}: nothing tests blocks of {:?}",
                block.place(),
                block.language
            );
        }
    }
}
