//! Section 8 of `reference/consul-dns.md`, row by row: what Portolan does, and that Consul's own DNS
//! does not do it. (Row 7, recursion, is in `recursion.rs`.)

use crate::support::{
    consul::{Consul, Options, instance},
    dns::Query,
    ensure,
    portolan::Portolan,
    wire::{
        Record, Reply,
        rcode::{BADVERS, NOERROR, NOTIMP, NXDOMAIN, REFUSED},
        rtype::{A, AAAA, CNAME, MX, PTR, SOA, SRV, TXT},
    },
};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Both servers with nothing set that the other has as well.
pub(crate) struct Both {
    portolan: Portolan,
    consul: Consul,
}

impl Both {
    /// Both, with these entries in the catalog.
    pub(crate) fn with(entries: &[Value]) -> Self {
        let consul = Consul::start();
        for entry in entries {
            consul.register(entry);
        }
        let portolan = Portolan::beside(&consul);
        Self { portolan, consul }
    }

    /// Asserts something that holds of Portolan and not of Consul.
    pub(crate) fn only_ours(&self, what: &str, holds: impl Fn(SocketAddr) -> Result<(), String>) {
        only_ours(what, self.portolan.dns(), self.consul.dns(), holds);
    }
}

/// Asserts something that holds of `ours` and not of `theirs`.
pub(crate) fn only_ours(
    what: &str,
    ours: SocketAddr,
    theirs: SocketAddr,
    holds: impl Fn(SocketAddr) -> Result<(), String>,
) {
    if let Err(broken) = holds(ours) {
        panic!("{what}: not so of Portolan: {broken}");
    }
    assert!(holds(theirs).is_err(), "{what}: Consul does the same");
}

/// One instance of `service` on a node of `10.0.0.N`.
fn plain(n: u8, service: &str) -> Value {
    let service = json!({ "Service": service, "Port": 80 });
    instance(&format!("n{n}"), &format!("10.0.0.{n}"), &service)
}

/// `count` instances on one node, each with its own port and, if wanted, address.
fn many(service: &str, count: u16, own_addresses: bool) -> Vec<Value> {
    let one = |n: u16| {
        let mut one =
            json!({ "Service": service, "ID": format!("{service}{n}"), "Port": 8000 + n });
        if own_addresses {
            one["Address"] = format!("10.6.0.{n}").into();
        }
        instance("n1", "10.0.0.1", &one)
    };
    (1..=count).map(one).collect()
}

/// The reply, if it has this code and no answer.
fn negative(reply: Reply, rcode: u16) -> Result<Reply, String> {
    let good = reply.rcode() == rcode && reply.answers.is_empty();
    ensure(good, || reply.summary())?;
    Ok(reply)
}

/// Checks that the SOA is there.
fn with_soa(reply: &Reply) -> Result<(), String> {
    let has_soa = reply.authority.iter().any(|record| record.rtype == SOA);
    ensure(has_soa, || reply.summary())
}

#[test]
fn row_1_whole_answers_or_always_the_same_part() {
    let entries = [many("seven", 7, true), many("sixty", 60, true)].concat();
    let both = Both::with(&entries);
    both.only_ours("all 7 that fit into 512 bytes", |server| {
        let reply = Query::new("seven.service.consul", SRV).ask(server);
        ensure(reply.answers.len() == 7, || reply.summary())
    });
    let sixty = Query::new("sixty.service.consul", SRV);
    both.only_ours("the same part each time", |server| {
        let first = sixty.clone().edns(1232).ask(server).data();
        let mut polls = (0..10).map(|_| sixty.clone().edns(1232).ask(server).data());
        ensure(polls.all(|data| data == first), || {
            "another part".to_owned()
        })
    });
    both.only_ours("a part is told", |server| {
        let reply = sixty.clone().edns(1232).ask(server);
        let is_part = (1..60).contains(&reply.answers.len());
        ensure(is_part && reply.tc(), || reply.summary())
    });
    both.only_ours("no more bytes than asked for, and OPT", |server| {
        let mut sizes = (513..=1500).step_by(7);
        let broken = sizes.find_map(|size| {
            let reply = sixty.clone().edns(size).ask(server);
            let good = reply.wire.len() <= size.into() && reply.opt().is_some();
            (!good).then(|| format!("{} bytes for {size}", reply.wire.len()))
        });
        broken.map_or(Ok(()), Err)
    });
}

