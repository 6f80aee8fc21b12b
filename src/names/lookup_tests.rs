//! The grammar as a table, and as properties.

use super::*;
use proptest::prelude::*;

fn domains() -> Domains {
    let name = |text| Name::from_text(text).expect("a valid name");
    Domains::new(&name("consul"), Some(&name("alt.consul")))
}

fn lookup(text: &str, qtype: u16) -> Lookup {
    let name = Name::from_text(text).expect("a valid name");
    let domains = domains();
    let (_, lookup) = domains
        .parse(name.as_wire(), qtype)
        .expect("below the domain");
    lookup
}

fn scope(datacenter: &str) -> Scope {
    Scope {
        datacenter: Some(datacenter.to_owned()).filter(|name| !name.is_empty()),
        ..Scope::default()
    }
}

fn service(name: &str, tag: &str, datacenter: &str) -> Lookup {
    Lookup::Service {
        kind: Kind::Service,
        name: name.to_owned(),
        tag: Some(tag.to_owned()).filter(|tag| !tag.is_empty()),
        scope: scope(datacenter),
        port: None,
        only_srv: false,
    }
}

fn list(kind: Kind, name: &str, datacenter: &str) -> Lookup {
    Lookup::Service {
        kind,
        name: name.to_owned(),
        tag: None,
        scope: scope(datacenter),
        port: None,
        only_srv: false,
    }
}

fn node(name: &str, datacenter: &str) -> Lookup {
    Lookup::Node {
        name: name.to_owned(),
        scope: scope(datacenter),
    }
}

fn query(name: &str, datacenter: &str) -> Lookup {
    Lookup::Query {
        name: name.to_owned(),
        scope: scope(datacenter),
    }
}

fn empty(datacenter: &str) -> Lookup {
    Lookup::EmptyNonTerminal(scope(datacenter))
}

/// `web` somewhere: `key=value` words.
fn web_at(words: &str) -> Lookup {
    let mut scope = Scope::default();
    let mut port = None;
    for (key, value) in words.split(' ').filter_map(|word| word.split_once('=')) {
        let value = Some(value.to_owned());
        match key {
            "dc" => scope.datacenter = value,
            "peer" => scope.peer = value,
            "ns" => scope.namespace = value,
            "ap" => scope.partition = value,
            _ => port = value,
        }
    }
    Lookup::Service {
        kind: Kind::Service,
        name: "web".to_owned(),
        tag: None,
        scope,
        port,
        only_srv: false,
    }
}

#[test]
fn every_form_of_name() {
    let cases: &[(&str, Lookup)] = &[
        ("consul", Lookup::Apex),
        ("CONSUL", Lookup::Apex),
        ("web.service.consul", service("web", "", "")),
        ("WEB.Service.DC1.Consul", service("web", "", "dc1")),
        ("web.service.dc1.dc.consul", service("web", "", "dc1")),
        ("primary.web.service.consul", service("web", "primary", "")),
        (
            "ver.1.2.web.service.dc2.consul",
            service("web", "ver.1.2", "dc2"),
        ),
        ("web.service.alt.consul", service("web", "", "")),
        ("web.service.a.b.consul", web_at("ns=a dc=b")),
        ("web.service.a.b.c.consul", Lookup::Nothing),
        ("_web._tcp.service.consul", service("web", "", "")),
        (
            "_web._primary.service.dc1.consul",
            service("web", "primary", "dc1"),
        ),
        ("_web._udp.service.consul", service("web", "udp", "")),
        ("_a._b.c.service.consul", service("c", "_a._b", "")),
        ("x._web._tcp.service.consul", service("_tcp", "x._web", "")),
        ("_web.service.consul", service("_web", "", "")),
        ("_web._tcp.consul", service("web", "", "")),
        ("_web._tcp.dc1.consul", service("web", "", "dc1")),
        ("n1.node.consul", node("n1", "")),
        ("n1.node.dc1.consul", node("n1", "dc1")),
        ("rack.7.n1.node.consul", node("rack.7.n1", "")),
        ("node.node.consul", node("node", "")),
        ("service.service.consul", service("service", "", "")),
        (
            "0a010203.addr.dc1.consul",
            Lookup::Address([10, 1, 2, 3].into()),
        ),
        (
            "0A010203.addr.consul",
            Lookup::Address([10, 1, 2, 3].into()),
        ),
        (
            "0a010203.addr.a.b.c.consul",
            Lookup::Address([10, 1, 2, 3].into()),
        ),
        (
            "20010db8000000000000000000000005.addr.dc1.consul",
            Lookup::Address("2001:db8::5".parse().expect("an address")),
        ),
        ("0a0102.addr.consul", Lookup::Nothing),
        ("+a010203.addr.consul", Lookup::Nothing),
        ("xx.0a010203.addr.consul", Lookup::Nothing),
        ("service.consul", empty("")),
        ("service.dc1.consul", empty("dc1")),
        ("node.consul", empty("")),
        ("query.consul", empty("")),
        ("addr.dc1.consul", empty("dc1")),
        ("dc1.consul", empty("dc1")),
        ("dc1.dc.consul", empty("dc1")),
        ("dc.consul", empty("")),
        ("_tcp.consul", service("_tcp", "", "")),
        ("a.b.c.consul", Lookup::Nothing),
        ("db.query.consul", query("db", "")),
        ("my.db.query.dc1.consul", query("my.db", "dc1")),
        ("_db._any.query.consul", query("db", "")),
        ("db.query.dc1.dc.consul", Lookup::Nothing),
        ("web.connect.consul", list(Kind::Connect, "web", "")),
        (
            "foo.web.connect.dc1.consul",
            list(Kind::Connect, "web", "dc1"),
        ),
        ("web.ingress.consul", list(Kind::Ingress, "web", "")),
        ("web.connect.http.port.consul", Lookup::Nothing),
        ("web.service.http.port.consul", web_at("port=http")),
        (
            "_web._tcp.service.dc1.dc.http.port.consul",
            web_at("dc=dc1 port=http"),
        ),
        ("web.service.east.peer.consul", web_at("peer=east")),
        (
            "web.service.n.ns.p.ap.dc1.dc.consul",
            web_at("ns=n ap=p dc=dc1"),
        ),
        ("web.service.east.peer.dc1.dc.consul", Lookup::Nothing),
        ("web.service.dc1.dc.dc2.dc.consul", Lookup::Nothing),
        ("web.service.x.sg.dc1.dc.consul", Lookup::Nothing),
        (
            "web.virtual.east.consul",
            Lookup::Virtual {
                name: "web".to_owned(),
                scope: Scope {
                    peer: Some("east".to_owned()),
                    ..Scope::default()
                },
            },
        ),
        ("port.consul", empty("")),
    ];
    for (name, expected) in cases {
        assert_eq!(lookup(name, types::SRV), *expected, "{name}");
    }
}

