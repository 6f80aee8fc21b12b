//! A question asked of a shard that has answered before, of one that has not, and after waiting: the
//! same reply, whatever happened in between.
//!
//! There is one road to an answer, so two ways of making it cannot differ any more. What this can still
//! find: an answer that is kept for too long or under the wrong key, a look that is another after a wait,
//! and a part of an answer (of a zone, an upstream, another service) that its validity forgets.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{Name as HickoryName, RData, Record, RecordType};
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use crate::answers::{Domains, Settings};
use crate::catalog::{Catalog, Health, Instance, Kind, Layer, Node, Service, ServiceKey, Weights};
use crate::dns::{Name, types};
use crate::recursion::{self, Recursor};
use crate::router::{Asker, Policy, Resolved};
use crate::zones::Zones;

use super::cache::Key;
use super::metrics::Counts;
use super::responder::{Handled, Shard};
use super::*;

const NAMES: [&str; 30] = [
    "web.service.consul",
    "v1.web.service.consul",
    "_web._tcp.service.consul",
    "db.service.consul",
    "db.service.dc1.consul",
    "db.service.dc9.consul",
    "none.service.consul",
    "legacy.service.consul",
    "alien.service.consul",
    "ring.service.consul",
    "n1.node.consul",
    "n9.node.consul",
    "0a000001.addr.dc1.consul",
    "consul",
    "service.consul",
    "1.0.0.10.in-addr.arpa",
    "host.corp.test",
    "www.corp.test",
    "deep.corp.test",
    "out.corp.test",
    "back.corp.test",
    "gone.corp.test",
    "s.corp.test",
    "mx.corp.test",
    "nothing.corp.test",
    "plain.example.org",
    "www.example.org",
    "cdn.example.org",
    "open.example.org",
    "nothing.example.org",
];

/// A zone with aliases and hosts in all directions.
const ZONE: &str = "\
$TTL 60
@ SOA ns admin 1 2 3 4 60
host A 10.9.9.9
host AAAA 2001:db8::9
www CNAME web.service.consul.
deep CNAME www
out CNAME www.example.org.
back CNAME ring.service.consul.
gone CNAME none.service.consul.
s SRV 0 0 80 web.service.consul.
s SRV 0 0 81 plain.example.org.
mx MX 10 db.service.consul.
";

/// What the upstream says to each name, and a lie about ours behind two of its aliases.
fn upstream(question: &str) -> Vec<(&str, RData)> {
    let alias = |target: &str| RData::CNAME(CNAME(hickory(target)));
    let address = |last| RData::A(A::new(198, 51, 100, last));
    match question {
        "plain.example.org." => vec![(question, address(1))],
        "www.example.org." => vec![
            (question, alias("web.service.consul.")),
            ("web.service.consul.", address(66)),
        ],
        "cdn.example.org." => vec![
            (question, alias("host.corp.test.")),
            ("host.corp.test.", address(66)),
        ],
        "open.example.org." => vec![(question, alias("plain.example.org."))],
        _ => Vec::new(),
    }
}

fn hickory(text: &str) -> HickoryName {
    HickoryName::from_ascii(text).expect("a name")
}

/// Answers until the test is over.
fn start_upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let query = Message::from_vec(&buffer[..length]).expect("a query");
            let question = query.queries.first().expect("a question").clone();
            let name = question.name().to_ascii().to_lowercase();
            let mut reply = Message::response(query.metadata.id, OpCode::Query);
            let said = upstream(&name);
            let is_said = |data: &RData| {
                matches!(data, RData::CNAME(_)) || question.query_type() == RecordType::A
            };
            for (owner, data) in said.iter().filter(|(_, data)| is_said(data)) {
                reply.add_answer(Record::from_rdata(hickory(owner), 600, data.clone()));
            }
            if reply.answers.is_empty() {
                if said.is_empty() {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                }
                let soa = SOA::new(hickory("ns."), hickory("admin."), 1, 2, 3, 4, 300);
                reply.add_authority(Record::from_rdata(
                    hickory("example.org."),
                    300,
                    RData::SOA(soa),
                ));
            }
            reply.add_query(question);
            let reply = reply.to_vec().expect("a reply");
            let _ = socket.send_to(&reply, peer);
        }
    });
    address
}

