//! Hosts files, with dnsmasq and the same file as the reference.

use crate::{
    servers::{Server, launch},
    support::{
        directory,
        dns::Query,
        portolan::run_to_end,
        upstream::{self, Action, Upstream},
        wire::{
            rcode,
            rtype::{A, AAAA},
        },
        write_file,
    },
};
use hickory_proto::op::ResponseCode;
use std::net::Ipv4Addr;

const PTR: u16 = 12;
const TXT: u16 = 16;
const HTTPS: u16 = 65;

const HOSTS: &str = "# mine\n192.0.2.1 nas.home.arpa nas # the box\n2001:db8::1 nas.home.arpa\n\
                     192.0.2.2 Printer.Home.Arpa\nnonsense\nfe80::1%eth0 scoped.home.arpa\n";

/// Knows one name, and says of all others that they do not exist.
fn outside() -> Upstream {
    Upstream::start(|query, _| {
        let question = upstream::question(query);
        match question.name.to_ascii().to_lowercase().as_str() {
            "known.example." => upstream::addresses(query, 300, &[Ipv4Addr::new(192, 0, 2, 99)]),
            "nas.home.arpa." => upstream::addresses(query, 300, &[Ipv4Addr::new(203, 0, 113, 66)]),
            _ => upstream::negative(query, ResponseCode::NXDomain),
        }
    })
}

/// Both say the same, but for the TTL, and for what dnsmasq asks others although the file has the name.
#[test]
fn a_hosts_file_is_answered_as_dnsmasq_answers_it() {
    let (own, upstream) = (directory(), outside());
    let hosts = write_file(own.path(), "hosts", HOSTS);
    let dnsmasq = Server::dnsmasq(
        upstream.address(),
        "known.example",
        &format!("addn-hosts={}\n", hosts.display()),
    );
    let portolan = launch(&[upstream.address()])
        .args(["--hosts".into(), hosts.clone().into_os_string()])
        .start();
    for (name, rtype) in [
        ("nas.home.arpa", A),
        ("NAS.Home.arpa", AAAA),
        ("nas", A),
        ("nas", AAAA),
        ("printer.home.arpa", A),
        ("printer.home.arpa", AAAA),
        ("scoped.home.arpa", A),
        ("other.home.arpa", A),
        ("known.example", A),
        ("1.2.0.192.in-addr.arpa", PTR),
        ("2.2.0.192.in-addr.arpa", PTR),
        ("3.2.0.192.in-addr.arpa", PTR),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            PTR,
        ),
    ] {
        let ours = Query::new(name, rtype).ask(portolan.dns());
        let theirs = Query::new(name, rtype).ask(dnsmasq.address);
        let lower = |data: Vec<String>| {
            data.iter()
                .map(|own| own.to_lowercase())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (ours.rcode(), lower(ours.data())),
            (theirs.rcode(), lower(theirs.data())),
            "{name} {rtype}: {} and dnsmasq {}",
            ours.summary(),
            theirs.summary()
        );
    }
    // How a host is reached, nobody else says; what else it is, anybody may.
    upstream_is_not_asked(&upstream, "nas.home.arpa.");
    let reply = Query::new("nas.home.arpa", HTTPS).ask(portolan.dns());
    assert!(
        reply.rcode() == rcode::NOERROR && reply.answers.is_empty(),
        "{}",
        reply.summary()
    );
    upstream_is_not_asked(&upstream, "nas.home.arpa.");
    Query::new("nas.home.arpa", TXT).ask(portolan.dns());
    let asked = upstream.seen();
    assert!(
        asked.iter().any(|seen| seen.name == "nas.home.arpa."),
        "{asked:?}"
    );
}

fn upstream_is_not_asked(upstream: &Upstream, name: &str) {
    let asked = upstream.seen();
    assert!(
        !asked
            .iter()
            .any(|seen| seen.name.eq_ignore_ascii_case(name)),
        "{asked:?}"
    );
}

/// An upstream's alias to such a name is answered here, and what it says of the name is not believed.
#[test]
fn an_alias_leads_to_the_file() {
    use hickory_proto::rr::{Name, RData, Record, rdata};
    let own = directory();
    let hosts = write_file(own.path(), "hosts", HOSTS);
    let upstream = Upstream::start(|query, _| {
        let Action::Answer(mut reply) = upstream::addresses(query, 300, &[]) else {
            unreachable!("it is an answer")
        };
        let owner = upstream::question(query).name.clone();
        let nas = Name::from_ascii("nas.home.arpa.").expect("a name");
        reply.add_answer(Record::from_rdata(
            owner,
            300,
            RData::CNAME(rdata::CNAME(nas.clone())),
        ));
        let lie = RData::A(rdata::A(Ipv4Addr::new(203, 0, 113, 66)));
        reply.add_answer(Record::from_rdata(nas, 300, lie));
        Action::Answer(reply)
    });
    let portolan = launch(&[upstream.address()])
        .args(["--hosts".into(), hosts.into_os_string()])
        .start();
    let reply = Query::new("www.example.net", A).ask(portolan.dns());
    assert_eq!(
        reply.data(),
        ["192.0.2.1", "nas.home.arpa."],
        "{}",
        reply.summary()
    );
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let own = directory();
    let file = write_file(
        own.path(),
        "portolan.toml",
        "[recursion]\nhosts = [\"/no/such/hosts\"]\n",
    );
    let file = file.to_str().expect("a path");
    let said = run_to_end(&["check", "--consul", "none", "--config", file], &[]);
    assert_ne!(said.code, Some(0), "{said:?}");
    for part in [":2: key `recursion.hosts`: ", "/no/such/hosts"] {
        assert!(said.stderr.contains(part), "{said:?}");
    }
}
