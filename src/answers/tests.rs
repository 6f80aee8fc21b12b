//! The room as a whole: a catalog and a question in, the reply's bytes out, read back by hickory.
//! Here: what each name answers. In `sizes`: what is left when not all fits.

mod sizes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

use crate::catalog::{
    Basis, Catalog, Health, Instance, Kind, Layer, Node, Reader, Service, ServiceKey,
    TaggedAddress, Weights,
};
use crate::names::{Domains, Name, Query, types};

use super::*;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 8, 7));

const MOMENT: Moment = Moment {
    now: 0,
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
    let layer = Layer::complete("test", "dc1");
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
    Catalog::new(vec![layer])
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
    let query = Query::parse(&request).expect("well-formed");
    let domains = Domains::new(&Name::from_text("consul").expect("a valid name"), None);
    let (domain, lookup) = domains
        .parse(name.as_wire(), qtype)
        .expect("below the domain");
    let asked = Asked::new(domain, &name, qtype, MOMENT, client.address);
    let reader = Reader::new(catalog, Basis::begin());
    let maker = Maker {
        catalog: &reader,
        settings,
        domains: &domains,
    };
    let Step::Answer(answer) = maker.answer(&lookup, &asked) else {
        panic!("a complete layer never waits");
    };
    let mut out = Vec::new();
    Rendered::new(&answer, &name).write(
        &Reply {
            id: query.id,
            question: query.question(),
            recursion_desired: true,
            checking_disabled: false,
            recursion_available: false,
            transport: client.transport,
            max_udp_size: 65507,
            edns: client.edns.map(|client_size| ReplyEdns {
                client_size,
                own_size: 1232,
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
