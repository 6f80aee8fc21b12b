//! The documents: their prose, their fenced blocks, and the commands in those that are for a shell.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A document of the repository.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// Where it is, from the top of the repository.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A fenced block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    document: String,
    /// What stands after the opening fence.
    pub(crate) language: String,
    /// The line of the document that its first line is on.
    line: usize,
    pub(crate) text: String,
}

/// A command and what is shown of its output.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// The document and the line, for whoever reads a failure.
    pub(crate) place: String,
    pub(crate) text: String,
    /// Empty where nothing is shown.
    pub(crate) output: Vec<String>,
}

impl Command {
    /// Its words. No command needs quotes.
    pub(crate) fn words(&self) -> Vec<&str> {
        assert!(
            !self
                .text
                .contains(['\'', '"', '\\', '$', '|', '>', ';', '&']),
            "{}: this test is no shell: {}",
            self.place,
            self.text
        );
        self.text.split_whitespace().collect()
    }
}

impl Block {
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.document, self.line)
    }
}

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents whose blocks are tested here, the README first. (`tests/compose` has that of `docker/`;
/// those of `benches/peers` and `fuzz` are about workspaces of their own.)
pub(crate) fn documents() -> Vec<Document> {
    let mut documents = Vec::from(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(open));
    let entries = fs::read_dir(root().join("docs")).expect("docs is a directory");
    let names = entries.map(|entry| entry.expect("an entry of docs").file_name());
    let mut names: Vec<String> = names
        .map(|name| format!("docs/{}", name.to_string_lossy()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.sort();
    documents.extend(names.iter().map(|name| open(name)));
    documents
}

/// Every document of the repository.
pub(crate) fn everything() -> Vec<Document> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("its type");
            let path = folder.join(&name);
            if kind.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(".md") {
                found.push(open(&path.to_string_lossy()));
            }
        }
    }
    found
}

/// The document of this name.
pub(crate) fn open(name: &str) -> Document {
    let text = fs::read_to_string(root().join(name));
    Document {
        name: name.to_owned(),
        text: text.unwrap_or_else(|error| panic!("{name}: {error}")),
    }
}

impl Document {
    /// The lines outside of fenced blocks.
    pub(crate) fn prose(&self) -> Vec<&str> {
        let mut fenced = false;
        let lines = self.text.lines().filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            fenced ^= is_fence;
            !is_fence && !fenced
        });
        lines.collect()
    }

    /// All fenced blocks, in order. One in a list is indented as its fence is.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(Block, usize)> = None;
        for (number, line) in (1..).zip(self.text.lines()) {
            let indent = line.len() - line.trim_start().len();
            match (open.take(), line.trim_start().strip_prefix("```")) {
                (None, None) => {}
                (None, Some(language)) => {
                    let block = Block {
                        document: self.name.clone(),
                        language: language.to_owned(),
                        line: number + 1,
                        text: String::new(),
                    };
                    open = Some((block, indent));
                }
                (Some((block, _)), Some("")) => blocks.push(block),
                (Some((block, _)), Some(_)) => panic!("{}: it is not closed", block.place()),
                (Some((mut block, outer)), None) => {
                    block.text.push_str(&line[indent.min(outer)..]);
                    block.text.push('\n');
                    open = Some((block, outer));
                }
            }
        }
        assert!(open.is_none(), "{}: {open:?} is not closed", self.name);
        blocks
    }

    /// The one block of a language.
    pub(crate) fn the_block(&self, language: &str) -> Block {
        let mut found = self.blocks();
        found.retain(|block| block.language == language);
        match <[Block; 1]>::try_from(found) {
            Ok([block]) => block,
            Err(found) => panic!(
                "{} has {} blocks of {language}, not one",
                self.name,
                found.len()
            ),
        }
    }

    /// The commands of all blocks for a shell, in order. In a `sh` block each line is one; in a `console`
    /// block those after a prompt are, and what follows is their output.
    pub(crate) fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::new();
        for block in self.blocks() {
            let before = commands.len();
            for (line, text) in (block.line..).zip(block.text.lines()) {
                let place = format!("{}:{line}", self.name);
                let command = match block.language.as_str() {
                    "sh" => Some(text),
                    "console" => text.strip_prefix("$ "),
                    _ => break,
                };
                match command {
                    Some(text) => commands.push(Command {
                        place,
                        text: text.to_owned(),
                        output: Vec::new(),
                    }),
                    None => {
                        let last = commands[before..].last_mut();
                        let last = last.unwrap_or_else(|| panic!("{place}: output of no command"));
                        last.output.push(text.to_owned());
                    }
                }
            }
        }
        commands
    }

    /// Every text in backquotes, in rows of tables that begin with one or anywhere.
    pub(crate) fn quoted(&self, rows_only: bool) -> Vec<&str> {
        let lines = self.prose().into_iter();
        let lines = lines.filter(|line| !rows_only || line.starts_with("| `"));
        lines
            .flat_map(|line| line.split('`').skip(1).step_by(2))
            .collect()
    }
}
