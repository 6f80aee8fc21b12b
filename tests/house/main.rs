//! The house stays as it was drawn: rooms use only rooms below them, know only what they may know,
//! and keep their files short. The order of the rooms is the table in `src/lib.rs`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// More product lines than this, and a file does two things. Product lines are those that are not blank
/// and stand in no test.
const LONGEST: usize = 450;

/// What a room must never know, and why: beside the order of the rooms, these are the arrows of the house.
const UNKNOWN: &[(&str, &[&str], &str)] = &[
    (
        "catalog",
        &["hickory", "reqwest", "serde_json", "axum", "crate::dns"],
        "no DNS, no HTTP, no JSON",
    ),
    ("dns", PURE, "pure"),
    ("dns", &["crate::catalog", "onsul's catalog"], "no Consul"),
    ("answers", PURE, "pure"),
    ("answers", &["hickory"], "records are DNS's own words"),
    ("zones", &["crate::catalog"], "no Consul"),
    ("zones", &["async ", ".await"], "a look never waits"),
    ("recursion", &["crate::catalog"], "no Consul"),
    (
        "router",
        &["hickory", "UdpSocket", "TcpStream", "socket2", "nix::"],
        "no sockets",
    ),
    ("router", SOURCES, "what is known comes from the catalog"),
    ("consul", &["hickory", "crate::dns"], "no DNS"),
    ("docker", &["hickory", "crate::dns"], "no DNS"),
    ("files", &["hickory", "crate::dns"], "no DNS"),
    (
        "server",
        &["reqwest", "serde_json", "hickory"],
        "bytes in, bytes out",
    ),
    ("server", SOURCES, "what is known comes from the catalog"),
    (
        "server",
        &["crate::zones", "crate::recursion", "crate::answers"],
        "what a question means is the router's",
    ),
];

/// What a pure room does without.
const PURE: &[&str] = &[
    "tokio",
    "UdpSocket",
    "TcpStream",
    "serde_json",
    "std::fs",
    "::now()",
];

/// The rooms that feed the catalog.
const SOURCES: &[&str] = &["crate::consul", "crate::docker", "crate::files"];

/// What the whole process shares, so that no two servers of a process can stand apart. A constant that
/// is made late is none.
const GLOBAL: &[&str] = &[
    "Atomic",
    "OnceLock",
    "LazyLock<Instant",
    "Mutex",
    "RwLock",
    "thread_local",
];

