//! `--from-agent`: Portolan behaves like the agent beside it, unless it is told otherwise.

use crate::{
    judge::Tally,
    outside,
    questions::Way,
    support::{
        consul::{Consul, Options, instance},
        dns::Query,
        portolan::{Launch, Portolan},
        upstream::Upstream,
        wire::rtype::{A, AAAA, ANY, NS, SOA, SRV},
    },
    world::ALT_DOMAIN,
};
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

/// A Consul with settings that are not its defaults; `limits` makes answers a part of what there is.
fn start(upstream: &Upstream, limits: bool) -> Consul {
    let (udp, a) = if limits { (2, 5) } else { (8, 0) };
    let consul = Consul::start_with(Options {
        extra: json!({
            "alt_domain": ALT_DOMAIN,
            "recursors": [upstream.address().to_string()],
            "dns_config": {
                "node_ttl": "10s",
                "service_ttl": { "web*": "1500ms", "*": "7s" },
                "only_passing": true,
                "udp_answer_limit": udp,
                "a_record_limit": a,
                "soa": { "min_ttl": 4, "refresh": 3601, "retry": 601, "expire": 86401 },
            },
        }),
        ..Options::default()
    });
    for n in 1..=7 {
        for service in ["web", "website", "db"] {
            consul.register(&on(n, json!({ "Service": service, "Port": 80 })));
        }
    }
    let mut warned = on(8, json!({ "Service": "web", "Port": 80 }));
    warned["Check"] = json!({ "CheckID": "c", "Name": "a check", "Node": "n8", "ServiceID": "web",
        "Status": "warning" });
    consul.register(&warned);
    consul
}

fn on(n: u8, service: Value) -> Value {
    instance(&format!("n{n}"), &format!("10.0.0.{n}"), &service)
}

fn from_agent(consul: &Consul, arguments: &[&str], config: &str) -> Portolan {
    Launch::new("serve")
        .args(["--from-agent", "--consul", &consul.url()])
        .args(arguments.iter().copied())
        .config(config)
        .start()
}

/// The TTL of the first answer.
fn ttl(portolan: &Portolan, name: &str) -> Option<u32> {
    let reply = Query::new(name, A).ask(portolan.dns());
    reply.answers.first().map(|record| record.ttl)
}

#[test]
fn the_agents_settings_are_portolans() {
    let upstream = outside::start();
    let consul = start(&upstream, false);
    let portolan = from_agent(&consul, &[], "");
    let mut tally = Tally::default();
    let alt = |front: &str| format!("{front}.{ALT_DOMAIN}");
    for name in [
        "web.service.consul".to_owned(),
        "website.service.consul".to_owned(),
        "db.service.consul".to_owned(),
        "nope.service.consul".to_owned(),
        "n1.node.consul".to_owned(),
        "0a000001.addr.consul".to_owned(),
        "consul".to_owned(),
        alt("web.service"),
        alt("n1.node"),
        "www.example.com".to_owned(),
    ] {
        for rtype in [A, AAAA, SRV, ANY, NS, SOA] {
            for way in [Way::Plain, Way::Edns(4096), Way::Tcp] {
                tally.ask(&way.query(&name, rtype), &consul.dns(), portolan.dns());
            }
        }
    }
    tally.conclude("from-agent");
    // Consul itself does what is compared: not all is at its default.
    assert_eq!(ttl(&portolan, "web.service.consul"), Some(1));
    assert_eq!(ttl(&portolan, "db.service.consul"), Some(7));
    assert_eq!(ttl(&portolan, "n1.node.consul"), Some(10));
    let tcp = |rtype| {
        Query::new("web.service.consul", rtype)
            .tcp()
            .ask(portolan.dns())
    };
    assert_eq!(tcp(SRV).answers.len(), 7, "only_passing");
    assert!(
        upstream.count("www.example.com.", RecordType::A) > 0,
        "recursors"
    );
}

#[test]
fn what_portolan_is_told_goes_before_the_agents_settings() {
    let (theirs, ours) = (outside::start(), outside::start());
    let consul = start(&theirs, true);
    let told = [
        "--upstream",
        &ours.address().to_string(),
        "--domain",
        "other",
    ];
    let portolan = from_agent(
        &consul,
        &told,
        "[answers]\nnode_ttl = \"3s\"\nonly_passing = false\n",
    );
    assert_eq!(
        ttl(&portolan, "n1.node.other"),
        Some(3),
        "node_ttl of the file"
    );
    assert_eq!(
        ttl(&portolan, "db.service.other"),
        Some(7),
        "service_ttl of the agent"
    );
    let web = Query::new("web.service.other", SRV)
        .tcp()
        .ask(portolan.dns());
    assert_eq!(
        web.answers.len(),
        8,
        "only_passing of the file: {}",
        web.summary()
    );
    let db = Query::new("db.service.other", A);
    let (plain, tcp) = (db.ask(portolan.dns()), db.tcp().ask(portolan.dns()));
    assert_eq!(
        plain.answers.len(),
        2,
        "udp_answer_limit of the agent: {}",
        plain.summary()
    );
    assert_eq!(
        tcp.answers.len(),
        5,
        "a_record_limit of the agent: {}",
        tcp.summary()
    );
    Query::new("www.example.com", A).ask(portolan.dns());
    assert!(
        ours.count("www.example.com.", RecordType::A) > 0,
        "the upstream of the flag"
    );
    assert!(
        theirs.seen().is_empty(),
        "asked the agent's recursor: {:?}",
        theirs.seen()
    );
}
