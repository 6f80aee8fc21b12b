//! The order of things, within the house: a catalog, zones and a question in, a reply out, read back by
//! hickory. What upstreams add is in `tests/aliases`, which asks real ones at the door.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;

use crate::catalog::{
    Health, Instance, Interest, Kind, Layer, Node, Realm, Service, ServiceKey, Weights,
};
use crate::dns::{Reply, ReplyEdns, types};

use super::*;

const ZONE: &str = "\
$TTL 60
@ SOA ns admin 1 2 3 4 30
@ MX 10 web.service.consul.
@ MX 20 host
@ NS ns
ns A 10.9.9.1
host A 10.9.9.9
host AAAA 2001:db8::9
www CNAME web.service.consul.
deep CNAME www
over CNAME legacy.service.consul.
back CNAME ring.service.consul.
gone CNAME none.service.consul.
lost CNAME missing
out CNAME www.example.net.
s SRV 0 0 80 web.service.consul.
s SRV 0 0 81 deep
sub NS ns.sub
ns.sub A 10.9.9.2
into CNAME x.sub
";

fn node() -> Arc<Node> {
    Arc::new(Node {
        name: "n1".to_owned(),
        datacenter: "dc1".to_owned(),
        address: "127.0.0.9".to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
    })
}

fn service(addresses: &[&str]) -> Service {
    let instance = |(at, address): (usize, &&str)| Instance {
        id: format!("i{at}"),
        address: (*address).to_owned(),
        tagged_addresses: BTreeMap::new(),
        port: 80,
        ports: Vec::new(),
        tags: Vec::new(),
        weights: Weights::default(),
        health: Health::Passing,
        node: node(),
    };
    Service::new(addresses.iter().enumerate().map(instance).collect())
}

fn publish(layer: &Layer, services: &[(&str, &[&str])]) {
    let services: HashMap<_, _> = services
        .iter()
        .map(|(name, addresses)| (ServiceKey::new(Kind::Service, name), service(addresses)))
        .collect();
    layer.local().publish_all(services, vec![node()]);
}

fn zones(files: &[(&str, &str)]) -> Zones {
    let directory = tempfile::tempdir().expect("a directory");
    for (file, text) in files {
        std::fs::write(directory.path().join(file), text).expect("a file");
    }
    Zones::load(directory.path()).expect("good zones")
}

fn policy(zones: Zones) -> Policy {
    let consul = Name::from_text("consul").expect("a name");
    let domains = Domains::new(&consul, None);
    Policy {
        domains,
        answers: answers::Settings::default(),
        zones,
        recursor: None,
        recursion_for: Vec::new(),
    }
}

/// Services as they are asked for below, and the zone.
fn router() -> (Router, Arc<Layer>) {
    let mut catalog = Catalog::new();
    let layer = catalog.add_complete("test", "dc1");
    publish(
        &layer,
        &[
            ("web", &["10.0.0.5"]),
            ("legacy", &["host.corp.example"]),
            ("ring", &["back.corp.example"]),
            ("twice", &["www.corp.example"]),
        ],
    );
    let zones = zones(&[
        ("corp.example.zone", ZONE),
        (
            "127.in-addr.arpa.zone",
            "@ 60 SOA a b 1 2 3 4 5\n9.0.0 60 PTR zone.test.\n",
        ),
    ]);
    (Router::new(Arc::new(catalog), policy(zones)), layer)
}

fn inquiry(name: &str, qtype: u16) -> Inquiry {
    Inquiry {
        name: Name::from_text(name).expect("a name"),
        qtype,
        asker: Asker::new(IpAddr::from([192, 0, 2, 1]), Transport::Tcp),
        recursive: false,
        form: Form::default(),
    }
}

fn read(inquiry: &Inquiry, resolved: &Resolved) -> Message {
    let question = [
        inquiry.name.as_wire(),
        &inquiry.qtype.to_be_bytes(),
        &[0, 1],
    ]
    .concat();
    let reply = Reply {
        id: 7,
        question: &question,
        recursion_desired: false,
        wants_authentic: false,
        checking_disabled: false,
        recursion_available: false,
        transport: Transport::Tcp,
        max_udp_size: resolved.max_udp_size,
        edns: Some(ReplyEdns {
            client_size: 1232,
            own_size: 1232,
            dnssec_ok: false,
            client_subnet: None,
        }),
        client: inquiry.asker.address,
        rotation: 0,
        elapsed: 0,
    };
    let mut out = Vec::new();
    resolved.rendered.write(&reply, &mut out);
    Message::from_vec(&out).expect("hickory can read it")
}

