//! A Consul that lies once, or for a while: no name that was right becomes wrong, and each lie is
//! counted.

use crate::{
    alone,
    asking::{Asking, Question, all_right},
    figure,
    support::{
        dns::Query,
        ensure, eventually,
        fake_consul::{FakeConsul, Lie},
        portolan::{Launch, Portolan},
        wire::{rcode, rtype::A},
    },
    world::NEW_DATA,
};
use serde_json::json;
use std::time::{Duration, Instant};

const SERVICES: usize = 20;
const NAMES: &str = "/v1/catalog/services";
const NODES: &str = "/v1/catalog/nodes";
const INSTANCES: &str = "/v1/health/service/s0";

/// How long what is older, and has less in it, may be doubted although nothing else is heard.
const RESTORED: Duration = Duration::from_secs(15);

/// A Portolan that asks the fake, and nobody else.
pub(crate) fn beside(fake: &FakeConsul) -> Portolan {
    Launch::new("serve")
        .args(["--consul", &fake.url(), "--upstream", "none"])
        .start()
}

/// A fake with services and a Portolan that has been asked for all of them.
pub(crate) struct Scene {
    pub(crate) fake: FakeConsul,
    pub(crate) portolan: Portolan,
    pub(crate) questions: Vec<Question>,
    pub(crate) started: Instant,
}

impl Scene {
    pub(crate) fn start() -> Self {
        Self::of(SERVICES)
    }

    /// With so many services beside the one that changes.
    pub(crate) fn of(services: usize) -> Self {
        let started = Instant::now();
        let fake = FakeConsul::start();
        let mut questions = vec![question("n1.node.consul", &["10.0.0.1"])];
        for number in 0..services {
            let addresses = [1, 2, 3].map(|which| format!("10.5.{number}.{which}"));
            let addresses = addresses.each_ref().map(String::as_str);
            fake.set(&format!("s{number}"), &addresses);
            questions.push(question(&format!("s{number}.service.consul"), &addresses));
        }
        fake.set("fresh", &["10.6.0.1"]);
        // A watch for each of them from the start.
        let config = format!("[consul]\nmax_watches = {}\n", 80 + 2 * services);
        let portolan = Launch::new("serve")
            .args(["--consul", &fake.url(), "--upstream", "none"])
            .config(&config)
            .start();
        all_right(portolan.dns(), &questions, Duration::from_secs(10));
        let fresh = [question("fresh.service.consul", &["10.6.0.1"])];
        all_right(portolan.dns(), &fresh, Duration::from_secs(10));
        Self {
            fake,
            portolan,
            questions,
            started,
        }
    }

    /// Waits until Portolan has come to `path` after `since` and waits there for news.
    fn waited_for(&self, path: &str, since: Instant, after: &str) {
        let what = format!("Portolan waits for news at {path}, after {after}");
        eventually(Duration::from_secs(15), &what, || {
            let waits = self.fake.is_waited_at(path, since);
            ensure(waits, || {
                let last = self.fake.seen_at(path).pop();
                format!(
                    "it asked last {:?}",
                    last.map(|seen| (seen.index, seen.at.elapsed()))
                )
            })
        });
    }

    pub(crate) fn ask(&self, phase: &str) -> Asking {
        Asking::start(self.portolan.dns(), &self.questions, phase)
    }

    /// Waits until the fake has told a lie more than `told`.
    pub(crate) fn told(&self, told: usize) {
        eventually(Duration::from_secs(10), "Portolan hears the lie", || {
            ensure(self.fake.told() > told, || "it does not ask".to_owned())
        });
    }

    /// A watched service changes: how long until Portolan shows it.
    pub(crate) fn new_data(&self, number: u8) -> Duration {
        let address = format!("10.6.1.{number}");
        self.fake.set("fresh", &[&address]);
        let fresh = [question("fresh.service.consul", &[&address])];
        all_right(self.portolan.dns(), &fresh, Duration::from_secs(30))
    }
}

pub(crate) fn question(name: &str, addresses: &[&str]) -> Question {
    Question {
        name: name.to_owned(),
        rtype: A,
        answer: addresses.iter().map(|ip| (*ip).to_owned()).collect(),
    }
}

