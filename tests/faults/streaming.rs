//! What a client agent of Consul 1.10 and later has streamed to it: its headers say nothing of a leader, and it
//! is empty at first.

use crate::{
    alone,
    asking::all_right,
    lying::{Scene, question},
    support::{ensure, eventually, fake_consul::Lie},
    world::NEW_DATA,
};
use std::time::{Duration, Instant};

const INSTANCES: &str = "/v1/health/service/s0";

/// That no leader is known is always said, and is no reason to doubt.
#[test]
fn what_is_streamed_is_believed_without_a_leader() {
    let _alone = alone();
    let scene = Scene::start();
    // Every answer to the watches is a streamed one from now on.
    let streamed = Lie::truth(200).streamed();
    scene.fake.tell("/v1/health/service/*", 1000, streamed);
    // Two of three instances go.
    scene.fake.set("s0", &["10.5.0.1"]);
    let fewer = [question("s0.service.consul", &["10.5.0.1"])];
    let took = all_right(scene.portolan.dns(), &fewer, NEW_DATA);
    assert!(took < Duration::from_secs(3), "after {took:?}");
}

/// An agent that has just started, or whose token is gone, streams nothing at index 1 first.
#[test]
fn a_stream_that_begins_empty_takes_nothing_away() {
    let _alone = alone();
    let scene = Scene::start();
    let asking = scene.ask("streamed");
    let empty = Lie::body("[]").index(1).streamed();
    let told = (scene.fake.told(), Instant::now());
    scene.fake.tell(INSTANCES, 3, empty);
    eventually(
        Duration::from_secs(20),
        "Portolan hears it three times",
        || {
            let more = scene.fake.told() - told.0;
            ensure(more >= 3, || {
                format!("{more} times after {:?}", told.1.elapsed())
            })
        },
    );
    asking.rounds(2);
    asking.flawless("20 names and a node while a stream begins");
    let late = scene.new_data(1);
    assert!(late <= NEW_DATA, "new data was seen after {late:?}");
}
