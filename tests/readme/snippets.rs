//! The configuration files in the documents, given to the programs they are for.

use crate::{
    documents::{Document, documents, open},
    support::{
        consul::{Consul, instance},
        directory, eventually,
        haproxy::{Haproxy, Server},
        own_loopback,
        portolan::{Portolan, run_to_end},
        program, write_file,
    },
};
use portolan::config::{Config, Flags, Strings, Verb};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    process::Command,
    time::Duration,
};

/// The document that has every key.
pub(crate) const CONFIGURATION: &str = "docs/configuration.md";

/// The document with the `resolvers` section.
const HAPROXY: &str = "docs/haproxy.md";

/// The JSON blocks that have this key.
pub(crate) fn json(document: &Document, key: &str) -> Vec<Value> {
    let all = document.blocks().into_iter();
    all.filter(|block| block.language == "json")
        .map(|block| {
            serde_json::from_str(&block.text)
                .unwrap_or_else(|error| panic!("{}: {error}", block.place()))
        })
        .filter(|value: &Value| value.get(key).is_some())
        .collect()
}

/// Each kind of block is where its test looks for it.
#[test]
fn snippets_are_where_they_are_tested() {
    let places = [
        ("toml", CONFIGURATION),
        ("haproxy", HAPROXY),
        ("hcl", crate::acl::POLICY),
        ("mermaid", "README.md"),
    ];
    for document in documents() {
        for block in document.blocks() {
            let place = places
                .iter()
                .find(|(language, _)| *language == block.language);
            let is_there = place.is_none_or(|(_, place)| *place == document.name);
            assert!(is_there, "{}: nothing tests it here", block.place());
        }
        let known = ["services", "dns"].map(|key| json(&document, key).len());
        let blocks = document.blocks();
        let blocks = blocks.iter().filter(|block| block.language == "json");
        assert_eq!(
            known.iter().sum::<usize>(),
            blocks.count(),
            "{}",
            document.name
        );
    }
}

/// What the drawing names is there, and its brackets match. What draws it is GitHub's.
#[test]
fn the_drawing_shows_the_commands() {
    let text = open("README.md").the_block("mermaid").text;
    assert!(text.starts_with("flowchart "), "{text}");
    for command in ["serve", "register", "haproxy"] {
        assert!(text.contains(&format!("portolan {command}")), "{command}");
    }
    for pair in ["()", "[]"] {
        let [open, close] = [0, 1].map(|at| text.matches(&pair[at..=at]).count());
        assert_eq!(open, close, "{pair}");
    }
    assert_eq!(text.matches('"').count() % 2, 0);
}

struct NoEnvironment;

impl Strings for NoEnvironment {
    fn get(&self, _: &str) -> Option<String> {
        None
    }
}

/// The example is the defaults, as it says.
#[test]
fn the_configuration_is_the_defaults() {
    let files = directory();
    let file = write_file(
        files.path(),
        "portolan.toml",
        &open(CONFIGURATION).the_block("toml").text,
    );
    let mut flags = Flags::new(Verb::Serve);
    flags.config = Some(file.clone());
    let config = Config::load(&flags, &NoEnvironment, None).expect("a configuration");
    let defaults = Config {
        file: Some(file),
        ..Config::default()
    };
    assert_eq!(config, defaults);
}

/// A line of the example that is switched off: `#key = value`.
fn switched_off(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('#')?;
    rest.starts_with(|c: char| c.is_ascii_lowercase())
        .then_some(rest)
}

/// What `portolan check` says to a configuration of this text.
fn check(text: &str) -> crate::support::portolan::Outcome {
    let files = directory();
    let file = write_file(files.path(), "portolan.toml", text);
    run_to_end(&["check", "--config", &file.display().to_string()], &[])
}

