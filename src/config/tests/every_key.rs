//! Every key of the table: read, at its default, alone, and set by flags and variables.

use std::time::Duration;

use crate::docker::Deregister;
use crate::{answers, recursion, server};

use super::*;

/// Every key, none with its default.
const EVERYTHING: &str = r#"
    domain = "sd.example."
    alt_domain = "Other"
    datacenter = "DC7"
    state_dir = "state"
    [server]
    listen = ["127.0.0.1:5300", "[::1]:5300", "127.0.0.1:5300"]
    workers = 1023
    max_tcp_connections = 64
    max_tcp_connections_per_client = 100
    tcp_idle_timeout = 20
    queue_size = 10
    [consul]
    address = "https://consul.example:8501"
    token = "secret"
    datacenter = "dc2"
    fallback_addresses = ["http://c2:8500"]
    max_watches = 64
    list_rate = 5000
    unknown_rate = 7
    max_stale = "10s"
    translate_wan_addrs = true
    ca_file = "ca.pem"
    client_cert = "cert.pem"
    client_key = "key.pem"
    tls_server_name = "server.dc2.consul"
    verify = false
    [docker]
    address = "tcp://proxy:2375"
    cert_path = "certs"
    serve = true
    ip = "10.0.0.9"
    [register]
    owner = "me"
    ip = "10.0.0.5"
    tags = ["one", "two"]
    internal = true
    explicit = true
    deregister = "on-success"
    on_exit = "deregister"
    resync = "1m"
    [services]
    directories = ["one", "two"]
    [zones]
    directory = "zones"
    [recursion]
    upstreams = ["192.0.2.53", "[2001:db8::53]:5353", "tls://192.0.2.54#dns.example"]
    forward = [
        "corp.example=10.1.0.53",
        { domains = ["10.0.0.0/8", "lab.example"], upstreams = ["10.1.0.53", "10.1.0.54:5353"] },
        "gone.example=none",
    ]
    ca_file = "resolvers-ca.pem"
    hosts = ["one", "two"]
    allow = ["192.0.2.0/24"]
    recursor_strategy = "random"
    recursor_timeout = "500ms"
    random_case = true
    rebinding = "refuse"
    cache = "0"
    stale = "90m"
    prefetch = false
    [answers]
    max_udp_size = 1232
    truncate_addresses = "tc"
    srv_target = "address"
    srv_weight_scale = 256
    only_passing = true
    service_ttl = { Web = "10s", "db*" = 20 }
    node_ttl = "0s"
    a_record_limit = 4
    udp_answer_limit = 3
    [answers.soa]
    min_ttl = 2
    refresh = "3s"
    retry = "4s"
    expire = "5s"
    [haproxy]
    prefix = "/lb/edge/"
    tag = "web"
    template = "edge.j2"
    output = "edge.cfg"
    program = "/opt/haproxy"
    master_socket = "master.sock"
    exec = false
    resolver = "192.0.2.53"
    bind = "[::1]:8080"
    stats_bind = "127.0.0.1:1"
    stats_auth = "me:secret"
    min_slots = 4
    linger = "1m"
    reload_pace = "0s"
    doubt = "0s"
    heal_after = "5s"
    stop_timeout = 20
    [admin]
    listen = "none"
    [log]
    format = "json"
"#;

