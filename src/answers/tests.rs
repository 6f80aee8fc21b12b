//! The room as a whole: a catalog and a question in, the reply's bytes out, read back by hickory.
//! First what each name answers, then what is left when not all fits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use proptest::prelude::*;

use crate::catalog::{
    Catalog, Health, Instance, Kind, NamedPort, Node, Patience, Service, ServiceKey, TaggedAddress,
    Weights,
};
use crate::dns::{Name, Rendered, Reply, ReplyEdns, Request, Transport, types};

use super::*;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 8, 7));

const MOMENT: Moment = Moment {
    serial: 7,
    serial_ends: u64::MAX,
};

fn node(name: &str, address: &str) -> Node {
    Node {
        name: name.to_owned(),
        datacenter: "dc1".to_owned(),
        address: address.to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
    }
}

fn instance(id: usize, address: &str, node: &Arc<Node>) -> Instance {
    Instance {
        id: format!("i{id}"),
        address: address.to_owned(),
        tagged_addresses: BTreeMap::new(),
        port: 8000,
        ports: Vec::new(),
        tags: Vec::new(),
        weights: Weights::default(),
        health: Health::Passing,
        node: Arc::clone(node),
    }
}

/// Instances 10.0.x.y, each with an address of its own.
fn fleet(count: usize) -> Vec<Instance> {
    let node = Arc::new(node("n1", "10.1.0.1"));
    (0..count)
        .map(|at| instance(at, &format!("10.0.{}.{}", at / 256, at % 256), &node))
        .collect()
}

fn catalog(services: Vec<(&str, Vec<Instance>)>, nodes: Vec<Node>) -> Catalog {
    let mut catalog = Catalog::new();
    let layer = catalog.add_complete("test", "dc1");
    let services: HashMap<ServiceKey, Service> = services
        .into_iter()
        .map(|(name, instances)| {
            (
                ServiceKey::new(Kind::Service, name),
                Service::new(instances),
            )
        })
        .collect();
    layer
        .local()
        .publish_all(services, nodes.into_iter().map(Arc::new).collect());
    catalog
}

struct Client {
    edns: Option<u16>,
    transport: Transport,
    address: IpAddr,
    rotation: usize,
}

const UDP_4096: Client = Client {
    edns: Some(4096),
    transport: Transport::Udp,
    address: CLIENT,
    rotation: 0,
};

fn reply_bytes(
    catalog: &Catalog,
    settings: &Settings,
    ask: (&str, u16),
    client: &Client,
) -> Vec<u8> {
    let (text, qtype) = ask;
    let name = Name::from_text(text).expect("a valid name");
    let mut request = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    request.extend_from_slice(name.as_wire());
    request.extend_from_slice(&qtype.to_be_bytes());
    request.extend_from_slice(&[0, 1]);
    let query = Request::parse(&request).expect("well-formed");
    let domains = Domains::new(&Name::from_text("consul").expect("a valid name"), None);
    let (domain, lookup) = domains
        .parse(name.as_wire(), qtype)
        .expect("below the domain");
    let asked = Asked {
        domain,
        name: &name,
        qtype,
        moment: MOMENT,
        patience: Patience::Some,
        client: client.address,
        by_alias: false,
    };
    let maker = Maker {
        catalog: &catalog.read(),
        settings,
    };
    let answer = maker.answer(&lookup, &asked);
    let answer = answer.expect("a complete layer never waits");
    let mut out = Vec::new();
    Rendered::new(&answer, &name).write(
        &Reply {
            id: query.id,
            question: query.question(),
            recursion_desired: true,
            wants_authentic: false,
            checking_disabled: false,
            recursion_available: false,
            transport: client.transport,
            max_udp_size: 65507,
            edns: client.edns.map(|client_size| ReplyEdns {
                client_size,
                own_size: 1232,
                dnssec_ok: false,
                client_subnet: None,
            }),
            client: client.address,
            rotation: client.rotation,
            elapsed: 0,
        },
        &mut out,
    );
    out
}

fn ask(catalog: &Catalog, name: &str, qtype: u16, client: &Client) -> Message {
    let bytes = reply_bytes(catalog, &Settings::default(), (name, qtype), client);
    Message::from_vec(&bytes).expect("a reply that hickory can read")
}

/// Answers as `TYPE data`, sorted.
fn data(message: &Message) -> Vec<String> {
    let mut data: Vec<String> = message
        .answers
        .iter()
        .map(|record| format!("{} {}", record.record_type(), record.data))
        .collect();
    data.sort();
    data
}