#[test]
fn row_2_names_above_others_exist() {
    let both = Both::with(&[plain(1, "web")]);
    for name in [
        "consul",
        "service.consul",
        "node.consul",
        "addr.consul",
        "query.consul",
        "connect.consul",
        "ingress.consul",
        "dc1.consul",
        "service.dc1.consul",
        "_tcp.service.consul",
    ] {
        both.only_ours(name, |server| {
            negative(Query::new(name, A).ask(server), NOERROR).map(drop)
        });
    }
}

#[test]
fn row_3_negative_answers_are_whole() {
    let both = Both::with(&[plain(1, "web")]);
    for rtype in [AAAA, SRV, TXT, MX, CNAME] {
        both.only_ours("a node without that type", |server| {
            let reply = Query::new("n1.node.consul", rtype).ask(server);
            with_soa(&negative(reply, NOERROR)?)
        });
    }
    for rtype in [SRV, MX, CNAME] {
        both.only_ours("no such node", |server| {
            let reply = Query::new("nope.node.consul", rtype).ask(server);
            with_soa(&negative(reply, NXDOMAIN)?)
        });
    }
}

#[test]
fn row_4_no_record_of_another_type() {
    let virt = json!({ "Kind": "connect-proxy", "Service": "web-proxy", "Port": 21000,
        "Proxy": { "DestinationServiceName": "web" },
        "TaggedAddresses": { "consul-virtual": { "Address": "240.0.0.7", "Port": 80 } } });
    let both = Both::with(&[plain(1, "web"), instance("n1", "10.0.0.1", &virt)]);
    for (name, rtype) in [
        ("web.service.consul", TXT),
        ("0a010203.addr.consul", AAAA),
        ("0a010203.addr.consul", TXT),
        ("fd000000000000000000000000010001.addr.consul", A),
        ("web.virtual.consul", AAAA),
        ("web.virtual.consul", TXT),
    ] {
        both.only_ours(name, |server| {
            with_soa(&negative(Query::new(name, rtype).ask(server), NOERROR)?)
        });
    }
}

#[test]
fn row_5_answers_may_be_kept_for_a_moment() {
    let both = Both::with(&[plain(1, "web")]);
    let small = |ttl: u32| (1..=60).contains(&ttl);
    for (name, rtype) in [
        ("web.service.consul", A),
        ("web.service.consul", SRV),
        ("n1.node.consul", A),
        ("0a010203.addr.consul", A),
    ] {
        both.only_ours(name, |server| {
            let reply = Query::new(name, rtype).ask(server);
            let mut records = reply.answers.iter().chain(reply.glue());
            let good = !reply.answers.is_empty() && records.all(|record| small(record.ttl));
            ensure(good, || reply.summary())
        });
    }
    for name in ["nope.service.consul", "web.consul"] {
        both.only_ours(name, |server| {
            let reply = Query::new(name, A).ask(server);
            let minimum = |soa: &Record| soa.word(6).parse().is_ok_and(small);
            let mut soa = reply.authority.iter();
            ensure(soa.any(|soa| small(soa.ttl) && minimum(soa)), || {
                reply.summary()
            })
        });
    }
}

#[test]
fn row_6_both_families_of_a_target() {
    let tagged = json!({ "lan_ipv4": { "Address": "10.5.0.1", "Port": 80 },
        "lan_ipv6": { "Address": "fd00::5:1", "Port": 80 } });
    let dual = json!({ "Service": "dual", "Address": "10.5.0.1", "Port": 80,
        "TaggedAddresses": tagged });
    let both = Both::with(&[instance("n1", "10.0.0.1", &dual)]);
    both.only_ours("A and AAAA of one target", |server| {
        let reply = Query::new("dual.service.consul", SRV)
            .edns(1232)
            .ask(server);
        let [srv] = &reply.answers[..] else {
            return Err(reply.summary());
        };
        let glue: Vec<_> = reply
            .glue()
            .map(|r| (r.name.as_str(), r.data.as_str()))
            .collect();
        let target = srv.word(3);
        let wanted = [(target, "10.5.0.1"), (target, "fd00::5:1")];
        ensure(glue == wanted, || reply.summary())
    });
}