fn suspicion(kind: &str) -> String {
    format!("portolan_sources_consul_suspicions_total{{kind=\"{kind}\"}}")
}

pub(crate) fn outcome(outcome: &str) -> String {
    format!("portolan_sources_consul_requests_total{{outcome=\"{outcome}\"}}")
}

/// What is told once, where, and the counter that has to move.
fn lies() -> Vec<(&'static str, &'static str, Lie, String)> {
    // One of three instances, one of twenty names, another node: what an old state may have held.
    let one = json!([{ "Node": { "Node": "n1", "Address": "10.0.0.1" }, "Checks": [], "Service": {
        "ID": "s0-10.5.0.1", "Service": "s0", "Address": "10.5.0.1", "Port": 80,
        "Weights": { "Passing": 1, "Warning": 1 } } }])
    .to_string();
    let other = json!([{ "Node": "n0", "Address": "10.0.0.9", "Datacenter": "dc1" }]).to_string();
    let old = [
        (NAMES, "{\"consul\":[]}", "{}"),
        (NODES, other.as_str(), "[]"),
        (INSTANCES, one.as_str(), "[]"),
    ];
    let filtered = "X-Consul-Results-Filtered-By-ACLs";
    let html = "<html><body><h1>502 Bad Gateway</h1></body></html>";
    let mut all = Vec::new();
    for (path, older, empty) in old {
        let mut add = |what, lie, counter| all.push((what, path, lie, counter));
        add("empty", Lie::body(empty), suspicion("empty"));
        add(
            "index backwards",
            Lie::body(older).index(1).only_stale(),
            suspicion("index"),
        );
        add(
            "no leader, older",
            Lie::body(older).without_leader().only_stale(),
            suspicion("leader"),
        );
        add(
            "no leader, empty",
            Lie::body(empty).without_leader().only_stale(),
            suspicion("leader"),
        );
        add(
            "filtered",
            Lie::body(empty).header(filtered, "true"),
            suspicion("filtered"),
        );
        add("half of the JSON", Lie::cut(), suspicion("body"));
        add("HTML", Lie::body(html), suspicion("body"));
        add(
            "other JSON",
            Lie::body("{\"errors\": 7}"),
            suspicion("body"),
        );
        add("half a body", Lie::broken(), outcome("transport"));
        add(
            "500",
            Lie::status(500, "rpc error: EOF"),
            outcome("server_error"),
        );
        add(
            "403",
            Lie::status(403, "ACL not found"),
            outcome("forbidden"),
        );
        add("404", Lie::status(404, "not here"), outcome("client_error"));
    }
    all
}

#[test]
fn no_lie_is_believed_and_each_is_counted() {
    let _alone = alone();
    let scene = Scene::start();
    let asking = scene.ask("lies");
    let (all, started) = (lies(), scene.started);
    let mut uncounted = Vec::new();
    for (what, path, lie, counter) in &all {
        let counted = scene.portolan.metric(counter);
        scene.waited_for(path, started, what);
        let told = Instant::now();
        scene.fake.tell(path, 1, lie.clone());
        // The next lie comes when this one is digested: Portolan waits there again.
        scene.waited_for(path, told, what);
        asking.rounds(1);
        if scene.portolan.metric(counter) <= counted {
            uncounted.push(format!("{what} at {path}: {counter}"));
        }
    }
    figure(&format!(
        "{} lies were told, {} not counted",
        all.len(),
        uncounted.len()
    ));
    asking.flawless("20 names and a node while Consul lies");
    assert!(
        uncounted.is_empty(),
        "not counted:\n{}",
        uncounted.join("\n")
    );
    // Everybody who was lied to still listens.
    let late = scene.new_data(1);
    assert!(late <= NEW_DATA, "new data was seen after {late:?}");
    scene.fake.set_node("n2", "10.0.0.2");
    scene.fake.set("s0", &["10.5.0.1"]);
    let changed = [
        question("n2.node.consul", &["10.0.0.2"]),
        question("s0.service.consul", &["10.5.0.1"]),
    ];
    all_right(scene.portolan.dns(), &changed, NEW_DATA);
}

