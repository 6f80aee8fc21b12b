//! Two real Consul datacenters, joined over WAN: Portolan beside the first answers for the second.

#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};
use std::{
    thread,
    time::{Duration, Instant},
};
use support::{
    compare::{Part, compare},
    consul::{Consul, Options, instance},
    dns::Query,
    ensure, eventually, http,
    portolan::{Launch, Portolan},
    recorder::Recorder,
    throughout,
    wire::{
        rcode,
        rtype::{A, AAAA, ANY, SRV},
    },
};

/// How long two servers may take to find each other on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What both servers have to agree in. (TTLs have other defaults, and Consul sends node metadata.)
const COMPARED: &[Part] = &[Part::Rcode, Part::Aa, Part::Tc, Part::Answers, Part::Glue];

/// Two datacenters.
struct Federation {
    dc1: Consul,
    dc2: Consul,
}

impl Federation {
    /// Starts both, and waits until the first reads the second. `extra` is for the first.
    fn start(extra: Value) -> Self {
        let dc1 = Consul::start_with(Options {
            extra,
            ..Options::default()
        });
        let dc2 = Consul::start_with(Options {
            datacenter: "dc2".to_owned(),
            join_wan: vec![dc1.wan()],
            ..Options::default()
        });
        let federation = Self { dc1, dc2 };
        federation.wait_until(200);
        federation.fill();
        federation
    }

    /// Waits until the first datacenter says this of the second.
    fn wait_until(&self, status: u16) {
        eventually(PATIENCE, "dc1 knows how dc2 is", || {
            let told = http::get(self.dc1.http(), "/v1/catalog/services?dc=dc2&stale")?;
            ensure(told.status == status, || format!("{told:?}"))
        });
    }

    fn fill(&self) {
        self.dc1.register(&instance(
            "n1",
            "10.1.0.1",
            &json!({ "Service": "web", "Port": 81 }),
        ));
        // A node with an address for others, without one, and one whose service has its own.
        let node = json!({ "Node": "n1", "Address": "10.2.0.1", "TaggedAddresses": {
            "lan": "10.2.0.1", "lan_ipv4": "10.2.0.1", "wan": "198.51.100.1",
            "wan_ipv4": "198.51.100.1" } });
        self.dc2.register(&node);
        let on = |node: &str, address: &str, service: Value| {
            let mut entry = instance(node, address, &service);
            entry["SkipNodeUpdate"] = true.into();
            entry
        };
        self.dc2
            .register(&json!({ "Node": "n2", "Address": "10.2.0.2" }));
        let tagged = json!({ "lan": { "Address": "10.2.1.3", "Port": 8003 },
            "wan": { "Address": "198.51.100.3", "Port": 18003 } });
        for entry in [
            on(
                "n1",
                "10.2.0.1",
                json!({ "Service": "web", "Port": 8001, "Tags": ["primary"] }),
            ),
            on("n2", "10.2.0.2", json!({ "Service": "web", "Port": 8002 })),
            on(
                "n2",
                "10.2.0.2",
                json!({ "Service": "web", "ID": "web3", "Address": "10.2.1.3",
                "Port": 8003, "TaggedAddresses": tagged }),
            ),
            on(
                "n1",
                "10.2.0.1",
                json!({ "Service": "only2", "Port": 9000 }),
            ),
        ] {
            self.dc2.register(&entry);
        }
        // A query of dc1 whose service is in dc2 alone.
        self.dc1
            .define_query(&json!({ "Name": "over", "Service": { "Service": "only2",
            "Failover": { "Datacenters": ["dc2"] } } }));
        self.dc1
            .define_query(&json!({ "Name": "nearest", "Service": { "Service": "only2",
            "Failover": { "NearestN": 2 } } }));
        self.dc1
            .define_query(&json!({ "Name": "at-home", "Service": { "Service": "web",
            "Failover": { "Datacenters": ["dc2"] } } }));
        self.dc2
            .define_query(&json!({ "Name": "theirs", "Service": { "Service": "web" } }));
    }

    fn portolan(&self, translate: bool) -> Portolan {
        Launch::new("serve")
            .args(["--consul", &self.dc1.url(), "--upstream", "none"])
            .config(&format!("[consul]\ntranslate_wan_addrs = {translate}\n"))
            .start()
    }

