//! `portolan dev`: what somebody sees who has neither Consul nor a configuration.

#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeSet, time::Duration};
use support::{
    directory,
    dns::{self, Query},
    ensure, eventually,
    portolan::{Launch, Portolan},
    wire::{
        rcode,
        rtype::{A, AAAA, PTR, SRV},
    },
    write_file,
};

/// How soon a changed file is answered from.
const SOON: Duration = Duration::from_secs(2);

fn dev() -> Launch {
    // The default upstreams are this machine's: tests stay on loopback.
    Launch::new("dev").args(["--upstream", "none"])
}

#[test]
fn the_shipped_services_are_answered() {
    let portolan = dev().start();
    let ask = |name: &str, rtype| Query::new(name, rtype).edns(1232).ask(portolan.dns());
    for name in [
        "hello1.service.consul",
        "hello2.service.consul",
        "db.service.consul",
    ] {
        for rtype in [A, SRV] {
            let reply = ask(name, rtype);
            assert_eq!(reply.rcode(), rcode::NOERROR, "{name}: {}", reply.summary());
            assert!(!reply.answers.is_empty(), "{name}: {}", reply.summary());
            assert!(reply.aa(), "{name}: {}", reply.summary());
        }
        // Every SRV comes with its address.
        let reply = ask(name, SRV);
        assert_eq!(
            reply.glue().count(),
            reply.answers.len(),
            "{name}: {}",
            reply.summary()
        );
    }

    // `hello2` has the tag `rest`, `hello1` does not.
    for name in ["rest.hello2.service.consul", "_hello2._rest.service.consul"] {
        let tagged = ask(name, SRV);
        assert_eq!(
            tagged.rcode(),
            rcode::NOERROR,
            "{name}: {}",
            tagged.summary()
        );
    }
    let untagged = ask("rest.hello1.service.consul", SRV);
    assert_eq!(untagged.rcode(), rcode::NXDOMAIN, "{}", untagged.summary());

    // `db` is two instances of different weight.
    let db = ask("db.service.consul", SRV);
    let weights: BTreeSet<_> = db.answers.iter().map(|srv| srv.word(1)).collect();
    assert_eq!(
        (db.answers.len(), weights.len()),
        (2, 2),
        "{}",
        db.summary()
    );

    let unknown = ask("nope.service.consul", A);
    assert_eq!(unknown.rcode(), rcode::NXDOMAIN, "{}", unknown.summary());
}

#[test]
fn local_names_are_answered_here() {
    let portolan = dev().start();
    for (name, rtype, expected) in [
        ("localhost", A, "127.0.0.1"),
        ("localhost", AAAA, "::1"),
        ("any.localhost", A, "127.0.0.1"),
        ("1.0.0.127.in-addr.arpa", PTR, "localhost."),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
            PTR,
            "localhost.",
        ),
    ] {
        let reply = dns::ask(portolan.dns(), name, rtype);
        assert_eq!(reply.data(), [expected], "{name}: {}", reply.summary());
        assert!(reply.aa(), "{name}: {}", reply.summary());
    }
}

#[test]
fn the_admin_port_speaks() {
    let portolan = dev().start();
    dns::ask(portolan.dns(), "hello1.service.consul", A);
    for path in ["/healthz", "/ready"] {
        let response = portolan.get(path).expect("an answer");
        assert_eq!(response.status, 200, "{path}: {response:?}");
    }
    let metrics = portolan.get("/metrics").expect("an answer");
    assert_eq!(metrics.status, 200, "{metrics:?}");
    let kind = metrics.header("content-type").unwrap_or_default();
    assert!(
        kind.starts_with("text/plain") || kind.starts_with("application/openmetrics-text"),
        "Prometheus would not read {kind}"
    );
    let ours = metrics
        .body
        .lines()
        .filter(|line| line.starts_with("portolan_"))
        .count();
    assert!(ours > 0, "no metric of ours: {}", metrics.body);
    assert_eq!(portolan.get("/nope").expect("an answer").status, 404);
}

/// A service definition as Consul reads it.
fn service(name: &str, addresses: &[&str]) -> String {
    let instances: Vec<_> = addresses
        .iter()
        .map(|address| {
            serde_json::json!({ "name": name, "id": format!("{name}-{address}"),
                "address": address, "port": 80 })
        })
        .collect();
    serde_json::json!({ "services": instances }).to_string()
}

