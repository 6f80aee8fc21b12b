//! Portolan beside a part of the Docker Engine.

use crate::support::{
    dig::dig,
    docker::Docker,
    docker_proxy::DockerProxy,
    eventually,
    portolan::{Launch, Portolan},
};
use std::{net::SocketAddr, time::Duration};

/// A change has to be seen within this; what it takes on a quiet machine is a few milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(2);

/// `serve` on `listen` with the containers that the proxy shows, and nothing else.
pub(crate) fn launch(proxy: &DockerProxy, listen: &str) -> Launch {
    Launch::new("serve")
        .args(["--consul", "none", "--upstream", "none"])
        .args(["--docker", &proxy.url()])
        .listen(listen)
}

/// A part of the engine, and Portolan on loopback that sees it through a proxy.
pub(crate) fn start() -> (Docker, DockerProxy, Portolan) {
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let portolan = launch(&proxy, "127.0.0.1:0").start();
    (docker, proxy, portolan)
}

/// The addresses that a service's name has.
pub(crate) fn addresses(server: SocketAddr, service: &str) -> Vec<String> {
    records(server, service, "A")
}

/// The data of the records that a service's name has.
pub(crate) fn records(server: SocketAddr, service: &str, rtype: &str) -> Vec<String> {
    let found = dig(server, &[&format!("{service}.service.consul"), rtype]);
    let data = |line: &String| line.split(' ').skip(4).collect::<Vec<_>>().join(" ");
    let mut records: Vec<String> = found.answer.iter().map(data).collect();
    records.sort();
    records
}

/// Waits until a service has these addresses.
pub(crate) fn has_addresses(
    server: SocketAddr,
    service: &str,
    expected: &[&str],
    within: Duration,
) {
    eventually(within, &format!("{service} is at {expected:?}"), || {
        let found = addresses(server, service);
        match found == expected {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    });
}
