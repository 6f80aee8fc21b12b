//! What a container's HEALTHCHECK says, Consul and DNS say too.

use crate::{
    support::{
        consul::Consul,
        dns,
        docker::{Container, docker},
        ensure, eventually,
        portolan::Portolan,
        wire::rtype::SRV,
    },
    world::{Host, SOON},
};
use serde_json::json;
use std::time::Duration;

/// Healthy for as long as there is a file.
const CHECK: [&str; 6] = [
    "--health-cmd",
    "cat /healthy",
    "--health-retries",
    "1",
    "--health-timeout",
    "5s",
];

/// A container with a HEALTHCHECK that is good as long as `/healthy` exists.
pub(crate) fn checked(host: &Host, name: &str) -> Container {
    checked_every(host, name, "200ms")
}

/// The same, which is looked at so often.
pub(crate) fn checked_every(host: &Host, name: &str, interval: &str) -> Container {
    let mut options = [&["-e", "SERVICE_NAME=checked", "-p", ":80"][..], &CHECK].concat();
    options.extend(["--health-interval", interval]);
    let script = "touch /healthy; sleep 1000000";
    host.docker.run(name, &options, &["sh", "-c", script])
}

/// Waits until Docker says so.
pub(crate) fn wait_for_health(container: &Container, health: &str) {
    eventually(Duration::from_secs(20), "Docker knows", || {
        let now = container.inspect("{{.State.Health.Status}}");
        ensure(now == health, || now)
    });
}

fn wait_for_dns(portolan: &Portolan, expected: usize) {
    eventually(Duration::from_secs(2), "DNS follows", || {
        let reply = dns::ask(portolan.dns(), "checked.service.consul", SRV);
        let found = reply.answers.len();
        ensure(found == expected, || {
            format!("{found} instead of {expected}")
        })
    });
}

/// The status of the only check.
fn status(consul: &Consul) -> String {
    let checks = consul.get("/v1/agent/checks");
    let checks = checks.as_object().expect("checks by ID");
    let statuses: Vec<_> = checks.values().map(|check| &check["Status"]).collect();
    assert_eq!(statuses.len(), 1, "{checks:?}");
    statuses[0].as_str().expect("a status").to_owned()
}

#[test]
fn an_unhealthy_container_leaves_dns_and_comes_back() {
    let host = Host::start();
    let portolan = Portolan::beside(&host.consul);
    let _registrar = host.registrar(&[]);
    let container = checked(&host, "checked");
    wait_for_health(&container, "healthy");
    wait_for_dns(&portolan, 1);
    for _ in 0..2 {
        container.exec(&["rm", "/healthy"]).expect("it turns bad");
        wait_for_health(&container, "unhealthy");
        wait_for_dns(&portolan, 0);
        container
            .exec(&["touch", "/healthy"])
            .expect("it turns good");
        wait_for_health(&container, "healthy");
        wait_for_dns(&portolan, 1);
    }
    // It was registered once: health is reported, not registered.
    let writes = host.recorder.take_writes();
    let registered = |write: &&String| *write == "PUT /v1/agent/service/register";
    assert_eq!(writes.iter().filter(registered).count(), 1, "{writes:?}");
}

/// The registrar was away, and Consul was; somebody took the check away: none of it lasts.
#[test]
fn health_is_right_again_after_trouble() {
    let mut host = Host::start();
    let registrar = host.registrar(&[]);
    let container = checked(&host, "checked");
    wait_for_health(&container, "healthy");
    let is = |host: &Host, within: Duration, expected: &str| {
        eventually(within, "the check has the status", || {
            let checks = host.consul.get("/v1/agent/checks");
            let all = checks.as_object().expect("checks by ID");
            ensure(all.len() == 1, || checks.to_string())?;
            let now = status(&host.consul);
            ensure(now == expected, || now)
        });
    };
    is(&host, SOON, "passing");

    registrar.kill();
    container.exec(&["rm", "/healthy"]).expect("it turns bad");
    wait_for_health(&container, "unhealthy");
    assert_eq!(status(&host.consul), "passing");
    let registrar = host.registrar(&[]);
    is(&host, SOON, "critical");

    host.consul.restart_empty();
    host.consul.wait_until_ready();
    is(&host, Duration::from_secs(15), "critical");
    container
        .exec(&["touch", "/healthy"])
        .expect("it turns good");
    is(&host, Duration::from_secs(5), "passing");

    let check = format!("service:{}", host.id(&container));
    let path = format!("/v1/agent/check/deregister/{check}");
    host.consul.put(&path, &json!(null));
    // Seen at the next report, mended at the next look.
    is(&host, Duration::from_secs(40), "passing");
    drop(registrar);
}

/// A definition without the check takes the check away, even if the service never left.
#[test]
fn a_check_that_is_gone_from_the_container_is_gone_from_consul() {
    let host = Host::start();
    let registrar = host.registrar(&[]);
    let with = checked(&host, "checked");
    host.wait_for(SOON, &[&with]);
    let checks = || host.consul.get("/v1/agent/checks");
    assert_eq!(checks().as_object().map(serde_json::Map::len), Some(1));
    registrar.kill();
    docker(&["rm", "--force", &with.id]).expect("it is removed");
    let without = host.service("checked", "checked");
    let _registrar = host.registrar(&[]);
    host.wait_for(SOON, &[&without]);
    assert_eq!(checks(), json!({}));
}
