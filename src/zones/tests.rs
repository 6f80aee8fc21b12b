//! The zones as their users see them: a question in, sections out.

use crate::dns::{Answer, Data, Name, Rcode, Reach, Record, types};

use super::Zones;

const EXAMPLE: &str = "\
$ORIGIN example.test.
$TTL 300
@ 900 SOA ns1 admin 1 2 3 4 60
@ NS ns1
@ NS ns2.other.test.
@ MX 10 mail
@ MX 20 mail2
ns1 A 192.0.2.1
ns1 AAAA 2001:db8::1
mail A 192.0.2.2
mail2 A 192.0.2.3
mail2 AAAA 2001:db8::3
www CNAME host
host A 192.0.2.4
host TXT text
deep.a.b A 192.0.2.5
*.wild A 192.0.2.6
*.wild TXT wild
known.wild TXT known
x.y.wild A 192.0.2.7
*.alias CNAME host
loop1 CNAME loop2
loop2 CNAME loop1
gone CNAME nowhere
far CNAME www.elsewhere.example.
near CNAME host.other.test.
_s._tcp SRV 1 1 1 host
_s._tcp SRV 1 1 2 mail2
_s._tcp SRV 1 1 3 host.other.test.
sub NS ns.sub
sub NS ns1
ns.sub A 192.0.2.8
ns.sub AAAA 2001:db8::8
under.sub A 192.0.2.9
into CNAME host.sub
";

/// A delegation signer (RFC 4034).
const DS: u16 = 43;

const OTHER: &str =
    "$ORIGIN other.test.\n$TTL 5\n@ SOA a b 1 2 3 4 5\nns2 A 198.51.100.1\nhost A 198.51.100.2\n";

fn zones() -> Zones {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in [("example.zone", EXAMPLE), ("other.zone", OTHER)] {
        std::fs::write(dir.path().join(name), text).expect("a file");
    }
    Zones::load(dir.path()).expect("good zones")
}

fn maybe(zones: &Zones, name: &str, qtype: u16) -> Option<Answer> {
    let name = Name::from_text(name).expect("a name");
    zones.lookup(&name.to_lowercase(), qtype)
}

fn ask(name: &str, rtype: u16) -> Answer {
    maybe(&zones(), name, rtype).expect("a zone of ours")
}

fn show<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<String> {
    let text = |record: &Record| {
        let data = match &record.data {
            Data::A(ip) => format!("A {ip}"),
            Data::Aaaa(ip) => format!("AAAA {ip}"),
            Data::Cname(target) => format!("CNAME {target}"),
            Data::Ns(target) => format!("NS {target}"),
            Data::Ptr(target) => format!("PTR {target}"),
            Data::Soa {
                mname,
                rname,
                serial,
                refresh,
                retry,
                expire,
                minimum,
            } => format!("SOA {mname} {rname} {serial} {refresh} {retry} {expire} {minimum}"),
            other => format!("{other:?}"),
        };
        format!("{} {} {data}", record.owner, record.ttl)
    };
    records.into_iter().map(text).collect()
}

/// Where an answer leads: the name behind its alias, or the hosts whose addresses go with it.
fn leads_to(answer: &Answer) -> Vec<String> {
    answer.open.iter().map(|end| end.to.to_string()).collect()
}

const SOA: &str = "example.test. 60 SOA ns1.example.test. admin.example.test. 1 2 3 4 60";

fn assert_no_data(answer: &Answer) {
    assert_eq!(answer.rcode, Rcode::NOERROR);
    assert!(answer.answers.is_empty(), "{:?}", show(&answer.answers));
    assert_eq!(show(&answer.authority), [SOA]);
    assert!(answer.authoritative);
}

#[test]
fn an_answer_is_owned_by_the_name_that_was_asked_for() {
    let answer = ask("HoSt.Example.TEST.", types::A);
    assert_eq!(
        show(&answer.answers),
        ["host.example.test. 300 A 192.0.2.4"]
    );
    assert!(answer.authoritative && answer.authority.is_empty());
}

#[test]
fn names_of_others_are_not_ours() {
    let zones = zones();
    for name in ["example.com.", "test.", ".", "xexample.test."] {
        assert_eq!(maybe(&zones, name, types::A), None, "{name}");
    }
    assert_eq!(maybe(&Zones::empty(), "localhost.", types::A), None);
}

#[test]
fn absence_comes_with_the_soa_and_its_negative_ttl() {
    let answer = ask("nowhere.example.test.", types::A);
    assert_eq!(answer.rcode, Rcode::NXDOMAIN);
    assert_eq!(show(&answer.authority), [SOA]);
    assert_no_data(&ask("host.example.test.", types::AAAA));
    // Empty non-terminals.
    assert_no_data(&ask("a.b.example.test.", types::A));
    assert_no_data(&ask("b.example.test.", types::ANY));
    assert_no_data(&ask("wild.example.test.", types::A));
}