#[test]
fn every_key_is_read() {
    let seconds = Duration::from_secs;
    let config = file(EVERYTHING);
    let expected = Config {
        file: config.file.clone(),
        domain: "sd.example".to_owned(),
        alt_domain: Some("other".to_owned()),
        datacenter: "dc7".to_owned(),
        state_dir: Some(PathBuf::from("state")),
        server: server::Settings {
            listen: ["127.0.0.1:5300", "[::1]:5300"]
                .map(|address| address.parse().expect(address))
                .to_vec(),
            workers: 1023,
            max_tcp_connections: 64,
            max_tcp_connections_per_client: 64,
            tcp_idle_timeout: seconds(20),
            queue_size: 10,
            ..server::Settings::default()
        },
        consul: consul::Settings {
            address: Some(http("https://consul.example:8501")),
            token: TokenSource::Given(Token::new("secret").expect("a token")),
            datacenter: Some("dc2".to_owned()),
            fallback_addresses: vec![http("http://c2:8500")],
            max_watches: 64,
            list_rate: 5000,
            unknown_rate: 7,
            max_stale: seconds(10),
            authorities: Authorities::File(PathBuf::from("ca.pem")),
            client_cert: Some(PathBuf::from("cert.pem")),
            client_key: Some(PathBuf::from("key.pem")),
            tls_server_name: Some("server.dc2.consul".to_owned()),
            verify: false,
        },
        docker: Docker {
            address: http("http://proxy:2375"),
            cert_path: Some(PathBuf::from("certs")),
            serve: true,
            ip: Some([10, 0, 0, 9].into()),
        },
        register: Register {
            owner: Some("me".to_owned()),
            ip: Some([10, 0, 0, 5].into()),
            tags: vec!["one".to_owned(), "two".to_owned()],
            internal: true,
            explicit: true,
            deregister: Deregister::OnSuccess,
            on_exit: OnExit::Deregister,
            resync: seconds(60),
        },
        services: Services {
            directories: vec![PathBuf::from("one"), PathBuf::from("two")],
        },
        zones: Zones {
            directory: Some(PathBuf::from("zones")),
        },
        recursion: recursion::Settings {
            upstreams: Upstreams::List(
                [
                    "192.0.2.53:53",
                    "[2001:db8::53]:5353",
                    "tls://192.0.2.54:853#dns.example",
                ]
                .map(|address| address.parse().expect(address))
                .to_vec(),
            ),
            forward: [
                ("corp.example", &["10.1.0.53:53"][..]),
                ("10.in-addr.arpa", &["10.1.0.53:53", "10.1.0.54:5353"]),
                ("lab.example", &["10.1.0.53:53", "10.1.0.54:5353"]),
                ("gone.example", &[]),
            ]
            .map(|(domain, upstreams)| recursion::Forward {
                domain: crate::dns::Name::from_text(domain).expect(domain),
                upstreams: upstreams
                    .iter()
                    .map(|text| text.parse().expect(text))
                    .collect(),
            })
            .to_vec(),
            ca_file: Some(PathBuf::from("resolvers-ca.pem")),
            hosts: vec![PathBuf::from("one"), PathBuf::from("two")],
            allow: vec!["192.0.2.0/24".parse().expect("a network")],
            recursor_strategy: crate::upstream::Strategy::Random,
            recursor_timeout: Duration::from_millis(500),
            random_case: true,
            refuse_rebinding: true,
            cache: 0,
            stale: Duration::from_secs(5400),
            prefetch: false,
            ..recursion::Settings::default()
        },
        answers: answers::Settings {
            max_udp_size: 1232,
            truncate_addresses: true,
            srv_target: answers::SrvTarget::Address,
            srv_weight_scale: 256,
            only_passing: true,
            service_ttl: answers::TtlTable::new(
                [("db*", 20), ("web", 10)].map(|(name, ttl)| (name.to_owned(), ttl)),
                1,
            ),
            node_ttl: 0,
            a_record_limit: 4,
            udp_answer_limit: 3,
            soa: answers::Soa {
                min_ttl: 2,
                refresh: 3,
                retry: 4,
                expire: 5,
            },
            translate_wan_addrs: true,
        },
        haproxy: haproxy::Settings {
            prefix: "lb/edge".to_owned(),
            tag: "web".to_owned(),
            template: Some("edge.j2".into()),
            output: "edge.cfg".into(),
            program: "/opt/haproxy".into(),
            master_socket: "master.sock".into(),
            exec: false,
            resolver: "192.0.2.53:53".parse().expect("an address"),
            domain: "sd.example".to_owned(),
            bind: "[::1]:8080".parse().expect("an address"),
            stats_bind: Some("127.0.0.1:1".parse().expect("an address")),
            stats_auth: Some(Token::new("me:secret").expect("credentials")),
            min_slots: 4,
            linger: seconds(60),
            reload_pace: Duration::ZERO,
            doubt: Duration::ZERO,
            heal_after: seconds(5),
            stop_timeout: seconds(20),
        },
        admin: Admin { listen: None },
        log: Log {
            format: LogFormat::Json,
        },
    };
    assert_eq!(config, expected);
    assert!(config.file.is_some());
    assert!(!format!("{config:?}").contains("secret"));
}

fn http(text: &str) -> Endpoint {
    Endpoint::Http(text.parse().expect(text))
}

/// The two that cannot stand beside their twins in EVERYTHING.
const TWINS: [(&str, &str); 2] = [
    ("consul.token_file", "consul.token"),
    ("consul.ca_path", "consul.ca_file"),
];

fn everything() -> toml::Table {
    EVERYTHING.parse().expect("TOML")
}

type Entry<'a> = toml::map::Entry<'a, String, toml::Value>;

/// Where the value of a key is in a file; its tables are made.
fn place<'a>(table: &'a mut toml::Table, path: &str) -> Entry<'a> {
    match path.split_once('.') {
        None => table.entry(path),
        Some((first, rest)) => {
            let inner = table
                .entry(first)
                .or_insert_with(|| toml::Table::new().into());
            place(inner.as_table_mut().expect("a table"), rest)
        }
    }
}

/// Sets a key as a person would write it.
fn set(table: &mut toml::Table, key: &Key, word: &str) {
    let text = format!("value = {}", key.in_toml(word));
    let value: toml::Table = text.parse().expect(&text);
    *place(table, key.path).or_insert(0.into()) = value["value"].clone();
}