fn ask(router: &Router, name: &str, qtype: u16) -> Message {
    let inquiry = inquiry(name, qtype);
    let resolved = router.resolve(&inquiry);
    read(&inquiry, &resolved.expect("nothing to wait for"))
}

/// Records as `OWNER TYPE DATA`, without `.corp.example` and `.service.consul`.
fn show(records: &[hickory_proto::rr::Record]) -> Vec<String> {
    let short = |text: String| {
        text.replace(".corp.example.", "")
            .replace(".service.consul.", "")
    };
    let text = |record: &hickory_proto::rr::Record| {
        let (owner, data) = (record.name.to_string(), record.data.to_string());
        short(format!("{owner} {} {data}", record.record_type()))
    };
    records.iter().map(text).collect()
}

#[test]
fn every_name_is_followed_by_one_order() {
    let (router, _) = router();
    let srv = "SRV 1 1 80 0a000005.addr.dc1.consul.";
    let glue = "0a000005.addr.dc1.consul. A 10.0.0.5";
    let host = ["host A 10.9.9.9", "host AAAA 2001:db8::9"];
    let table: &[(&str, u16, &[&str], &[&str])] = &[
        (
            "www.corp.example",
            types::A,
            &["www CNAME web", "web A 10.0.0.5"],
            &[],
        ),
        (
            "www.corp.example",
            types::SRV,
            &["www CNAME web", &format!("web {srv}")],
            &[glue],
        ),
        ("www.corp.example", types::CNAME, &["www CNAME web"], &[]),
        ("www.corp.example", types::ANY, &["www CNAME web"], &[]),
        (
            "deep.corp.example",
            types::A,
            &["deep CNAME www", "www CNAME web", "web A 10.0.0.5"],
            &[],
        ),
        (
            "over.corp.example",
            types::AAAA,
            &["over CNAME legacy", "legacy CNAME host", host[1]],
            &[],
        ),
        (
            "legacy.service.consul",
            types::A,
            &["legacy CNAME host", host[0]],
            &[],
        ),
        (
            "legacy.service.consul",
            types::ANY,
            &["legacy CNAME host", host[0], host[1]],
            &[],
        ),
        (
            "legacy.service.consul",
            types::SRV,
            &["legacy SRV 1 1 80 host"],
            &host,
        ),
        (
            "twice.service.consul",
            types::ANY,
            &["twice CNAME www", "www CNAME web", "web A 10.0.0.5"],
            &[],
        ),
        // Met twice: told once.
        (
            "ring.service.consul",
            types::A,
            &["ring CNAME back", "back CNAME ring"],
            &[],
        ),
        (
            "back.corp.example",
            types::A,
            &["back CNAME ring", "ring CNAME back"],
            &[],
        ),
        (
            "ring.service.consul",
            types::SRV,
            &["ring SRV 1 1 80 back"],
            &[],
        ),
        // Hosts: all A before any AAAA, each under its own name.
        (
            "s.corp.example",
            types::SRV,
            &["s SRV 0 0 80 web", "s SRV 0 0 81 deep"],
            &["web A 10.0.0.5", "deep A 10.0.0.5"],
        ),
        (
            "corp.example",
            types::MX,
            &["corp.example. MX 10 web", "corp.example. MX 20 host"],
            &["web A 10.0.0.5", host[0], host[1]],
        ),
        (
            "corp.example",
            types::NS,
            &["corp.example. NS ns"],
            &["ns A 10.9.9.1"],
        ),
        // Nobody may go on there.
        (
            "out.corp.example",
            types::A,
            &["out CNAME www.example.net."],
            &[],
        ),
        (
            "into.corp.example",
            types::A,
            &["into CNAME x.sub"],
            &["ns.sub A 10.9.9.2"],
        ),
        // A zone of loopback goes before a node that has the address.
        (
            "9.0.0.127.in-addr.arpa",
            types::PTR,
            &["9.0.0.127.in-addr.arpa. PTR zone.test."],
            &[],
        ),
    ];
    for (name, qtype, answers, additional) in table {
        let message = ask(&router, name, *qtype);
        let at = format!("{name} {qtype}");
        assert_eq!(
            message.metadata.response_code,
            ResponseCode::NoError,
            "{at}"
        );
        assert_eq!(show(&message.answers), *answers, "{at}");
        assert_eq!(show(&message.additionals), *additional, "{at}");
    }
}

