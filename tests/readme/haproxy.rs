//! The documents' `portolan haproxy`, with addresses and paths of the test's own.

use crate::{
    acl,
    documents::{Command, documents, open},
    support::{
        consul::{Consul, instance},
        directory, ensure, eventually, free_ports, http, own_loopback,
        portolan::{self, Portolan, run_to_end},
        process::Process,
        write_file,
    },
};
use serde_json::json;
use std::{collections::BTreeMap, ffi::OsString, fs, net::SocketAddr, path::Path, time::Duration};

/// The template in the program, which `docs/haproxy.md` links to.
const TEMPLATE: &str = "src/haproxy/haproxy.cfg.j2";

/// Where everything is in a test.
fn own(directory: &Path, consul: &Consul, dns: SocketAddr) -> Vec<String> {
    let ip = own_loopback();
    let [http, stats] = free_ports(ip);
    let file = |name: &str| directory.join(name).display().to_string();
    [
        ("--consul", consul.url()),
        ("--resolver", dns.to_string()),
        ("--bind", format!("{ip}:{http}")),
        ("--stats-bind", format!("{ip}:{stats}")),
        ("--output", file("haproxy.cfg")),
        ("--master-socket", file("m.sock")),
        ("--admin", "127.0.0.1:0".to_owned()),
    ]
    .map(|(flag, value)| [flag.to_owned(), value])
    .concat()
}

#[test]
fn the_commands_keep_haproxy_right() {
    let all = documents();
    let all = all.iter().flat_map(|document| document.commands());
    let ours: BTreeMap<String, Command> = all
        .filter(|command| command.text.starts_with("portolan haproxy"))
        .map(|command| (command.text.clone(), command))
        .collect();
    ours.values().for_each(runs);
    assert!(ours.len() >= 3, "{ours:?}");
}

/// Runs a command: it has to make the file, or say what it would be.
fn runs(command: &Command) {
    let words = command.words();
    if let Err(error) = portolan_cli(&words) {
        panic!("{}: {error}", command.place);
    }
    let files = directory();
    let consul = Consul::start();
    let service = json!({ "Service": "web", "Address": "127.0.0.1", "Port": 1, "Tags": ["rest"] });
    consul.register(&instance("n1", "10.0.0.1", &service));
    let dns = Portolan::beside(&consul);
    let mut arguments = vec!["haproxy".to_owned()];
    arguments.extend(own(files.path(), &consul, dns.dns()));
    let errand = words.contains(&"--once") || words.contains(&"--dry-run");
    for flag in ["--once", "--dry-run"] {
        arguments.extend(words.contains(&flag).then(|| flag.to_owned()));
    }
    if words.contains(&"--template") {
        arguments.extend(["--template".to_owned(), TEMPLATE.to_owned()]);
    }
    let file = files.path().join("haproxy.cfg");
    let written = || fs::read_to_string(&file).unwrap_or_default();
    if errand {
        let outcome = run_to_end(&arguments, &[]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let made = outcome.stdout + &written();
        assert!(made.contains("backend web"), "{made}");
        return;
    }
    let arguments: Vec<OsString> = arguments.into_iter().map(OsString::from).collect();
    let process = portolan::command(&arguments, &[]);
    let log = files.path().join("portolan.log");
    let mut process = Process::start("portolan haproxy", process, &log);
    eventually(Duration::from_secs(15), "HAProxy runs", || {
        let runs = process.log().contains("Loading success");
        ensure(runs && written().contains("backend web"), || process.log())
    });
    process.signal("TERM");
    let status = process.wait(Duration::from_secs(12));
    assert_eq!(status.code(), Some(0), "{}", process.log());
}

fn portolan_cli(words: &[&str]) -> Result<(), String> {
    let parsed = ::portolan::cli::parse_args(words);
    parsed.map(drop).map_err(|error| error.to_string())
}

/// The policy of the documents is enough for the keys as well.
#[test]
fn the_policy_shows_the_keys() {
    let (consul, token) = acl::start(&open(acl::POLICY).the_block("hcl").text);
    let path = format!("/v1/kv/service/haproxy/maxconn?token={}", acl::MANAGEMENT);
    let set = http::put(consul.http(), &path, "4321").expect("an answer");
    assert_eq!(set.status, 200, "{set:?}");
    let files = directory();
    let token = write_file(files.path(), "token", &token);
    let mut arguments = vec!["haproxy".to_owned(), "--dry-run".to_owned()];
    arguments.extend(own(files.path(), &consul, ([127, 0, 0, 1], 53).into()));
    arguments.extend(["--token-file".to_owned(), token.display().to_string()]);
    let outcome = run_to_end(&arguments, &[]);
    assert!(outcome.stdout.contains("maxconn 4321"), "{outcome:?}");
}
