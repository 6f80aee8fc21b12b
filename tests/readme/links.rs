//! The documents are a whole: links lead somewhere, what the code cites can be looked up, and whoever is in
//! trouble finds help.

use crate::documents::{Document, documents, everything, open, root};
use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

/// The README is for newcomers, who read it from the first to the last line.
const LONGEST: usize = 250;

/// What people ask when something is wrong.
const QUESTIONS: [&str; 3] = [
    "A service does not resolve",
    "HAProxy does not see my container",
    "DNS is slow",
];

/// A file, and the heading in it that is meant, if one is.
type Place = (String, Option<String>);

/// What a heading is linked by: its letters, digits and hyphens in lower case, and hyphens for blanks.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(document: &Document) -> Vec<String> {
    let headings = document.prose().into_iter().filter_map(|line| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.strip_prefix(' '))?
    });
    headings.map(anchor).collect()
}

/// What its links lead to within the repository.
fn links(document: &Document) -> Vec<Place> {
    let prose = document.prose().join("\n");
    let targets = prose.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split(')').next());
    let inside = targets.filter(|target| !target.starts_with("https://"));
    let place = |target: &str| {
        let (file, heading) = match target.split_once('#') {
            Some((file, heading)) => (file, Some(heading.to_owned())),
            None => (target, None),
        };
        let file = match file {
            "" => document.name.clone(),
            file => from(&document.name, file),
        };
        (file, heading)
    };
    inside.map(place).collect()
}

/// The file that a relative path leads to, from the folder of a document.
fn from(document: &str, path: &str) -> String {
    let mut file = PathBuf::from(document);
    file.pop();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => assert!(file.pop(), "{document}: {path} leaves the repository"),
            part => file.push(part),
        }
    }
    file.to_string_lossy().into_owned()
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for document in everything() {
        for (file, heading) in links(&document) {
            let is_there = root().join(&file).exists();
            let has_it = heading
                .as_ref()
                .is_none_or(|heading| is_there && anchors(&open(&file)).contains(heading));
            if !(is_there && has_it) {
                wrong.push(format!("{}: no {file} {heading:?}", document.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Of two headings that are linked by the same anchor, nobody gets to the second.
#[test]
fn every_heading_can_be_linked() {
    for document in documents() {
        let anchors = anchors(&document);
        let different: BTreeSet<&String> = anchors.iter().collect();
        assert_eq!(different.len(), anchors.len(), "{}", document.name);
    }
}

#[test]
fn the_readme_is_short_and_leads_to_every_document() {
    let readme = open("README.md");
    let lines = readme.text.lines().count();
    assert!(lines <= LONGEST, "README.md has {lines} lines");
    let linked: Vec<String> = links(&readme).into_iter().map(|(file, _)| file).collect();
    for document in documents() {
        let is_linked = linked.contains(&document.name) || document.name == readme.name;
        assert!(is_linked, "README.md does not lead to {}", document.name);
    }
}

/// The first link may lead to a page that has the second one.
#[test]
fn help_is_two_clicks_away() {
    let first = links(&open("README.md"));
    let pages: BTreeSet<&String> = first.iter().map(|(file, _)| file).collect();
    let pages = pages.into_iter().filter(|file| file.ends_with(".md"));
    let second: Vec<Place> = pages.flat_map(|file| links(&open(file))).collect();
    for question in QUESTIONS {
        let wanted = Some(anchor(question));
        let mut found = first.iter().chain(&second);
        let found = found.find(|(_, heading)| *heading == wanted);
        let (file, _) = found.unwrap_or_else(|| panic!("nothing leads to {question:?}"));
        let help = open(file);
        let (_, after) = help.text.split_once(question).expect("its heading");
        let section = after.split("\n### ").next().unwrap_or_default();
        let rows = section.lines().filter(|line| line.starts_with("| "));
        assert!(rows.count() > 5, "{file}: {question:?} is not answered");
    }
}

/// What is quoted from the log or from an error is what the program says.
#[test]
fn messages_are_quoted_as_they_are() {
    let mut code = String::new();
    read_code(&root().join("src"), &mut |_, text| code.push_str(text));
    let mut quotes = 0;
    for document in documents() {
        let mut quoting = false;
        for line in document.prose() {
            quoting = match line {
                "| log line | what happened | what to do |" | "| it says | cause | cure |" => true,
                _ => quoting && line.starts_with('|'),
            };
            if let Some(message) = line.strip_prefix("| `").filter(|_| quoting) {
                let message = message.split('`').next().unwrap_or_default();
                assert!(code.contains(message), "nothing says {message:?}");
                quotes += 1;
            }
        }
    }
    assert!(quotes > 10, "{quotes} messages");
}

#[test]
fn every_decision_that_is_cited_can_be_looked_up() {
    let listed = anchors(&open("docs/decisions.md"));
    let mut cited = BTreeSet::new();
    for folder in ["src", "tests", "fuzz", "benches"] {
        read_code(&root().join(folder), &mut |file, text| {
            for number in decisions(text) {
                let is_listed = listed.contains(&format!("d{number}"));
                assert!(is_listed, "{}: no D{number}", file.display());
                cited.insert(number);
            }
        });
    }
    assert!(cited.len() > 10, "{cited:?}");
}

/// The numbers of the decisions that a text cites: `D7`, and not a part of a longer word.
fn decisions(text: &str) -> Vec<u32> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let numbers = words.filter_map(|word| word.strip_prefix('D')?.parse().ok());
    numbers.filter(|number| *number < 100).collect()
}

#[test]
fn every_room_is_explained_to_contributors() {
    let rooms = fs::read_to_string(root().join("src/lib.rs")).expect("the rooms");
    let rooms = rooms
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`"));
    let explained = open("CONTRIBUTING.md");
    for room in rooms.filter_map(|line| line.split('`').next()) {
        let is_explained = explained.text.contains(&format!("`{room}`"));
        assert!(is_explained, "CONTRIBUTING.md does not name {room}");
    }
}

/// Hands all Rust files below a folder over.
fn read_code(folder: &Path, take: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            read_code(&path, take);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            take(&path, &fs::read_to_string(&path).expect("text"));
        }
    }
}