/// What can go is let go: a service whose last instance is deregistered, and a restored snapshot, which
/// is older and true.
#[test]
fn the_truth_is_believed_even_if_it_looks_like_a_lie() {
    let _alone = alone();
    let scene = Scene::start();
    let server = scene.portolan.dns();
    // The leader stands by it: instances that are gone, and an index that went back.
    scene.fake.remove("s1");
    all_right(server, &[question("s1.service.consul", &[])], NEW_DATA);
    scene.fake.restore("s2", &["10.5.2.1"]);
    let older = [question("s2.service.consul", &["10.5.2.1"])];
    let took = all_right(server, &older, RESTORED);
    figure(&format!(
        "a restored older state was believed after {took:?} (at most {RESTORED:?})"
    ));
    let late = scene.new_data(1);
    assert!(late <= NEW_DATA, "new data was seen after {late:?}");
}

/// A server that has just been restarted and has not read its log yet: it has nothing, says so to
/// `?stale`, and there is no leader to ask.
#[test]
fn a_server_with_nothing_is_not_believed() {
    let _alone = alone();
    let scene = Scene::start();
    let mut asking = scene.ask("no leader");
    let told = scene.fake.told();
    let nothing = |body| Lie::body(body).index(1).only_stale();
    let forever = usize::MAX;
    for (path, body) in [(NAMES, "{}"), (NODES, "[]"), ("/v1/health/service/*", "[]")] {
        scene
            .fake
            .tell(path, forever, nothing(body).without_leader());
    }
    scene
        .fake
        .tell("/v1/*", forever, Lie::status(500, "No cluster leader"));
    scene.told(told);
    asking.rounds(20);
    // Now it has found the leader, and is still behind.
    scene.fake.repent();
    asking.phase("far behind");
    for (path, body) in [(NAMES, "{}"), (NODES, "[]"), ("/v1/health/service/*", "[]")] {
        scene.fake.tell(path, forever, nothing(body));
    }
    asking.rounds(20);
    scene.fake.repent();
    asking.phase("well");
    let late = scene.new_data(1);
    asking.rounds(1);
    figure(&format!(
        "after servers that had nothing new data was seen within {late:?}"
    ));
    asking.flawless("20 names and a node while servers have nothing");
    assert!(late <= NEW_DATA, "new data was seen after {late:?}");
}

/// A name that was never asked for before is not known, and that is what is said.
#[test]
fn a_name_that_could_not_be_read_is_no_absent_name() {
    let _alone = alone();
    let scene = Scene::start();
    let lies = [
        Lie::status(500, "No cluster leader"),
        Lie::cut(),
        Lie::body("[]").without_leader().only_stale(),
        Lie::body("[]").header("X-Consul-Results-Filtered-By-ACLs", "true"),
        Lie::stall(Duration::from_secs(60)),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let name = format!("unasked{number}");
        let shown = format!("{lie:?}");
        scene
            .fake
            .tell(&format!("/v1/health/service/{name}"), usize::MAX, lie);
        scene.fake.set(&name, &["10.6.0.2"]);
        // Portolan knows that there is such a name, and no more.
        let query = Query::new(&format!("{name}.service.consul"), A).patience(PATIENCE);
        let what = format!("SERVFAIL after {shown}");
        eventually(NEW_DATA, &what, || {
            let reply = query.try_ask(scene.portolan.dns())?;
            ensure(reply.rcode() == rcode::SERVFAIL, || reply.summary())
        });
        // It stays so for as long as the lie does, and no client waits for it in vain.
        let start = Instant::now();
        let reply = query.ask(scene.portolan.dns());
        assert_eq!(
            reply.rcode(),
            rcode::SERVFAIL,
            "{shown}: {}",
            reply.summary()
        );
        assert!(start.elapsed() < PATIENCE, "{shown}: {:?}", start.elapsed());
        scene.fake.repent();
    }
}

/// A client asks again after five seconds; an answer that says so has to be there before.
const PATIENCE: Duration = Duration::from_secs(4);
