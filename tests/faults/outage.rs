//! Names of every kind, while Consul is away in every way, before a restart of Portolan, after it, and when Consul
//! is back: none is wrong, none is missing, and how old they are is said truly.

use crate::{
    alone,
    asking::{Question, all_right},
    figure,
    restarting::launch,
    support::{
        cluster::Cluster,
        consul::Consul,
        directory, ensure, eventually,
        gate::Gate,
        http,
        portolan::Portolan,
        wire::rtype::{A, PTR, SRV},
    },
    world::stale_seconds,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Names of each kind.
const OF_EACH: u8 = 29;

/// Whatever has to happen has happened by then, on the slowest machine.
const SOON: Duration = Duration::from_secs(30);

/// What is known answers within this time of a start.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Consul confirms once in so many seconds that it is well: an age begins so much before the outage at most.
const CONFIRMS_EVERY: f64 = 1.0;

/// What the noise of the machine adds to that, and all that a restart may.
const NOISE: f64 = 0.4;

/// Registers one service each on nodes of their own, with a proxy in the mesh beside it and a prepared query for
/// it, and gives a question of every kind for each.
fn names(consul: &Consul) -> Vec<Question> {
    let register = |node: &str, address: &str, service: Value| {
        consul.register(&json!({ "Node": node, "Address": address, "Service": service }));
    };
    (1..=OF_EACH)
        .flat_map(|number| {
            let (name, node) = (format!("s{number}"), format!("n{number}"));
            let [at, of_node, of_proxy] =
                [1, 2, 3].map(|network| format!("10.3{network}.0.{number}"));
            register(
                &node,
                &of_node,
                json!({ "Service": name, "ID": name, "Address": at, "Port": 80, "Tags": ["v1"],
                    "Weights": { "Passing": 1, "Warning": 1 } }),
            );
            register(
                &node,
                &of_node,
                json!({ "Service": format!("{name}-proxy"), "ID": format!("{name}-proxy"), "Port": 81,
                    "Kind": "connect-proxy", "Address": of_proxy,
                    "Proxy": { "DestinationServiceName": name } }),
            );
            consul.define_query(&json!({ "Name": format!("q{number}"), "Service": { "Service": name } }));
            let target = format!("1 1 80 0a1f00{number:02x}.addr.dc1.consul.");
            [
                (format!("{name}.service.consul"), A, at.clone()),
                (format!("_{name}._tcp.service.consul"), SRV, target),
                (format!("v1.{name}.service.consul"), A, at.clone()),
                (format!("{node}.node.consul"), A, of_node),
                (format!("q{number}.query.consul"), A, at),
                (
                    format!("{number}.0.31.10.in-addr.arpa"),
                    PTR,
                    format!("{name}.service.dc1.consul."),
                ),
                (format!("{name}.connect.consul"), A, of_proxy),
            ]
        })
        .map(|(name, rtype, answer)| Question {
            name,
            rtype,
            answer: vec![answer],
        })
        .collect()
}

/// A way to be away.
struct Outage {
    what: &'static str,
    begin: fn(&mut Cluster, &Gate),
    end: fn(&mut Cluster, &Gate),
}

const OUTAGES: [Outage; 5] = [
    Outage {
        what: "503 behind a proxy",
        begin: |_, gate| gate.refuse(503, "no server is available to handle this request"),
        end: |_, gate| gate.open(),
    },
    Outage {
        what: "403",
        begin: |_, gate| gate.refuse(403, "ACL not found"),
        end: |_, gate| gate.open(),
    },
    Outage {
        what: "hung",
        begin: |cluster, _| cluster.agent.pause(),
        end: |cluster, _| cluster.agent.resume(),
    },
    Outage {
        what: "no leader",
        begin: |cluster, _| {
            for server in &mut cluster.servers[1..] {
                server.kill();
            }
            // The one that is left may have led, and goes on to for a moment.
            eventually(SOON, "there is no leader", || {
                let leader = http::get(cluster.servers[0].http(), "/v1/status/leader")?;
                ensure(leader.body.trim() == r#""""#, || leader.body.clone())
            });
        },
        end: |cluster, _| {
            cluster.restart(&[1, 2]);
            Cluster::wait_until_writable(&cluster.servers[0]);
        },
    },
    Outage {
        what: "agent dead",
        begin: |cluster, _| cluster.agent.kill(),
        end: |cluster, _| cluster.agent.restart(),
    },
];

/// Waits until it says that it is stale, or is not.
fn wait_until_stale(portolan: &Portolan, what: &str, stale: bool) {
    let what = format!("{what}: stale is {stale}");
    eventually(SOON, &what, || {
        let age = stale_seconds(portolan);
        ensure((age > 0.0) == stale, || format!("{age} s"))
    });
}

#[test]
fn names_of_every_kind_outlive_every_outage_and_a_restart_in_it() {
    let _alone = alone();
    let state = directory();
    let mut cluster = Cluster::start();
    let questions = names(&cluster.agent);
    let gate = Gate::before(cluster.agent.http());
    let start = || launch(&gate.url(), state.path()).not_ready().start();
    let mut portolan = start();
    for Outage { what, begin, end } in OUTAGES {
        all_right(portolan.dns(), &questions, SOON);
        wait_until_stale(&portolan, what, false);
        begin(&mut cluster, &gate);
        let begun = Instant::now();
        wait_until_stale(&portolan, what, true);
        all_right(portolan.dns(), &questions, AT_ONCE);
        let off_before = stale_seconds(&portolan) - begun.elapsed().as_secs_f64();

        let ended = portolan.stop();
        assert!(ended.status.success(), "{what}: {:?}", ended.status);
        portolan = start();
        let took = all_right(portolan.dns(), &questions, AT_ONCE);
        wait_until_stale(&portolan, what, true);
        all_right(portolan.dns(), &questions, AT_ONCE);
        let off_after = stale_seconds(&portolan) - begun.elapsed().as_secs_f64();
        figure(&format!(
            "{what}: {} names right {took:?} after a restart; their age was off by {off_before:.2} s before it \
             and {off_after:.2} s after it",
            questions.len()
        ));
        assert!(
            (-NOISE..=CONFIRMS_EVERY + NOISE).contains(&off_before),
            "{what}: the age is off by {off_before} s"
        );
        assert!(
            (off_after - off_before).abs() <= NOISE,
            "{what}: the restart changed the age"
        );

        end(&mut cluster, &gate);
        all_right(portolan.dns(), &questions, AT_ONCE);
        wait_until_stale(&portolan, what, false);
    }
    all_right(portolan.dns(), &questions, SOON);
}
