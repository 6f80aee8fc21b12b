//! `docker/` and `packaging/`: the compose file starts the whole system on this machine's Docker
//! Engine, which then scales, heals and keeps to itself; what `docker/README.md` says is true; the
//! units are what systemd accepts.

#[path = "../support/mod.rs"]
mod support;

mod confinement;
mod healing;
mod load;
mod names;
mod readme;

mod scaling;
mod units;
mod world;

use std::time::Duration;
use support::{eventually, http, throughout};
use world::{STATISTICS, World, get, timed};

/// From `up` to the first answer of a service. The images are there already.
const START: Duration = Duration::from_secs(60);

#[test]
fn the_whole_system_in_one_command() {
    let world = World::new();
    world.assert_ports_are_free();
    world.compose("build");
    let ((), took) = timed(|| {
        world.compose("up -d");
        eventually(START, "hello1 answers through HAProxy", || get("/hello1/"));
    });
    eprintln!("from `up` to the first answer: {took:?}");
    assert!(took < START, "{took:?}");
    eventually(START, "hello2 answers too", || get("/hello2/"));
    // What was up once stays up.
    throughout(
        Duration::from_secs(1),
        Duration::from_millis(100),
        "hello1 answers",
        || get("/hello1/x").map(|body| assert!(body.contains("You asked for /x."), "{body}")),
    );

    let statistics = http::get(STATISTICS, "/").map(|response| response.status);
    assert_eq!(statistics, Ok(401), "statistics are not for everybody");

    names::are_found_on_port_53();
    names::are_found_in_containers(&world);
    names::are_found_behind_dockers_own_resolver(&world);
    confinement::of_every_container(&world);
    confinement::of_dockers_api(&world);
    scaling::up_and_down(&world);
    healing::of_each_part(&world);
    healing::without_consul(&world);
}
