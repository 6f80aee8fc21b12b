//! What is refused, and where the error points.

use super::*;

/// The error of a file's text, without the directory.
fn file_error(text: &str) -> String {
    let error = load(text, &[], &Flags::default()).expect_err(text);
    let shown = error.to_string();
    assert_eq!(shown.lines().count(), 1, "{shown}");
    match shown.find("portolan.toml") {
        Some(start) => shown[start..].to_owned(),
        None => shown,
    }
}

#[test]
fn a_broken_variable_is_named() {
    for (name, value, reason) in [
        ("CONSUL_HTTP_ADDR", "not a url", "not a URL"),
        ("CONSUL_HTTP_ADDR", "ftp://c", "not a scheme"),
        ("CONSUL_HTTP_SSL", "yes", "expected \"true\" or \"false\""),
        (
            "CONSUL_HTTP_SSL_VERIFY",
            "no",
            "expected \"true\" or \"false\"",
        ),
        ("CONSUL_HTTP_TOKEN", "two words", "not printable"),
        ("CONSUL_TLS_SERVER_NAME", "a b", "not a domain"),
    ] {
        let variables = [(name, value)];
        let error = load("", &variables, &Flags::default()).expect_err(value);
        assert_eq!(error.place(), &Place::Variable(name));
        let shown = error.to_string();
        assert!(
            shown.starts_with(&format!("environment variable {name}: ")),
            "{shown}"
        );
        assert!(shown.contains(reason), "{shown}");

        // Without Consul nobody reads them.
        let flags = Flags {
            consul: Some(Switch::Off),
            ..Flags::default()
        };
        let config = load("", &variables, &flags).expect("no Consul");
        assert_eq!(config.consul, None);
    }
}

