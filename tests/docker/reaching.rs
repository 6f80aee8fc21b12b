//! The ways to Docker: through a proxy that allows little, over TLS, and past what is stuck.

use crate::{
    support::{
        certificates::{NEW_KEY, openssl},
        directory, docker,
        docker::Docker,
        docker_proxy::DockerProxy,
        ensure, eventually, free_ports,
        haproxy::Haproxy,
        own_loopback,
        portolan::Launch,
    },
    world::{SOON, addresses, has_addresses, launch, records, start},
};
use std::time::Duration;

const WEB: [&str; 4] = ["--expose", "80", "-e", "SERVICE_NAME=web"];

/// HAProxy before the socket, set up like the socket proxies that people use: `GET`, and nothing but
/// containers, events and the version. It cuts connections that were silent for 5 s.
fn haproxy(bind: &str, proxy: &DockerProxy) -> Haproxy {
    let socket = proxy.url().replace("unix://", "unix@");
    Haproxy::start(&format!(
        "frontend docker\n  mode http\n  bind {bind}\n  http-request deny unless METH_GET\n  \
         http-request deny unless {{ path_reg ^(/v[0-9.]+)?/(version|events|containers/json|containers/[0-9a-f]+/json)$ }}\n  \
         default_backend engine\nbackend engine\n  mode http\n  server engine {socket}\n"
    ))
}

fn serve() -> Launch {
    Launch::new("serve").args(["--consul", "none", "--upstream", "none", "--docker"])
}

#[test]
fn a_proxy_that_allows_nothing_but_reading_is_enough() {
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let ip = own_loopback();
    let [port] = free_ports(ip);
    let _haproxy = haproxy(&format!("{ip}:{port}"), &proxy);
    let portolan = serve()
        .env("DOCKER_HOST", &format!("tcp://{ip}:{port}"))
        .start();
    let web = docker.sleeper("web", &WEB);
    has_addresses(portolan.dns(), "web", &[&web.address("bridge")], SOON);
    // The stream of events is cut when it was silent: nobody is alarmed, and nothing is missed.
    let mut streams = 0;
    let what = "the stream of events is opened anew";
    eventually(Duration::from_secs(15), what, || {
        let asked = proxy.take_asked();
        streams += asked.iter().filter(|path| *path == "/events").count();
        ensure(streams > 1, || format!("{streams} times"))
    });
    web.tell("stop");
    has_addresses(portolan.dns(), "web", &[], SOON);
    assert!(
        !portolan.log().contains("cannot reach Docker"),
        "{}",
        portolan.log()
    );
}

/// Docker over TCP is over TLS, and both sides show certificates.
#[test]
fn certificates_are_checked_and_shown() {
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let web = docker.sleeper("web", &WEB);
    let files = directory();
    let (folder, ip) = (files.path(), own_loopback());
    let [port] = free_ports(ip);
    let key = format!("{NEW_KEY} -days 30");
    let authority = |name: &str| {
        openssl(
            folder,
            &format!("req -x509 {key} -keyout {name}.key -out {name}.pem -subj /CN={name}"),
        );
    };
    let certificate = |name: &str, extension: &str| {
        openssl(
            folder,
            &format!(
                "req -x509 {key} -CA ca.pem -CAkey ca.key -keyout {name}-key.pem -out {name}.pem \
                 -subj /CN={name} -addext {extension} -addext basicConstraints=critical,CA:FALSE"
            ),
        );
    };
    authority("ca");
    authority("other");
    certificate("server", &format!("subjectAltName=IP:{ip}"));
    certificate("client", "extendedKeyUsage=clientAuth");
    let read =
        |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of openssl's");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
    write(
        "bundle.pem",
        &(read("server.pem") + &read("server-key.pem")),
    );
    let path = |name: &str| folder.join(name).display().to_string();
    let (bundle, ca) = (path("bundle.pem"), path("ca.pem"));
    let _haproxy = haproxy(
        &format!("{ip}:{port} ssl crt {bundle} ca-file {ca} verify required"),
        &proxy,
    );
    let with = |ca: &str, client: Option<&str>| {
        let certificates = directory();
        let put = |from: &str, to: &str| {
            std::fs::copy(folder.join(from), certificates.path().join(to)).expect("a copy");
        };
        put(ca, "ca.pem");
        if let Some(client) = client {
            put(&format!("{client}.pem"), "cert.pem");
            put(&format!("{client}-key.pem"), "key.pem");
        }
        let launch = serve()
            .env("DOCKER_HOST", &format!("tcp://{ip}:{port}"))
            .env("DOCKER_TLS_VERIFY", "1")
            .env(
                "DOCKER_CERT_PATH",
                &certificates.path().display().to_string(),
            );
        (certificates, launch)
    };
    let (_files, good) = with("ca.pem", Some("client"));
    assert_eq!(
        addresses(good.start().dns(), "web"),
        [web.address("bridge")]
    );
    for (ca, client) in [("other.pem", Some("client")), ("ca.pem", None)] {
        let (_files, bad) = with(ca, client);
        let portolan = bad.not_ready().start();
        // A server that refuses may close before what it says of that is read: then another try tells.
        eventually(
            Duration::from_secs(20),
            "a bad certificate is told of",
            || {
                let log = portolan.log();
                match log.contains("cannot reach Docker")
                    && log.to_lowercase().contains("certificate")
                {
                    true => Ok(()),
                    false => Err(log),
                }
            },
        );
    }
}