/// Each line that is switched off may be switched on.
#[test]
fn every_switched_off_key_can_be_set() {
    let text = open(CONFIGURATION).the_block("toml").text;
    let off = text.lines().filter_map(switched_off);
    for line in off {
        let outcome = check(&text.replace(&format!("#{line}"), line));
        // Files that only the reader has: as long as it is the file that is missed.
        let is_missed = ["No such file", "needs its key", "needs its certificate"]
            .iter()
            .any(|why| line.contains("/etc/portolan/") && outcome.last_line().contains(why));
        // A directory of zones is not a file.
        assert!(outcome.code == Some(0) || is_missed, "{line}: {outcome:?}");
    }
}

/// The example has all keys there are: the program lists them when it is given one that is none.
#[test]
fn the_configuration_has_every_key() {
    let text: String = open(CONFIGURATION)
        .the_block("toml")
        .text
        .lines()
        .map(|line| switched_off(line).unwrap_or(line).to_owned() + "\n")
        .collect();
    let example: toml::Table = text
        .parse()
        .expect("TOML, also with everything switched on");
    let mut tables = vec![String::new()];
    while let Some(table) = tables.pop() {
        let header = match table.as_str() {
            "" => String::new(),
            name => format!("[{name}]\n"),
        };
        let outcome = check(&format!("{header}no_such_key_at_all = 1\n"));
        let known = outcome.last_line().split_once("known here: ");
        let known = known.unwrap_or_else(|| panic!("[{table}]: {outcome:?}")).1;
        let known: BTreeSet<&str> = known.split(", ").collect();
        let shown = table.split('.').filter(|name| !name.is_empty());
        let shown = shown.fold(&example, |inside, name| {
            inside[name].as_table().expect("a table")
        });
        let names: BTreeSet<&str> = shown.keys().map(String::as_str).collect();
        assert_eq!(names, known, "keys of [{table}]");
        let inner = shown.iter().filter(|(_, value)| value.is_table());
        tables.extend(
            inner
                .map(|(name, _)| format!("{table}.{name}").trim_start_matches('.').to_owned())
                // Its keys are names of services.
                .filter(|name| name != "answers.service_ttl"),
        );
    }
}

#[test]
fn haproxy_takes_the_snippet() {
    let files = directory();
    let socket = files.path().join("stats.sock");
    let text = format!(
        "global\n    stats socket {}\ndefaults\n    mode tcp\n    timeout connect 1s\n    \
         timeout client 1s\n    timeout server 1s\n{}",
        socket.display(),
        open(HAPROXY).the_block("haproxy").text
    );
    let file = write_file(files.path(), "haproxy.cfg", &text);
    let output = Command::new(program("haproxy"))
        .arg("-c")
        .arg("-f")
        .arg(file)
        .output()
        .expect("running haproxy");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("[WARNING]"), "{said}");
}

/// With the snippet HAProxy follows a real service, checks and all.
#[test]
fn haproxy_follows_a_service_with_the_snippet() {
    let consul = Consul::start();
    let servers: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind((own_loopback(), 0)).expect("a free port"))
        .collect();
    let address = |server: &TcpListener| server.local_addr().expect("a bound socket");
    for (number, server) in servers.iter().enumerate() {
        let service = json!({ "Service": "web", "ID": format!("web-{number}"),
            "Address": address(server).ip(), "Port": address(server).port() });
        consul.register(&instance("n1", "10.0.0.1", &service));
    }
    let portolan = Portolan::beside(&consul);
    let block = open(HAPROXY).the_block("haproxy").text;
    let readme: SocketAddr = ([127, 0, 0, 1], 53).into();
    assert_eq!(block.matches(&readme.to_string()).count(), 1);
    let haproxy = Haproxy::start(&block.replace(&readme.to_string(), &portolan.dns().to_string()));
    let follows = |within: u64, servers: &[TcpListener]| {
        let expected: BTreeSet<String> = servers.iter().map(|s| address(s).to_string()).collect();
        let within = Duration::from_secs(within);
        eventually(within, "HAProxy has these servers", || {
            let up: BTreeSet<String> = haproxy.up("web").iter().map(Server::endpoint).collect();
            match up == expected {
                true => Ok(()),
                false => Err(format!("{up:?} instead of {expected:?}")),
            }
        });
    };
    follows(15, &servers);
    consul.deregister("n1", "web-2");
    follows(3, &servers[..2]);
}
