//! `portolan check`: says what is wrong, or what would be served, and starts nothing.

use crate::{
    assert_wrong_configuration, six_mistakes,
    support::{
        directory,
        portolan::{Outcome, run_to_end},
        write_file,
    },
};
use std::{fs, path::Path};

const CONFIG: &str = "[consul]\naddress = \"http://127.0.0.1:8500\"\n";
const ZONE: &str = "$ORIGIN example.test.\n$TTL 60\n@ IN SOA ns admin 1 3600 600 86400 60\n\
                    @ IN NS ns\nns IN A 10.0.0.1\n";
const SERVICE: &str = "{ \"service\": { \"name\": \"web\", \"port\": 80 } }\n";

/// A directory with a configuration, a zone and a service file, all good.
fn good(files: &Path) {
    fs::create_dir(files.join("zones")).expect("a directory");
    fs::create_dir(files.join("services")).expect("a directory");
    write_file(files, "portolan.toml", CONFIG);
    write_file(&files.join("zones"), "example.test.zone", ZONE);
    write_file(&files.join("services"), "web.json", SERVICE);
}

fn check(files: &Path) -> Outcome {
    let path = |name: &str| files.join(name).display().to_string();
    let (config, zones, services) = (path("portolan.toml"), path("zones"), path("services"));
    run_to_end(
        &[
            "check",
            "--config",
            &config,
            "--zones",
            &zones,
            "--services",
            &services,
        ],
        &[],
    )
}

#[test]
fn all_good_is_summed_up() {
    let files = directory();
    good(files.path());
    let outcome = check(files.path());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for word in ["1 service", "example.test", "http://127.0.0.1:8500"] {
        assert!(
            outcome.stdout.contains(word),
            "no word of {word}: {outcome:?}"
        );
    }
}

#[test]
fn the_wrong_part_is_named() {
    let files = directory();
    good(files.path());
    let config = write_file(files.path(), "portolan.toml", "[consul]\n\nadres = \"\"\n");
    assert_wrong_configuration(&check(files.path()), &config, 3, &["adres"]);
    write_file(files.path(), "portolan.toml", CONFIG);

    let bad = ZONE.replace("10.0.0.1", "ten");
    let zone = write_file(&files.path().join("zones"), "example.test.zone", &bad);
    assert_wrong_configuration(&check(files.path()), &zone, 5, &[]);
    write_file(&files.path().join("zones"), "example.test.zone", ZONE);

    let bad = "{\n  \"service\": {\n    \"port\": 80\n  }\n}\n";
    let service = write_file(&files.path().join("services"), "web.json", bad);
    let outcome = check(files.path());
    assert_eq!(outcome.code, Some(78), "{outcome:?}");
    let named = outcome.last_line().contains(&service.display().to_string());
    assert!(named && outcome.last_line().contains("name"), "{outcome:?}");
    write_file(&files.path().join("services"), "web.json", SERVICE);

    assert_eq!(check(files.path()).code, Some(0), "good again");
}

/// Nothing is bound: a check is for the machine where Portolan runs already.
/// By `check` and by a start: a line for each, and nothing else.
#[test]
fn every_mistake_is_told_at_once() {
    let files = directory();
    let (file, said) = six_mistakes(files.path());
    let file = file.display().to_string();
    for arguments in [&["check"][..], &["serve", "--listen", "127.0.0.1:0"]] {
        let outcome = run_to_end(&[arguments, &["--config", &file]].concat(), &[]);
        assert_eq!(outcome.code, Some(78), "{outcome:?}");
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), said.len(), "{outcome:?}");
        for (place, expected) in &said {
            let is_told = |line: &&str| line.contains(place) && line.contains(expected);
            assert!(lines.iter().any(is_told), "{place}{expected}: {outcome:?}");
        }
    }
}

/// Of a file that is no TOML only that is told.
#[test]
fn wrong_syntax_is_told() {
    let files = directory();
    let file = write_file(files.path(), "portolan.toml", "[server]\nworkers = \n");
    let arguments = ["check", "--config", &file.display().to_string()];
    let outcome = run_to_end(&arguments, &[]);
    assert_wrong_configuration(&outcome, &file, 2, &[]);
}

#[test]
fn the_port_may_be_taken() {
    let holder = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = holder
        .local_addr()
        .expect("a bound socket has an address")
        .to_string();
    let outcome = run_to_end(&["check", "--consul", "none", "--listen", &address], &[]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}
