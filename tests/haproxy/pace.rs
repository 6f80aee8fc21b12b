//! What comes and goes reloads HAProxy seldom, and costs others nothing.

use crate::{
    backends::Backend,
    edge::{Edge, SOON, Site},
    load::Load,
    scaling::haproxy_3,
    support::{ensure, eventually, program, soak, write_file},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// As an operator has it who has set nothing.
fn by_default(site: &Site) -> Edge {
    let toml = write_file(site.directory.path(), "default.toml", "");
    let toml = toml.display().to_string();
    let edge = site.launch(&["--config", &toml]);
    edge.wait_until_ready();
    edge
}

/// A connection that lasts, through HAProxy.
struct WebSocket(TcpStream);

impl WebSocket {
    fn open(site: &Site, path: &str) -> Self {
        let mut stream = TcpStream::connect(site.http).expect("a connection");
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).expect("a timeout");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("an answer");
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self(stream)
    }

    fn is_alive(&mut self) -> Result<(), String> {
        let mut heard = [0; 4];
        self.0
            .write_all(b"ping")
            .and_then(|()| self.0.read_exact(&mut heard))
            .map_err(|error| error.to_string())?;
        ensure(&heard == b"ping", || format!("{heard:?}"))
    }
}

/// Up for a second, down for a second, again and again, beside ten that are quiet.
fn a_flapping_service(haproxy: PathBuf) {
    let site = Site::new().with_haproxy(haproxy);
    let quiet: Vec<Backend> = (0..10)
        .map(|number| site.service(&format!("quiet{number}")))
        .collect();
    let edge = by_default(&site);
    for service in &quiet {
        site.answers(
            &format!("/{}/x", service.name),
            &format!("{} /x", service.name),
        );
    }
    let load = Load::start(site.http, "/quiet3/x");
    let mut sockets: Vec<WebSocket> = quiet
        .iter()
        .map(|service| WebSocket::open(&site, &format!("/{}/socket", service.name)))
        .collect();
    let flapping = Backend::start("flapping");
    let start = Instant::now();
    let time = soak(Duration::from_secs(8), Duration::from_secs(120));
    while start.elapsed() < time {
        site.register("flapping", "rest", &flapping);
        thread::sleep(Duration::from_secs(1));
        site.deregister(&flapping);
        thread::sleep(Duration::from_secs(1));
        for (socket, service) in sockets.iter_mut().zip(&quiet) {
            let alive = socket.is_alive();
            alive.unwrap_or_else(|error| panic!("{}: {error}", service.name));
        }
    }
    let reloads = edge.reloads();
    eprintln!("figure: {reloads} reloads in {time:?} of flapping");
    assert!(reloads <= 1, "{reloads} reloads: it is one new service");
    // When it is up for good, it is there at once.
    site.register("flapping", "rest", &flapping);
    site.answers("/flapping/x", "flapping /x");
    assert_eq!(edge.reloads(), reloads);
    load.stop_without_failure(0);
}

#[test]
fn a_flapping_service_costs_others_nothing() {
    a_flapping_service(program("haproxy"));
}

#[test]
fn a_flapping_service_costs_others_nothing_with_haproxy_3() {
    a_flapping_service(haproxy_3());
}

/// Always another one is new: each would be a reload. The first three are there at once, the others in time.
#[test]
fn many_changes_are_few_reloads() {
    let site = Site::new();
    let _quiet = site.service("quiet");
    let edge = by_default(&site);
    let mut new = Vec::new();
    let start = Instant::now();
    for number in 0..7 {
        new.push(site.service(&format!("new{number}")));
        if number < 3 {
            site.answers(&format!("/new{number}/x"), &format!("new{number} /x"));
            edge.reloaded(number + 1);
        } else {
            edge.says("a change waits ");
            thread::sleep(Duration::from_secs(1));
        }
    }
    site.answers("/new6/x", "new6 /x");
    let took = start.elapsed().as_secs();
    let reloads = edge.reloads();
    assert!(reloads <= 3 + took / 10, "{reloads} reloads in {took} s");
    eventually(SOON, "nothing waits any more", || {
        let (_, body) = edge.ready()?;
        ensure(
            body.starts_with("haproxy") || !body.contains("a change waits"),
            || body,
        )
    });
}

/// What has no service any more says so while its backend lingers, and is gone in the end; who loses the tag goes at once.
#[test]
fn a_backend_lingers_without_servers() {
    let site = Site::new();
    let (kept, gone, untagged) = (
        site.service("kept"),
        site.service("gone"),
        site.service("untagged"),
    );
    let _more = [site.service("more1"), site.service("more2")];
    let toml = "[haproxy]\nlinger = \"8s\"\nreload_pace = \"0s\"\n";
    let toml = write_file(site.directory.path(), "linger.toml", toml);
    let edge = site.launch(&["--config", &toml.display().to_string()]);
    for service in [&kept, &gone, &untagged] {
        site.answers(
            &format!("/{}/x", service.name),
            &format!("{} /x", service.name),
        );
    }
    let start = Instant::now();
    site.deregister(&gone);
    site.register("untagged", "other", &untagged);
    edge.reloaded(1);
    let config = site.config();
    assert!(config.contains("backend gone\n") && !config.contains("backend untagged\n"));
    edge.reloaded(2);
    assert!(
        start.elapsed() > Duration::from_secs(7),
        "{:?}",
        start.elapsed()
    );
    assert!(!site.config().contains("backend gone\n"));
    site.answers("/kept/x", "kept /x");
}
