//! The layers together: what is the default, and who wins.

mod errors;
mod every_key;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::consul::Authorities;
use crate::http::Endpoint;
use crate::recursion::Upstreams;
use crate::secret::{Token, TokenSource};
use crate::{consul, haproxy};

use super::*;

pub(crate) use every_key::example;

impl Strings for BTreeMap<&str, &str> {
    fn get(&self, key: &str) -> Option<String> {
        BTreeMap::get(self, key).map(|&value| value.to_owned())
    }
}

type Variables<'a> = &'a [(&'a str, &'a str)];

/// Loads a configuration from the text of a file, variables and flags.
fn load(text: &str, variables: Variables<'_>, flags: &Flags) -> Result<Config, Errors> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("portolan.toml");
    fs::write(&path, text).expect("written");
    let env: BTreeMap<&str, &str> = variables.iter().copied().collect();
    Config::load(flags, &env, Some(&path))
}

fn serve() -> Flags {
    Flags::new(Verb::Serve)
}

fn file(text: &str) -> Config {
    load(text, &[], &serve()).expect(text)
}

fn env(variables: Variables<'_>) -> Config {
    load("", variables, &serve()).expect("a configuration")
}

fn address(config: &Config) -> String {
    config
        .consul
        .address
        .as_ref()
        .map_or_else(|| "none".to_owned(), Endpoint::to_string)
}

#[test]
fn without_anything_there_are_defaults() {
    let env = BTreeMap::new();
    let config = Config::load(&serve(), &env, None).expect("defaults");
    assert_eq!(config, Config::default());
    let listen: Vec<String> = config
        .server
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listen, ["127.0.0.1:53"]);
    assert_eq!(
        config.admin.listen.map(|address| address.port()),
        Some(8054)
    );
    assert_eq!(config.recursion.upstreams, Upstreams::System);
    assert_eq!(config.answers.service_ttl.of("web"), 1);
    assert_eq!(address(&config), "http://127.0.0.1:8500");
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
    let flags = serve().with("consul.address", &["http://flag:3"]);
    let (flags, none) = (flags.expect("a URL"), serve());
    for (text, variables, flags, expected) in [
        ("", &[][..], &none, "http://127.0.0.1:8500"),
        (text, &[], &none, "http://file:1"),
        (text, &variables, &none, "http://env:2"),
        ("", &variables, &none, "http://env:2"),
        (text, &variables, &flags, "http://flag:3"),
        ("", &[], &flags, "http://flag:3"),
    ] {
        let config = load(text, variables, flags).expect("a configuration");
        assert_eq!(address(&config), expected);
    }
}

#[test]
fn the_credentials_of_the_statistics_are_not_shown() {
    let haproxy = Flags::new(Verb::Haproxy);
    let auth = |text| load("", &[("HAPROXY_STATS_AUTH", text)], &haproxy);
    let config = auth("me:s3cret").expect("credentials");
    assert!(!format!("{config:?}").contains("s3cret"));
    let token = config.haproxy.stats_auth.expect("credentials");
    assert_eq!(token.expose(), "me:s3cret");
    for text in ["s3cret", ":s3cret", "me:s3cret x"] {
        let error = auth(text).expect_err(text).to_string();
        assert!(
            error.contains("HAPROXY_STATS_AUTH") && !error.contains("s3cret"),
            "{error}"
        );
    }
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
        assert_eq!(address(&env(variables)), expected, "{variables:?}");
    }
    assert_eq!(address(&env(&[("CONSUL_HTTP_ADDR", "none")])), "none");

    let token = |variables| env(variables).consul.token;
    let given = TokenSource::Given(Token::new("abc").expect("a token"));
    assert_eq!(token(&[("CONSUL_HTTP_TOKEN", "abc")]), given);
    assert_eq!(
        token(&[
            ("CONSUL_HTTP_TOKEN", "abc"),
            ("CONSUL_HTTP_TOKEN_FILE", "f")
        ]),
        TokenSource::File(PathBuf::from("f"))
    );

    let tls = env(&[
        ("CONSUL_CAPATH", "dir"),
        ("CONSUL_CACERT", "ca"),
        ("CONSUL_CLIENT_CERT", "cert"),
        ("CONSUL_CLIENT_KEY", "key"),
        ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
        ("CONSUL_HTTP_SSL_VERIFY", "F"),
    ]);
    let expected = consul::Settings {
        authorities: Authorities::File(PathBuf::from("ca")),
        client_cert: Some(PathBuf::from("cert")),
        client_key: Some(PathBuf::from("key")),
        tls_server_name: Some("server.dc1.consul".to_owned()),
        verify: false,
        ..consul::Settings::default()
    };
    assert_eq!(tls.consul, expected);
    let path = env(&[("CONSUL_CAPATH", "dir")]).consul.authorities;
    assert_eq!(path, Authorities::Directory(PathBuf::from("dir")));
}

#[test]
fn the_variables_mean_what_they_mean_to_docker() {
    let flags = Flags::new(Verb::Register);
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
    assert!(load("", &broken, &serve()).is_ok());
    // `serve` uses it if the file or a flag says so.
    let text = "[docker]\nserve = true";
    assert!(load(text, &broken, &serve()).is_err());
    let off = serve().with("docker.serve", &["false"]).expect("a flag");
    assert!(load(text, &broken, &off).is_ok());
}

#[test]
fn a_certificate_and_its_key_may_come_from_two_layers() {
    let text = "[consul]\nclient_cert = \"cert\"";
    let variables = [("CONSUL_CLIENT_KEY", "key")];
    let consul = load(text, &variables, &serve()).expect("a pair").consul;
    assert!(consul.client_cert.is_some() && consul.client_key.is_some());

    let error = load("", &variables, &serve())
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

#[test]
fn every_command_listens_on_an_admin_address_of_its_own() {
    let env = BTreeMap::new();
    let port = |verb| {
        let config = Config::load(&Flags::new(verb), &env, None).expect("defaults");
        config.admin.listen.map(|address| address.port())
    };
    assert_eq!(port(Verb::Serve), Some(8054));
    assert_eq!(port(Verb::Register), Some(8055));
    assert_eq!(port(Verb::Haproxy), Some(8056));
    let dev = Flags::new(Verb::Dev);
    let config = Config::load(&dev, &env, None).expect("defaults");
    assert_eq!(config.server.listen[0].port(), 8053);
    // Nothing turns Consul on there.
    let variables = [("CONSUL_HTTP_ADDR", "http://c:1")];
    let config = load("", &variables, &dev).expect("defaults");
    assert_eq!(config.consul.address, None);
}

#[test]
fn haproxy_is_given_the_domain() {
    let config = file("domain = \"sd.example\"");
    let expected = haproxy::Settings {
        domain: "sd.example".to_owned(),
        ..haproxy::Settings::default()
    };
    assert_eq!(config.haproxy, expected);
}
