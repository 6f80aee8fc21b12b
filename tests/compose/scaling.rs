//! `--scale`, under load: more instances are used at once, and fewer cost no request.

use crate::{
    load::Load,
    support::{ensure, eventually},
    world::World,
};
use std::time::Duration;

pub(crate) fn up_and_down(world: &World) {
    let reloads = reloads(world);
    let load = Load::start();
    world.compose("up -d --no-recreate --scale hello1=5");
    load.forget();
    eventually(Duration::from_secs(5), "five instances answer", || {
        let hosts = load.hosts();
        ensure(hosts.len() == 5, || format!("{hosts:?}"))
    });
    let ids = world.containers("hello1");
    let hosts = load.hosts();
    for id in &ids {
        assert!(hosts.contains(&id[..12]), "{ids:?} {hosts:?}");
    }

    world.compose("up -d --no-recreate --scale hello1=1");
    load.forget();
    let left = world.container("hello1");
    eventually(Duration::from_secs(5), "one instance answers", || {
        let hosts = load.hosts();
        load.forget();
        ensure(hosts.len() == 1 && hosts.contains(&left[..12]), || {
            format!("{hosts:?}")
        })
    });
    load.assert_nothing_failed("1 -> 5 -> 1");
    assert_eq!(self::reloads(world), reloads, "HAProxy was reloaded");
}

/// How often HAProxy has begun anew.
fn reloads(world: &World) -> usize {
    let log = world
        .shell(&format!("docker logs {} 2>&1", world.container("haproxy")))
        .unwrap_or_else(|error| panic!("{error}"));
    let workers = log.matches("New worker").count();
    assert!(workers > 0, "no worker in HAProxy's log: {log}");
    workers
}