#[test]
fn the_last_name_says_the_rcode_and_consuls_own_stay() {
    let (router, _) = router();
    let nobody = ResponseCode::NXDomain;
    let table: &[(&str, u16, ResponseCode, &[&str])] = &[
        // RFC 6604: the SOA is that of the zone where the walk ended.
        ("gone.corp.example", types::A, nobody, &["consul."]),
        ("lost.corp.example", types::A, nobody, &["corp.example."]),
        ("missing.corp.example", types::A, nobody, &["corp.example."]),
        (
            "www.corp.example",
            types::AAAA,
            ResponseCode::NoError,
            &["consul."],
        ),
        (
            "into.corp.example",
            types::A,
            ResponseCode::NoError,
            &["sub.corp.example."],
        ),
        (
            "legacy.service.consul",
            types::TXT,
            ResponseCode::NoError,
            &[],
        ),
        ("example.org", types::A, ResponseCode::Refused, &[]),
        // Without upstreams nobody else can know it.
        ("1.2.0.192.in-addr.arpa", types::PTR, nobody, &["consul."]),
    ];
    for (name, qtype, rcode, authority) in table {
        let message = ask(&router, name, *qtype);
        assert_eq!(message.metadata.response_code, *rcode, "{name}");
        let owners: Vec<String> = message
            .authorities
            .iter()
            .map(|r| r.name.to_string())
            .collect();
        assert_eq!(owners, *authority, "{name}");
    }
}

#[test]
fn an_answer_holds_as_long_as_all_that_it_led_to() {
    let (router, layer) = router();
    // A denial goes by itself with the second, in which the serial of its SOA turns: that is not what is asked here.
    let asked = router.versions().millis();
    let holds = |resolved: &Resolved| resolved.validity.holds(router.versions(), asked);
    for name in [
        "deep.corp.example",
        "s.corp.example",
        "twice.service.consul",
    ] {
        for qtype in [types::A, types::SRV] {
            let resolved = router.resolve(&inquiry(name, qtype)).expect("at once");
            assert!(holds(&resolved), "{name} {qtype}");
            let slot = layer.local().loaded().into_iter();
            let web = slot.into_iter().find(|(key, _)| key.name() == "web");
            let (key, slot) = web.expect("loaded");
            layer
                .local()
                .publish(&key, &slot, service(&["10.0.0.6", name]));
            let leads_there = name != "s.corp.example" || qtype == types::SRV;
            assert_eq!(holds(&resolved), !leads_there, "{name} {qtype}");
            layer.local().publish(&key, &slot, service(&["10.0.0.5"]));
        }
    }
    let resolved = router
        .resolve(&inquiry("host.corp.example", types::A))
        .expect("at once");
    assert!(holds(&resolved));
    router.adopt(policy(Zones::empty()));
    assert!(!holds(&resolved), "another policy");
}

/// A source that loads what is asked for, by hand.
struct Lazy {
    router: Router,
    realm: Arc<Realm>,
    interests: crate::catalog::Interests,
}

impl Lazy {
    fn new() -> Self {
        let mut catalog = Catalog::new();
        let (layer, interests) = catalog.add_lazy("test");
        let router = Router::new(
            Arc::new(catalog),
            policy(zones(&[("corp.example.zone", ZONE)])),
        );
        Self {
            router,
            realm: Arc::clone(layer.local()),
            interests,
        }
    }

    fn begin(&self) {
        self.realm.name_datacenter("dc1");
        self.realm.publish_nodes(vec![node()]);
        let names = ["web", "legacy"].map(Arc::from);
        self.realm.publish_names(names.into_iter().collect(), None);
    }

    /// Loads what was asked for.
    fn load(&mut self, addresses: &[&str]) {
        let interest = self.interests.try_recv().expect("an interest");
        let Interest::Service { realm, key, slot } = interest else {
            panic!("not a service: {interest:?}");
        };
        realm.publish(&key, &slot, service(addresses));
    }
}

