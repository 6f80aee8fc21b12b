//! The layers together: what is the default, and who wins.

mod errors;
mod every_key;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

use every_key::EVERYTHING;

impl Strings for BTreeMap<&str, &str> {
    fn get(&self, key: &str) -> Option<String> {
        BTreeMap::get(self, key).map(|&value| value.to_owned())
    }
}

type Variables<'a> = &'a [(&'a str, &'a str)];

/// Loads a configuration from the text of a file, variables and flags.
fn load(text: &str, variables: Variables<'_>, flags: &Flags) -> Result<Config, Error> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("portolan.toml");
    fs::write(&path, text).expect("written");
    let env: BTreeMap<&str, &str> = variables.iter().copied().collect();
    Config::load(flags, &env, Some(&path))
}

fn file(text: &str) -> Config {
    load(text, &[], &Flags::default()).expect(text)
}

fn env(variables: Variables<'_>) -> Config {
    load("", variables, &Flags::default()).expect("a configuration")
}

fn consul(config: Config) -> Consul {
    config.consul.expect("a Consul")
}

fn address(config: Config) -> String {
    consul(config).address.to_string()
}

#[test]
fn without_anything_there_are_defaults() {
    let env = BTreeMap::new();
    let config = Config::load(&Flags::default(), &env, None).expect("defaults");
    assert_eq!(config, Config::default());
    let listen: Vec<String> = config
        .server
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listen, ["127.0.0.1:53"]);
    assert_eq!(config.admin.map(|address| address.port()), Some(8054));
    assert_eq!(config.recursion.upstreams, Upstreams::System);
    assert_eq!(config.answers.service_ttl["*"], Duration::from_secs(1));
    assert_eq!(address(config), "http://127.0.0.1:8500");
}

#[test]
fn the_default_allow_list_is_what_is_behind_the_same_router() {
    let allow = Config::default().recursion.allow;
    let allowed = |ip: &str| {
        let ip: std::net::IpAddr = ip.parse().expect(ip);
        allow
            .iter()
            .any(|network| network.contains(&ip.to_canonical()))
    };
    for ip in [
        "127.0.0.53",
        "10.255.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.0.1",
        "::1",
        "fd12::1",
        "fe80::1",
        "::ffff:10.0.0.1",
    ] {
        assert!(allowed(ip), "{ip}");
    }
    for ip in [
        "172.32.0.1",
        "192.0.2.1",
        "100.64.0.1",
        "::2",
        "2001:db8::1",
        "::ffff:192.0.2.1",
    ] {
        assert!(!allowed(ip), "{ip}");
    }
}

#[test]
fn each_layer_beats_the_one_below() {
    let text = "[consul]\naddress = \"http://file:1\"";
    let variables = [("CONSUL_HTTP_ADDR", "env:2")];
    let flags = Flags {
        consul: Some(Switch::On(Address::parse("http://flag:3").expect("a URL"))),
        ..Flags::default()
    };
    let none = Flags::default();
    for (text, variables, flags, expected) in [
        ("", &[][..], &none, "http://127.0.0.1:8500"),
        (text, &[], &none, "http://file:1"),
        (text, &variables, &none, "http://env:2"),
        ("", &variables, &none, "http://env:2"),
        (text, &variables, &flags, "http://flag:3"),
        ("", &[], &flags, "http://flag:3"),
    ] {
        let config = load(text, variables, flags).expect("a configuration");
        assert_eq!(address(config), expected);
    }
}

#[test]
fn every_flag_beats_the_file() {
    let flags = Flags {
        config: None,
        listen: Some(vec!["127.0.0.9:53".parse().expect("an address")]),
        workers: Some(9),
        consul: Some(Switch::On(Address::Unix(PathBuf::from("/flag")))),
        token_file: Some(PathBuf::from("flag-token")),
        services: Some(vec![PathBuf::from("flag-services")]),
        zones: Some(PathBuf::from("flag-zones")),
        upstreams: Some(Upstreams::None),
        domain: Some("flag".to_owned()),
        admin: Some(Switch::On("127.0.0.9:80".parse().expect("an address"))),
        log_format: Some(LogFormat::Text),
        from_agent: false,
        state_dir: Some(PathBuf::from("flag-state")),
        with_docker: true,
        serve_docker: Some(false),
        docker: Some(DockerAddress::Unix(PathBuf::from("/flag"))),
        register: RegisterFlags {
            owner: Some("flag".to_owned()),
            ip: Some([10, 9, 9, 9].into()),
            tags: Some(vec!["flag".to_owned()]),
            internal: false,
            explicit: false,
            deregister: Some(Deregister::Always),
            on_exit: Some(OnExit::Keep),
            resync: Some(Duration::from_secs(9)),
        },
    };
    let config =
        load(EVERYTHING, &[("CONSUL_HTTP_TOKEN", "env")], &flags).expect("a configuration");
    assert_eq!(Some(config.docker.address), flags.docker);
    assert!(!config.docker.serve);
    let register = Register {
        owner: flags.register.owner,
        ip: flags.register.ip,
        tags: flags.register.tags.expect("tags"),
        // What the command line can only switch on.
        internal: true,
        explicit: true,
        deregister: Deregister::Always,
        on_exit: OnExit::Keep,
        resync: Duration::from_secs(9),
    };
    assert_eq!(config.register, register);
    assert_eq!(Some(config.server.listen), flags.listen);
    assert_eq!(config.server.workers, 9);
    assert_eq!(Some(config.services), flags.services);
    assert_eq!(config.zones, flags.zones);
    assert_eq!(config.recursion.upstreams, Upstreams::None);
    assert_eq!(config.domain, "flag");
    assert_eq!(config.state_dir, flags.state_dir);
    assert_eq!(config.admin.map(|address| address.port()), Some(80));
    assert_eq!(config.log, LogFormat::Text);
    let consul = config.consul.expect("a Consul");
    assert_eq!(consul.address, Address::Unix(PathBuf::from("/flag")));
    assert_eq!(consul.token, TokenSource::File(PathBuf::from("flag-token")));
}