const TYPES: [u16; 8] = [
    types::A,
    types::AAAA,
    types::SRV,
    types::ANY,
    types::TXT,
    types::SOA,
    types::PTR,
    types::MX,
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
    recursor: Arc<Recursor>,
    router: Arc<Router>,
    responder: Responder,
    runtime: Runtime,
}

/// One client of three may recurse.
fn policy(recursor: &Arc<Recursor>) -> Policy {
    let domain = Name::from_text("consul").expect("a valid name");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("corp.test.zone"), ZONE).expect("a file");
    Policy {
        domains: Domains::new(&domain, None),
        answers: Settings::default(),
        zones: Zones::load(directory.path()).expect("a good zone"),
        recursor: Some(Arc::clone(recursor)),
        recursion_for: vec!["127.0.0.1/32".parse().expect("a network")],
    }
}

fn node() -> Arc<Node> {
    Arc::new(Node {
        name: "n1".to_owned(),
        datacenter: "dc1".to_owned(),
        address: "10.1.0.1".to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
    })
}

const ROOM: cache::Room = cache::Room {
    house: 1 << 20,
    outside: 1 << 20,
};

impl World {
    fn new(upstream: SocketAddr) -> Self {
        let mut catalog = Catalog::new();
        let layer = catalog.add_complete("test", "dc1");
        let mut registry = Registry::default();
        let settings = recursion::Settings::default();
        let metrics = recursion::Metrics::register(&mut registry);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        let recursor = Recursor::new(
            &[upstream.into()],
            settings,
            None,
            runtime.handle(),
            metrics,
        );
        let recursor = Arc::new(recursor.expect("good settings"));
        let router = Arc::new(Router::new(Arc::new(catalog), policy(&recursor)));
        let world = Self {
            layer,
            sizes: HashMap::from([("web", 3), ("db", 2)]),
            recursor,
            responder: Responder::new(Arc::clone(&router), Metrics::new(&mut registry)),
            router,
            runtime,
        };
        world.publish();
        world
    }

    /// So many instances, some with a tag and some elsewhere.
    fn instances(count: usize) -> Service {
        let node = node();
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
        Service::new((0..count).map(instance).collect())
    }

    /// The service has that many instances from now on.
    fn scale(&mut self, name: &'static str, count: usize) {
        let before = self.sizes.insert(name, count).unwrap_or_default();
        let local = self.layer.local();
        let key = ServiceKey::new(Kind::Service, name);
        let loaded = local.loaded().into_iter().find(|(own, _)| *own == key);
        match loaded {
            // One that stays is published alone, as by a source that watches it.
            Some((key, slot)) if before > 0 && count > 0 => {
                local.publish(&key, &slot, Self::instances(count));
            }
            _ => self.publish(),
        }
    }

    fn publish(&self) {
        let services = self.sizes.iter().filter(|(_, count)| **count > 0);
        let services = services.map(|(name, count)| {
            let key = ServiceKey::new(Kind::Service, name);
            (key, Self::instances(*count))
        });
        // Services at hosts that others know: a zone, an upstream, and a zone that leads back.
        let at_host = |name: &'static str, host: &str| {
            let instance = Instance {
                address: host.to_owned(),
                ..Self::instances(1).instances()[0].clone()
            };
            (
                ServiceKey::new(Kind::Service, name),
                Service::new(vec![instance]),
            )
        };
        let services = services.chain([
            at_host("legacy", "host.corp.test"),
            at_host("alien", "plain.example.org"),
            at_host("ring", "back.corp.test"),
        ]);
        let local = self.layer.local();
        local.publish_all(services.collect(), vec![node()]);
    }

    fn shard(&self) -> Shard {
        self.responder.shard(ROOM, Transport::Udp)
    }

    fn at_once(&self, shard: &mut Shard, question: &Question) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        shard.begin();
        shard.turn(5);
        // Within the runtime, where what has to be fetched would be.
        let _runtime = self.runtime.enter();
        let handled =
            self.responder
                .at_once(shard, &question.request(), question.asker(), &mut out);
        shard.end();
        match handled {
            Handled::Replied => Some(out),
            Handled::Later(_) => None,
            Handled::Ignored => panic!("{question:?} is ignored"),
        }
    }

    /// The reply, at once or later, and what may be kept of a later one.
    fn in_full(&self, question: &Question) -> (Vec<u8>, Option<(Key, Resolved)>) {
        let mut out = Vec::new();
        let request = question.request();
        let asker = question.asker();
        let mut shard = self.shard();
        shard.begin();
        shard.turn(5);
        self.runtime.block_on(async {
            match self
                .responder
                .at_once(&mut shard, &request, asker, &mut out)
            {
                Handled::Later(waiting) => {
                    let counts = Counts::new(Transport::Udp);
                    let later = self.responder.later(
                        &counts,
                        &request,
                        asker,
                        waiting,
                        || std::future::ready(()),
                        &mut out,
                    );
                    let kept = later.await.and_then(|(kept, ())| kept);
                    (out, kept)
                }
                Handled::Replied => (out, None),
                Handled::Ignored => panic!("{question:?} is ignored"),
            }
        })
    }
}

