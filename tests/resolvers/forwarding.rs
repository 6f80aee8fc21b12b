//! Domains that resolvers of their own are asked for: what belongs to one is never asked of another.

use crate::{
    servers::{Server, launch},
    support::{
        directory,
        dns::Query,
        ensure, eventually,
        portolan::run_to_end,
        upstream::{self, Action, Upstream},
        wire::{rcode, rtype::A},
        write_file,
    },
};
use hickory_proto::rr::{Name, RData, Record, rdata};
use std::{net::Ipv4Addr, path::Path, time::Duration};

const PTR: u16 = 12;

const HEAD: &str = "$TTL 300\n@ SOA ns h 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n";

fn named(directory: &Path, zones: &[(&str, &str)]) -> Server {
    let files: Vec<String> = zones
        .iter()
        .map(|(zone, _)| format!("{zone}.zone"))
        .collect();
    for ((_, records), file) in zones.iter().zip(&files) {
        write_file(directory, file, &format!("{HEAD}{records}"));
    }
    let zones = zones
        .iter()
        .zip(&files)
        .map(|((zone, _), file)| (*zone, file.as_str()));
    Server::named(directory, &zones.collect::<Vec<_>>())
}

#[test]
fn what_belongs_to_a_domain_is_asked_of_its_resolver_alone() {
    let (everywhere, office, lab) = (directory(), directory(), directory());
    let everywhere = named(
        everywhere.path(),
        &[(
            "far.example",
            "www CNAME host.corp.example.\nx A 192.0.2.9\nlost CNAME gone.corp.example.\n",
        )],
    );
    let mut office = named(
        office.path(),
        &[
            (
                "corp.example",
                "host A 10.1.2.3\nout CNAME x.far.example.\n",
            ),
            ("10.in-addr.arpa", "3.2.1 PTR host.corp.example.\n"),
        ],
    );
    let lab = named(lab.path(), &[("lab.corp.example", "deep A 10.9.9.9\n")]);
    let config = format!(
        "[[recursion.forward]]\ndomains = [\"corp.example\", \"10.0.0.0/8\"]\nupstreams = [\"{}\"]\n",
        office.address
    );
    let portolan = launch(&[everywhere.address]).config(&config).start();
    let flags = launch(&[everywhere.address])
        .args([
            "--forward".to_owned(),
            format!("corp.example,10.0.0.0/8={}", office.address),
            "--forward".to_owned(),
            format!("lab.corp.example={}", lab.address),
            "--forward".to_owned(),
            "gone.corp.example=none".to_owned(),
        ])
        .start();
    for (name, rtype, code, data) in [
        ("host.corp.example", A, rcode::NOERROR, &["10.1.2.3"][..]),
        (
            "www.far.example",
            A,
            rcode::NOERROR,
            &["10.1.2.3", "host.corp.example."],
        ),
        (
            "out.corp.example",
            A,
            rcode::NOERROR,
            &["192.0.2.9", "x.far.example."],
        ),
        ("nothing.corp.example", A, rcode::NXDOMAIN, &[]),
        (
            "3.2.1.10.in-addr.arpa",
            PTR,
            rcode::NOERROR,
            &["host.corp.example."],
        ),
        ("1.0.200.10.in-addr.arpa", PTR, rcode::NXDOMAIN, &[]),
        ("x.far.example", A, rcode::NOERROR, &["192.0.2.9"]),
    ] {
        for portolan in [&portolan, &flags] {
            let reply = Query::new(name, rtype).ask(portolan.dns());
            assert_eq!(reply.rcode(), code, "{name}: {}", reply.summary());
            assert_eq!(reply.data(), data, "{name}: {}", reply.summary());
        }
    }
    for (name, code, data) in [
        ("deep.lab.corp.example", rcode::NOERROR, &["10.9.9.9"][..]),
        ("x.gone.corp.example", rcode::NXDOMAIN, &[]),
        ("lost.far.example", rcode::NXDOMAIN, &["gone.corp.example."]),
    ] {
        let reply = Query::new(name, A).ask(flags.dns());
        assert_eq!(reply.rcode(), code, "{name}: {}", reply.summary());
        assert_eq!(reply.data(), data, "{name}: {}", reply.summary());
    }
    // The office is away: its names fail, and stay its names.
    office.process.kill();
    for portolan in [&portolan, &flags] {
        for name in ["other.corp.example", "4.2.1.10.in-addr.arpa"] {
            // It may be starting anew, which is waited for.
            let patience = Duration::from_secs(6);
            let reply = Query::new(name, A).patience(patience).ask(portolan.dns());
            assert_eq!(
                reply.rcode(),
                rcode::SERVFAIL,
                "{name}: {}",
                reply.summary()
            );
        }
        let reply = Query::new("x.far.example", A).ask(portolan.dns());
        assert_eq!(reply.data(), ["192.0.2.9"], "{}", reply.summary());
    }
    let asked = |server: &Server, of: &str| {
        let log = server.process.log();
        log.lines()
            .filter(|line| line.contains("query: ") && line.contains(of))
            .count()
    };
    for ours in ["corp.example IN", "in-addr.arpa IN"] {
        assert_eq!(asked(&everywhere, ours), 0, "{}", everywhere.process.log());
    }
    assert!(asked(&everywhere, "far.example IN") > 0 && asked(&office, "corp.example IN") > 0);
    assert_eq!(
        asked(&office, "far.example IN"),
        0,
        "{}",
        office.process.log()
    );
    assert_eq!(
        asked(&office, "lab.corp.example IN") + asked(&office, "gone.corp.example IN"),
        0
    );
}