#[test]
fn the_variables_mean_what_they_mean_to_consul() {
    for (variables, expected) in [
        (
            &[("CONSUL_HTTP_ADDR", "10.0.0.1:8500")][..],
            "http://10.0.0.1:8500",
        ),
        (&[("CONSUL_HTTP_ADDR", "unix:///c.sock")], "unix:///c.sock"),
        (&[("CONSUL_HTTP_ADDR", "")], "http://127.0.0.1:8500"),
        (&[("CONSUL_HTTP_SSL", "true")], "https://127.0.0.1:8500"),
        (
            &[("CONSUL_HTTP_SSL", "1"), ("CONSUL_HTTP_ADDR", "http://c:1")],
            "https://c:1",
        ),
        (
            &[
                ("CONSUL_HTTP_SSL", "false"),
                ("CONSUL_HTTP_ADDR", "https://c:1"),
            ],
            "https://c:1",
        ),
    ] {
        assert_eq!(address(env(variables)), expected, "{variables:?}");
    }
    assert_eq!(env(&[("CONSUL_HTTP_ADDR", "none")]).consul, None);

    let token = |variables| consul(env(variables)).token;
    let given = TokenSource::Given(Token::new("abc").expect("a token"));
    assert_eq!(token(&[("CONSUL_HTTP_TOKEN", "abc")]), given);
    assert_eq!(
        token(&[
            ("CONSUL_HTTP_TOKEN", "abc"),
            ("CONSUL_HTTP_TOKEN_FILE", "f")
        ]),
        TokenSource::File(PathBuf::from("f"))
    );

    let tls = consul(env(&[
        ("CONSUL_CAPATH", "dir"),
        ("CONSUL_CACERT", "ca"),
        ("CONSUL_CLIENT_CERT", "cert"),
        ("CONSUL_CLIENT_KEY", "key"),
        ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
        ("CONSUL_HTTP_SSL_VERIFY", "F"),
    ]))
    .tls;
    let expected = Tls {
        authorities: Authorities::File(PathBuf::from("ca")),
        client: Some(ClientCertificate {
            certificate: PathBuf::from("cert"),
            key: PathBuf::from("key"),
        }),
        server_name: Some("server.dc1.consul".to_owned()),
        verify: false,
    };
    assert_eq!(tls, expected);
    let path = consul(env(&[("CONSUL_CAPATH", "dir")])).tls.authorities;
    assert_eq!(path, Authorities::Directory(PathBuf::from("dir")));
}

#[test]
fn the_variables_mean_what_they_mean_to_docker() {
    let flags = Flags {
        with_docker: true,
        ..Flags::default()
    };
    let docker = |variables: Variables<'_>| {
        let docker = load("", variables, &flags).expect("a configuration").docker;
        let path = docker.cert_path.map(|path| path.display().to_string());
        (docker.address.to_string(), path)
    };
    let host = ("DOCKER_HOST", "tcp://d:2376");
    let (verify, home) = (("DOCKER_TLS_VERIFY", "0"), ("HOME", "/home/me"));
    let socket = ("unix:///var/run/docker.sock".to_owned(), None);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(docker(&[]), socket);
    assert_eq!(docker(&[verify, home]), socket);
    assert_eq!(docker(&[host]), ("http://d:2376".to_owned(), None));
    let tls = "https://d:2376".to_owned();
    assert_eq!(
        docker(&[host, verify, home]),
        (tls.clone(), some("/home/me/.docker"))
    );
    let certificates = ("DOCKER_CERT_PATH", "/certs");
    assert_eq!(
        docker(&[host, verify, home, certificates]),
        (tls, some("/certs"))
    );
    // Where Docker is not used, nobody reads them.
    let broken = [("DOCKER_HOST", "ssh://d")];
    assert!(load("", &broken, &flags).is_err());
    assert!(load("", &broken, &Flags::default()).is_ok());
}

#[test]
fn a_certificate_and_its_key_may_come_from_two_layers() {
    let text = "[consul]\nclient_cert = \"cert\"";
    let variables = [("CONSUL_CLIENT_KEY", "key")];
    let config = load(text, &variables, &Flags::default()).expect("a pair");
    assert!(consul(config).tls.client.is_some());

    let error = load("", &variables, &Flags::default())
        .expect_err("half a pair")
        .to_string();
    assert!(
        error.starts_with("environment variable CONSUL_CLIENT_KEY: a client key needs"),
        "{error}"
    );
}

#[test]
fn recursion_can_be_switched_off() {
    for text in ["[]", "[\"none\"]"] {
        let config = file(&format!("[recursion]\nupstreams = {text}"));
        assert_eq!(config.recursion.upstreams, Upstreams::None);
    }
}
