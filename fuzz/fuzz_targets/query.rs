//! A datagram's bytes: what is read of them, and what the name in them means.
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;
use portolan::answers::{Domains, Lookup, is_reverse, reverse_address};
use portolan::catalog::Kind;
use portolan::dns::{ClientSubnet, Malformed, Name, Rcode, Request, error_reply, types};

static DOMAINS: LazyLock<Domains> = LazyLock::new(|| {
    let name = |text| Name::from_text(text).expect("a valid name");
    Domains::new(&name("consul"), Some(&name("alt.consul")))
});

fuzz_target!(|data: &[u8]| match Request::parse(data) {
    Ok(query) => well_formed(data, &query),
    Err(malformed) => refused(data, malformed),
});

fn refused(data: &[u8], malformed: Malformed) {
    let Some(header) = data.first_chunk::<12>() else {
        assert_eq!(malformed, Malformed::Ignore, "no header");
        return;
    };
    let is_response = header[2] & 0x80 != 0;
    assert_eq!(malformed == Malformed::Ignore, is_response);
    if let Malformed::Refuse { rcode } = malformed {
        let opcode = header[2] & 0x78;
        assert_eq!(rcode, if opcode == 0 { 1 } else { 4 });
        let reply = error_reply(header, Rcode(rcode.into()));
        assert_eq!(reply[..2], header[..2]);
        assert_eq!(
            (reply[2], reply[3] & 0x0F),
            (0x80 | header[2] & 0x79, rcode)
        );
        assert_eq!(reply[4..], [0; 8]);
    }
}

fn well_formed(data: &[u8], query: &Request<'_>) {
    let question = query.question();
    assert_eq!(question, &data[12..12 + question.len()], "as it was asked");
    assert_eq!(query.id.to_be_bytes(), data[..2]);
    let name = query.name();
    assert_eq!(name.as_wire(), query.name_wire());
    assert_eq!(question.len(), name.as_wire().len() + 4);
    let again = Name::from_labels(name.labels()).expect("a name within its limits");
    assert_eq!(again, name);
    assert!(!name.to_string().is_empty());
    rebuilt(query);
    second_opinion(data, query);
    meaning(&name, query.qtype());
}

/// A request with the same content is the same query.
fn rebuilt(query: &Request<'_>) {
    let mut bytes = query.id.to_be_bytes().to_vec();
    let flags = [
        query.recursion_desired.into(),
        u8::from(query.authentic_data) << 5 | u8::from(query.checking_disabled) << 4,
    ];
    bytes.extend_from_slice(&flags);
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, query.edns.is_some().into()]);
    bytes.extend_from_slice(query.question());
    if let Some(edns) = query.edns {
        let mut options = Vec::new();
        if let Some(subnet) = edns.client_subnet {
            subnet.write(false, &mut options);
            assert_eq!(options.len(), subnet.option_length());
            has_only_its_prefix(subnet);
        }
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&edns.udp_size.to_be_bytes());
        let dnssec_ok = u8::from(edns.dnssec_ok) << 7;
        bytes.extend_from_slice(&[0, edns.version, dnssec_ok, 0, 0, options.len() as u8]);
        bytes.extend_from_slice(&options);
    }
    assert_eq!(Request::parse(&bytes).as_ref(), Ok(query));
}

