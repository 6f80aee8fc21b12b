//! The tables have all rows, and no other.

use crate::{
    documents::{documents, open, root},
    snippets::CONFIGURATION,
    support::{
        consul::Consul,
        directory,
        dns::{self, Query},
        docker::Docker,
        docker_proxy::DockerProxy,
        portolan::{Launch, run_to_end},
        registrar::Registrar,
        upstream::{self, Action, Upstream},
        wire::rtype::A,
        write_file,
    },
};
use portolan::config::KEYS;
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::{collections::BTreeSet, fs, net::Ipv4Addr, time::Duration};

/// The document with the flags of `register` and the labels of containers.
const REGISTER: &str = "docs/register.md";

/// The document with the metrics.
const OPERATING: &str = "docs/operating.md";

/// Every word in backquotes that begins like this, in rows of tables or anywhere.
fn quoted(document: &str, prefix: &str, rows_only: bool) -> BTreeSet<String> {
    let document = open(document);
    let quoted = document.quoted(rows_only).into_iter();
    quoted
        .filter(|text| text.starts_with(prefix))
        .filter_map(|text| text.split([' ', '=']).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_flag_is_listed() {
    let listed = [CONFIGURATION, REGISTER].map(|document| quoted(document, "--", true));
    let listed: BTreeSet<String> = listed.into_iter().flatten().collect();
    let mut known = BTreeSet::new();
    for command in ["serve", "dev", "check", "register", "haproxy"] {
        let help = run_to_end(&[command, "--help"], &[]).stdout;
        let flags = help
            .split_whitespace()
            .filter(|word| word.starts_with("--"));
        known.extend(flags.map(str::to_owned));
    }
    known.remove("--help");
    assert_eq!(listed, known);
}

#[test]
fn every_variable_is_listed() {
    let of_keys = KEYS.iter().filter_map(|key| key.variable);
    // Each of these changes what another one sets.
    let others = ["CONSUL_HTTP_SSL", "DOCKER_TLS_VERIFY", "HOME"];
    let read: BTreeSet<String> = of_keys.chain(others).map(str::to_owned).collect();
    let listed = ["CONSUL_", "DOCKER_", "HOME", "HAPROXY_"]
        .map(|prefix| quoted(CONFIGURATION, prefix, true));
    assert_eq!(listed.into_iter().flatten().collect::<BTreeSet<_>>(), read);
}

/// The keys that containers may bear, from the two lists that the code has of them.
#[test]
fn every_label_is_listed() {
    let mut known = BTreeSet::from(["SERVICE_X", "SERVICE_META_X"].map(str::to_owned));
    for (file, list) in [("meta.rs", "const KNOWN"), ("check.rs", "const KEYS")] {
        let file = root().join("src/docker/labels").join(file);
        let code = fs::read_to_string(file).expect("the code is readable");
        let list = code.split_once(list).expect("the list").1;
        let list = list.split_once("= [").expect("its beginning").1;
        let list = list.split_once("];").expect("its end").0;
        // What forks of Registrator call something is accepted, and not advertised.
        let list = list.split("// Of forks").next().unwrap_or_default();
        let keys = list.split('"').skip(1).step_by(2);
        known.extend(keys.map(|key| format!("SERVICE_{}", key.to_uppercase())));
    }
    assert!(known.len() > 20, "{known:?}");
    assert_eq!(quoted(REGISTER, "SERVICE_", true), known);
}

/// Everything that can be measured happens here once, and then `/metrics` has all there is.
#[test]
fn every_metric_is_listed() {
    let consul = Consul::start();
    let address = [Ipv4Addr::new(192, 0, 2, 7)];
    let slow = Upstream::start(move |query, _| {
        let answer = upstream::addresses(query, 300, &address);
        Action::Delay(Duration::from_millis(900), Box::new(answer))
    });
    let quick = Upstream::start(move |query, _| upstream::addresses(query, 300, &address));
    let portolan = Launch::new("serve")
        .args(["--consul", &consul.url()])
        .args(["--upstream", &slow.address().to_string()])
        .args(["--upstream", &quick.address().to_string()])
        .start();
    dns::ask(portolan.dns(), "consul.service.consul", A);
    Query::new("www.test", A)
        .patience(Duration::from_secs(5))
        .ask(portolan.dns());
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let registrar = Registrar::start(&["--docker", &proxy.url(), "--consul", &consul.url()]);
    registrar.wait_until_ready();
    let mut metrics = [portolan.get("/metrics"), registrar.get("/metrics")]
        .map(|metrics| metrics.expect("an answer").body)
        .concat();
    // Those that another command has.
    let mut registry = Registry::default();
    drop(portolan::haproxy::Metrics::new(&mut registry));
    encode(&mut metrics, &registry).expect("a string takes everything");
    let known: BTreeSet<String> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            _ => name.to_owned(),
        })
        .collect();
    assert_eq!(quoted(OPERATING, "portolan_", false), known, "{metrics}");
    for document in documents() {
        let named = quoted(&document.name, "portolan_", false);
        assert!(named.is_subset(&known), "{}: {named:?}", document.name);
    }
}

/// Keys that a text names, such as `consul.max_stale`, are there.
#[test]
fn every_key_that_is_named_exists() {
    let tables: BTreeSet<&str> = KEYS
        .iter()
        .filter_map(|key| Some(key.path.split_once('.')?.0))
        .collect();
    // A file and a name of DNS look alike.
    let others = ["haproxy.cfg", "haproxy.cfg.bak", "consul.service.consul"];
    let mut named = 0;
    for document in documents() {
        for text in document.quoted(false) {
            let path = text.split([' ', '=']).next().unwrap_or_default();
            let table = path.split_once('.').map(|(table, _)| table);
            if table.is_some_and(|table| tables.contains(table)) && !others.contains(&path) {
                let exists = KEYS.iter().any(|key| key.path == path);
                assert!(exists, "{}: there is no key {path}", document.name);
                named += 1;
            }
        }
    }
    assert!(named > 20, "{named} keys");
}

/// Each row of the table for those who come from other resolvers has one example of how it is done here, which is
/// taken over as it is.
#[test]
fn what_other_resolvers_do_is_done_like_this() {
    let text = open("docs/recursion.md").text;
    let head = "| what you look for | dnsmasq | Unbound | CoreDNS | Portolan |";
    let (_, table) = text.split_once(head).expect("the table");
    let rows: Vec<&str> = table
        .trim_start()
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() >= 15, "{} rows", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{row}");
        let example = cells[4]
            .strip_prefix('`')
            .and_then(|own| own.strip_suffix('`'));
        let example = example.unwrap_or_else(|| panic!("no example: {row}"));
        let key = example.split(' ').next().unwrap_or_default();
        assert!(KEYS.iter().any(|own| own.path == key), "{row}");
        let directory = directory();
        let file = write_file(directory.path(), "portolan.toml", example);
        let file = file.display().to_string();
        let checked = run_to_end(&["check", "--config", &file, "--consul", "none"], &[]);
        assert_eq!(checked.code, Some(0), "{row}: {}", checked.stderr);
    }
}
