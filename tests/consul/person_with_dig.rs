//! What a person sees who types dig.

use crate::{
    support::{
        consul::{Consul, instance},
        dig::dig,
        portolan::Portolan,
    },
    world,
};
use serde_json::json;

/// The ways that people ask, each with the OPT size that has to come back.
const WAYS: &[(&[&str], bool)] = &[
    (&[], true),
    (&["+tcp"], true),
    (&["+noedns"], false),
    (&["+noedns", "+tcp"], false),
    (&["+bufsize=512"], true),
    (&["+nocookie"], true),
    (&["+dnssec"], true),
    (&["+norecurse"], true),
];

#[test]
fn dig_gets_good_answers_in_every_way() {
    let consul = Consul::start();
    world::fill(&consul);
    let portolan = Portolan::beside(&consul);

    for (way, edns) in WAYS {
        let ask = |rest: &[&str]| dig(portolan.dns(), &[rest, way].concat());

        let mut found = ask(&["api.service.consul"]);
        assert_eq!(found.status, "NOERROR", "{}", found.output);
        assert!(found.flags.contains(&"aa".to_owned()), "{}", found.output);
        assert_eq!(found.edns.is_some(), *edns, "{way:?}: {}", found.output);
        found.answer.sort();
        let expected = [
            "api.service.consul. 1 IN A 10.1.0.1",
            "api.service.consul. 1 IN A 10.1.0.2",
        ];
        assert_eq!(found.answer, expected, "{way:?}");

        let mut found = ask(&["api.service.consul", "SRV"]);
        found.answer.sort();
        let expected = [
            "api.service.consul. 1 IN SRV 1 10 9002 0a010002.addr.dc1.consul.",
            "api.service.consul. 1 IN SRV 1 5 9001 0a010001.addr.dc1.consul.",
        ];
        assert_eq!(found.answer, expected, "{way:?}");
        found.additional.sort();
        let expected = [
            "0a010001.addr.dc1.consul. 1 IN A 10.1.0.1",
            "0a010002.addr.dc1.consul. 1 IN A 10.1.0.2",
        ];
        assert_eq!(found.additional, expected, "{way:?}");

        let missing = ask(&["nope.service.consul"]);
        assert_eq!(missing.status, "NXDOMAIN", "{way:?}");
        let soa = missing.authority.join("\n");
        assert!(
            soa.contains("SOA ns.consul. hostmaster.consul."),
            "{}",
            missing.output
        );

        // Whose names are these? Not ours, and recursion is off.
        assert_eq!(ask(&["example.com"]).status, "REFUSED", "{way:?}");
    }
}

/// dig follows a cut SRV answer over TCP by itself.
#[test]
fn dig_gets_all_of_a_big_answer() {
    let consul = Consul::start();
    for n in 1..=60 {
        let service = json!({ "Service": "big", "ID": format!("big-{n}"), "Port": 80,
            "Address": format!("10.9.0.{n}") });
        consul.register(&instance("w", "10.8.0.1", &service));
    }
    let portolan = Portolan::beside(&consul);

    let cut = dig(
        portolan.dns(),
        &["big.service.consul", "SRV", "+noedns", "+ignore"],
    );
    assert!(cut.flags.contains(&"tc".to_owned()), "{}", cut.output);
    assert!(cut.answer.len() < 60, "{}", cut.output);

    for way in [&["+tcp"][..], &["+bufsize=8192"], &["+tcp", "+noedns"]] {
        let all = dig(
            portolan.dns(),
            &[&["big.service.consul", "SRV"], way].concat(),
        );
        assert_eq!(all.answer.len(), 60, "{way:?}");
        assert_eq!(all.additional.len(), 60, "{way:?}");
        assert!(!all.flags.contains(&"tc".to_owned()), "{way:?}");
    }
}
