//! What is answered, to whom.

use crate::{
    support::{
        dig::dig,
        docker::Docker,
        docker_proxy::DockerProxy,
        eventually, http,
        portolan::{Launch, Portolan},
        write_file,
    },
    world::{SOON, addresses, has_addresses, launch, records, start},
};
use std::net::{IpAddr, SocketAddr};

/// A web server of busybox on this port.
const HTTPD: [&str; 6] = ["httpd", "-f", "-p", "8000", "-h", "/bin"];

/// Done when 6: a container of a user-defined network, as every compose project has, and one with
/// a published port; from the host and from another container; to the very end, which is a
/// connection.
#[test]
fn names_lead_to_containers_from_the_host_and_from_containers() {
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let network = docker.network("net", &[]);
    let gateway = network.gateway();
    let portolan = launch(&proxy, &format!("{gateway}:0")).start();
    let on_network = ["--network", &network.name];

    let composed = docker.run(
        "composed",
        &[
            &on_network[..],
            &["--expose", "8000", "-l", "SERVICE_NAME=composed"],
        ]
        .concat(),
        &HTTPD,
    );
    let published = docker.run(
        "published",
        &[
            "-p",
            ":8000",
            "-e",
            "SERVICE_NAME=published",
            "-e",
            "SERVICE_TAGS=rest",
        ],
        &HTTPD,
    );
    let client = docker.sleeper("client", &on_network);

    let composed_at = (composed.address(&network.name), 8000);
    let published_at = (gateway.clone(), published.published("8000/tcp"));
    for (service, (ip, port)) in [("composed", &composed_at), ("published", &published_at)] {
        has_addresses(portolan.dns(), service, &[ip], SOON);
        let hex: String = match ip.parse().expect("an address") {
            IpAddr::V4(ip) => ip
                .octets()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            IpAddr::V6(ip) => panic!("{ip} is not IPv4"),
        };
        let target = format!("{hex}.addr.dc1.consul.");
        let srv = format!("1 1 {port} {target}");
        assert_eq!(records(portolan.dns(), service, "SRV"), [srv.as_str()]);
        let answer = http::get(
            SocketAddr::new(ip.parse().expect("an address"), *port),
            "/sh",
        );
        assert_eq!(answer.expect("the container answers").status, 200);

        // The same questions from inside a container, by busybox.
        let name = format!("{service}.service.consul");
        let server = portolan.dns().to_string();
        let inside = |rtype: &str| {
            client
                .exec(&["nslookup", &format!("-type={rtype}"), &name, &server])
                .unwrap_or_else(|error| panic!("{error}"))
        };
        let found = inside("a");
        assert!(found.contains(&format!("Address: {ip}")), "{found}");
        let found = inside("srv");
        assert!(
            found.contains(&format!("service = {}", srv.trim_end_matches('.'))),
            "{found}"
        );
        let url = format!("http://{ip}:{port}/sh");
        client
            .exec(&["wget", "-q", "-O", "/page", &url])
            .unwrap_or_else(|error| panic!("{service} cannot be reached: {error}"));
    }
    let tagged = dig(portolan.dns(), &["rest.published.service.consul"]);
    assert_eq!(tagged.answer.len(), 1, "{}", tagged.output);
    // The host is the one node, and the services have reverse names.
    let reverse = dig(portolan.dns(), &["-x", &composed_at.0]);
    assert!(
        reverse.answer[0].ends_with("PTR composed.service.dc1.consul."),
        "{}",
        reverse.output
    );
    let only_get = proxy.take_asked();
    assert!(
        only_get.iter().all(|path| path.starts_with('/')),
        "{only_get:?}"
    );
}

/// Containers use Portolan as their resolver, as `docker run --dns` sets it up: the engine's own
/// resolver in a user-defined network forwards to it on port 53.
#[test]
fn it_is_the_resolver_of_containers() {
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let network = docker.network("net", &[]);
    let gateway = network.gateway();
    let _portolan = launch(&proxy, &format!("{gateway}:53")).start();
    let options = ["--network", &network.name, "--dns", &gateway];
    let search = ["--dns-search", "service.consul"];
    let web = docker.sleeper(
        "web",
        &[&options[..], &["--expose", "80", "-e", "SERVICE_NAME=web"]].concat(),
    );
    let client = docker.sleeper("client", &[&options[..], &search].concat());
    let address = web.address(&network.name);
    eventually(
        SOON,
        "a container finds another by its plain service name",
        || {
            let found = client.exec(&["nslookup", "-type=a", "web.service.consul"])?;
            match found.contains(&format!("Address: {address}")) {
                true => Ok(()),
                false => Err(found),
            }
        },
    );
    let found = client.exec(&["ping", "-c", "1", "-W", "2", "web"]);
    let found = found.unwrap_or_else(|error| panic!("{error}"));
    assert!(found.contains(&address), "{found}");
}