/// A value of the key that is not its default, as a flag has it.
pub(crate) fn example(key: &Key) -> String {
    let mut table = everything();
    match place(&mut table, key.path).or_insert("other".into()) {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(members) => members[0].as_str().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}

/// A value that is neither the default nor the one in EVERYTHING.
fn another(key: &Key) -> String {
    let words = [
        "another",
        "10.9.9.9",
        "192.0.2.9:81",
        "10.9.0.0/16",
        "http://another:1",
        "11s",
        "77",
        "1",
        "a:b",
        "text",
        "silent",
        "consul",
        "sequential",
        "keep",
        "always",
        "another.example=10.9.9.9",
    ];
    let fits = words.into_iter().find(|word| key.check(word).is_ok());
    fits.unwrap_or_else(|| panic!("a value of {}", key.path))
        .to_owned()
}

fn loaded(table: &toml::Table, variables: Variables<'_>, flags: &Flags) -> Config {
    let text = table.to_string();
    let mut config = load(&text, variables, flags).expect(&text);
    config.file = None;
    config
}

#[test]
fn every_key_stands_in_everything() {
    for key in KEYS {
        let is_there = matches!(place(&mut everything(), key.path), Entry::Occupied(_));
        let is_twin = TWINS.iter().any(|(twin, _)| *twin == key.path);
        assert!(is_there || is_twin, "{}", key.path);
    }
}

#[test]
fn every_key_can_be_shown() {
    for key in KEYS {
        let shown = key.default.or(key.example);
        let shown = shown.unwrap_or_else(|| panic!("{} has nothing to show", key.path));
        assert!(
            key.default.is_none() || key.example.is_none(),
            "{}",
            key.path
        );
        let text: Result<toml::Table, _> = format!("value = {}", key.in_toml(shown)).parse();
        assert!(text.is_ok(), "{}: {text:?}", key.path);
        assert!(
            !key.help.is_empty() && !key.help.ends_with('.'),
            "{}",
            key.path
        );
    }
}

/// So the table's own text of each default is what holds.
#[test]
fn a_default_changes_nothing() {
    for key in KEYS {
        let Some(default) = key.default else { continue };
        let text = match key.path.rsplit_once('.') {
            Some((table, name)) => format!("[{table}]\n{name} = {}", key.in_toml(default)),
            None => format!("{} = {}", key.path, key.in_toml(default)),
        };
        let config = Config {
            file: None,
            ..file(&text)
        };
        assert_eq!(config, Config::default(), "{text}");
    }
}

/// So no row writes what is another's.
#[test]
fn each_key_changes_something_of_its_own() {
    let with = |key: &Key| {
        let mut table = toml::Table::new();
        let twin = TWINS.iter().any(|(twin, _)| *twin == key.path);
        match place(&mut everything(), key.path) {
            Entry::Occupied(value) if !twin => {
                *place(&mut table, key.path).or_insert(0.into()) = value.get().clone();
            }
            _ => set(&mut table, key, "other"),
        }
        // Neither of the two means anything without the other.
        for (one, other) in [("consul.client_cert", "consul.client_key")] {
            if [one, other].contains(&key.path) {
                place(&mut table, one).or_insert("one".into());
                place(&mut table, other).or_insert("one".into());
            }
        }
        loaded(&table, &[], &serve())
    };
    let all: Vec<(&Key, Config)> = KEYS.iter().map(|key| (key, with(key))).collect();
    for (at, (key, config)) in all.iter().enumerate() {
        assert_ne!(*config, Config::default(), "{} changes nothing", key.path);
        for (other, same) in &all[..at] {
            assert_ne!(config, same, "{} and {}", key.path, other.path);
        }
    }
}

#[test]
fn every_flag_and_variable_beats_the_file() {
    for key in KEYS
        .iter()
        .filter(|key| key.flag.is_some() || key.variable.is_some())
    {
        let word = match key.default {
            Some(switch @ ("true" | "false")) => switch.to_owned(),
            _ => another(key),
        };
        let mut below = everything();
        for (twin, other) in TWINS {
            if key.path == twin {
                let (table, name) = other.split_once('.').expect("a table");
                let table = below[table].as_table_mut().expect("a table");
                table.remove(name);
            }
        }
        let mut expected = below.clone();
        set(&mut expected, key, &word);
        let verbs = key.flag.map_or(&[][..], |flag| flag.verbs);
        for verb in verbs {
            let flags = Flags::new(*verb).with(key.path, &[&word]).expect("a flag");
            let expected = loaded(&expected, &[], &Flags::new(*verb));
            assert_eq!(loaded(&below, &[], &flags), expected, "--{}", key.path);
        }
        let Some(variable) = key.variable else {
            continue;
        };
        let verb = match key.path.split('.').next() {
            Some("docker") => Verb::Register,
            Some("haproxy") => Verb::Haproxy,
            _ => Verb::Serve,
        };
        let flags = Flags::new(verb);
        let expected = loaded(&expected, &[], &flags);
        let config = loaded(&below, &[(variable, &word)], &flags);
        assert_eq!(config, expected, "{variable}");
        assert_ne!(config, loaded(&below, &[], &flags), "{variable}");
    }
}