fn settles(portolan: &Portolan, name: &str, expected: &[&str]) {
    eventually(SOON, &format!("{name} is {expected:?}"), || {
        let reply = dns::ask(portolan.dns(), name, A);
        ensure(reply.data() == expected, || reply.summary())
    });
}

#[test]
fn edited_files_are_followed() {
    let files = directory();
    write_file(files.path(), "app.json", &service("app", &["10.6.0.1"]));
    let portolan = dev()
        .args(["--services".into(), files.path().as_os_str().to_owned()])
        .start();
    let settled = |name, expected: &[&str]| settles(&portolan, name, expected);
    let app = "app.service.consul";

    let first = dns::ask(portolan.dns(), app, A);
    assert_eq!(first.data(), ["10.6.0.1"], "{}", first.summary());

    // A changed file, written in place and renamed into place.
    write_file(
        files.path(),
        "app.json",
        &service("app", &["10.6.0.1", "10.6.0.2"]),
    );
    settled(app, &["10.6.0.1", "10.6.0.2"]);
    let text = service("app", &["10.6.0.3"]);
    std::fs::write(files.path().join("app.json"), text).expect("writing in place");
    settled(app, &["10.6.0.3"]);

    // A new file, and one that goes.
    write_file(files.path(), "new.json", &service("new", &["10.6.1.1"]));
    settled("new.service.consul", &["10.6.1.1"]);
    std::fs::remove_file(files.path().join("new.json")).expect("removing a file");
    settled("new.service.consul", &[]);
    settled(app, &["10.6.0.3"]);
}

/// A mistake in one file costs nobody an answer, and the log says where it is.
#[test]
fn a_malformed_file_keeps_the_last_good_services() {
    let files = directory();
    write_file(files.path(), "app.json", &service("app", &["10.6.0.1"]));
    write_file(files.path(), "other.json", &service("other", &["10.6.2.1"]));
    let portolan = dev()
        .args(["--services".into(), files.path().as_os_str().to_owned()])
        .start();

    let broken = "{\n  \"service\": {\n    \"name\": \"app\",\n    \"port\": oops\n  }\n}\n";
    let file = write_file(files.path(), "app.json", broken)
        .display()
        .to_string();
    eventually(SOON, "the mistake is logged with file and line", || {
        let events = portolan.events();
        let place = [format!("{file}:4"), format!("{file}, line 4")];
        let logged = events.iter().any(|event| {
            let fields = &event["fields"];
            let apart = fields["line"] == 4 && fields.to_string().contains(&file);
            let level = event["level"].as_str();
            matches!(level, Some("ERROR" | "WARN"))
                && (apart || place.iter().any(|place| fields.to_string().contains(place)))
        });
        ensure(logged, || format!("{events:?}"))
    });
    for (name, address) in [("app", "10.6.0.1"), ("other", "10.6.2.1")] {
        let reply = dns::ask(portolan.dns(), &format!("{name}.service.consul"), A);
        assert_eq!(reply.data(), [address], "{name}: {}", reply.summary());
    }

    // Mended, it counts again.
    write_file(files.path(), "app.json", &service("app", &["10.6.0.9"]));
    settles(&portolan, "app.service.consul", &["10.6.0.9"]);
}

/// What a service file can say: tags, several instances, checks, and an address of the machine's own.
#[test]
fn a_service_file_says_what_consuls_does() {
    let files = directory();
    let text = r#"{ "services": [
        { "name": "app", "id": "a", "address": "10.6.0.1", "port": 80, "tags": ["blue"],
          "weights": { "passing": 7, "warning": 2 } },
        { "name": "app", "id": "b", "address": "10.6.0.2", "port": 81,
          "weights": { "passing": 7, "warning": 2 },
          "checks": [ { "name": "c", "ttl": "10s", "status": "warning" } ] },
        { "name": "app", "id": "c", "address": "10.6.0.3", "port": 82,
          "check": { "name": "c", "ttl": "10s", "status": "critical" } }
    ] }"#;
    write_file(files.path(), "app.json", text);
    let portolan = dev()
        .args(["--services".into(), files.path().as_os_str().to_owned()])
        .start();
    let reply = Query::new("app.service.consul", SRV)
        .edns(1232)
        .ask(portolan.dns());
    let data: Vec<String> = reply
        .data()
        .iter()
        .map(|data| data.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(data, ["1 2 81", "1 7 80"], "{}", reply.summary());
    let blue = dns::ask(portolan.dns(), "blue.app.service.consul", A);
    assert_eq!(blue.data(), ["10.6.0.1"], "{}", blue.summary());
}
