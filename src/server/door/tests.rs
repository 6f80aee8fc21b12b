//! A question asked of a desk that has answered before, of one that has not, and the full way: the
//! same reply, whatever happened in between.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::answers::Settings;
use crate::catalog::{Catalog, Health, Instance, Kind, Layer, Node, Service, ServiceKey, Weights};
use crate::names::{Domains, Name};
use crate::server::{Metrics, Policy};
use crate::zones::Zones;

use super::*;

const NAMES: [&str; 14] = [
    "web.service.consul",
    "v1.web.service.consul",
    "_web._tcp.service.consul",
    "db.service.consul",
    "db.service.dc1.consul",
    "db.service.dc9.consul",
    "none.service.consul",
    "n1.node.consul",
    "n9.node.consul",
    "0a000001.addr.dc1.consul",
    "consul",
    "service.consul",
    "1.0.0.10.in-addr.arpa",
    "example.org",
];

const TYPES: [u16; 7] = [
    types::A,
    types::AAAA,
    types::SRV,
    types::ANY,
    types::TXT,
    types::SOA,
    types::PTR,
];

/// What can happen between two questions.
#[derive(Debug, Clone)]
enum Event {
    /// The service has that many instances from now on, some with a tag and some elsewhere.
    Scale(&'static str, usize),
    Stale,
    Fresh,
    Adopt,
    Ask(Question),
}

#[derive(Debug, Clone)]
struct Question {
    name: usize,
    qtype: u16,
    upper: u64,
    edns: Option<u16>,
    transport: Transport,
    client: u8,
    recursion_desired: bool,
}

fn event() -> impl Strategy<Value = Event> {
    let sizes = prop::sample::select(vec![0, 1, 3, 17, 60, 200]);
    let question = (
        0..NAMES.len(),
        prop::sample::select(TYPES.to_vec()),
        any::<u64>(),
        prop::option::of(prop::sample::select(vec![0, 512, 1232, 4096, 8192, 65535])),
        prop::bool::weighted(0.3),
        1..4_u8,
        any::<bool>(),
    );
    let question = question.prop_map(|(name, qtype, upper, edns, tcp, client, rd)| {
        Event::Ask(Question {
            name,
            qtype,
            upper,
            edns,
            transport: if tcp { Transport::Tcp } else { Transport::Udp },
            client,
            recursion_desired: rd,
        })
    });
    prop_oneof![
        2 => (prop::sample::select(vec!["web", "db"]), sizes)
            .prop_map(|(name, count)| Event::Scale(name, count)),
        1 => Just(Event::Stale),
        1 => Just(Event::Fresh),
        1 => Just(Event::Adopt),
        16 => question,
    ]
}

struct World {
    layer: Arc<Layer>,
    sizes: HashMap<&'static str, usize>,
    door: Door,
    runtime: Runtime,
}

fn policy() -> Policy {
    let domain = Name::from_text("consul").expect("a valid name");
    Policy::new(
        Domains::new(&domain, None),
        Settings::default(),
        65507,
        Zones::empty(),
        None,
        Vec::new(),
    )
}

impl World {
    fn new() -> Self {
        let layer = Layer::complete("test", "dc1");
        let catalog = Arc::new(Catalog::new(vec![Arc::clone(&layer)]));
        let metrics = Metrics::new(&mut Registry::default());
        let router = Arc::new(Router::new(catalog, policy(), metrics));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let world = Self {
            layer,
            sizes: HashMap::from([("web", 3), ("db", 2)]),
            door: Door::new(router),
            runtime: runtime.enable_all().build().expect("a runtime"),
        };
        world.publish();
        world
    }

    fn publish(&self) {
        let node = Arc::new(Node {
            name: "n1".to_owned(),
            datacenter: "dc1".to_owned(),
            address: "10.1.0.1".to_owned(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
        });
        let instance = |at: usize| Instance {
            id: format!("i{at}"),
            address: match at % 7 {
                6 => format!("2001:db8::{at:x}"),
                5 => String::new(),
                _ => format!("10.0.{}.{}", at / 250, 1 + at % 250),
            },
            tagged_addresses: BTreeMap::new(),
            port: 8000,
            ports: Vec::new(),
            tags: if at.is_multiple_of(2) {
                vec!["v1".to_owned()]
            } else {
                Vec::new()
            },
            weights: Weights::default(),
            health: Health::Passing,
            node: Arc::clone(&node),
        };
        let services = self.sizes.iter().filter(|(_, count)| **count > 0);
        let services = services.map(|(name, count)| {
            let instances = (0..*count).map(instance).collect();
            (
                ServiceKey::new(Kind::Service, name),
                Service::new(instances),
            )
        });
        let local = self.layer.local();
        local.publish_all(services.collect(), vec![Arc::clone(&node)]);
    }

    fn desk(&self) -> Desk {
        Desk::new(1 << 20, Arc::new(Counts::new(Transport::Udp)))
    }

    fn at_once(&self, desk: &mut Desk, question: &Question) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        desk.begin();
        desk.rotation = 5;
        let said = self
            .door
            .at_once(desk, &question.request(), question.client(), &mut out);
        desk.end();
        assert_ne!(said, AtOnce::Ignored);
        (said == AtOnce::Replied).then_some(out)
    }

