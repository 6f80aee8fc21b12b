//! Names that lead from every part of the house to every other one, and out of it.

use crate::support::{
    consul::{Consul, instance},
    directory,
    portolan::{Launch, Portolan},
    upstream::{self, Action, Upstream},
    write_file,
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA, SRV},
    },
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tempfile::TempDir;

/// A zone of ours. `c1` and `m1` begin chains that `zones` writes.
const CORP: &str = r#"
$ORIGIN corp.example.
$TTL 300
@        SOA   ns hostmaster ( 1 3600 600 604800 60 )
@        NS    ns
ns       A     10.9.9.53
host     A     10.9.9.9
host     AAAA  2001:db8::9
host     TXT   "a host"

; Into Consul.
www      CNAME web.service.consul.
deep     CNAME www
*.w      CNAME web.service.consul.
back     CNAME ring.service.consul.
gone     CNAME nothing.service.consul.
node     CNAME n1.node.consul.
hosted   CNAME hosted.node.consul.
legacy   CNAME legacy.service.consul.
query    CNAME pq.query.consul.
alien    CNAME alien.service.consul.
into     CNAME into.service.consul.
lost     CNAME lost.service.consul.
void     CNAME void.service.consul.
unasked  CNAME unasked.service.consul.
rev      CNAME 1.0.0.10.in-addr.arpa.
revweb   CNAME 5.0.0.10.in-addr.arpa.
looped   CNAME 9.0.0.127.in-addr.arpa.
s        SRV   0 0 80 web.service.consul.
slegacy  SRV   0 0 80 legacy.service.consul.
mx       MX    10 host
mxc      MX    5 web.service.consul.

; Nowhere.
nx       CNAME missing
loop1    CNAME loop2
loop2    CNAME loop1

; Out of the house.
out      CNAME www.example.net.
plain    CNAME plain.example.net.
gout     CNAME nope.example.net.
sout     SRV   0 0 80 plain.example.net.
sinto    SRV   0 0 80 www.example.net.
"#;

/// What this host says of its own addresses.
const LOOPBACK: &str = "
$ORIGIN 127.in-addr.arpa.
$TTL 300
@        SOA   localhost. nobody.localhost. ( 1 3600 600 604800 60 )
@        NS    localhost.
9.0.0    PTR   host.corp.example.
";

/// Links of a chain inside the zone: `c1` to `c20`, which has an address.
pub(crate) const CHAIN: usize = 20;

/// Links of a chain that changes between zone and Consul: `m1` to `m13`, two aliases each.
pub(crate) const MIXED: usize = 13;

/// A directory with our zones.
fn zones() -> TempDir {
    let mut corp = CORP.to_owned();
    for n in 1..CHAIN {
        corp.push_str(&format!("c{n} CNAME c{}\n", n + 1));
    }
    for n in 1..MIXED {
        corp.push_str(&format!("m{n} CNAME m{n}.service.consul.\n"));
    }
    corp.push_str(&format!("c{CHAIN} A 10.9.9.20\nm{MIXED} A 10.9.9.13\n"));
    let directory = directory();
    write_file(directory.path(), "corp.example.zone", &corp);
    write_file(directory.path(), "127.in-addr.arpa.zone", LOOPBACK);
    directory
}

/// A Consul with services, nodes and a query whose addresses are names.
pub(crate) fn consul() -> Consul {
    let consul = Consul::start();
    let service = |name: &str, address: &str, port: u16| -> Value {
        let service = json!({ "Service": name, "Address": address, "Port": port });
        instance("n1", "10.0.0.1", &service)
    };
    for entry in [
        service("web", "10.0.0.5", 80),
        service("twin", "web.service.consul", 81),
        service("legacy", "host.corp.example", 8080),
        service("unasked", "host.corp.example", 8081),
        service("ring", "back.corp.example", 7070),
        service("lost", "missing.corp.example", 7071),
        service("alien", "plain.example.net", 443),
        service("into", "www.example.net", 444),
        service("far", "two.example.net", 445),
        service("void", "nope.example.net", 446),
        service("detour", "plain.corp.example", 447),
        json!({ "Node": "hosted", "Address": "host.corp.example" }),
        // No address of its own: that of its node counts.
        instance(
            "hosted",
            "host.corp.example",
            &json!({ "Service": "onhost", "Port": 9000 }),
        ),
        // A node that claims an address of every host's own.
        json!({ "Node": "selfish", "Address": "127.0.0.9" }),
    ] {
        consul.register(&entry);
    }
    for n in 1..MIXED {
        let next = format!("m{}.corp.example", n + 1);
        consul.register(&service(&format!("m{n}"), &next, 80));
    }
    consul.define_query(&json!({ "Name": "pq", "Service": { "Service": "legacy" } }));
    consul
}

/// What an upstream says behind an alias.
#[derive(Clone, Copy)]
enum End {
    /// An address, which is none of its business where the name is ours.
    Lie,
    /// Nothing: whoever asks may go on.
    Open,
    /// That there is no such name.
    Absent,
}