    /// Asks both servers of dc1 for the names; every answer has to be the same.
    fn same(&self, portolan: &Portolan, names: &[&str]) {
        let mut wrong = Vec::new();
        for name in names {
            for rtype in [A, AAAA, SRV, ANY] {
                for query in [
                    Query::new(name, rtype).edns(4096),
                    Query::new(name, rtype).tcp(),
                ] {
                    let (theirs, ours) = (query.ask(self.dc1.dns()), query.ask(portolan.dns()));
                    let mut differences = compare(&theirs, &ours);
                    differences.retain(|difference| COMPARED.contains(&difference.part));
                    wrong.extend(differences.iter().map(|d| format!("{query}: {d}")));
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{} differ:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}

const NAMES: &[&str] = &[
    "web.service.dc2.consul",
    "WEB.Service.DC2.consul",
    "primary.web.service.dc2.consul",
    "_web._tcp.service.dc2.consul",
    "_web._primary.service.dc2.consul",
    "only2.service.dc2.consul",
    "nope.service.dc2.consul",
    "n1.node.dc2.consul",
    "n2.node.dc2.consul",
    "web.service.dc1.consul",
    "web.service.consul",
    "only2.service.consul",
    "n1.node.consul",
    "web.service.dc9.consul",
    "theirs.query.dc2.consul",
    "theirs.query.consul",
    "at-home.query.consul",
    "over.query.consul",
    "nearest.query.consul",
];

#[test]
fn another_datacenter_is_answered_as_consul_answers_it() {
    let federation = Federation::start(json!({}));
    let portolan = federation.portolan(false);
    // The first answer has to be right, so nothing is waited for.
    federation.same(&portolan, NAMES);
    let web = Query::new("web.service.dc2.consul", SRV)
        .edns(4096)
        .ask(portolan.dns());
    let wanted = [
        "1 1 8001 n1.node.dc2.consul.",
        "1 1 8002 n2.node.dc2.consul.",
        "1 1 8003 0a020103.addr.dc2.consul.",
    ];
    assert_eq!(web.data(), wanted, "{}", web.summary());
    let over = Query::new("over.query.consul", SRV)
        .edns(4096)
        .ask(portolan.dns());
    assert_eq!(
        over.data(),
        ["1 1 9000 n1.node.dc2.consul."],
        "{}",
        over.summary()
    );
}

#[test]
fn addresses_of_another_datacenter_are_translated() {
    let federation = Federation::start(json!({ "translate_wan_addrs": true }));
    let portolan = federation.portolan(true);
    federation.same(&portolan, NAMES);
    let data = |name: &str, rtype| {
        Query::new(name, rtype)
            .edns(4096)
            .ask(portolan.dns())
            .data()
    };
    let web = ["10.2.0.2", "198.51.100.1", "198.51.100.3"];
    assert_eq!(data("web.service.dc2.consul", A), web);
    let srv = [
        "1 1 18003 c6336403.addr.dc2.consul.",
        "1 1 8001 c6336401.addr.dc2.consul.",
        "1 1 8002 n2.node.dc2.consul.",
    ];
    assert_eq!(data("web.service.dc2.consul", SRV), srv);
    assert_eq!(data("n1.node.dc2.consul", A), ["198.51.100.1"]);
}

#[test]
fn a_datacenter_that_cannot_be_reached_is_still_answered() {
    let mut federation = Federation::start(json!({}));
    let portolan = federation.portolan(false);
    let asked = [
        Query::new("web.service.dc2.consul", A),
        Query::new("web.service.dc2.consul", SRV),
        Query::new("n1.node.dc2.consul", A),
        Query::new("theirs.query.dc2.consul", A),
    ];
    let answers = || {
        let data = |query: &Query| {
            let reply = query.try_ask(portolan.dns())?;
            ensure(reply.rcode() == rcode::NOERROR, || {
                format!("{query}: {}", reply.summary())
            })?;
            Ok(reply.data())
        };
        asked.iter().map(data).collect::<Result<Vec<_>, String>>()
    };
    // What is held of each datacenter has an age of its own.
    let age = |what: &str, datacenter: &str| {
        let series =
            format!("portolan_sources_consul_{what}_seconds{{datacenter=\"{datacenter}\"}}");
        portolan
            .metrics()
            .remove(&series)
            .unwrap_or_else(|| panic!("there is no {series}"))
    };
    let before = answers().unwrap_or_else(|error| panic!("{error}"));
    for datacenter in ["dc1", "dc2"] {
        assert!(age("index_age", datacenter) < 4.0, "{datacenter}");
        assert_eq!(age("stale", datacenter), 0.0, "{datacenter}");
    }
    assert!(before.iter().all(|data| !data.is_empty()), "{before:?}");
    let kept = |what: &str| {
        throughout(
            Duration::from_secs(5),
            Duration::from_millis(100),
            what,
            || {
                let now = answers()?;
                ensure(now == before, || format!("{now:?}, not {before:?}"))
            },
        );
    };
    // First it hangs, until the other datacenter finds that it has failed; then it is gone.
    federation.dc2.pause();
    kept("dc2 hangs");
    federation.wait_until(500);
    kept("dc2 is known to have failed");
    federation.dc2.kill();
    kept("dc2 is gone");
    assert!(age("index_age", "dc2") > 10.0, "dc2 was long gone");
    assert!(age("stale", "dc2") > 10.0, "dc2 was long gone");
    assert!(age("index_age", "dc1") < 4.0, "dc1 was here");
    assert_eq!(age("stale", "dc1"), 0.0, "dc1 was here");
    federation.dc2.restart();
    federation.wait_until(200);
    federation.dc2.deregister("n2", "web");
    eventually(PATIENCE, "what happens in dc2 is seen again", || {
        let now = Query::new("web.service.dc2.consul", A).ask(portolan.dns());
        ensure(now.data() == ["10.2.0.1", "10.2.1.3"], || now.summary())
    });
    eventually(PATIENCE, "what is held of dc2 is young again", || {
        let ages = (age("index_age", "dc2"), age("stale", "dc2"));
        ensure(ages.0 < 4.0 && ages.1 == 0.0, || format!("{ages:?}"))
    });
}

/// One that nobody has told of before is there as soon as somebody asks for it.
#[test]
fn a_datacenter_that_joins_later_is_known_when_it_is_asked_for() {
    let dc1 = Consul::start();
    let portolan = Portolan::beside(&dc1);
    let query = Query::new("n9.node.dc2.consul", A);
    let reply = query.ask(portolan.dns());
    assert_eq!(reply.rcode(), rcode::NXDOMAIN, "{}", reply.summary());
    let dc2 = Consul::start_with(Options {
        datacenter: "dc2".to_owned(),
        join_wan: vec![dc1.wan()],
        ..Options::default()
    });
    dc2.register(&json!({ "Node": "n9", "Address": "10.2.0.9" }));
    eventually(PATIENCE, "dc1 reads from dc2", || {
        let nodes = http::get(dc1.http(), "/v1/catalog/nodes?dc=dc2&stale")?;
        ensure(nodes.body.contains("10.2.0.9"), || format!("{nodes:?}"))
    });
    let start = Instant::now();
    eventually(Duration::from_secs(2), "dc2 is known", || {
        let reply = query.try_ask(portolan.dns())?;
        ensure(reply.data() == ["10.2.0.9"], || reply.summary())
    });
    eprintln!(
        "figure: a new datacenter was known {:?} after its first question",
        start.elapsed()
    );
}

/// A server that has just started finds those of other datacenters one by one.
#[test]
fn a_restart_loses_no_datacenter() {
    let mut federation = Federation::start(json!({}));
    let portolan = federation.portolan(false);
    let web = Query::new("web.service.dc2.consul", A);
    let before = web.ask(portolan.dns()).data();
    assert_eq!(before.len(), 3, "{before:?}");
    let unknown = Query::new("web.service.dc9.consul", A);
    federation.dc1.restart();
    throughout(
        Duration::from_secs(10),
        Duration::from_millis(100),
        "dc2 is known while dc1 restarts",
        || {
            // Who asks for it has the list of datacenters read.
            let asked = unknown.try_ask(portolan.dns())?;
            ensure(asked.answers.is_empty(), || asked.summary())?;
            let now = web.try_ask(portolan.dns())?;
            ensure(now.data() == before, || now.summary())
        },
    );
}

#[test]
fn an_unknown_datacenter_costs_a_read_a_second() {
    let federation = Federation::start(json!({}));
    let recorder = Recorder::before(federation.dc1.http());
    let portolan = Launch::new("serve")
        .args(["--consul", &recorder.url(), "--upstream", "none"])
        .start();
    // What is asked once in a minute has been asked.
    thread::sleep(Duration::from_secs(1));
    let requests = || {
        let metrics = portolan
            .get("/metrics")
            .unwrap_or_else(|error| panic!("{error}"))
            .body;
        let counts = metrics.lines().filter_map(|line| {
            let (name, count) = line.rsplit_once(' ')?;
            let ours = name.starts_with("portolan_sources_consul_requests_total");
            ours.then(|| count.parse::<f64>().expect("a count"))
        });
        counts.sum::<f64>()
    };
    let (before, start, paths) = (requests(), Instant::now(), recorder.paths().len());
    let names = [
        "web.service.dc9.consul",
        "n1.node.dc9.consul",
        "_web._tcp.dc9.consul",
        "web.connect.dc9.consul",
        "over.query.dc9.consul",
    ];
    for n in 0..200 {
        let name = names[n % names.len()];
        let reply = Query::new(name, [A, SRV][n / names.len() % 2]).ask(portolan.dns());
        let good = reply.rcode() == rcode::NXDOMAIN
            || (name.starts_with('_') && reply.rcode() == rcode::NOERROR);
        assert!(
            good && reply.answers.is_empty(),
            "{name}: {}",
            reply.summary()
        );
    }
    let took = start.elapsed();
    let caused = requests() - before;
    let paths = recorder.paths().split_off(paths);
    let count = |wanted: &str| paths.iter().filter(|path| *path == wanted).count();
    // Whether Consul is well is asked every second, whatever the questions.
    let probes = count("/v1/catalog/service/consul");
    let lists = count("/v1/catalog/datacenters");
    assert_eq!(paths.len(), probes + lists, "asked of Consul: {paths:?}");
    let seconds = took.as_secs_f64();
    assert!(lists as f64 <= seconds + 1.0, "{lists} reads in {took:?}");
    assert!(
        caused <= 2.0 * seconds + 4.0,
        "{caused} requests in {took:?}"
    );
}
