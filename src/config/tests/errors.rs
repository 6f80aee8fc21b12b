//! What is refused, and where the error points.

use super::*;

/// The first error of a file's text, without the directory.
fn file_error(text: &str) -> String {
    let error = load(text, &[], &serve()).expect_err(text);
    let shown = error.to_string();
    assert_eq!(shown.lines().count(), error.into_iter().count(), "{shown}");
    let shown = shown.lines().next().unwrap_or_default();
    match shown.find("portolan.toml") {
        Some(start) => shown[start..].to_owned(),
        None => shown.to_owned(),
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
        let error = load("", &variables, &serve()).expect_err(value);
        let shown = error.to_string();
        let places: Vec<Place> = error
            .into_iter()
            .map(|error| error.place().clone())
            .collect();
        assert_eq!(places, [Place::Variable(name)]);
        assert!(
            shown.starts_with(&format!("environment variable {name}: ")),
            "{shown}"
        );
        assert!(shown.contains(reason), "{shown}");

        // Without Consul nobody reads them.
        let flags = serve().with("consul.address", &["none"]).expect("a flag");
        let config = load("", &variables, &flags).expect("no Consul");
        assert_eq!(config.consul.address, None);
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
            "portolan.toml:3: key `server.workers`: expected a number, got a string",
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
            "portolan.toml:2: key `consul.verify`: expected true or false, got a number",
        ),
        (
            "[answers]\nnode_ttl = true",
            "portolan.toml:2: key `answers.node_ttl`: expected a duration such as",
        ),
        (
            "[recursion]\nallow = \"all\"",
            "portolan.toml:2: key `recursion.allow`: expected a list of strings",
        ),
        (
            "[server]\nlisten = \"127.0.0.1:53\"",
            "portolan.toml:2: key `server.listen`: expected a list of strings, as in \
             [\"one\", \"two\"], got a string",
        ),
        (
            "[server]\nlisten = [5]",
            "portolan.toml:2: key `server.listen`: expected a string, got a number",
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
            "portolan.toml:2: key `recursion.upstreams`: `none` switches recursion off",
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
        "portolan.toml:2: key `consul.token`: expected a string, got a number"
    );
    for text in [
        "[consul]\ntoken = \"s3cret word\"",
        "[haproxy]\nstats_auth = \"s3cret\"",
    ] {
        let error = load(text, &[], &serve()).expect_err("no token");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn only_the_default_file_may_be_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing.toml");
    let env = BTreeMap::new();
    let default = Config::load(&serve(), &env, Some(&missing));
    assert_eq!(default, Ok(Config::default()));

    let mut flags = serve();
    flags.config = Some(missing);
    let error = Config::load(&flags, &env, None)
        .expect_err("no such file")
        .to_string();
    assert!(error.contains("missing.toml: cannot be read: "), "{error}");
}

/// All mistakes at once, each where it is, and the rest of the file counts.
#[test]
fn every_mistake_is_told_at_once() {
    let text = "domain = \"a..b\"
                adress = 1
                [server]
                listen = [\"localhost\", \"127.0.0.1:5300\", 7]
                workers = 0
                queue_size = 9
                [answers]
                node_ttl = true
                service_ttl = { \"*b\" = 1, web = 2, db = \"soon\" }
                [consul]
                client_cert = \"c\"
                [recursion]
                recursor_timeout = \"2m\"";
    let env = BTreeMap::from([("CONSUL_HTTP_SSL", "maybe"), ("CONSUL_CAPATH", "dir")]);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("portolan.toml");
    fs::write(&path, text).expect("written");
    let mut loaded = Loaded::over(Config::of(Verb::Serve), &serve(), &env, Some(&path));
    let places: Vec<String> = loaded
        .take_errors()
        .iter()
        .map(|error| error.place().to_string())
        .map(|place| place.replace(&format!("{}:", path.display()), ""))
        .collect();
    let expected = [
        "1: key `domain`",
        "2: key `adress`",
        "4: key `server.listen`",
        "4: key `server.listen`",
        "5: key `server.workers`",
        "8: key `answers.node_ttl`",
        "9: key `answers.service_ttl.*b`",
        "9: key `answers.service_ttl.db`",
        "11: key `consul.client_cert`",
        "13: key `recursion.recursor_timeout`",
        "environment variable CONSUL_HTTP_SSL",
    ];
    assert_eq!(places, expected);
    let config = loaded.config;
    assert_eq!(config.domain, "consul");
    assert_eq!(config.server.queue_size, 9);
    assert_eq!(config.server.listen.len(), 1);
    assert_eq!(config.answers.service_ttl.of("web"), 2);
    assert_eq!(
        config.consul.authorities,
        Authorities::Directory("dir".into())
    );
}

/// What a file of wrong syntax would say is nobody's mistake.
#[test]
fn wrong_syntax_leads_to_no_other_mistakes() {
    let error = load("adress = 1\n[server\nx = ", &[], &serve()).expect_err("no TOML");
    let lines = error.to_string();
    assert!(
        !lines.contains("adress") && lines.contains("portolan.toml:2: "),
        "{lines}"
    );
}