/// `--docker` alone: the engine where `DOCKER_HOST` says, and what it shows is all that there is.
#[test]
fn docker_host_is_where_docker_is() {
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let serve = || Launch::new("serve").args(["--consul", "none", "--upstream", "none"]);
    let _container = docker.sleeper("web", &["-p", "127.0.0.1::80", "-e", "SERVICE_NAME=web"]);
    let by_flag = serve()
        .env("DOCKER_HOST", &proxy.url())
        .args(["--docker"])
        .start();
    let by_file = serve()
        .config(&format!(
            "[docker]\nserve = true\naddress = \"{}\"",
            proxy.url()
        ))
        .start();
    let without = serve().env("DOCKER_HOST", "no address").not_ready().start();
    for portolan in [&by_flag, &by_file] {
        // A port on the host's loopback is nobody else's: the container itself is named.
        assert_eq!(addresses(portolan.dns(), "web").len(), 1);
        assert_ne!(addresses(portolan.dns(), "web"), ["127.0.0.1"]);
        let ready = portolan.get("/ready").expect("an answer");
        assert!(ready.body.contains("docker"), "{}", ready.body);
    }
    assert!(!without.log().contains("docker"), "{}", without.log());
}

/// Files go before containers, as they go before Consul.
#[test]
fn files_go_before_containers() {
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let files = crate::support::directory();
    let web = r#"{"service": {"name": "web", "address": "192.0.2.77", "port": 1}}"#;
    write_file(files.path(), "web.json", web);
    let portolan = launch(&proxy, "127.0.0.1:0")
        .args(["--services"])
        .args([files.path()])
        .start();
    let options = |name| ["--expose", "80", "-e", name];
    let _web = docker.sleeper("web", &options("SERVICE_NAME=web"));
    let api = docker.sleeper("api", &options("SERVICE_NAME=api"));
    has_addresses(portolan.dns(), "api", &[&api.address("bridge")], SOON);
    assert_eq!(addresses(portolan.dns(), "web"), ["192.0.2.77"]);
}

/// What one container says wrong is told, and hurts nobody else; what is to be ignored is.
#[test]
fn one_bad_container_hurts_no_other() {
    let (docker, _proxy, portolan) = start();
    let _bad = docker.sleeper(
        "bad",
        &[
            "--expose",
            "80",
            "-e",
            "SERVICE_NAME=bad",
            "-l",
            "SERVICE_a.b=c",
            "-e",
            "SERVICE_IP=nowhere",
        ],
    );
    let _ignored = docker.sleeper(
        "no",
        &[
            "--expose",
            "80",
            "-e",
            "SERVICE_NAME=no",
            "-e",
            "SERVICE_IGNORE=yes",
        ],
    );
    let good = docker.sleeper("good", &["--expose", "80", "-e", "SERVICE_NAME=good"]);
    has_addresses(portolan.dns(), "good", &[&good.address("bridge")], SOON);
    assert_eq!(addresses(portolan.dns(), "bad").len(), 1);
    assert_eq!(
        dig(portolan.dns(), &["no.service.consul"]).status,
        "NXDOMAIN"
    );
    let log = portolan.log();
    for told in [
        "SERVICE_IP is no IP address",
        "SERVICE_A.B is left out of Meta",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
}

/// Until Docker has been read there is nothing to say, which is not the same as "no such name".
#[test]
fn before_the_first_list_nothing_is_denied() {
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    proxy.cut();
    let web = docker.sleeper("web", &["--expose", "80", "-e", "SERVICE_NAME=web"]);
    let portolan: Portolan = launch(&proxy, "127.0.0.1:0").not_ready().start();
    assert_eq!(
        dig(portolan.dns(), &["web.service.consul"]).status,
        "SERVFAIL"
    );
    assert_eq!(portolan.get("/ready").expect("an answer").status, 503);
    proxy.heal();
    portolan.wait_until_ready();
    assert_eq!(addresses(portolan.dns(), "web"), [web.address("bridge")]);
}
