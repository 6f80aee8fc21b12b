//! `portolan serve` that cannot start.

use crate::{
    ALONE, assert_wrong_configuration,
    support::{bind_both, directory, portolan::run_to_end, write_file},
};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

fn serve(more: &[&str]) -> crate::support::portolan::Outcome {
    run_to_end(&[&ALONE, more].concat(), &[])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test is text")
}

#[test]
fn an_unknown_key() {
    let files = directory();
    let config = write_file(
        files.path(),
        "portolan.toml",
        "# mine\n[consul]\nadress = \"http://127.0.0.1:8500\"\n",
    );
    let outcome = serve(&["--config", text(&config)]);
    assert_wrong_configuration(&outcome, &config, 3, &["adress"]);
}

#[test]
fn a_value_of_the_wrong_type() {
    let files = directory();
    let config = write_file(files.path(), "portolan.toml", "[recursion]\nallow = 7\n");
    let outcome = serve(&["--config", text(&config)]);
    assert_wrong_configuration(&outcome, &config, 2, &["allow"]);
}

#[test]
fn a_file_that_is_not_toml() {
    let files = directory();
    let config = write_file(files.path(), "portolan.toml", "[recursion\n");
    let outcome = serve(&["--config", text(&config)]);
    assert_wrong_configuration(&outcome, &config, 1, &[]);
}

#[test]
fn a_configuration_that_is_not_there() {
    let outcome = serve(&["--config", "/no/such/portolan.toml"]);
    assert_eq!(outcome.code, Some(78), "{outcome:?}");
    assert!(
        outcome.last_line().contains("/no/such/portolan.toml"),
        "{outcome:?}"
    );
}

#[test]
fn a_consul_address_that_is_no_url() {
    let flags = [
        "serve",
        "--consul",
        "not a url",
        "--upstream",
        "none",
        "--admin",
        "none",
    ];
    let outcome = run_to_end(&flags, &[]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("--consul"), "{outcome:?}");
    assert!(outcome.stderr.contains("not a url"), "{outcome:?}");

    let files = directory();
    let config = write_file(
        files.path(),
        "portolan.toml",
        "[consul]\naddress = \"not a url\"\n",
    );
    let flags = [
        "serve",
        "--config",
        text(&config),
        "--upstream",
        "none",
        "--admin",
        "none",
    ];
    let outcome = run_to_end(&flags, &[]);
    assert_wrong_configuration(&outcome, &config, 2, &["consul.address", "not a url"]);

    let flags = ["serve", "--upstream", "none", "--admin", "none"];
    let outcome = run_to_end(&flags, &[("CONSUL_HTTP_ADDR", "not a url")]);
    assert_eq!(outcome.code, Some(78), "{outcome:?}");
    assert!(
        outcome.last_line().contains("CONSUL_HTTP_ADDR"),
        "{outcome:?}"
    );
}

/// Somebody else has the port: the line says which, who (the system tells us about a process of the
/// same user), and leaves nothing behind.
#[test]
fn a_taken_port() {
    let (tcp, udp) = bind_both(IpAddr::from(Ipv4Addr::LOCALHOST));
    let address = udp.local_addr().expect("a bound socket has an address");
    let taken = || {
        let mut flags = ALONE;
        let address = address.to_string();
        flags[8] = &address;
        run_to_end(&flags, &[])
    };
    let pid = std::process::id().to_string();
    let check = |what: &str| {
        let outcome = taken();
        assert_eq!(outcome.code, Some(1), "{what}: {outcome:?}");
        let line = outcome.last_line();
        assert!(line.contains(&address.to_string()), "{what}: {outcome:?}");
        assert!(
            line.contains(&pid),
            "{what}: does not name process {pid}: {outcome:?}"
        );
        assert!(
            line.contains("--listen"),
            "{what}: what is to be done? {outcome:?}"
        );
    };
    check("UDP and TCP");
    drop(tcp);
    check("UDP alone");
    drop(udp);
    let _tcp = std::net::TcpListener::bind(address).expect("the port is free again");
    check("TCP alone");
}

/// The admin port is treated alike.
#[test]
fn a_taken_admin_port() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = holder
        .local_addr()
        .expect("a bound socket has an address")
        .to_string();
    let mut flags = ALONE;
    flags[6] = &address;
    let outcome = run_to_end(&flags, &[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.last_line().contains(&address), "{outcome:?}");
    assert!(outcome.last_line().contains("--admin"), "{outcome:?}");
}

/// An address that this machine does not have.
#[test]
fn an_address_that_is_not_here() {
    let mut flags = ALONE;
    flags[8] = "192.0.2.1:5353";
    let outcome = run_to_end(&flags, &[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.last_line().contains("192.0.2.1:5353"),
        "{outcome:?}"
    );
}

#[test]
fn a_malformed_zone() {
    let files = directory();
    let zone = write_file(
        files.path(),
        "example.test.zone",
        "$ORIGIN example.test.\n$TTL 60\n@ IN SOA ns admin 1 3600 600 86400 60\n@ IN NS ns\n\
         ns IN A 10.0.0.300\n",
    );
    let outcome = serve(&["--zones", text(files.path())]);
    assert_wrong_configuration(&outcome, &zone, 5, &[]);
}

#[test]
fn a_zone_that_cannot_be_read() {
    let files = directory();
    let zone = files.path().join("gone.test.zone");
    std::os::unix::fs::symlink("nowhere", &zone).expect("a link to nowhere");
    let outcome = serve(&["--zones", text(files.path())]);
    assert_eq!(outcome.code, Some(78), "{outcome:?}");
    assert!(outcome.last_line().contains(text(&zone)), "{outcome:?}");

    let outcome = serve(&["--zones", "/no/such/zones"]);
    assert_eq!(outcome.code, Some(78), "{outcome:?}");
    assert!(
        outcome.last_line().contains("/no/such/zones"),
        "{outcome:?}"
    );
}

/// At the start there is no last good file to fall back on, and nobody wants to serve half of it.
#[test]
fn a_malformed_service_file() {
    let files = directory();
    let file = write_file(
        files.path(),
        "web.json",
        "{\n  \"service\": {\n    \"name\": \"web\",\n    \"port\": \"eighty\"\n  }\n}\n",
    );
    let outcome = serve(&["--services", text(files.path())]);
    assert_wrong_configuration(&outcome, &file, 4, &[]);
}

#[test]
fn a_wrong_command_line() {
    for arguments in [
        &["serve", "--no-such-flag"][..],
        &["no-such-command"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--upstream", "nobody"],
        &["serve", "--log-format", "xml"],
    ] {
        let outcome = run_to_end(arguments, &[]);
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
        let wrong = arguments[arguments.len() - 1];
        assert!(outcome.stderr.contains(wrong), "{arguments:?}: {outcome:?}");
    }
}

#[test]
fn help_shows_an_example() {
    for command in ["serve", "dev", "check"] {
        let outcome = run_to_end(&[command, "--help"], &[]);
        assert_eq!(outcome.code, Some(0), "{command}: {outcome:?}");
        let example = format!("portolan {command}");
        let shown =
            outcome.stdout.to_lowercase().contains("example") && outcome.stdout.contains(&example);
        assert!(shown, "{command} --help has no example: {}", outcome.stdout);
    }
    assert_eq!(run_to_end(&["--version"], &[]).code, Some(0));
}