#[tokio::test]
async fn what_is_on_its_way_is_waited_for_and_looked_for_again() {
    let mut lazy = Lazy::new();
    // Before the first data nothing may be said, nor behind an alias; glue is no answer.
    for (name, rcode) in [
        ("web.service.consul", ResponseCode::ServFail),
        ("www.corp.example", ResponseCode::ServFail),
        ("s.corp.example", ResponseCode::NoError),
        ("host.corp.example", ResponseCode::NoError),
    ] {
        let message = ask(&lazy.router, name, types::SRV);
        assert_eq!(message.metadata.response_code, rcode, "{name}");
    }
    lazy.begin();
    for (name, qtype, loads, answers) in [
        (
            "www.corp.example",
            types::A,
            "10.0.0.5",
            vec!["www CNAME web", "web A 10.0.0.5"],
        ),
        (
            "over.corp.example",
            types::A,
            "host.corp.example",
            vec!["over CNAME legacy", "legacy CNAME host", "host A 10.9.9.9"],
        ),
    ] {
        let inquiry = inquiry(name, qtype);
        let waiting = lazy.router.resolve(&inquiry).expect_err("it is not loaded");
        lazy.load(&[loads]);
        let room = || std::future::ready(());
        let (resolved, ()) = lazy.router.resolve_later(&inquiry, waiting, room).await;
        assert_eq!(show(&read(&inquiry, &resolved).answers), answers, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_come_is_no_answer_and_glue_that_does_not_come_is_missing() {
    let lazy = Lazy::new();
    lazy.begin();
    for (name, qtype, rcode) in [
        ("web.service.consul", types::A, ResponseCode::ServFail),
        ("www.corp.example", types::A, ResponseCode::ServFail),
        ("s.corp.example", types::SRV, ResponseCode::NoError),
    ] {
        let inquiry = inquiry(name, qtype);
        let waiting = lazy.router.resolve(&inquiry).expect_err("it is not loaded");
        let room = || std::future::ready(());
        let (resolved, ()) = lazy.router.resolve_later(&inquiry, waiting, room).await;
        let message = read(&inquiry, &resolved);
        assert_eq!(message.metadata.response_code, rcode, "{name}");
        assert!(resolved.validity.is_none(), "{name}: for this one time");
    }
}

/// Where a name of a random world leads.
#[derive(Debug, Clone)]
enum Leads {
    Nowhere,
    Address,
    To(usize),
}

/// Names 0 to 7 are a zone's, 8 to 15 are services.
fn name_of(at: usize) -> String {
    if at < 8 {
        format!("z{at}.corp.example")
    } else {
        format!("s{at}.service.consul")
    }
}

fn leads() -> impl Strategy<Value = Leads> {
    prop_oneof![
        1 => Just(Leads::Nowhere),
        1 => Just(Leads::Address),
        4 => (0..16_usize).prop_map(Leads::To),
    ]
}

proptest! {
    #[test]
    fn whatever_leads_where_the_walk_ends_and_tells_each_record_once(
        world in prop::collection::vec(leads(), 16),
        asked in 0..16_usize,
        qtype in prop::sample::select(vec![types::A, types::AAAA, types::SRV, types::ANY, types::TXT]),
    ) {
        let mut zone = "$TTL 60\n@ SOA ns admin 1 2 3 4 30\n".to_owned();
        let mut services = Vec::new();
        for (at, leads) in world.iter().enumerate() {
            let target = match leads {
                Leads::Nowhere => continue,
                Leads::Address => format!("10.0.0.{at}"),
                Leads::To(other) => name_of(*other),
            };
            match leads {
                Leads::Address if at < 8 => zone.push_str(&format!("z{at} A {target}\n")),
                _ if at < 8 => zone.push_str(&format!("z{at} CNAME {target}.\n")),
                _ => services.push((format!("s{at}"), target)),
            }
        }
        let mut catalog = Catalog::new();
        let layer = catalog.add_complete("test", "dc1");
        let services: HashMap<_, _> = services
            .iter()
            .map(|(name, target)| (ServiceKey::new(Kind::Service, name), service(&[target])))
            .collect();
        layer.local().publish_all(services, vec![node()]);
        let zones = zones(&[("corp.example.zone", &zone)]);
        let router = Router::new(Arc::new(catalog), policy(zones));

        let message = ask(&router, &name_of(asked), qtype);
        let told: Vec<_> = message.answers.iter().map(ToString::to_string).collect();
        let once: HashSet<_> = told.iter().collect();
        prop_assert_eq!(once.len(), told.len(), "{:?}", told);
        // A chain: each record belongs to the question, or to the alias before it.
        let mut at = format!("{}.", name_of(asked));
        let mut aliases = 0;
        for record in &message.answers {
            prop_assert_eq!(record.name.to_string(), at.clone(), "{:?}", told);
            if record.record_type() == RecordType::CNAME {
                at = record.data.to_string();
                aliases += 1;
            }
        }
        prop_assert!(aliases <= 17, "{:?}", told);
        // The addresses at its end are those of the world.
        if qtype == types::A {
            let mut end = asked;
            let mut met = HashSet::from([asked]);
            let last = loop {
                match world[end] {
                    // A service that is its own alias has the address of its node.
                    Leads::To(next) if next == end && end >= 8 => break &Leads::Address,
                    Leads::To(next) if met.insert(next) => end = next,
                    ref last => break last,
                }
            };
            let has_address = told.iter().any(|record| record.contains(" A "));
            prop_assert_eq!(has_address, matches!(last, Leads::Address), "{:?}", told);
            if matches!(last, Leads::Nowhere) && asked < 8 && told.is_empty() {
                prop_assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
            }
        }
    }
}