    fn in_full(&self, question: &Question) -> (Vec<u8>, Option<(Key, Made)>) {
        let mut out = Vec::new();
        let request = question.request();
        let counts = Counts::new(Transport::Udp);
        let client = question.client();
        let full = self.door.in_full(&counts, &request, client, &mut out);
        let made = self.runtime.block_on(full);
        (out, made)
    }
}

impl Question {
    fn client(&self) -> Client {
        Client::new(IpAddr::from([127, 0, 0, self.client]), self.transport)
    }

    fn request(&self) -> Vec<u8> {
        let mixed: String = NAMES[self.name]
            .chars()
            .enumerate()
            .map(|(at, c)| {
                if self.upper >> at & 1 == 1 {
                    c.to_ascii_uppercase()
                } else {
                    c
                }
            })
            .collect();
        let name = Name::from_text(&mixed).expect("a valid name");
        let rd = u8::from(self.recursion_desired);
        let ar = u8::from(self.edns.is_some());
        let mut bytes = vec![0x12, 0x34, rd, 0, 0, 1, 0, 0, 0, 0, 0, ar];
        bytes.extend_from_slice(name.as_wire());
        bytes.extend_from_slice(&self.qtype.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        if let Some(size) = self.edns {
            bytes.extend_from_slice(&[0, 0, 41]);
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend_from_slice(&[0; 6]);
        }
        bytes
    }
}

/// A reply without what may differ: the order of addresses, and the second in the SOA serial.
fn settled(reply: &[u8]) -> (usize, [u8; 4], String) {
    let message = Message::from_vec(reply).expect("hickory can read it");
    let text = |records: &[hickory_proto::rr::Record]| {
        let record = |record: &hickory_proto::rr::Record| match &record.data {
            RData::SOA(soa) => format!(
                "{} {} SOA {} {}",
                record.name, record.ttl, soa.mname, soa.minimum
            ),
            _ => record.to_string(),
        };
        records.iter().map(record).collect::<Vec<_>>()
    };
    let mut answers = text(&message.answers);
    if !message
        .answers
        .iter()
        .any(|record| matches!(record.data, RData::SRV(_)))
    {
        answers.sort();
    }
    let header = [reply[2], reply[3], reply[0], reply[1]];
    let rest = (
        text(&message.authorities),
        text(&message.additionals),
        &message.edns,
    );
    (
        reply.len(),
        header,
        format!("{:?} {answers:#?} {rest:#?}", message.queries),
    )
}

/// The reply with the serial of its SOA taken out, since a second may end between two replies.
fn without_serial(reply: &[u8]) -> Vec<u8> {
    let message = Message::from_vec(reply).expect("hickory can read it");
    let mut bytes = reply.to_vec();
    for record in message.answers.iter().chain(&message.authorities) {
        if let RData::SOA(soa) = &record.data {
            let serial = soa.serial.to_be_bytes();
            let at = bytes.windows(4).position(|window| window == serial);
            bytes.splice(at.expect("the serial")..at.expect("the serial") + 4, [0; 4]);
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn a_desk_says_what_the_full_way_says(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        let mut desk = world.desk();
        for event in events {
            match event {
                Event::Scale(name, count) => {
                    world.sizes.insert(name, count);
                    world.publish();
                }
                Event::Stale => world.layer.local().mark_stale(catalog::millis()),
                Event::Fresh => world.layer.local().mark_fresh(),
                Event::Adopt => world.door.router().adopt(policy()),
                Event::Ask(question) => {
                    let (full, made) = world.in_full(&question);
                    let cold = world.at_once(&mut world.desk(), &question);
                    let first = world.at_once(&mut desk, &question);
                    // What only the full way can answer is answered from then on.
                    if first.is_none() && let Some((key, made)) = made {
                        desk.keep(&key, made);
                    }
                    let again = world.at_once(&mut desk, &question);
                    for at_once in [&cold, &first, &again].into_iter().flatten() {
                        prop_assert_eq!(settled(at_once), settled(&full), "{:?}", question);
                    }
                    if let (Some(cold), Some(again)) = (&cold, &again) {
                        prop_assert_eq!(without_serial(cold), without_serial(again));
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_asked_again_was_rendered_before_until_it_changes() {
    let mut world = World::new();
    let mut desk = world.desk();
    let question = Question {
        name: 0,
        qtype: types::SRV,
        upper: 0,
        edns: Some(1232),
        transport: Transport::Udp,
        client: 1,
        recursion_desired: true,
    };
    let hits = |desk: &Desk| desk.counts().hits();
    let first = world.at_once(&mut desk, &question);
    assert_eq!(hits(&desk), 0);
    // Other tests of this process may begin an epoch in between.
    let hit = (0..50).any(|_| {
        assert_eq!(world.at_once(&mut desk, &question), first);
        hits(&desk) > 0
    });
    assert!(hit, "never from the cache");
    world.sizes.insert("web", 4);
    world.publish();
    assert_ne!(world.at_once(&mut desk, &question), first);
}
