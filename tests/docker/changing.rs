//! What comes, goes and changes.

use crate::{
    support::{
        docker::{self, Docker},
        docker_proxy::DockerProxy,
        ensure, eventually,
        portolan::Launch,
        throughout,
    },
    world::{SOON, addresses, has_addresses, launch, start},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Start, stop, kill, remove, restart, rename: each is seen at once.
#[test]
fn containers_come_and_go() {
    let (docker, _proxy, portolan) = start();
    let dns = portolan.dns();
    for end in ["stop", "kill", "rm -f"] {
        let web = docker.sleeper("web", &["--expose", "80", "-e", "SERVICE_NAME=web"]);
        let since_start = Instant::now();
        let address = web.address("bridge");
        has_addresses(dns, "web", &[&address], SOON);
        println!(
            "found {:?} after docker said that it runs",
            since_start.elapsed()
        );
        let mut words: Vec<&str> = end.split(' ').collect();
        words.push(&web.id);
        docker::docker(&words).expect("docker ends a container");
        let since_end = Instant::now();
        has_addresses(dns, "web", &[], SOON);
        println!("gone {:?} after `docker {end}`", since_end.elapsed());
    }
    let web = docker.sleeper("web", &["--expose", "80", "-e", "SERVICE_NAME=web"]);
    web.tell("stop");
    web.tell("start");
    has_addresses(dns, "web", &[&web.address("bridge")], SOON);
    web.tell("restart");
    has_addresses(dns, "web", &[&web.address("bridge")], SOON);
    // A pause is no end: `docker commit` pauses.
    web.tell("pause");
    throughout(
        Duration::from_millis(300),
        Duration::from_millis(50),
        "a paused container keeps its name",
        || ensure(addresses(dns, "web").len() == 1, || "it is gone".to_owned()),
    );
    web.tell("unpause");
}

/// A network that a running container is put into counts. Here Portolan sees the whole engine: what
/// Docker tells of a network's members bears no label.
#[test]
fn a_network_is_joined_while_running() {
    let docker = Docker::new();
    let portolan = Launch::new("serve")
        .args(["--consul", "none", "--upstream", "none", "--docker"])
        .start();
    let network = docker.network("late", &[]);
    let service = docker.name("web");
    let (name, network_wanted) = (
        format!("SERVICE_NAME={service}"),
        format!("SERVICE_NETWORK={}", network.name),
    );
    let web = docker.sleeper(
        "web",
        &["--expose", "80", "-e", &name, "-e", &network_wanted],
    );
    has_addresses(portolan.dns(), &service, &[&web.address("bridge")], SOON);
    docker::docker(&["network", "connect", &network.name, &web.id]).expect("docker connects");
    let there = web.address(&network.name);
    has_addresses(portolan.dns(), &service, &[&there], SOON);
    docker::docker(&["network", "disconnect", &network.name, &web.id]).expect("docker disconnects");
    has_addresses(portolan.dns(), &service, &[&web.address("bridge")], SOON);
}

/// HEALTHCHECK decides: absent until healthy, absent while not, back when healthy.
#[test]
fn health_is_followed() {
    let (docker, _proxy, portolan) = start();
    let check = [
        "--health-cmd",
        "test -e /well",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
    ];
    let options = ["--expose", "80", "-e", "SERVICE_NAME=web"];
    let web = docker.sleeper("web", &[&check[..], &options].concat());
    let well = docker.sleeper("other", &["--expose", "80", "-e", "SERVICE_NAME=other"]);
    let dns = portolan.dns();
    has_addresses(dns, "other", &[&well.address("bridge")], SOON);
    assert_eq!(addresses(dns, "web"), Vec::<String>::new());
    let address = web.address("bridge");
    for _ in 0..2 {
        web.exec(&["touch", "/well"]).expect("a file is made");
        has_addresses(dns, "web", &[&address], SOON * 2);
        web.exec(&["rm", "/well"]).expect("a file is removed");
        has_addresses(dns, "web", &[], SOON * 2);
    }
}

/// A container that is told to stop loses its name before it dies; a signal that ends nothing
/// changes nothing.
#[test]
fn a_container_is_drained_before_it_dies() {
    let (docker, _proxy, portolan) = start();
    let dns = portolan.dns();
    let stubborn = ["sh", "-c", "trap '' TERM HUP; while :; do sleep 1; done"];
    let web = docker.run(
        "web",
        &["--expose", "80", "-e", "SERVICE_NAME=web"],
        &stubborn,
    );
    has_addresses(dns, "web", &[&web.address("bridge")], SOON);
    docker::docker(&["kill", "--signal", "HUP", &web.id]).expect("a signal is sent");
    throughout(
        Duration::from_millis(300),
        Duration::from_millis(50),
        "a container that reads its configuration again keeps its name",
        || ensure(addresses(dns, "web").len() == 1, || "it is gone".to_owned()),
    );
    let id = web.id.clone();
    let stopping = thread::spawn(move || docker::docker(&["stop", "--time", "3", &id]));
    has_addresses(dns, "web", &[], SOON);
    assert_eq!(
        web.inspect("{{.State.Running}}"),
        "true",
        "it was gone only when it was dead"
    );
    stopping
        .join()
        .expect("a thread")
        .expect("docker stops a container");
}

/// Docker goes away: everything stays as it was, visibly old; and is as it should be soon after.
#[test]
fn the_last_good_set_is_served_while_docker_is_away() {
    let (docker, proxy, portolan) = start();
    let dns = portolan.dns();
    let stays = docker.sleeper("stays", &["--expose", "80", "-e", "SERVICE_NAME=stays"]);
    let goes = docker.sleeper("goes", &["--expose", "80", "-e", "SERVICE_NAME=goes"]);
    let (stays_at, goes_at) = (stays.address("bridge"), goes.address("bridge"));
    has_addresses(dns, "stays", &[&stays_at], SOON);
    has_addresses(dns, "goes", &[&goes_at], SOON);
    proxy.cut();
    eventually(SOON, "/ready tells that the containers are old", || {
        let ready = portolan.get("/ready")?;
        ensure(ready.status == 200 && ready.body.contains("stale"), || {
            ready.body
        })
    });
    goes.tell("kill");
    let comes = docker.sleeper("comes", &["--expose", "80", "-e", "SERVICE_NAME=comes"]);
    assert_eq!(addresses(dns, "stays"), [stays_at.as_str()]);
    assert_eq!(addresses(dns, "goes"), [goes_at]);
    assert!(portolan.log().contains("cannot reach Docker"));
    proxy.heal();
    has_addresses(dns, "comes", &[&comes.address("bridge")], SOON * 2);
    has_addresses(dns, "goes", &[], SOON);
    has_addresses(dns, "stays", &[&stays_at], SOON);
    eventually(SOON, "/ready tells that they are current", || {
        let ready = portolan.get("/ready")?;
        ensure(!ready.body.contains("stale"), || ready.body)
    });
}

/// With 200 containers one start costs one inspection and no list, and a stop no more.
#[test]
fn a_start_costs_one_inspection() {
    let docker = Docker::new();
    let proxy = DockerProxy::showing(&docker.label());
    let first = docker.sleeper("first", &["-p", ":80", "-e", "SERVICE_NAME=first"]);
    proxy.multiply(&first.id, 200);
    let portolan = launch(&proxy, "127.0.0.1:0").start();
    let dns = portolan.dns();
    let containers = portolan.metric("portolan_sources_docker_containers");
    assert!((containers - 201.0).abs() < 0.5, "{containers}");
    proxy.take_asked();
    let web = docker.sleeper("web", &["--expose", "80", "-e", "SERVICE_NAME=web"]);
    has_addresses(dns, "web", &[&web.address("bridge")], SOON);
    web.tell("stop");
    has_addresses(dns, "web", &[], SOON);
    let inspections = "portolan_sources_docker_requests_total{kind=\"inspect\",outcome=\"ok\"}";
    eventually(SOON, "the dead container is looked at", || {
        let asked = portolan.metric(inspections);
        ensure(asked > 202.5, || format!("{asked} inspections"))
    });
    let one = format!("/containers/{}/json", web.id);
    assert_eq!(proxy.take_asked(), [one.clone(), one]);
}
