//! Tokens that do not see all that they write, or that was written before.

use crate::{
    refused::{root_get, token, with_acl},
    support::{
        door::Door, ensure, eventually, http, registrar::Registrar, request::Request, write_file,
    },
    truth::throughout,
    world::{Host, LATE, SOON},
};
use std::{
    collections::BTreeSet,
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// What a token could not see becomes visible: that is no other process.
#[test]
fn what_was_hidden_is_no_other_process() {
    let host = with_acl();
    let all = r#"agent_prefix "" { policy = "read" } service_prefix "" { policy = "write" }"#;
    let some = r#"agent_prefix "" { policy = "read" } service "other" { policy = "write" }"#;
    let (all, some) = (token(&host, all), token(&host, some));
    let directory = host.proxy.directory();
    let file = write_file(directory, "token", &all).display().to_string();
    let flags = ["--token-file", &file, "--resync", "1s"];
    let (web, other) = (host.service("web", "web"), host.service("other", "other"));
    let ids = |host: &Host| -> BTreeSet<String> {
        let services = root_get(host, "/v1/agent/services");
        services
            .as_object()
            .expect("services by ID")
            .keys()
            .cloned()
            .collect()
    };
    let registrar = host.registrar(&flags);
    let both: BTreeSet<String> = [host.id(&web), host.id(&other)].into();
    eventually(LATE, "both are registered", || {
        let ids = ids(&host);
        ensure(ids == both, || format!("{ids:?}"))
    });
    registrar.kill();
    write_file(directory, "token", &some);
    let registrar = host.registrar(&flags);
    // It would register what it cannot see, and may not.
    let failing = || registrar.metric("portolan_register_failing");
    eventually(LATE, "one is refused", || {
        ensure(failing() == 1.0, || failing().to_string())
    });
    write_file(directory, "token", &all);
    eventually(LATE, "none is refused", || {
        ensure(failing() == 0.0, || failing().to_string())
    });
    web.tell("kill");
    eventually(LATE, "what was hidden is kept up", || {
        let ids = ids(&host);
        ensure(ids == [host.id(&other)].into(), || format!("{ids:?}"))
    });
    let told = registrar.log();
    assert!(!told.contains("another process"), "{told}");
}

/// A Consul that takes what is registered and shows nothing of it: no policy of Consul's makes a token that may
/// write and not read, but a proxy before it does.
struct Veil {
    door: Door,
    is_up: Arc<AtomicBool>,
}

impl Veil {
    fn before(consul: SocketAddr) -> Self {
        let is_up = Arc::new(AtomicBool::new(true));
        let hides = Arc::clone(&is_up);
        let door = Door::open(move |client| {
            let hides = Arc::clone(&hides);
            thread::spawn(move || serve(&client, consul, &hides));
        });
        Self { door, is_up }
    }
}

/// Until the client has enough.
fn serve(client: &TcpStream, consul: SocketAddr, hides: &AtomicBool) {
    let mut reader = BufReader::new(client.try_clone().expect("a second handle"));
    while let Ok(Some(request)) = Request::read(&mut reader) {
        let length = request.headers.get("content-length");
        let length = length.map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let body = String::from_utf8(body).expect("JSON");
        let query: Vec<String> = request
            .params
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let target = format!("{}?{}", request.path, query.join("&"));
        // The method is not kept: what changes something has a path of its own.
        let is_write = ["register", "deregister", "update"]
            .iter()
            .any(|word| request.path.contains(&format!("/{word}")));
        let method = if is_write { "PUT" } else { "GET" };
        let answer = http::request(consul, method, &target, &body).expect("an answer");
        let is_list = ["/v1/agent/services", "/v1/agent/checks"].contains(&request.path.as_str());
        let is_one = !is_write && request.path.starts_with("/v1/agent/service/");
        let (status, body) = match hides.load(Ordering::Relaxed) {
            true if is_list => (200, "{}".to_owned()),
            true if is_one && answer.status == 200 => (403, "Permission denied".to_owned()),
            _ => (answer.status, answer.body),
        };
        let head = format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut writer = client;
        if writer
            .write_all(format!("{head}{body}").as_bytes())
            .is_err()
        {
            return;
        }
    }
}

/// It is told as what it is and at once; nothing is registered over and over, and nothing stays behind.
#[test]
fn a_token_that_may_not_read_is_told_of() {
    let host = Host::start();
    let veil = Veil::before(host.consul.http());
    let docker = host.proxy.url();
    let web = host.service("web", "web");
    let registrar = Registrar::start(&[
        "--docker",
        &docker,
        "--consul",
        &veil.door.url(),
        "--resync",
        "1s",
    ]);
    eventually(SOON, "it is told", || {
        let ready = registrar.get("/ready")?;
        let is_told =
            ready.status == 503 && ready.body.contains("may register services and not read");
        ensure(is_told, || ready.body)
    });
    host.wait_for(SOON, &[&web]);
    let written =
        || registrar.metric("portolan_register_writes_total{action=\"register\",outcome=\"ok\"}");
    throughout(Duration::from_secs(4), "it is registered once", || {
        let written = written();
        ensure(written == 1.0, || written.to_string())
    });
    let other = host.service("other", "other");
    host.wait_for(LATE, &[&web, &other]);
    web.tell("kill");
    host.wait_for(SOON, &[&other]);
    veil.is_up.store(false, Ordering::Relaxed);
    registrar.wait_until_ready();
    let told = registrar.log();
    assert!(!told.contains("another process"), "{told}");
    assert_eq!(
        told.matches("may register services and not read").count(),
        1,
        "{told}"
    );
}
