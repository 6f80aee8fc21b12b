//! Services come, go and fail all the time, before an outage, during it where nobody sees it, and
//! after: then Portolan's answers are Consul's own.

use crate::{
    alone,
    asking::{Asking, all_right},
    figure, is_full,
    support::{
        cluster::Cluster,
        compare::differences,
        consul::Consul,
        dns::Query,
        ensure, eventually, http,
        portolan::Portolan,
        wire::rtype::{A, SRV},
    },
    world::{NEW_DATA, Services, entry, json_of},
};
use serde_json::json;
use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

/// Services that change, and changes a second.
const CHANGING: u16 = 60;
const RATE: u32 = 20;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        // Knuth's linear congruence; the upper bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Changes something twenty times a second, through this Consul, which has to take it.
fn churn(consul: &Consul, dice: &mut Dice, seconds: u32) {
    let start = Instant::now();
    for number in 1..=seconds * RATE {
        change(consul, dice);
        // The pace is what is asked for here.
        thread::sleep((Duration::from_secs(1) / RATE * number).saturating_sub(start.elapsed()));
    }
}

/// Registers an instance, takes it away, or turns it critical or back.
fn change(consul: &Consul, dice: &mut Dice) {
    let service = dice.below(CHANGING.into()) as u8;
    let which = dice.below(3) as u8;
    let name = format!("c{service}");
    let id = format!("{name}-{which}");
    match dice.below(4) {
        0 | 1 => {
            // Another address each time, so that an old answer is seen to be old.
            let address = Ipv4Addr::new(10, 30 + which, service, dice.below(250) as u8);
            consul.register(&entry(&json_of(&name, which.into(), address, 80)));
        }
        2 => consul.deregister("w", &id),
        _ => {
            let address = Ipv4Addr::new(10, 30 + which, service, 251);
            let status = ["critical", "passing"][dice.below(2) as usize];
            let mut entry = entry(&json_of(&name, which.into(), address, 80));
            entry["Check"] = json!({ "CheckID": format!("check-{id}"), "Name": "a check",
                "Node": "w", "ServiceID": id, "Status": status });
            consul.register(&entry);
        }
    }
}

/// Waits until Portolan's answer to each is Consul's own, and gives how long that took.
fn settle(consul: &Consul, portolan: &Portolan, names: &[String]) -> Duration {
    let start = Instant::now();
    let mut left: Vec<Query> = names
        .iter()
        .flat_map(|name| [A, SRV].map(|rtype| Query::new(name, rtype).edns(4096)))
        .collect();
    eventually(
        Duration::from_secs(30),
        "all answers are Consul's own",
        || {
            let mut example = String::new();
            left.retain(|query| match differences(consul, portolan, query) {
                Ok(()) => false,
                Err(different) => {
                    example = different;
                    true
                }
            });
            ensure(left.is_empty(), || {
                format!("{} are not, such as {example}", left.len())
            })
        },
    );
    start.elapsed()
}

/// Waits until the agent reads as its servers do.
fn wait_until_current(agent: &Consul, server: &Consul) {
    eventually(Duration::from_secs(60), "the agent reads again", || {
        let read = |consul: &Consul| http::get(consul.http(), "/v1/catalog/services?stale");
        let (theirs, of_agent) = (read(server)?, read(agent)?);
        let same = of_agent.status == 200 && theirs.body == of_agent.body;
        ensure(same, || format!("it answers {}", of_agent.status))
    });
}

#[test]
fn after_an_outage_every_answer_is_consuls_own() {
    let _alone = alone();
    let seconds = if is_full() { 30 } else { 4 };
    let mut cluster = Cluster::start();
    let still = Services::new("s", 140, 20);
    still.register(&cluster.agent);
    let portolan = Portolan::beside(&cluster.agent);
    let changing = (0..CHANGING).map(|number| format!("c{number}.service.consul"));
    let mut names: Vec<String> = changing.collect();
    let mut dice = Dice(4);
    churn(&cluster.agent, &mut dice, 1);
    all_right(portolan.dns(), &still.questions(), Duration::from_secs(30));
    settle(&cluster.agent, &portolan, &names);

    let mut asking = Asking::start(portolan.dns(), &still.questions(), "before");
    churn(&cluster.agent, &mut dice, seconds);
    let before = settle(&cluster.agent, &portolan, &names);

    asking.phase("outage");
    let leader = cluster.leader(&[]);
    cluster.servers[leader].kill();
    let second = cluster.leader(&[leader]);
    cluster.servers[second].kill();
    cluster.agent.kill();
    asking.rounds(2);
    cluster.restart(&[leader, second]);
    let server = cluster.leader(&[]);
    Cluster::wait_until_writable(&cluster.servers[server]);
    // Portolan is blind, and all of this passes it by.
    churn(&cluster.servers[server], &mut dice, seconds);

    asking.phase("back");
    cluster.agent.restart();
    wait_until_current(&cluster.agent, &cluster.servers[server]);
    let healed = settle(&cluster.agent, &portolan, &names);
    churn(&cluster.agent, &mut dice, seconds);
    names.extend((0..140).map(|number| still.name(number)));
    let after = settle(&cluster.agent, &portolan, &names);

    figure(&format!(
        "with {RATE} changes/s all answers were Consul's own {before:?} after the last change \
         before the outage, {healed:?} after healing, {after:?} after the last change after it"
    ));
    asking.flawless("140 names beside 60 that change, through an outage");
    for took in [before, healed, after] {
        assert!(
            took <= NEW_DATA,
            "equal to Consul's own only after {took:?}"
        );
    }
}
