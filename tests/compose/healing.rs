//! Parts are killed and come back, and the rest goes on.

use crate::{
    load::Load,
    support::{dns::Query, docker::docker, ensure, eventually, soak, throughout, wire::rtype::SRV},
    world::{DNS, World, get},
};
use std::time::Duration;

/// How long a part may take to do its work again after it was started.
const HEALED: Duration = Duration::from_secs(30);

/// What each part's absence must not stop.
const PARTS: [(&str, bool, bool); 4] = [
    ("consul", true, true),
    ("resolver", true, false),
    ("registrar", true, true),
    ("haproxy", false, true),
];

pub(crate) fn of_each_part(world: &World) {
    for (part, http_goes_on, dns_goes_on) in PARTS {
        let load = http_goes_on.then(Load::start);
        let container = world.container(part);
        tell("kill", &container);
        throughout(
            Duration::from_secs(3),
            Duration::from_millis(100),
            &format!("without {part}"),
            || {
                if dns_goes_on {
                    instances().map(drop)
                } else {
                    Ok(())
                }
            },
        );
        tell("start", &container);
        let what = |what: &str| format!("{what} after {part} was killed");
        eventually(HEALED, &what("HTTP"), || get("/hello1/"));
        eventually(HEALED, &what("DNS"), instances);
        // A system that is well notices what is new, from Docker to HAProxy.
        let anew = Load::start();
        world.compose("up -d --no-recreate --scale hello1=2");
        eventually(HEALED, &what("a second instance"), || {
            ensure(anew.hosts().len() == 2, || format!("{:?}", anew.hosts()))
        });
        world.compose("up -d --no-recreate --scale hello1=1");
        eventually(HEALED, &what("one instance again"), || {
            let found = instances()?;
            ensure(found == 1, || format!("{found} instances"))
        });
        if let Some(load) = load {
            load.assert_nothing_failed(&format!("{part} killed"));
        }
    }
}

/// No Consul for a while, and even a resolver that is started meanwhile knows what was.
pub(crate) fn without_consul(world: &World) {
    let load = Load::start();
    let consul = world.container("consul");
    tell("stop", &consul);
    let outage = soak(Duration::from_secs(15), Duration::from_secs(60));
    throughout(
        outage,
        Duration::from_millis(100),
        "DNS without Consul",
        || instances().map(drop),
    );
    let resolver = world.container("resolver");
    tell("kill", &resolver);
    tell("start", &resolver);
    eventually(HEALED, "DNS of a new resolver without Consul", instances);
    load.assert_nothing_failed("without Consul");
    tell("start", &consul);
    eventually(HEALED, "all is well again", || {
        let health = "docker inspect --format '{{.State.Health.Status}}'";
        let said = world.shell(&format!("{health} {resolver}"))?;
        let metrics = world.shell(&format!("docker exec {resolver} portolan check --running"))?;
        ensure(
            said.trim() == "healthy" && !metrics.contains("stale"),
            || format!("{said} {metrics}"),
        )
    });
    load.assert_nothing_failed("Consul stopped and started");
}

fn tell(verb: &str, container: &str) {
    docker(&[verb, container]).unwrap_or_else(|error| panic!("{error}"));
}

/// How many instances of hello1 DNS knows; none is an error.
fn instances() -> Result<usize, String> {
    let reply = Query::new("hello1.service.consul", SRV)
        .edns(4096)
        .patience(Duration::from_secs(2))
        .try_ask(DNS)?;
    match reply.data().len() {
        0 => Err(reply.summary()),
        found => Ok(found),
    }
}
