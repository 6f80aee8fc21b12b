//! What the steps of an answer cost: reading a question, making and rendering an answer, and writing
//! it for a client, whole or cut. `cargo bench --bench micro`.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use portolan::answers::{Asked, Domains, Maker, Moment, Settings};
use portolan::catalog::{
    Catalog, Health, Instance, Kind, Node, Patience, Service, ServiceKey, Weights,
};
use portolan::dns::{Answer, Name, Rendered, Reply, ReplyEdns, Request, Transport, types};

/// Instances of a service.
const COUNTS: [u32; 3] = [3, 60, 1000];

/// The size for which an answer is cut, in bytes.
const SMALL: u16 = 1232;

/// The size for which none is.
const LARGE: u16 = 65_507;

const NAME: &str = "web.service.consul";

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const MOMENT: Moment = Moment {
    serial: 1,
    serial_ends: u64::MAX,
};

/// A catalog with one service.
fn catalog(instances: u32) -> Catalog {
    let node = Arc::new(Node {
        name: "n1".to_owned(),
        datacenter: "dc1".to_owned(),
        address: "10.255.0.1".to_owned(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
    });
    let instance = |number: u32| Instance {
        id: format!("web-{number}"),
        address: Ipv4Addr::from(0x0a00_0001 + number).to_string(),
        tagged_addresses: BTreeMap::new(),
        port: 8080,
        ports: Vec::new(),
        tags: Vec::new(),
        weights: Weights::default(),
        health: Health::Passing,
        node: Arc::clone(&node),
    };
    let service = Service::new((0..instances).map(instance).collect());
    let mut catalog = Catalog::new();
    let layer = catalog.add_complete("bench", "dc1");
    let services = HashMap::from([(ServiceKey::new(Kind::Service, "web"), service)]);
    layer.local().publish_all(services, vec![node]);
    catalog
}

/// The full way to an answer, up to its rendering.
fn answer(catalog: &Catalog, domains: &Domains, settings: &Settings, name: &Name) -> Answer {
    let parsed = domains.parse(name.as_wire(), types::SRV);
    let (domain, lookup) = parsed.expect("below the domain");
    let maker = Maker {
        catalog: &catalog.read(),
        settings,
    };
    let asked = Asked {
        domain,
        name,
        qtype: types::SRV,
        moment: MOMENT,
        patience: Patience::Some,
        client: CLIENT,
        by_alias: false,
    };
    let answer = maker.answer(&lookup, &asked);
    answer.expect("a complete layer never waits")
}

/// A query for SRV records from a client that takes so many bytes.
fn request(size: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    bytes.extend(name().as_wire());
    bytes.extend(types::SRV.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend([0, 0, 41]);
    bytes.extend(size.to_be_bytes());
    bytes.extend([0; 6]);
    bytes
}

fn reply<'a>(query: &Request<'a>) -> Reply<'a> {
    Reply {
        id: query.id,
        question: query.question(),
        recursion_desired: query.recursion_desired,
        wants_authentic: false,
        checking_disabled: query.checking_disabled,
        recursion_available: false,
        transport: Transport::Udp,
        max_udp_size: LARGE,
        edns: query.edns.map(|edns| ReplyEdns {
            client_size: edns.udp_size,
            own_size: 1232,
            dnssec_ok: false,
            client_subnet: None,
        }),
        client: CLIENT,
        rotation: 0,
        elapsed: 0,
    }
}

fn name() -> Name {
    Name::from_text(NAME).expect("a valid name")
}

fn domains() -> Domains {
    Domains::new(&Name::from_text("consul").expect("a valid name"), None)
}

fn parse(criterion: &mut Criterion) {
    let request = request(SMALL);
    criterion.bench_function("parse/query", |bencher| {
        bencher.iter(|| Request::parse(black_box(&request)).is_ok());
    });
    let (name, domains) = (name(), domains());
    criterion.bench_function("parse/name", |bencher| {
        bencher.iter(|| {
            let parsed = domains.parse(black_box(name.as_wire()), types::SRV);
            parsed.is_some()
        });
    });
}

fn render(criterion: &mut Criterion) {
    let (name, domains, settings) = (name(), domains(), Settings::default());
    for count in COUNTS {
        let catalog = catalog(count);
        let id = format!("answer/{count}");
        criterion.bench_function(&id, |bencher| {
            bencher.iter(|| answer(&catalog, &domains, &settings, &name));
        });
        let answer = answer(&catalog, &domains, &settings, &name);
        let id = format!("render/{count}");
        criterion.bench_function(&id, |bencher| {
            bencher.iter(|| Rendered::new(black_box(&answer), &name));
        });
    }
}

fn write(criterion: &mut Criterion) {
    let (name, domains, settings) = (name(), domains(), Settings::default());
    let (small, large) = (request(SMALL), request(LARGE));
    let small = reply(&Request::parse(&small).expect("well-formed"));
    let large = reply(&Request::parse(&large).expect("well-formed"));
    for count in COUNTS {
        let answer = answer(&catalog(count), &domains, &settings, &name);
        let rendered = Rendered::new(&answer, &name);
        let mut out = Vec::with_capacity(usize::from(LARGE));
        // 1000 instances are more than any datagram takes.
        if rendered.fits(&large) {
            let id = format!("write/whole/{count}");
            criterion.bench_function(&id, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    rendered.write(black_box(&large), &mut out);
                });
            });
        }
        if rendered.fits(&small) {
            continue;
        }
        // The first time a client asks, and every other time.
        let id = format!("cut/first/{count}");
        criterion.bench_function(&id, |bencher| {
            bencher.iter(|| rendered.excerpt(black_box(&small)));
        });
        let part = rendered.excerpt(&small);
        let id = format!("cut/again/{count}");
        criterion.bench_function(&id, |bencher| {
            bencher.iter(|| {
                out.clear();
                rendered.write_excerpt(&part, black_box(&small), &mut out);
            });
        });
    }
}

criterion_group!(steps, parse, render, write);
criterion_main!(steps);