/// What somebody else says of a domain's names is not believed.
#[test]
fn nobody_else_speaks_for_a_domain() {
    let directory = directory();
    let office = named(directory.path(), &[("corp.example", "host A 10.1.2.3\n")]);
    let liar = Upstream::start(|query, _| {
        let Action::Answer(mut reply) = upstream::addresses(query, 300, &[]) else {
            unreachable!("it is an answer")
        };
        let owner = upstream::question(query).name.clone();
        let host = Name::from_ascii("host.corp.example.").expect("a name");
        let alias = RData::CNAME(rdata::CNAME(host.clone()));
        reply.add_answer(Record::from_rdata(owner, 300, alias));
        let lie = RData::A(rdata::A(Ipv4Addr::new(203, 0, 113, 66)));
        reply.add_answer(Record::from_rdata(host, 300, lie));
        Action::Answer(reply)
    });
    let portolan = launch(&[liar.address()])
        .args([
            "--forward".to_owned(),
            format!("corp.example={}", office.address),
        ])
        .start();
    for name in ["www.far.example", "host.corp.example", "other.far.example"] {
        let reply = Query::new(name, A).ask(portolan.dns());
        let last = reply.answers.last().map(|record| record.data.clone());
        assert_eq!(
            last.as_deref(),
            Some("10.1.2.3"),
            "{name}: {}",
            reply.summary()
        );
    }
}

#[test]
fn check_says_where_names_go_and_what_contradicts() {
    let check = |config: &str| {
        let own = directory();
        let file = write_file(own.path(), "portolan.toml", config);
        run_to_end(
            &[
                "check",
                "--consul",
                "none",
                "--config",
                file.to_str().expect("a path"),
            ],
            &[],
        )
    };
    let right = check(
        "[recursion]\nupstreams = [\"none\"]\n[[recursion.forward]]\ndomains = [\"corp.example\"]\n\
         upstreams = [\"10.1.0.53\", \"10.1.0.54:5353\"]\n[[recursion.forward]]\n\
         domains = [\"lab.example\"]\nupstreams = [\"none\"]\n",
    );
    assert!(right.code == Some(0), "{right:?}");
    for line in [
        "forward        corp.example. to 10.1.0.53:53, 10.1.0.54:5353",
        "forward        lab.example. to none",
    ] {
        assert!(right.stdout.contains(line), "{right:?}");
    }
    let wrong = check(
        "[[recursion.forward]]\ndomains = [\"corp.example\"]\nupstreams = [\"10.1.0.53\"]\n\
         [[recursion.forward]]\ndomains = [\"corp.example\"]\nupstreams = [\"none\"]\n\
         [[recursion.forward]]\ndomain = [\"x.example\"]\nupstreams = [\"10.1.0.53\"]\n\
         [[recursion.forward]]\ndomains = [\"10.1.0.0/8\"]\nupstreams = [\"10.1.0.53\"]\n",
    );
    assert!(wrong.code != Some(0), "{wrong:?}");
    for part in [
        ":4: key `recursion.forward`: corp.example. cannot be forwarded and `none` as well",
        ":7: key `recursion.forward`: unknown key `domain`",
        ":10: key `recursion.forward`: 10.1.0.0/8 has bits set beyond its prefix",
    ] {
        assert!(wrong.stderr.contains(part), "{part}: {}", wrong.stderr);
    }
}

/// SIGHUP keeps what was learned and what is known of upstreams, but for names that are somebody else's from then on.
#[test]
fn a_reload_keeps_what_is_known() {
    let (everywhere, office) = (directory(), directory());
    let mut everywhere = named(
        everywhere.path(),
        &[("example", "host.far A 192.0.2.1\nhost.corp A 192.0.2.2\n")],
    );
    let office = named(office.path(), &[("corp.example", "host A 10.1.2.3\n")]);
    let files = directory();
    let write = |forward: &str| {
        let text = format!(
            "[recursion]\nupstreams = [\"{}\"]\nforward = [{forward}]\n",
            everywhere.address
        );
        write_file(files.path(), "portolan.toml", &text)
    };
    let config = write("").display().to_string();
    let portolan = launch(&[]).args(["--config", &config]).start();
    let said = |name: &str| Query::new(name, A).ask(portolan.dns());
    assert_eq!(said("host.far.example").data(), ["192.0.2.1"]);
    assert_eq!(said("host.corp.example").data(), ["192.0.2.2"]);
    write(&format!("\"corp.example={}\"", office.address));
    everywhere.process.kill();
    portolan.signal("HUP");
    eventually(
        Duration::from_secs(10),
        "the domain has another resolver",
        || {
            let reply = said("host.corp.example");
            ensure(reply.data() == ["10.1.2.3"], || reply.summary())
        },
    );
    let known = said("host.far.example");
    assert_eq!(known.data(), ["192.0.2.1"], "{}", known.summary());
    assert!(known.extended_errors().is_empty(), "it has not run down");
}
