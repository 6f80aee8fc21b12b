//! The fenced blocks of the README, and the commands in those that are for a shell.

use std::{fs, path::Path};

/// A fenced block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// What stands after the opening fence.
    pub(crate) language: String,
    /// The line of the README that its first line is on.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// A command and what the README shows of its output.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) text: String,
    /// Empty where nothing is shown.
    pub(crate) output: Vec<String>,
}

impl Command {
    /// Its words. No command of the README needs quotes.
    pub(crate) fn words(&self) -> Vec<&str> {
        assert!(
            !self
                .text
                .contains(['\'', '"', '\\', '$', '|', '>', ';', '&']),
            "README.md:{}: this test is no shell: {}",
            self.line,
            self.text
        );
        self.text.split_whitespace().collect()
    }
}

/// The README.
pub(crate) fn readme() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    fs::read_to_string(file).expect("README.md is readable")
}

/// All fenced blocks, in order.
pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in (1..).zip(readme().lines()) {
        match (open.take(), line.strip_prefix("```")) {
            (None, None) => {}
            (None, Some(language)) => {
                open = Some(Block {
                    language: language.to_owned(),
                    line: number + 1,
                    text: String::new(),
                });
            }
            (Some(block), Some("")) => blocks.push(block),
            (Some(block), Some(_)) => panic!("README.md:{}: this block is not closed", block.line),
            (Some(mut block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
        }
    }
    assert!(open.is_none(), "README.md: {open:?} is not closed");
    blocks
}

/// The one block of a language.
pub(crate) fn the_block(language: &str) -> Block {
    let mut found = blocks();
    found.retain(|block| block.language == language);
    match <[Block; 1]>::try_from(found) {
        Ok([block]) => block,
        Err(found) => panic!(
            "README.md has {} blocks of {language}, not one",
            found.len()
        ),
    }
}

/// The commands of all blocks for a shell, in order. In a `sh` block each line is one; in a `console`
/// block those after a prompt are, and what follows is their output.
pub(crate) fn commands() -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for block in blocks() {
        for (line, text) in (block.line..).zip(block.text.lines()) {
            let command = match block.language.as_str() {
                "sh" => Some(text),
                "console" => text.strip_prefix("$ "),
                _ => break,
            };
            match command {
                Some(text) => commands.push(Command {
                    line,
                    text: text.to_owned(),
                    output: Vec::new(),
                }),
                None => {
                    let last = commands
                        .last_mut()
                        .filter(|last| last.line >= block.line)
                        .unwrap_or_else(|| panic!("README.md:{line}: output of no command"));
                    last.output.push(text.to_owned());
                }
            }
        }
    }
    commands
}
