//! A cluster of three servers loses its leader, its quorum, all of its servers and the agent, and comes
//! back: nobody who asks Portolan notices.

use crate::{
    alone,
    asking::{Asking, Phase, all_right},
    figure, is_full,
    support::{cluster::Cluster, ensure, eventually, http, portolan::Portolan},
    world::{NEW_DATA, Services, new_data},
};
use std::time::Duration;

/// How often every name is asked in each phase, over UDP and over TCP.
fn rounds() -> usize {
    if is_full() { 60 } else { 6 }
}

/// What the noise of a machine with two cores and four other programs comes to, and what it comes to
/// while three of them start.
const NOISE: Duration = Duration::from_millis(5);
const STARTING: Duration = Duration::from_millis(20);

/// The p99 of answer time is unchanged: at most twice what it was, beside what an echo took at the same
/// time, or within the noise.
fn unchanged(before: &Phase, during: &Phase) -> Result<(), String> {
    let is_starting = during.what == COMING_BACK;
    let noise = if is_starting { STARTING } else { NOISE };
    let allowed = noise.max(before.p99() * 2 + during.echo_p99());
    ensure(during.p99() <= allowed, || {
        format!("{}: {:?}, at most {allowed:?}", during.what, during.p99())
    })
}

const COMING_BACK: &str = "coming back";

/// Waits until the agent itself cannot read any more what needs a leader.
fn wait_until_leaderless(cluster: &Cluster) {
    let what = "the agent has noticed that there is no leader";
    eventually(Duration::from_secs(30), what, || {
        let read = http::get(cluster.agent.http(), "/v1/catalog/nodes?consistent")?;
        ensure(read.status == 500, || format!("it read: {}", read.status))
    });
}

#[test]
fn nobody_notices_what_happens_to_the_cluster() {
    let _alone = alone();
    let mut cluster = Cluster::start();
    let services = Services::new("s", 200, 20);
    services.register(&cluster.agent);
    let portolan = Portolan::beside(&cluster.agent);
    let questions = services.questions();
    all_right(portolan.dns(), &questions, Duration::from_secs(30));
    new_data(&cluster.agent, portolan.dns(), "fresh", 1);

    let mut asking = Asking::start(portolan.dns(), &questions, "before");
    asking.rounds(rounds());

    let leader = cluster.leader(&[]);
    asking.phase("leader killed");
    cluster.servers[leader].kill();
    let second = cluster.leader(&[leader]);
    Cluster::wait_until_writable(&cluster.agent);
    let after_election = new_data(&cluster.agent, portolan.dns(), "fresh", 2);
    asking.rounds(rounds());

    asking.phase("no quorum");
    cluster.servers[second].kill();
    wait_until_leaderless(&cluster);
    asking.rounds(rounds());

    asking.phase("servers cut off");
    let last = (0..3).find(|server| ![leader, second].contains(server));
    let last = last.expect("three servers");
    cluster.servers[last].pause();
    asking.rounds(rounds());

    asking.phase("agent cut off");
    cluster.agent.pause();
    asking.rounds(rounds());

    asking.phase("agent killed");
    cluster.agent.kill();
    asking.rounds(rounds());

    // The servers that are back know nothing until they have a leader, and say so to `?stale`.
    asking.phase(COMING_BACK);
    cluster.agent.restart();
    cluster.servers[last].resume();
    cluster.restart(&[leader, second]);
    Cluster::wait_until_writable(&cluster.agent);
    let after_outage = new_data(&cluster.agent, portolan.dns(), "fresh", 3);

    asking.rounds(3);
    asking.phase("after");
    asking.rounds(rounds());
    figure(&format!(
        "new data after the election was seen within {after_election:?}, after the outage within \
         {after_outage:?} (at most {NEW_DATA:?})"
    ));
    let phases = asking.flawless("200 names while a cluster fails");
    for late in [after_election, after_outage] {
        assert!(late <= NEW_DATA, "new data was seen after {late:?}");
    }
    let slow: Vec<String> = phases
        .iter()
        .filter_map(|phase| unchanged(&phases[0], phase).err())
        .collect();
    assert!(slow.is_empty(), "{slow:?}");
}

/// The agent answers nobody for a while, as a host in trouble does, and then goes on.
#[test]
fn nobody_notices_an_agent_that_hangs() {
    let _alone = alone();
    let consul = crate::support::consul::Consul::start();
    let services = Services::new("s", 200, 20);
    services.register(&consul);
    let portolan = Portolan::beside(&consul);
    let questions = services.questions();
    all_right(portolan.dns(), &questions, Duration::from_secs(30));
    new_data(&consul, portolan.dns(), "fresh", 1);
    let mut asking = Asking::start(portolan.dns(), &questions, "before");
    asking.rounds(2);
    asking.phase("hanging");
    consul.pause();
    asking.rounds(rounds());
    asking.phase("after");
    consul.resume();
    Cluster::wait_until_writable(&consul);
    let late = new_data(&consul, portolan.dns(), "fresh", 2);
    asking.rounds(2);
    figure(&format!(
        "new data after a hanging agent was seen within {late:?}"
    ));
    asking.flawless("200 names while an agent hangs");
    assert!(late <= NEW_DATA, "new data was seen after {late:?}");
}
