//! SIGTERM and SIGINT end it cleanly, SIGHUP never breaks what runs.

use crate::six_mistakes;
use crate::support::{
    directory,
    dns::{self, Query},
    ensure, eventually,
    portolan::Launch,
    upstream::{Action, Upstream},
    wire::{rcode, rtype::A},
    write_file,
};
use std::{io::Write, time::Duration};

/// Queries without an answer and a half-written one do not hold up the end.
#[test]
fn sigterm_ends_it_within_five_seconds() {
    let upstream = Upstream::start(|_, _| Action::Silence);
    let portolan = Launch::new("serve")
        .args([
            "--consul",
            "none",
            "--upstream",
            &upstream.address().to_string(),
        ])
        .start();
    let server = portolan.dns();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let waiting = |n| Query::new(&format!("waiting{n}.test"), A).bytes();
    for n in 0..10 {
        socket
            .send_to(&waiting(n), server)
            .expect("sending a query");
    }
    let mut stream = dns::connect_tcp(server, dns::PATIENCE).expect("a TCP connection");
    stream
        .write_all(&dns::framed(&waiting(11)))
        .expect("sending a query");
    let mut half = dns::connect_tcp(server, dns::PATIENCE).expect("a TCP connection");
    half.write_all(&dns::framed(&waiting(12))[..5])
        .expect("sending half a query");
    eventually(dns::PATIENCE, "the upstream is waited for", || {
        ensure(!upstream.seen().is_empty(), || "it saw nothing".to_owned())
    });

    let ended = portolan.stop();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.took < Duration::from_secs(6), "{ended:?}");
}

#[test]
fn an_idle_server_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let mut portolan = Launch::new("serve")
            .args(["--consul", "none", "--upstream", "none"])
            .start();
        // An idle connection is none that has to be waited for.
        let _idle = dns::connect_tcp(portolan.dns(), dns::PATIENCE).expect("a TCP connection");
        portolan.signal(signal);
        let status = portolan.wait(Duration::from_secs(2));
        assert_eq!(status.code(), Some(0), "SIG{signal}");
    }
}

#[test]
fn sighup_with_a_broken_file_changes_nothing() {
    let files = directory();
    let config = write_file(files.path(), "portolan.toml", "[recursion]\nallow = []\n");
    let mut portolan = Launch::new("serve")
        .args(["--consul", "none", "--upstream", "none"])
        .args(["--config".into(), config.clone().into_os_string()])
        .start();
    write_file(files.path(), "portolan.toml", "[recursion]\nalow = []\n");
    portolan.signal("HUP");
    let file = config.display().to_string();
    eventually(Duration::from_secs(3), "the mistake is logged", || {
        let events = portolan.events();
        let logged = events.iter().any(|event| {
            let (level, text) = (event["level"].as_str(), event.to_string());
            matches!(level, Some("ERROR" | "WARN")) && text.contains(&file) && text.contains("alow")
        });
        ensure(logged, || format!("{events:?}"))
    });
    portolan.assert_running();
    let reply = dns::ask(portolan.dns(), "www.test", A);
    assert_eq!(reply.rcode(), rcode::REFUSED, "{}", reply.summary());
    let ended = portolan.stop();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// Every one of its mistakes is logged.
#[test]
fn sighup_with_six_mistakes_tells_all_of_them() {
    let files = directory();
    let config = write_file(files.path(), "portolan.toml", "[recursion]\nallow = []\n");
    let mut portolan = Launch::new("serve")
        .args(["--consul", "http://127.0.0.1:1", "--upstream", "none"])
        .args(["--config".into(), config.clone().into_os_string()])
        .not_ready()
        .start();
    let (six, said) = six_mistakes(files.path());
    let (six_name, name) = (six.display().to_string(), config.display().to_string());
    std::fs::rename(six, config).expect("the file is replaced");
    portolan.signal("HUP");
    eventually(Duration::from_secs(3), "the mistakes are logged", || {
        let events = portolan.events();
        let missing: Vec<_> = said
            .iter()
            .filter(|(place, expected)| {
                let place = place.replace(&six_name, &name);
                !events.iter().any(|event| {
                    let text = event["fields"]["error"].as_str().unwrap_or_default();
                    text.contains(&place) && text.contains(expected)
                })
            })
            .collect();
        ensure(missing.is_empty(), || format!("{missing:?} of {events:?}"))
    });
    portolan.assert_running();
    let reply = dns::ask(portolan.dns(), "www.test", A);
    assert_eq!(reply.rcode(), rcode::REFUSED, "{}", reply.summary());
    let ended = portolan.stop();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}