#[test]
fn an_alias_is_left_open() {
    for (name, target) in [
        ("www.example.test.", "host.example.test."),
        ("near.example.test.", "host.other.test."),
        ("far.example.test.", "www.elsewhere.example."),
        ("gone.example.test.", "nowhere.example.test."),
    ] {
        let answer = ask(name, types::A);
        assert_eq!(answer.rcode, Rcode::NOERROR);
        assert_eq!(
            show(&answer.answers),
            [format!("{name} 300 CNAME {target}")]
        );
        assert_eq!(leads_to(&answer), [target]);
        let end = &answer.open[0];
        assert!(end.decides && end.of.is_none() && end.reach == Reach::Recursive);
        // The alias itself is asked for.
        for qtype in [types::CNAME, types::ANY] {
            let answer = ask(name, qtype);
            assert_eq!((answer.answers.len(), answer.open.len()), (1, 0));
        }
    }
}

#[test]
fn wildcards_cover_only_what_does_not_exist() {
    let answer = ask("Any.wild.example.test.", types::A);
    assert_eq!(
        show(&answer.answers),
        ["any.wild.example.test. 300 A 192.0.2.6"]
    );
    let answer = ask("a.b.wild.example.test.", types::TXT);
    assert_eq!(answer.answers.len(), 1);
    assert_no_data(&ask("any.wild.example.test.", types::MX));
    // RFC 4592: not over a name that exists, an empty non-terminal, or below either.
    assert_no_data(&ask("known.wild.example.test.", types::A));
    assert_no_data(&ask("y.wild.example.test.", types::A));
    for name in ["z.y.wild.example.test.", "z.known.wild.example.test."] {
        let answer = ask(name, types::A);
        assert_eq!(answer.rcode, Rcode::NXDOMAIN, "{name}");
    }
    let answer = ask("q.alias.example.test.", types::A);
    assert_eq!(
        show(&answer.answers),
        ["q.alias.example.test. 300 CNAME host.example.test."]
    );
    assert_eq!(leads_to(&answer), ["host.example.test."]);
}

#[test]
fn delegations_refer_with_glue() {
    for name in [
        "sub.example.test.",
        "under.sub.example.test.",
        "x.y.sub.example.test.",
    ] {
        let answer = ask(name, types::A);
        assert_eq!(answer.rcode, Rcode::NOERROR);
        assert!(!answer.authoritative && answer.answers.is_empty(), "{name}");
        assert_eq!(
            show(&answer.authority),
            [
                "sub.example.test. 300 NS ns.sub.example.test.",
                "sub.example.test. 300 NS ns1.example.test."
            ]
        );
        assert_eq!(
            show(answer.additional.iter().map(|glue| &glue.record)),
            [
                "ns.sub.example.test. 300 A 192.0.2.8",
                "ns1.example.test. 300 A 192.0.2.1",
                "ns.sub.example.test. 300 AAAA 2001:db8::8",
                "ns1.example.test. 300 AAAA 2001:db8::1"
            ]
        );
    }
    assert_eq!(
        leads_to(&ask("into.example.test.", types::A)),
        ["host.sub.example.test."]
    );
    // The parent side of the cut speaks for DS.
    assert_no_data(&ask("sub.example.test.", DS));
}

#[test]
fn every_host_is_left_open_once() {
    let answer = ask("_s._tcp.example.test.", types::SRV);
    assert_eq!(answer.answers.len(), 3);
    assert_eq!(
        leads_to(&answer),
        [
            "host.example.test.",
            "mail2.example.test.",
            "host.other.test."
        ]
    );
    let of: Vec<_> = answer.open.iter().map(|end| end.of).collect();
    assert_eq!(of, [Some(0), Some(1), Some(2)]);
    assert!(!answer.open.iter().any(|end| end.decides));
    let hosts = |qtype| ask("example.test.", qtype).open.len();
    assert_eq!((hosts(types::MX), hosts(types::NS)), (2, 2));
}

#[test]
fn any_gives_all_and_a_transfer_is_refused() {
    let answer = ask("example.test.", types::ANY);
    assert_eq!(answer.answers.len(), 5);
    assert_eq!(ask("host.example.test.", types::ANY).answers.len(), 2);
    for rtype in [types::AXFR, types::IXFR] {
        let answer = ask("example.test.", rtype);
        assert_eq!(answer.rcode, Rcode::REFUSED);
    }
}

#[test]
fn what_comes_with_portolan() {
    let zones = Zones::embedded().expect("good zones");
    let reverse = format!("1.{}ip6.arpa.", "0.".repeat(31));
    for (name, rtype, data) in [
        ("localhost.", types::A, "127.0.0.1"),
        ("localhost.", types::AAAA, "::1"),
        ("app.localhost.", types::A, "127.0.0.1"),
        ("1.0.0.127.in-addr.arpa.", types::PTR, "localhost."),
        (reverse.as_str(), types::PTR, "localhost."),
    ] {
        let answer = maybe(&zones, name, rtype).expect("a zone of ours");
        let found = show(&answer.answers);
        assert!(
            found.len() == 1 && found[0].ends_with(data),
            "{name}: {found:?}"
        );
    }
    for name in ["0.0.0.0.in-addr.arpa.", "2.0.0.127.in-addr.arpa."] {
        let answer = maybe(&zones, name, types::PTR).expect("ours");
        assert_eq!(answer.rcode, Rcode::NXDOMAIN, "{name}");
        assert_eq!(answer.authority.len(), 1);
    }
    // Somebody's private network: their upstream knows it, we do not.
    assert_eq!(maybe(&zones, "1.0.0.10.in-addr.arpa.", types::PTR), None);
}