#[test]
fn an_error_names_line_key_and_reason() {
    for (text, expected) in [
        // Syntax.
        ("domain = ", "portolan.toml:1: "),
        ("\n\n[server\n", "portolan.toml:3: "),
        ("domain = \"a\"\ndomain = \"b\"", "portolan.toml:2: "),
        // Unknown keys, the first in the file first.
        (
            "[consul]\nadress = \"http://c\"",
            "portolan.toml:2: key `consul.adress`: unknown key, did you mean `consul.address`?",
        ),
        (
            "[zones]\nx = 1\n[admin]\ny = 1",
            "portolan.toml:2: key `zones.x`: unknown key, known here: directory",
        ),
        (
            "# a comment\nlisten = [\"127.0.0.1:53\"]",
            "portolan.toml:2: key `listen`: unknown key, did you mean `server.listen`?",
        ),
        (
            "[answers.soa]\nmin = 1",
            "portolan.toml:2: key `answers.soa.min`: unknown key",
        ),
        // Wrong types.
        (
            "[server]\n\nworkers = \"four\"",
            "portolan.toml:3: key `server.workers`: invalid type: string \"four\"",
        ),
        (
            "consul = \"c\"",
            "portolan.toml:1: key `consul`: expected a table, as in [consul]",
        ),
        (
            "[[consul]]\naddress = \"c\"",
            "portolan.toml:1: key `consul`: expected a table",
        ),
        (
            "[consul]\nverify = 1",
            "portolan.toml:2: key `consul.verify`: invalid type",
        ),
        (
            "[answers]\nnode_ttl = true",
            "portolan.toml:2: key `answers.node_ttl`: invalid type",
        ),
        (
            "[recursion]\nallow = \"all\"",
            "portolan.toml:2: key `recursion.allow`: invalid type",
        ),
        (
            "[server]\nlisten = \"127.0.0.1:53\"",
            "portolan.toml:2: key `server.listen`: invalid type: string \"127.0.0.1:53\", expected a \
             list of strings, as in [\"one\", \"two\"]",
        ),
        (
            "[server]\nlisten = [5]",
            "portolan.toml:2: key `server.listen`: invalid type: integer `5`, expected a string",
        ),
        (
            "[answers]\nservice_ttl = 5",
            "portolan.toml:2: key `answers.service_ttl`: expected a table, as in [answers.service_ttl]",
        ),
        // Bad values.
        (
            "[consul]\naddress = \"nowhere\"",
            "portolan.toml:2: key `consul.address`: not a URL: expected something like \
             http://127.0.0.1:8500, got \"nowhere\"",
        ),
        (
            "[server]\nlisten = [\n  \"127.0.0.1:53\",\n  \"localhost\",\n]",
            "portolan.toml:4: key `server.listen`: expected IP:PORT, such as",
        ),
        (
            "[server]\nlisten = []",
            "portolan.toml:2: key `server.listen`: expected at least one",
        ),
        (
            "[server]\nworkers = 0",
            "portolan.toml:2: key `server.workers`: expected 1 to 1024, got 0",
        ),
        (
            "[answers]\nmax_udp_size = 70000",
            "portolan.toml:2: key `answers.max_udp_size`: expected 512 to 65507, got 70000",
        ),
        (
            "[answers]\nsrv_weight_scale = 2",
            "portolan.toml:2: key `answers.srv_weight_scale`: expected 1 or 256, got 2",
        ),
        (
            "[answers]\ntruncate_addresses = \"never\"",
            "portolan.toml:2: key `answers.truncate_addresses`: expected \"silent\" or \"tc\", got",
        ),
        (
            "[answers]\nnode_ttl = \"1500ms\"",
            "portolan.toml:2: key `answers.node_ttl`: DNS counts whole seconds, got 1500ms",
        ),
        (
            "[answers]\nnode_ttl = -1",
            "portolan.toml:2: key `answers.node_ttl`: a duration cannot be",
        ),
        (
            "[answers.service_ttl]\nweb = 1\n\"*b\" = 2",
            "portolan.toml:3: key `answers.service_ttl.*b`: expected a service name",
        ),
        (
            "[answers.service_ttl]\nweb = \"soon\"",
            "portolan.toml:2: key `answers.service_ttl.web`: \"soon\" is not a duration",
        ),
        (
            "[answers.service_ttl]\nWeb = 1\nweb = 2",
            "portolan.toml:3: key `answers.service_ttl.web`: \"web\" is set twice",
        ),
        (
            "[recursion]\nrecursor_timeout = \"2m\"",
            "portolan.toml:2: key `recursion.recursor_timeout`: expected 10ms to 1m, got 2m",
        ),
        (
            "[recursion]\nupstreams = [\"none\", \"192.0.2.1\"]",
            "portolan.toml:2: key `recursion.upstreams`: expected IP or IP:PORT",
        ),
        (
            "[recursion]\nallow = [\"10.0.0.1/8\"]",
            "portolan.toml:2: key `recursion.allow`: 10.0.0.1/8",
        ),
        (
            "domain = \"a..b\"",
            "portolan.toml:1: key `domain`: \"a..b\" is not a domain",
        ),
        (
            "alt_domain = \"consul\"",
            "portolan.toml:1: key `alt_domain`: the same as `domain`",
        ),
        (
            "[log]\nformat = \"xml\"",
            "portolan.toml:2: key `log.format`: expected \"text\" or \"json\"",
        ),
        (
            "[zones]\ndirectory = \"\"",
            "portolan.toml:2: key `zones.directory`: expected a path",
        ),
        // Several keys.
        (
            "[consul]\ntoken = \"t\"\ntoken_file = \"f\"",
            "portolan.toml:3: key `consul.token_file`: `consul.token` is set too",
        ),
        (
            "[consul]\nclient_cert = \"c\"",
            "portolan.toml:2: key `consul.client_cert`: a client certificate needs its key",
        ),
    ] {
        let error = file_error(text);
        assert!(
            error.starts_with(expected),
            "{text}\n  gave {error}\n  not  {expected}"
        );
    }
}

#[test]
fn a_token_of_the_wrong_type_is_not_repeated() {
    let error = file_error("[consul]\ntoken = 123456");
    assert_eq!(
        error,
        "portolan.toml:2: key `consul.token`: expected a string"
    );
}

#[test]
fn only_the_default_file_may_be_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing.toml");
    let env = BTreeMap::new();
    let default = Config::load(&Flags::default(), &env, Some(&missing));
    assert_eq!(default, Ok(Config::default()));

    let flags = Flags {
        config: Some(missing),
        ..Flags::default()
    };
    let error = Config::load(&flags, &env, None)
        .expect_err("no such file")
        .to_string();
    assert!(error.contains("missing.toml: cannot be read: "), "{error}");
}