#[test]
fn rfc_2782_names_without_service_own_only_srv() {
    let expected = Lookup::Service {
        kind: Kind::Service,
        name: "web".to_owned(),
        tag: None,
        scope: Scope::default(),
        port: None,
        only_srv: true,
    };
    assert_eq!(lookup("_web._tcp.consul", types::A), expected);
    assert_eq!(lookup("_tcp.consul", types::A), empty(""));
    assert_eq!(
        lookup("_web._tcp.service.consul", types::A),
        service("web", "", "")
    );
}

#[test]
fn reverse_names_are_addresses() {
    let address = |text: &str| {
        let name = Name::from_text(text).expect("a valid name");
        reverse_address(name.as_wire()).map(|address| address.to_string())
    };
    let v6 = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.d.0.1.0.0.2.ip6.arpa";
    assert_eq!(
        address("4.3.2.10.in-addr.ARPA").as_deref(),
        Some("10.2.3.4")
    );
    assert_eq!(address(v6).as_deref(), Some("2001:db8::5"));
    for text in [
        "2.10.in-addr.arpa",
        "256.3.2.10.in-addr.arpa",
        "04.3.2.10.in-addr.arpa",
        "x.4.3.2.10.in-addr.arpa",
        &v6[2..],
        "4.3.2.10.in-addr.arpa.consul",
    ] {
        assert_eq!(address(text), None, "{text}");
    }
}

#[test]
fn names_outside_the_domain_are_not_ours() {
    for name in ["example.com", "notconsul", "consul.example.com", "."] {
        let name = Name::from_text(name).expect("a valid name");
        assert!(
            domains().parse(name.as_wire(), types::A).is_none(),
            "{name}"
        );
    }
}

#[test]
fn odd_labels_are_no_names() {
    for label in [b"a.b".as_slice(), b"\xff\xfe"] {
        let name = Name::from_labels([label, b"node", b"consul"]).expect("a valid name");
        let domains = domains();
        let found = domains.parse(name.as_wire(), types::A);
        assert_eq!(found.expect("ours").1, node("\u{FFFD}", ""));
    }
}

proptest! {
    #[test]
    fn service_tag_and_datacenter_come_back(
        name in "[a-zA-Z0-9][a-zA-Z0-9-]{0,30}",
        tag in proptest::option::of("[a-zA-Z0-9][a-zA-Z0-9-]{0,9}(\\.[a-z0-9]{1,9}){0,3}"),
        datacenter in proptest::option::of("dc[0-9]{1,3}"),
    ) {
        let mut text = String::new();
        for part in [tag.as_deref(), Some(&name), Some("service"), datacenter.as_deref()]
            .into_iter().flatten()
        {
            text.push_str(part);
            text.push('.');
        }
        text.push_str("consul");
        let expected = service(
            &name.to_lowercase(),
            &tag.unwrap_or_default().to_lowercase(),
            &datacenter.unwrap_or_default(),
        );
        prop_assert_eq!(lookup(&text, types::A), expected);
    }

    #[test]
    fn node_names_come_back(name in "[a-zA-Z0-9-]{1,20}(\\.[a-zA-Z0-9-]{1,20}){0,3}") {
        let text = format!("{name}.node.consul");
        prop_assert_eq!(lookup(&text, types::A), node(&name.to_lowercase(), ""));
    }

    #[test]
    fn no_name_panics(
        labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..12), 0..12),
        qtype in any::<u16>(),
    ) {
        let labels = labels.iter().map(Vec::as_slice).chain([b"consul".as_slice()]);
        let name = Name::from_labels(labels).expect("within the limits");
        prop_assert!(domains().parse(name.as_wire(), qtype).is_some());
    }
}