/// Docker is stuck on one container: it stays as it was, and all others are followed at once.
#[test]
fn a_container_that_docker_is_stuck_on_holds_up_no_other() {
    let (docker, proxy, portolan) = start();
    let dns = portolan.dns();
    let stuck = docker.sleeper("stuck", &["--expose", "80", "-e", "SERVICE_NAME=stuck"]);
    let stuck_at = stuck.address("bridge");
    has_addresses(dns, "stuck", &[&stuck_at], SOON);
    proxy.hang(&stuck.id);
    // A reason to look at it.
    docker::docker(&["rename", &stuck.name, &docker.name("renamed")]).expect("docker renames");
    let web = docker.sleeper("web", &WEB);
    has_addresses(dns, "web", &[&web.address("bridge")], SOON);
    web.tell("stop");
    has_addresses(dns, "web", &[], SOON);
    assert_eq!(addresses(dns, "stuck"), [stuck_at]);
    // It is known to be dead without being looked at.
    stuck.tell("kill");
    has_addresses(dns, "stuck", &[], SOON);
}

/// One that Docker was stuck on from the start is nothing that one knows; the others are there.
#[test]
fn a_container_that_cannot_be_read_at_the_start_is_left_out() {
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let stuck = docker.sleeper("stuck", &["--expose", "80", "-e", "SERVICE_NAME=stuck"]);
    let web = docker.sleeper("web", &WEB);
    proxy.hang(&stuck.id);
    let portolan = launch(&proxy, "127.0.0.1:0").start();
    assert_eq!(addresses(portolan.dns(), "web"), [web.address("bridge")]);
    let unknown = portolan.metric("portolan_sources_docker_unknown_containers");
    assert!((unknown - 1.0).abs() < 0.5, "{unknown}");
}

/// A container with addresses of both families has both.
#[test]
fn both_families_are_answered() {
    let (docker, _proxy, portolan) = start();
    // A network for documentation would be refused; one of these is free (RFC 4193).
    let process = std::process::id();
    let subnet = format!("fd53:{:x}:{:x}::/64", process >> 16, process & 0xffff);
    let network = docker.network("six", &["--ipv6", "--subnet", &subnet]);
    let options = ["--network", &network.name];
    let web = docker.sleeper("web", &[&options[..], &WEB].concat());
    has_addresses(portolan.dns(), "web", &[&web.address(&network.name)], SOON);
    let six = web.inspect(&format!(
        "{{{{(index .NetworkSettings.Networks {:?}).GlobalIPv6Address}}}}",
        network.name
    ));
    assert_eq!(records(portolan.dns(), "web", "AAAA"), [six]);
}