/// RFC 7871 section 6: the bits of the address behind the prefix are 0.
fn has_only_its_prefix(subnet: ClientSubnet) {
    let (bits, width) = match subnet.address {
        IpAddr::V4(ip) => (u32::from(ip).into(), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let behind = width - u32::from(subnet.prefix);
    let mask = 1_u128.checked_shl(behind).map_or(u128::MAX, |bit| bit - 1);
    assert_eq!(bits & mask, 0, "{subnet:?}");
}

/// What hickory makes of the same bytes, if it makes anything of them.
fn second_opinion(data: &[u8], query: &Request<'_>) {
    let Ok(message) = Message::from_vec(data) else {
        return;
    };
    let [question] = message.queries.as_slice() else {
        panic!("hickory reads {} questions", message.queries.len());
    };
    assert_eq!(message.metadata.id, query.id);
    assert_eq!(message.metadata.recursion_desired, query.recursion_desired);
    assert_eq!(message.metadata.checking_disabled, query.checking_disabled);
    let labels: Vec<&[u8]> = question.name().iter().collect();
    assert_eq!(labels, query.name().labels().collect::<Vec<_>>());
    assert_eq!(u16::from(question.query_type()), query.qtype());
    assert_eq!(u16::from(question.query_class()), query.qclass());
    if let Some(edns) = message.edns {
        let ours = query.edns.expect("hickory reads an OPT");
        assert_eq!(edns.version(), ours.version);
        // Hickory raises sizes below 512.
        assert_eq!(edns.max_payload(), ours.udp_size.max(512));
    }
}

fn meaning(name: &Name, qtype: u16) {
    let found = DOMAINS.parse(name.as_wire(), qtype);
    let lower = name.to_lowercase();
    assert_eq!(
        found,
        DOMAINS.parse(lower.as_wire(), qtype),
        "the case of a name means nothing"
    );
    if let Some((domain, lookup)) = found {
        assert!(name.is_at_or_below(domain));
        assert_eq!(*domain, domain.to_lowercase());
        plain_form(domain, &lookup);
        names_above(name, qtype, &lookup);
    }
    if let Some(address) = reverse_address(name.as_wire()) {
        assert!(is_reverse(name.as_wire()));
        assert_eq!(lower.to_string(), reverse_name(address));
    }
}

/// What can exist has only names above it that can exist (RFC 8020). Apart are `.addr`, which means
/// the same in any place, and places whose names start like those of RFC 2782.
fn names_above(name: &Name, qtype: u16, lookup: &Lookup) {
    let Some(scope) = lookup.scope() else {
        return;
    };
    let port = match lookup {
        Lookup::Service { port, .. } => port,
        _ => &None,
    };
    let place = [
        &scope.datacenter,
        &scope.peer,
        &scope.namespace,
        &scope.partition,
        port,
    ];
    if place
        .into_iter()
        .flatten()
        .any(|name| name.starts_with('_'))
    {
        return;
    }
    let labels: Vec<&[u8]> = name.labels().collect();
    for from in 1..labels.len() {
        let above = Name::from_labels(labels[from..].iter().copied()).expect("shorter");
        if let Some((_, lookup)) = DOMAINS.parse(above.as_wire(), qtype) {
            assert_ne!(lookup, Lookup::Nothing, "{above} is above {name}");
        }
    }
}

/// The name with the same meaning in its longest and plainest form.
fn plain_form(domain: &Name, lookup: &Lookup) {
    let (mut labels, scope, port) = match lookup {
        // `_tcp.service` and the like would be read as RFC 2782's form.
        Lookup::Service { name, .. } if name.starts_with('_') => return,
        Lookup::Service {
            kind,
            name,
            tag,
            scope,
            port,
            ..
        } => {
            let keyword = match kind {
                Kind::Service => "service",
                Kind::Connect => "connect",
                Kind::Ingress => "ingress",
                Kind::ApiGateway => "api-gateway",
                Kind::Virtual => return,
            };
            let labels: Vec<&str> = tag.iter().chain([name]).map(String::as_str).collect();
            ([labels, vec![keyword]].concat(), scope, port.as_deref())
        }
        Lookup::Node { name, scope } => (vec![name.as_str(), "node"], scope, None),
        Lookup::Virtual { name, port, scope } => {
            let labels: Vec<&str> = port.iter().chain([name]).map(String::as_str).collect();
            ([labels, vec!["virtual"]].concat(), scope, None)
        }
        _ => return,
    };
    let pairs = [
        (scope.datacenter.as_deref(), "dc"),
        (scope.peer.as_deref(), "peer"),
        (scope.namespace.as_deref(), "ns"),
        (scope.partition.as_deref(), "ap"),
        (port, "port"),
    ];
    for (value, key) in pairs {
        labels.extend(value.into_iter().flat_map(|value| [value, key]));
    }
    // Neither an empty tag, as in `_web._.service`, nor what gets too long can be written so.
    let Ok(plain) = domain.below(&labels.join(".")) else {
        return;
    };
    let again = DOMAINS.parse(plain.as_wire(), types::A);
    let (_, mut again) = again.expect("below the domain");
    // This form owns more than SRV records.
    if let (Lookup::Service { only_srv: was, .. }, Lookup::Service { only_srv, .. }) =
        (lookup, &mut again)
    {
        assert!(!*only_srv);
        *only_srv = *was;
    }
    assert_eq!(*lookup, again, "{plain}");
}

fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(ip) => {
            let digits = format!("{:032x}", u128::from(ip));
            let nibbles = digits.chars().rev().map(|digit| format!("{digit}."));
            nibbles.chain(["ip6.arpa.".to_owned()]).collect()
        }
    }
}