#[test]
fn row_8_what_is_no_question_is_not_answered() {
    const CHAOS: u16 = 3;
    const NOTIFY: u8 = 4;
    let both = Both::with(&[plain(1, "web")]);
    let web = Query::new("web.service.consul", A);
    for (what, query, rcode) in [
        ("NOTIFY", web.clone().opcode(NOTIFY), NOTIMP),
        ("class CH", web.clone().class(CHAOS), REFUSED),
        ("EDNS version 1", web.edns_version(1), BADVERS),
    ] {
        both.only_ours(what, |server| negative(query.ask(server), rcode).map(drop));
    }
}

#[test]
fn row_9_an_alias_brings_the_family_asked() {
    let alias = |service: &str, to: &str| {
        instance(
            "n1",
            "10.0.0.1",
            &json!({ "Service": service, "Address": to, "Port": 80 }),
        )
    };
    let upstream = crate::outside::start();
    let consul = Consul::start_with(Options {
        extra: json!({ "recursors": [upstream.address().to_string()] }),
        ..Options::default()
    });
    consul.register(&alias("outdual", "dual.example.com"));
    consul.register(&alias("outsix", "six.example.com"));
    let portolan = crate::recursion::portolan(&consul, &[upstream.address()]);
    for (name, rtype, address) in [
        ("outdual.service.consul", AAAA, "2001:db8::12"),
        ("outsix.service.consul", AAAA, "2001:db8::13"),
    ] {
        only_ours(name, portolan.dns(), consul.dns(), |server| {
            let reply = Query::new(name, rtype).edns(1232).ask(server);
            let rest: Vec<_> = reply
                .answers
                .iter()
                .skip(1)
                .map(|r| (r.rtype, r.data.as_str()))
                .collect();
            let good = reply
                .answers
                .first()
                .is_some_and(|first| first.rtype == CNAME)
                && rest == [(rtype, address)];
            ensure(good, || reply.summary())
        });
    }
}

#[test]
fn row_10_one_address_for_each_target_and_nothing_else() {
    let meta = json!({ "Node": "n1", "Address": "10.0.0.1", "NodeMeta": { "az": "z1" } });
    let both = Both::with(
        &[
            vec![plain(1, "web"), plain(2, "web")],
            many("forty", 40, false),
            vec![meta],
        ]
        .concat(),
    );
    both.only_ours("no TXT of the node", |server| {
        let reply = Query::new("web.service.consul", SRV).edns(4096).ask(server);
        ensure(reply.glue().all(Record::is_address), || reply.summary())
    });
    both.only_ours("an address per SRV record, OPT last", |server| {
        let reply = Query::new("forty.service.consul", SRV)
            .edns(1232)
            .ask(server);
        let targets: Vec<_> = reply.answers.iter().map(|srv| srv.word(3)).collect();
        let owners: Vec<_> = reply.glue().map(|glue| glue.name.as_str()).collect();
        let opt = reply.additional.last().map(|last| last.rtype);
        let good = targets == owners && opt == reply.opt().map(|opt| opt.rtype);
        ensure(good && reply.opt().is_some(), || reply.summary())
    });
}

#[test]
fn row_11_reverse_names_live_as_long_as_nodes() {
    let both = Both::with(&[plain(1, "web")]);
    both.only_ours("the TTL of a PTR record", |server| {
        let node = Query::new("n1.node.consul", A).ask(server);
        let reply = Query::new("1.0.0.10.in-addr.arpa", PTR).ask(server);
        let ttl = node.answers.first().map(|record| record.ttl);
        let good = reply
            .answers
            .first()
            .is_some_and(|ptr| ptr.ttl > 0 && Some(ptr.ttl) == ttl);
        ensure(good, || reply.summary())
    });
}