/// The aliases that the upstream knows, each with all that it says of where they lead.
const ALIASES: &[(&str, &[&str], End)] = &[
    ("www.example.net.", &["web.service.consul."], End::Lie),
    ("odd.example.net.", &["WEB.Service.Consul."], End::Lie),
    ("open.example.net.", &["web.service.consul."], End::Open),
    ("public.example.net.", &["web.service.consul."], End::Absent),
    ("gone.example.net.", &["nothing.service.consul."], End::Lie),
    ("cdn.example.net.", &["host.corp.example."], End::Lie),
    ("nx.example.net.", &["missing.corp.example."], End::Lie),
    ("hop.example.net.", &["deep.corp.example."], End::Lie),
    ("two.example.net.", &["cdn.example.net."], End::Open),
    // Our own alias `out` leads elsewhere.
    (
        "through.example.net.",
        &["out.corp.example.", "other.example.net."],
        End::Lie,
    ),
];

/// What no client may ever be told: the upstream's own idea of our names.
pub(crate) const LIES: [&str; 2] = ["6.6.6.6", "2001:db8::6666"];

/// An upstream that knows the world outside, and has an opinion on our names as well.
pub(crate) fn upstream() -> Upstream {
    Upstream::start(|query, _| say(query))
}

fn say(query: &Message) -> Action {
    let question = upstream::question(query);
    let (asked, rtype) = (
        question.name.to_ascii().to_lowercase(),
        question.query_type(),
    );
    let v4 = |text: &str| RData::A(A(text.parse().expect("an address of the script")));
    let alias = ALIASES.iter().find(|(owner, ..)| *owner == asked);
    if let Some((_, targets, end)) = alias {
        let mut message = upstream::reply(query, ResponseCode::NoError);
        let mut owner = question.name.clone();
        for target in *targets {
            let cname = RData::CNAME(CNAME(name(target)));
            message.answers.push(Record::from_rdata(owner, 300, cname));
            owner = name(target);
            if rtype == RecordType::CNAME {
                return Action::Answer(message);
            }
        }
        match end {
            End::Lie if rtype == RecordType::AAAA => {
                let lie = LIES[1].parse().expect("an address of the script");
                let lie = Record::from_rdata(owner, 300, RData::AAAA(AAAA(lie)));
                message.answers.push(lie);
            }
            End::Lie => {
                let lie = Record::from_rdata(owner, 300, v4(LIES[0]));
                message.answers.push(lie);
            }
            End::Open => {}
            End::Absent => {
                message.metadata.response_code = ResponseCode::NXDomain;
                message.authorities.push(soa());
            }
        }
        return Action::Answer(message);
    }
    let mut message = upstream::reply(query, ResponseCode::NoError);
    let record = |data| Record::from_rdata(question.name.clone(), 300, data);
    match (asked.as_str(), rtype) {
        ("plain.example.net.", RecordType::A | RecordType::ANY) => {
            message.answers.push(record(v4("198.51.100.1")));
        }
        ("srv.example.net.", RecordType::SRV) => {
            let target = name("web.service.consul.");
            let srv = SRV::new(0, 0, 80, target.clone());
            message.answers.push(record(RData::SRV(srv)));
            let lie = Record::from_rdata(target, 300, v4(LIES[0]));
            message.additionals.push(lie);
        }
        ("plain.example.net." | "srv.example.net.", _) => message.authorities.push(soa()),
        _ => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.authorities.push(soa());
        }
    }
    Action::Answer(message)
}

/// The SOA record of every negative answer from outside.
fn soa() -> Record {
    let (server, mail) = (name("ns.example.net."), name("mail.example.net."));
    let soa = SOA::new(server, mail, 1, 3600, 600, 86400, 30);
    Record::from_rdata(name("example.net."), 30, RData::SOA(soa))
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name of the script")
}

/// The server under test, with its zones.
pub(crate) struct House {
    portolan: Portolan,
    _zones: TempDir,
}

impl std::ops::Deref for House {
    type Target = Portolan;

    fn deref(&self) -> &Portolan {
        &self.portolan
    }
}

/// `portolan serve` with our zones, for which only 127.0.0.1 may recurse. Without data from Consul
/// it never becomes ready, so that is not waited for.
pub(crate) fn house(consul: &str, upstream: Option<&Upstream>, ready: bool) -> House {
    let zones = zones();
    let directory = zones.path().to_str().expect("a path in ASCII");
    let outside = upstream.map_or_else(|| "none".to_owned(), |u| u.address().to_string());
    let launch = Launch::new("serve")
        .args(["--consul", consul, "--upstream", &outside])
        .args(["--zones", directory])
        .config("[recursion]\nallow = [\"127.0.0.1/32\"]\n");
    let launch = if ready { launch } else { launch.not_ready() };
    House {
        portolan: launch.start(),
        _zones: zones,
    }
}

/// The questions about our names that the upstream was asked: there must be none.
pub(crate) fn leaked(upstream: &Upstream) -> Vec<String> {
    let ours = ["consul.", "corp.example.", "arpa."];
    let is_ours = |name: &str| {
        let below = |zone: &str| name.ends_with(&format!(".{zone}"));
        ours.iter().any(|zone| name == *zone || below(zone))
    };
    let seen = upstream.seen();
    let leaks: BTreeSet<String> = seen
        .iter()
        .filter(|seen| is_ours(&seen.name))
        .map(|seen| format!("the upstream was asked for {} {}", seen.name, seen.rtype))
        .collect();
    leaks.into_iter().collect()
}
