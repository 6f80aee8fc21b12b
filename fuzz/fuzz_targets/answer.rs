//! The whole way of an answer: a query's bytes and a catalog in, a reply's bytes out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan::answers::Lookup;
use portolan::dns::{Answer, Name, Rcode, Request, types};
use portolan_fuzz::checks;
use portolan_fuzz::client::Client;
use portolan_fuzz::contents::Order;
use portolan_fuzz::input::Input;
use portolan_fuzz::show;
use portolan_fuzz::words::{label, text};
use portolan_fuzz::world::{World, is_local};

const TYPES: &[u16] = &[
    types::A,
    types::SRV,
    types::AAAA,
    types::ANY,
    types::CNAME,
    types::TXT,
    types::SOA,
    types::NS,
    types::PTR,
    types::AXFR,
    types::IXFR,
    types::OPT,
    65,
];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let client = Client::read(&mut input);
    let mut replica = input.flag().then(|| input.clone());
    let reply = ask(&mut input, Order::Forwards, &client);
    if let Some(input) = &mut replica {
        let other = ask(input, Order::Backwards, &client);
        assert_eq!(reply, other, "every replica says the same");
    }
});

/// Makes the world that is next in the input, and asks what is next after it.
fn ask(input: &mut Input<'_>, order: Order, client: &Client) -> Option<Vec<u8>> {
    let world = World::read(input, order);
    let qtype = TYPES.get(input.below(16)).copied();
    let qtype = qtype.unwrap_or_else(|| input.u16());
    let name = question(input, &world)?;
    let request = client.request(&name, qtype);
    let query = Request::parse(&request).expect("a well-formed query");
    assert_eq!(query.name(), name);
    let answer = world.answer(&name, qtype, client.address)?;
    show(|| format!("{name} {qtype}\n{:#?}\n{answer:#?}", world.first.services));
    checks::negative(&answer);
    service_exists(&world, &name, qtype, &answer);
    existence(&world, &name, qtype, client, answer.rcode);
    let reply = client.reply(&query);
    Some(checks::send(&answer, &name, &reply))
}

/// Never NXDOMAIN for a service with usable instances (the first promise), and no records of one
/// without.
fn service_exists(world: &World, name: &Name, qtype: u16, answer: &Answer) {
    let Some(Lookup::Service {
        kind,
        name,
        tag,
        scope,
        port: None,
        ..
    }) = world.lookup(name, qtype)
    else {
        return;
    };
    if !is_local(&scope) || matches!(qtype, types::SOA | types::NS | types::AXFR) {
        return;
    }
    match world.has_usable(kind, &name, tag.as_deref()) {
        Some(true) => assert_ne!(answer.rcode, Rcode::NXDOMAIN, "{name} {tag:?}"),
        Some(false) => assert!(answer.answers.is_empty(), "{name} {tag:?}"),
        None => {}
    }
}

/// A name exists or not whatever the type (RFC 2308), and so do all names above it (RFC 8020).
/// Apart are Consul's answers to SOA, NS and AXFR, which do not look at the name; the names of
/// prepared queries, which only Consul knows; and those that exist below what cannot be told to
/// exist: `.addr` in any place, `.virtual` in a peer that looks like a datacenter.
fn existence(world: &World, name: &Name, qtype: u16, client: &Client, rcode: Rcode) {
    let lookup = world.lookup(name, qtype);
    if matches!(qtype, types::SOA | types::NS | types::AXFR)
        || matches!(lookup, None | Some(Lookup::Address(_) | Lookup::Query { .. }))
        || matches!(lookup, Some(Lookup::Virtual { scope, .. }) if scope.peer.is_some())
        // Large services say nothing new here, and each of these answers costs time.
        || world.first.services.values().any(|service| service.instances().len() > 20)
    {
        return;
    }
    let of = |name: &Name, qtype| {
        let answer = world.answer(name, qtype, client.address);
        answer.expect("below a domain").rcode
    };
    let tells = |rcode| matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN);
    for other in [types::A, types::AAAA, types::SRV, types::TXT, types::ANY] {
        let other_rcode = of(name, other);
        assert!(
            rcode == other_rcode || !tells(rcode) || !tells(other_rcode),
            "{name}: {rcode:?} for {qtype}, {other_rcode:?} for {other}"
        );
    }
    if rcode == Rcode::NOERROR {
        let labels: Vec<&[u8]> = name.labels().collect();
        for from in 1..labels.len() {
            let above = Name::from_labels(labels[from..].iter().copied()).expect("shorter");
            if world.lookup(&above, qtype).is_some() {
                let above_rcode = of(&above, qtype);
                assert_ne!(above_rcode, Rcode::NXDOMAIN, "{above} is above {name}");
            }
        }
    }
}

/// A name: mostly one that the catalog could know.
fn question(input: &mut Input<'_>, world: &World) -> Option<Name> {
    let dotted = |text: String| -> Vec<Vec<u8>> {
        text.split('.')
            .map(|label| label.as_bytes().to_vec())
            .collect()
    };
    let form = input.below(10);
    let service = world.first.services.keys().nth(input.below(8));
    let service = service.map_or("web", |key| key.name());
    let mut labels = match form {
        0 => dotted(format!("{service}.service")),
        1 => dotted(format!("{}.{service}.service", text(input))),
        2 => dotted(format!("_{service}._{}", text(input))),
        3 => dotted(format!("_{service}._{}.service", text(input))),
        4 => {
            let nodes = world.first.node_names();
            dotted(format!("{}.node", nodes[input.below(nodes.len())]))
        }
        5 => dotted(format!("{service}.{}", text(input))),
        6 => dotted(format!("{}.1.0.10.in-addr", input.byte())),
        _ => (0..input.below(8)).map(|_| label(input)).collect(),
    };
    let suffix = input.below(16);
    if suffix < 8 {
        labels.extend((0..suffix).map(|_| label(input)));
    }
    let at = input.below(world.domain_names.len() + 1);
    let arpa = Name::from_text("arpa").expect("a valid name");
    let domain = world.domain_names.get(at).unwrap_or(&arpa);
    labels.extend(domain.labels().map(<[u8]>::to_vec));
    if input.flag() {
        for label in &mut labels {
            label.make_ascii_uppercase();
        }
    }
    Name::from_labels(labels.iter().map(Vec::as_slice)).ok()
}