fn targets(message: &Message) -> Vec<String> {
    let target = |record: &hickory_proto::rr::Record| match &record.data {
        RData::SRV(srv) => Some(srv.target.to_string()),
        _ => None,
    };
    message.answers.iter().filter_map(target).collect()
}

/// Address records of the Additional section, in order.
fn glue(message: &Message) -> Vec<(String, RecordType, String)> {
    message
        .additionals
        .iter()
        .map(|record| {
            let name = record.name.to_string();
            (name, record.record_type(), record.data.to_string())
        })
        .collect()
}

#[test]
fn each_srv_record_has_its_address_in_order_and_opt_is_last() {
    let host = Arc::new(node("n1", "10.1.0.1"));
    // Three ports on one node: the same target three times, so its address three times.
    let mut instances: Vec<Instance> = (0..3).map(|at| instance(at, "", &host)).collect();
    for (at, instance) in instances.iter_mut().enumerate() {
        instance.port = 9000 + at as u16;
    }
    let catalog = catalog(vec![("web", instances)], vec![node("n1", "10.1.0.1")]);
    let bytes = reply_bytes(
        &catalog,
        &Settings::default(),
        ("web.service.consul", types::SRV),
        &UDP_4096,
    );
    let message = Message::from_vec(&bytes).expect("readable");
    assert_eq!(targets(&message), ["n1.node.dc1.consul."; 3]);
    let expected = (
        "n1.node.dc1.consul.".to_owned(),
        RecordType::A,
        "10.1.0.1".to_owned(),
    );
    assert_eq!(
        glue(&message),
        [expected.clone(), expected.clone(), expected]
    );
    assert_eq!(
        bytes[bytes.len() - 11..],
        [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn both_families_under_one_target_a_before_aaaa() {
    let mut dual = node("n1", "10.1.0.1");
    let tagged = |address: &str| TaggedAddress {
        address: address.to_owned(),
        port: 0,
    };
    dual.tagged_addresses
        .insert("lan_ipv4".to_owned(), tagged("10.1.0.1"));
    dual.tagged_addresses
        .insert("lan_ipv6".to_owned(), tagged("2001:db8::1"));
    let dual = Arc::new(dual);
    let mut second = instance(2, "", &dual);
    second.port = 9;
    let catalog = catalog(
        vec![("web", vec![instance(1, "", &dual), second])],
        Vec::new(),
    );
    let message = ask(&catalog, "web.service.consul", types::SRV, &UDP_4096);
    let families: Vec<RecordType> = glue(&message)
        .iter()
        .map(|(_, family, _)| *family)
        .collect();
    assert_eq!(
        families,
        [
            RecordType::A,
            RecordType::A,
            RecordType::AAAA,
            RecordType::AAAA
        ]
    );
    assert!(
        glue(&message)
            .iter()
            .all(|(owner, ..)| *owner == targets(&message)[0])
    );
}

#[test]
fn what_names_answer() {
    let host = Arc::new(node("N1", "10.1.0.1"));
    let mut web = fleet(2);
    web[0].tags = vec!["Primary".to_owned(), "ver.1.2".to_owned()];
    web[1].health = Health::Warning;
    web[1].weights = Weights {
        passing: 9,
        warning: 3,
    };
    let mut sick = fleet(1);
    sick[0].health = Health::Critical;
    let mut described = node("db.1", "10.1.0.9");
    described.meta.insert("rack".to_owned(), "7".to_owned());
    let catalog = catalog(
        vec![
            ("web", web),
            ("sick", sick),
            ("bare", vec![instance(0, "", &host)]),
            ("ext", vec![instance(0, "www.example.com", &host)]),
        ],
        vec![node("N1", "10.1.0.1"), described],
    );
    const NODATA: &[&str] = &[];
    let nx = ResponseCode::NXDomain;
    let ok = ResponseCode::NoError;
    let srv = |weight, hex| format!("SRV 1 {weight} 8000 {hex}.addr.dc1.consul.");
    let (first, second) = (srv(1, "0a000000"), srv(3, "0a000001"));
    let cases: &[(&str, u16, ResponseCode, &[&str])] = &[
        (
            "web.service.consul",
            types::A,
            ok,
            &["A 10.0.0.0", "A 10.0.0.1"],
        ),
        ("WEB.service.dc1.consul", types::SRV, ok, &[&first, &second]),
        ("web.service.consul", types::AAAA, ok, NODATA),
        ("web.service.consul", types::TXT, ok, NODATA),
        ("primary.web.service.consul", types::A, ok, &["A 10.0.0.0"]),
        ("VER.1.2.web.service.consul", types::A, ok, &["A 10.0.0.0"]),
        ("1.2.web.service.consul", types::A, ok, NODATA),
        ("other.web.service.consul", types::A, nx, NODATA),
        ("_web._primary.service.consul", types::SRV, ok, &[&first]),
        ("_web._tcp.consul", types::A, ok, NODATA),
        ("_web._udp.service.consul", types::SRV, nx, NODATA),
        ("sick.service.consul", types::A, nx, NODATA),
        ("nope.service.consul", types::A, nx, NODATA),
        ("web.service.dc9.consul", types::A, nx, NODATA),
        (
            "bare.service.consul",
            types::SRV,
            ok,
            &["SRV 1 1 8000 n1.node.dc1.consul."],
        ),
        (
            "ext.service.consul",
            types::A,
            ok,
            &["CNAME www.example.com."],
        ),
        ("n1.node.consul", types::A, ok, &["A 10.1.0.1"]),
        ("n1.node.consul", types::AAAA, ok, NODATA),
        ("nope.node.consul", types::SRV, nx, NODATA),
        ("db.1.node.consul", types::TXT, ok, &["TXT rack=7"]),
        (
            "db.1.node.consul",
            types::ANY,
            ok,
            &["A 10.1.0.9", "TXT rack=7"],
        ),
        ("1.node.consul", types::A, ok, NODATA),
        ("0a010203.addr.dc1.consul", types::A, ok, &["A 10.1.2.3"]),
        ("0a010203.addr.dc1.consul", types::AAAA, ok, NODATA),
        ("consul", types::A, ok, NODATA),
        ("service.consul", types::A, ok, NODATA),
        ("dc1.consul", types::A, ok, NODATA),
        ("dc9.consul", types::A, nx, NODATA),
    ];
    for (name, qtype, rcode, expected) in cases {
        let message = ask(&catalog, name, *qtype, &UDP_4096);
        assert_eq!(message.metadata.response_code, *rcode, "{name}");
        assert!(message.metadata.authoritative, "{name}");
        assert_eq!(data(&message), *expected, "{name}");
        let soa = message
            .authorities
            .iter()
            .filter(|r| r.record_type() == RecordType::SOA);
        assert_eq!(
            soa.count(),
            usize::from(expected.is_empty()),
            "{name}: a SOA if negative"
        );
    }
}

#[test]
fn the_set_of_name_servers_comes_with_addresses() {
    let server = node("Srv-1", "10.1.0.1");
    let consul = vec![instance(0, "", &Arc::new(server.clone()))];
    let catalog = catalog(vec![("consul", consul)], vec![server]);
    let message = ask(&catalog, "any.name.consul", types::NS, &UDP_4096);
    assert_eq!(data(&message), ["NS srv-1.node.dc1.consul."]);
    assert_eq!(glue(&message)[0].0, "srv-1.node.dc1.consul.");
    let message = ask(&catalog, "consul", types::SOA, &UDP_4096);
    assert_eq!(message.answers[0].record_type(), RecordType::SOA);
    assert_eq!(message.authorities[0].record_type(), RecordType::NS);
    assert_eq!(glue(&message)[0].0, "srv-1.node.dc1.consul.");
}

#[test]
fn addresses_rotate_only_while_all_fit() {
    let fits = catalog(vec![("web", fleet(3))], Vec::new());
    let first = |catalog: &Catalog, rotation| {
        let client = Client {
            rotation,
            ..UDP_4096
        };
        let message = ask(catalog, "web.service.consul", types::A, &client);
        message.answers[0].data.to_string()
    };
    let firsts: BTreeSet<String> = (0..3).map(|turn| first(&fits, turn)).collect();
    assert_eq!(firsts.len(), 3);
    let cut = catalog(vec![("web", fleet(1000))], Vec::new());
    assert_eq!(first(&cut, 0), first(&cut, 1));
}

#[test]
fn truncation_is_said_for_srv_and_not_for_addresses_or_glue() {
    let big = catalog(vec![("web", fleet(200))], Vec::new());
    let cut = |qtype, size| {
        let client = Client {
            edns: size,
            ..UDP_4096
        };
        let message = ask(&big, "web.service.consul", qtype, &client);
        (
            message.answers.len(),
            message.additionals.len(),
            message.metadata.truncation,
        )
    };
    assert!(!cut(types::A, Some(1232)).2);
    assert_eq!(cut(types::SRV, Some(8192)), (135, 135, true));
    // All 200 SRV records fit, their glue does not.
    let (answers, glue, truncated) = cut(types::SRV, Some(9000));
    assert_eq!((answers, truncated), (200, false));
    assert!(glue > 0 && glue < 200);
    assert_eq!(cut(types::SRV, Some(65535)), (200, 200, false));
    assert!(cut(types::SRV, None).2);
    let tc = Settings {
        truncate_addresses: true,
        ..Settings::default()
    };
    let client = Client {
        edns: None,
        ..UDP_4096
    };
    let bytes = reply_bytes(&big, &tc, ("web.service.consul", types::A), &client);
    assert!(
        Message::from_vec(&bytes)
            .expect("readable")
            .metadata
            .truncation
    );
}

/// Records are the same if node, address and port are, as they are served and not as they were registered.
#[test]
fn srv_records_are_told_apart_by_what_they_say() {
    let one = Arc::new(node("n1", "10.0.0.1"));
    let tagged = |address: &str| {
        let address = TaggedAddress {
            address: address.to_owned(),
            port: 0,
        };
        BTreeMap::from([("lan_ipv4".to_owned(), address)])
    };
    let ports = |ports: &[(&str, u16, bool)]| {
        let port = |(name, port, default): &(&str, u16, bool)| NamedPort {
            name: (*name).to_owned(),
            port: *port,
            default: *default,
        };
        ports.iter().map(port).collect::<Vec<_>>()
    };
    let plain = |id| Instance {
        address: String::new(),
        port: 80,
        ..instance(id, "", &one)
    };
    let at = |id, address: &str| Instance {
        tagged_addresses: tagged(address),
        ..plain(id)
    };
    let several = |id, named: &[(&str, u16, bool)]| Instance {
        port: 0,
        ports: ports(named),
        ..plain(id)
    };
    for (what, instances, expected) in [
        ("the same", vec![plain(1), plain(2)], &[80][..]),
        (
            "two addresses under a tag",
            vec![at(1, "10.3.1.1"), at(2, "10.3.1.2")],
            &[80, 80],
        ),
        (
            "one address under a tag",
            vec![at(1, "10.3.1.1"), at(2, "10.3.1.1")],
            &[80],
        ),
        (
            "nothing but ports with names",
            vec![
                several(1, &[("http", 8080, true), ("admin", 9000, false)]),
                several(2, &[("http", 8081, true)]),
            ],
            &[8080, 8081],
        ),
        (
            "ports without a default",
            vec![several(1, &[("http", 8080, false), ("admin", 9000, false)])],
            &[8080],
        ),
    ] {
        let catalog = catalog(vec![("web", instances)], Vec::new());
        let message = ask(&catalog, "web.service.consul", types::SRV, &UDP_4096);
        let mut served: Vec<u16> = message
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(srv.port),
                _ => None,
            })
            .collect();
        served.sort_unstable();
        assert_eq!(served, expected, "{what}");
    }
}

/// An address that only a tag has says nothing of the other family.
#[test]
fn an_address_under_a_tag_stands_beside_the_nodes() {
    let six = TaggedAddress {
        address: "fd00::6".to_owned(),
        port: 0,
    };
    let tagged = Instance {
        address: String::new(),
        tagged_addresses: BTreeMap::from([("lan_ipv6".to_owned(), six)]),
        ..instance(1, "", &Arc::new(node("n1", "10.0.0.1")))
    };
    let catalog = catalog(vec![("web", vec![tagged])], Vec::new());
    for (qtype, expected) in [(types::A, "10.0.0.1"), (types::AAAA, "fd00::6")] {
        let message = ask(&catalog, "web.service.consul", qtype, &UDP_4096);
        let data: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
        assert_eq!(data, [expected]);
    }
}

/// Where everything is known, the mesh has nothing that is not.
#[test]
fn without_a_mesh_its_names_do_not_exist() {
    let catalog = catalog(vec![("web", fleet(1))], Vec::new());
    for (name, code) in [
        ("nope.connect.consul", ResponseCode::NXDomain),
        ("nope.ingress.consul", ResponseCode::NXDomain),
        ("nope.api-gateway.consul", ResponseCode::NXDomain),
        ("nope.virtual.consul", ResponseCode::NXDomain),
        ("web.service.far.peer.consul", ResponseCode::NXDomain),
        ("web.service.default.ns.consul", ResponseCode::NXDomain),
    ] {
        let message = ask(&catalog, name, types::A, &UDP_4096);
        assert_eq!(message.metadata.response_code, code, "{name}");
    }
}

/// What the operator does not want is no cut, so there is nothing more over TCP; what does not fit is.
#[test]
fn a_limit_is_no_cut() {
    let catalog = catalog(vec![("web", fleet(200))], Vec::new());
    for (transport, edns, limit, answers, truncated) in [
        (Transport::Tcp, None, 5, Some(5), false),
        (Transport::Tcp, None, 0, Some(200), false),
        (Transport::Udp, Some(4096), 5, Some(5), false),
        (Transport::Udp, Some(4096), 0, Some(200), false),
        (Transport::Udp, None, 5, Some(5), false),
        (Transport::Udp, None, 100, None, true),
        (Transport::Udp, Some(1232), 199, None, true),
    ] {
        let settings = Settings {
            truncate_addresses: true,
            a_record_limit: limit,
            ..Settings::default()
        };
        let client = Client {
            transport,
            edns,
            ..UDP_4096
        };
        let bytes = reply_bytes(
            &catalog,
            &settings,
            ("web.service.consul", types::A),
            &client,
        );
        let message = Message::from_vec(&bytes).expect("readable");
        let case = format!("{transport:?} {edns:?}, at most {limit}");
        assert_eq!(message.metadata.truncation, truncated, "{case}");
        assert!(
            answers.is_none_or(|answers| message.answers.len() == answers),
            "{case}: {}",
            message.answers.len()
        );
    }
}

#[test]
fn names_beyond_the_reach_of_a_pointer_are_spelt_out() {
    let catalog = catalog(vec![("web", fleet(800))], Vec::new());
    let tcp = Client {
        transport: Transport::Tcp,
        ..UDP_4096
    };
    let message = ask(&catalog, "web.service.consul", types::SRV, &tcp);
    let owners: Vec<String> = glue(&message)
        .into_iter()
        .map(|(owner, ..)| owner)
        .collect();
    assert_eq!(owners.len(), 800);
    assert!(owners == targets(&message));
    let cut = Client {
        edns: Some(50000),
        ..UDP_4096
    };
    let message = ask(&catalog, "web.service.consul", types::SRV, &cut);
    let owners: Vec<String> = glue(&message)
        .into_iter()
        .map(|(owner, ..)| owner)
        .collect();
    assert!(owners.len() > 500, "{}", owners.len());
    // More answers than owners: there all of the first fit, and not all of the second.
    assert!(owners.iter().all(|owner| targets(&message).contains(owner)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the size: it is kept, the reply can be read, no glue is without its answer, every
    /// kept answer of a cut set has its glue, and the set is this client's own every time.
    #[test]
    fn any_size(count in 1usize..400, size in 0u16..9000, srv in any::<bool>(), client in any::<u32>()) {
        let catalog = catalog(vec![("web", fleet(count))], Vec::new());
        let qtype = if srv { types::SRV } else { types::A };
        let client = Client { edns: Some(size), address: std::net::Ipv4Addr::from(client).into(), ..UDP_4096 };
        let bytes = reply_bytes(&catalog, &Settings::default(), ("web.service.consul", qtype), &client);
        prop_assert!(bytes.len() <= usize::from(size.max(512)));
        let message = Message::from_vec(&bytes).expect("readable");
        prop_assert!(!message.answers.is_empty());
        prop_assert!(message.edns.is_some());
        if srv {
            let targets: BTreeSet<String> = targets(&message).into_iter().collect();
            let owners: BTreeSet<String> = glue(&message).into_iter().map(|(owner, ..)| owner).collect();
            prop_assert!(owners.is_subset(&targets));
            if message.metadata.truncation {
                prop_assert_eq!(owners, targets);
            }
        }
        let again = Client { rotation: 5, ..client };
        let again = ask(&catalog, "web.service.consul", qtype, &again);
        prop_assert_eq!(data(&message), data(&again));
    }

    /// One instance less moves a cut set by at most one record, and clients differ.
    #[test]
    fn a_cut_set_hardly_moves(count in 60usize..150, gone in 0usize..60) {
        let ask_fleet = |instances: Vec<Instance>, address: [u8; 4]| {
            let catalog = catalog(vec![("web", instances)], Vec::new());
            let client = Client { edns: Some(1232), address: address.into(), ..UDP_4096 };
            let message = ask(&catalog, "web.service.consul", types::SRV, &client);
            data(&message).into_iter().collect::<BTreeSet<_>>()
        };
        let before = ask_fleet(fleet(count), [10, 0, 0, 1]);
        let mut fewer = fleet(count);
        fewer.remove(gone);
        let after = ask_fleet(fewer, [10, 0, 0, 1]);
        prop_assert!(before.difference(&after).count() <= 1);
        prop_assert!(after.difference(&before).count() <= 1);
        prop_assert_ne!(before, ask_fleet(fleet(count), [10, 0, 0, 2]));
    }
}