#[test]
fn rooms_use_only_rooms_below_them() {
    let rooms = rooms();
    let mut wrong = Vec::new();
    for (place, room) in rooms.iter().enumerate() {
        for (file, text) in files_of(room) {
            for (number, line) in code(&text) {
                for used in used_rooms(line, &rooms) {
                    if rooms[..place].contains(&used) {
                        wrong.push(format!("{}:{number}: {room} uses {used}", file.display()));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that point up:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn rooms_do_not_know_what_is_not_theirs() {
    let mut wrong = Vec::new();
    for (room, words, why) in UNKNOWN {
        for (file, text) in files_of(room) {
            for (number, line) in code(&text) {
                for word in words.iter().filter(|word| line.contains(**word)) {
                    let file = file.display();
                    wrong.push(format!("{file}:{number}: `{word}` in {room}: {why}"));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "what a room must not know:\n{}",
        wrong.join("\n")
    );
}

/// Every folder and file of `src` is in the table, so that the order above covers everything.
#[test]
fn every_room_is_on_the_map() {
    let rooms = rooms();
    for entry in fs::read_dir(source()).expect("src is a directory") {
        let path = entry.expect("an entry of src").path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if matches!(name, "main" | "lib") || name.starts_with('.') {
            continue;
        }
        assert!(
            rooms.iter().any(|room| room == name),
            "{name} is not in the table of src/lib.rs"
        );
    }
    for room in &rooms {
        let (file, text) = &files_of(room)[0];
        assert!(
            text.starts_with("//! "),
            "{}: what is this room for?",
            file.display()
        );
    }
}

/// The clock, the versions and the counters belong to somebody.
#[test]
fn nothing_is_global() {
    let mut wrong = Vec::new();
    for (file, text) in files_below(&source()) {
        for (number, line) in code(&text) {
            let is_static = line.starts_with("static ") || line.contains(" static ");
            let is_shared = GLOBAL.iter().any(|word| line.contains(word));
            if is_static && is_shared || line.contains("thread_local!") {
                wrong.push(format!("{}:{number}: {line}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "global state:\n{}", wrong.join("\n"));
}

/// A file's own tests stand at its foot; those of a room in its `tests.rs`, or in a folder of that name.
#[test]
fn tests_stand_where_they_are_looked_for() {
    let mut wrong = Vec::new();
    for (file, text) in files_below(&source()) {
        let parts: Vec<_> = file.iter().filter_map(|part| part.to_str()).collect();
        let room = parts
            .iter()
            .position(|part| *part == "src")
            .map(|at| at + 2);
        let is_tests = file.file_stem().is_some_and(|name| {
            let name = name.to_string_lossy();
            name == "tests" || name.ends_with("_tests")
        });
        if text.contains("#[path") || is_tests && room != Some(parts.len() - 1) {
            wrong.push(file.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "a third way:\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for (file, text) in product_below(&source()) {
        let lines = product(&text).lines();
        let lines = lines.filter(|line| !line.trim().is_empty()).count();
        if lines > LONGEST {
            wrong.push(format!("{}: {lines} product lines", file.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!(
                "{}: does not begin with what it is",
                file.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The rooms, the highest first, from the table in `src/lib.rs`.
fn rooms() -> Vec<String> {
    let map = fs::read_to_string(source().join("lib.rs")).expect("src/lib.rs is readable");
    let rooms: Vec<String> = map
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`")?.split_once('`'))
        .map(|(room, _)| room.to_owned())
        .collect();
    assert!(
        rooms.len() > 5,
        "the table of rooms in src/lib.rs is gone: {rooms:?}"
    );
    rooms
}

/// The files of a room with their text, its front door first.
fn files_of(room: &str) -> Vec<(PathBuf, String)> {
    let (folder, file) = (source().join(room), source().join(format!("{room}.rs")));
    let mut files = product_below(&folder);
    if file.is_file() {
        files.push((
            file.clone(),
            fs::read_to_string(&file).expect("a readable file"),
        ));
    }
    let door = folder.join("mod.rs");
    files.sort_by_key(|(path, _)| (*path != door && *path != file, path.clone()));
    assert!(!files.is_empty(), "the room {room} has no file");
    files
}

/// All Rust files below a folder, without the tests of rooms.
fn product_below(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = files_below(folder);
    files.retain(|(path, _)| {
        !path
            .iter()
            .any(|part| part == "tests" || part == "tests.rs")
    });
    files
}

/// All Rust files below a folder.
fn files_below(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a readable file");
            files.push((path, text));
        }
    }
    files.sort();
    files
}

/// The product lines that are no comments, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = product(text).lines().enumerate();
    let lines = lines.map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.starts_with("//"))
}

/// A file without the tests at its foot.
fn product(text: &str) -> &str {
    const TESTS: &str = "\n#[cfg(test)]\nmod tests";
    let end = text.find(TESTS).unwrap_or(text.len());
    &text[..end]
}

/// The rooms that a line names after `crate::`, alone or in a list.
fn used_rooms(line: &str, rooms: &[String]) -> Vec<String> {
    let mut used = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let words = |text: &str| -> Vec<String> {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            text.split(|c| !word(c)).map(str::to_owned).collect()
        };
        // Of a list every word is taken: better one word too many than an arrow that hides.
        let taken = if rest.starts_with('{') {
            words(rest)
        } else {
            words(rest)[..1].to_vec()
        };
        used.extend(taken.into_iter().filter(|word| rooms.contains(word)));
    }
    used
}
