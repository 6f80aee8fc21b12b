//! Names, as the host and the containers find them.

use crate::{
    support::{dig::dig, docker::docker, eventually, http},
    world::{CONSUL, DNS, OUTSIDE, OUTSIDE_IS, World},
};
use std::{net::SocketAddr, time::Duration};

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn are_found_on_port_53() {
    let found = dig(DNS, &["hello1.service.consul", "SRV"]);
    assert_eq!(found.answer.len(), 1, "{}", found.output);
    assert!(found.answer[0].contains(" SRV 1 1 8080 "), "{found:?}");
    assert_eq!(found.additional.len(), 1, "{}", found.output);
    let over_tcp = dig(DNS, &["+tcp", "hello1.service.consul", "SRV"]);
    assert_eq!(found.answer, over_tcp.answer);
}

/// Of the resolver's own names nobody asks but itself, and Docker's API has no other network.
pub(crate) fn are_found_in_containers(world: &World) {
    // A service that Docker knows nothing of.
    let service = r#"{ "Name": "printer", "Address": "10.9.8.7", "Port": 631 }"#;
    let put = http::put(CONSUL, "/v1/agent/service/register", service);
    assert_eq!(put.map(|response| response.status), Ok(200));
    let address =
        "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'";
    let hello1 = world
        .shell(&format!("{address} {}", world.container("hello1")))
        .unwrap_or_else(|error| panic!("{error}"));
    let hello1 = hello1.trim();
    for part in ["consul", "registrar", "haproxy", "hello1", "hello2"] {
        for (name, wanted) in [
            ("hello1", hello1),
            ("hello1.service.consul", hello1),
            ("printer", "10.9.8.7"),
            (OUTSIDE, &OUTSIDE_IS.to_string()),
        ] {
            eventually(PATIENCE, &format!("{part} finds {name}"), || {
                let found = world.inside(part, &format!("getent ahostsv4 {name}"))?;
                match found.split_whitespace().next() {
                    Some(address) if address == wanted => Ok(()),
                    _ => Err(format!("{found:?}, not {wanted}")),
                }
            });
        }
    }
    let asked = world
        .upstream()
        .count(&format!("{OUTSIDE}."), hickory_proto::rr::RecordType::A);
    assert!(asked > 0, "the scripted upstream was never asked");
}

/// A container that is told no upstream has Docker's own resolver for one. It looks like an address
/// of its own, and is none.
pub(crate) fn are_found_behind_dockers_own_resolver(world: &World) {
    let (name, network) = (world.network("wildcard"), world.network("portolan"));
    let label = world.filter();
    let image = world.variable("PORTOLAN_IMAGE");
    docker(&[
        "run",
        "--detach",
        "--name",
        &name,
        "--network",
        &network,
        "--label",
        label.trim_start_matches("label="),
        image,
        "serve",
        "--listen=0.0.0.0:53",
        "--consul=none",
    ])
    .unwrap_or_else(|error| panic!("{error}"));
    let address = docker(&[
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        &name,
    ]);
    let address = address.unwrap_or_else(|error| panic!("{error}"));
    let server = SocketAddr::new(address.parse().expect("an address"), 53);
    eventually(PATIENCE, "the other resolver is ready", || {
        docker(&["exec", &name, "portolan", "check", "--running"])
    });
    let found = dig(server, &["resolver", "A"]);
    assert_eq!(found.answer.len(), 1, "{}", found.output);
    docker(&["rm", "--force", &name]).unwrap_or_else(|error| panic!("{error}"));
}