impl Question {
    fn asker(&self) -> Asker {
        Asker::new(IpAddr::from([127, 0, 0, self.client]), self.transport)
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
    let text = |records: &[Record]| {
        let record = |record: &Record| match &record.data {
            RData::SOA(soa) => format!("{} SOA {} {}", record.name, soa.mname, soa.minimum),
            // An upstream's TTLs run down.
            data if record.name.to_string().ends_with("example.org.") => {
                format!("{} {data}", record.name)
            }
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

/// Asks, and compares what is said at once, after waiting, and again.
fn ask(world: &World, shard: &mut Shard, question: &Question) -> Result<(), TestCaseError> {
    let (full, _) = world.in_full(question);
    let cold = world.at_once(&mut world.shard(), question);
    let first = world.at_once(shard, question);
    if first.is_none() {
        // What had to be waited for is at hand from then on, if it may be kept at all.
        let (later, kept) = world.in_full(question);
        prop_assert_eq!(settled(&later), settled(&full), "{:?}", question);
        if let Some((key, resolved)) = kept {
            shard.keep(&key, resolved);
        }
    }
    let again = world.at_once(shard, question);
    for at_once in [&cold, &first, &again].into_iter().flatten() {
        prop_assert_eq!(settled(at_once), settled(&full), "{:?}", question);
    }
    if let (Some(cold), Some(again)) = (&cold, &again)
        && !NAMES[question.name].ends_with("example.org")
    {
        prop_assert_eq!(without_serial(cold), without_serial(again));
    }
    Ok(())
}

#[test]
fn a_shard_says_what_is_said_to_a_new_one() {
    let upstream = start_upstream();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(192));
    let histories = prop::collection::vec(event(), 1..60);
    let ran = runner.run(&histories, |events| {
        let mut world = World::new(upstream);
        let mut shard = world.shard();
        for event in events {
            match event {
                Event::Scale(name, count) => world.scale(name, count),
                Event::Stale => {
                    let now = world.router.versions().millis();
                    world.layer.local().mark_stale(now);
                }
                Event::Fresh => world.layer.local().mark_fresh(),
                Event::Adopt => world.router.adopt(policy(&world.recursor)),
                Event::Ask(question) => ask(&world, &mut shard, &question)?,
            }
        }
        Ok(())
    });
    if let Err(error) = ran {
        panic!("{error}");
    }
}

#[test]
fn what_is_asked_again_was_rendered_before_until_it_changes() {
    let mut world = World::new(start_upstream());
    let mut shard = world.shard();
    for name in ["web.service.consul", "www.corp.test"] {
        let question = Question {
            name: NAMES.iter().position(|own| *own == name).expect("known"),
            qtype: types::SRV,
            upper: 0,
            edns: Some(1232),
            transport: Transport::Udp,
            client: 1,
            recursion_desired: true,
        };
        let before = shard.counts().hits();
        let first = world.at_once(&mut shard, &question);
        assert_eq!(shard.counts().hits(), before, "{name}");
        assert_eq!(world.at_once(&mut shard, &question), first);
        assert_eq!(shard.counts().hits(), before + 1, "{name}");
        world.scale("web", 4 + world.sizes["web"]);
        assert_ne!(world.at_once(&mut shard, &question), first, "{name}");
    }
}
