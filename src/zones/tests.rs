//! The zones as their users see them: a question in, sections out.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};

use super::{Outcome, Zones};

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

const OTHER: &str =
    "$ORIGIN other.test.\n$TTL 5\n@ SOA a b 1 2 3 4 5\nns2 A 198.51.100.1\nhost A 198.51.100.2\n";

fn zones() -> Zones {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in [("example.zone", EXAMPLE), ("other.zone", OTHER)] {
        std::fs::write(dir.path().join(name), text).expect("a file");
    }
    Zones::load(dir.path()).expect("good zones")
}

async fn maybe(zones: &Zones, name: &str, rtype: RecordType) -> Option<Outcome> {
    let name = Name::from_ascii(name).expect("a name");
    zones.lookup(&name, rtype).await
}

async fn ask(name: &str, rtype: RecordType) -> Outcome {
    maybe(&zones(), name, rtype).await.expect("a zone of ours")
}

fn show(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data))
        .collect()
}

const SOA: &str = "example.test. 60 SOA ns1.example.test. admin.example.test. 1 2 3 4 60";

fn assert_no_data(outcome: &Outcome) {
    assert_eq!(outcome.rcode, ResponseCode::NoError);
    assert!(outcome.answers.is_empty(), "{:?}", show(&outcome.answers));
    assert_eq!(show(&outcome.authority), [SOA]);
    assert!(outcome.authoritative);
}

#[tokio::test]
async fn an_answer_keeps_the_letter_case_of_the_question() {
    let outcome = ask("HoSt.Example.TEST.", RecordType::A).await;
    assert_eq!(
        show(&outcome.answers),
        ["HoSt.Example.TEST. 300 A 192.0.2.4"]
    );
    assert!(outcome.authoritative && outcome.authority.is_empty());
    let relative = ask("host.example.test", RecordType::A).await;
    assert_eq!(relative.answers.len(), 1);
}

#[tokio::test]
async fn names_of_others_are_not_ours() {
    let zones = zones();
    for name in ["example.com.", "test.", ".", "xexample.test."] {
        assert_eq!(maybe(&zones, name, RecordType::A).await, None, "{name}");
    }
    assert_eq!(
        maybe(&Zones::empty(), "localhost.", RecordType::A).await,
        None
    );
}

#[tokio::test]
async fn absence_comes_with_the_soa_and_its_negative_ttl() {
    let outcome = ask("nowhere.example.test.", RecordType::A).await;
    assert_eq!(outcome.rcode, ResponseCode::NXDomain);
    assert_eq!(show(&outcome.authority), [SOA]);
    assert_no_data(&ask("host.example.test.", RecordType::AAAA).await);
    // Empty non-terminals.
    assert_no_data(&ask("a.b.example.test.", RecordType::A).await);
    assert_no_data(&ask("b.example.test.", RecordType::ANY).await);
    assert_no_data(&ask("wild.example.test.", RecordType::A).await);
}

#[tokio::test]
async fn aliases_are_followed_within_and_across_zones() {
    let outcome = ask("www.example.test.", RecordType::A).await;
    assert_eq!(
        show(&outcome.answers),
        [
            "www.example.test. 300 CNAME host.example.test.",
            "host.example.test. 300 A 192.0.2.4"
        ]
    );
    let outcome = ask("near.example.test.", RecordType::A).await;
    assert_eq!(
        show(&outcome.answers)[1..],
        ["host.other.test. 5 A 198.51.100.2"]
    );
    let outcome = ask("far.example.test.", RecordType::A).await;
    assert_eq!(outcome.rcode, ResponseCode::NoError);
    assert_eq!(outcome.answers.len(), 1);
    assert_eq!(
        outcome.unfinished.map(|n| n.to_string()).as_deref(),
        Some("www.elsewhere.example.")
    );
    // The alias itself is asked for.
    let outcome = ask("www.example.test.", RecordType::CNAME).await;
    assert_eq!(outcome.answers.len(), 1);
    let outcome = ask("www.example.test.", RecordType::ANY).await;
    assert_eq!(outcome.answers.len(), 1);
}

#[tokio::test]
async fn aliases_that_lead_nowhere() {
    let outcome = ask("gone.example.test.", RecordType::A).await;
    assert_eq!(outcome.rcode, ResponseCode::NXDomain);
    assert_eq!(outcome.answers.len(), 1);
    assert_eq!(show(&outcome.authority), [SOA]);
    let outcome = ask("www.example.test.", RecordType::AAAA).await;
    assert_eq!(outcome.rcode, ResponseCode::NoError);
    assert_eq!((outcome.answers.len(), outcome.authority.len()), (1, 1));
    let outcome = ask("loop1.example.test.", RecordType::A).await;
    assert_eq!(outcome.answers.len(), 2);
}

#[tokio::test]
async fn wildcards_cover_only_what_does_not_exist() {
    let outcome = ask("Any.wild.example.test.", RecordType::A).await;
    assert_eq!(
        show(&outcome.answers),
        ["Any.wild.example.test. 300 A 192.0.2.6"]
    );
    let outcome = ask("a.b.wild.example.test.", RecordType::TXT).await;
    assert_eq!(outcome.answers.len(), 1);
    assert_no_data(&ask("any.wild.example.test.", RecordType::MX).await);
    // RFC 4592: not over a name that exists, an empty non-terminal, or below either.
    assert_no_data(&ask("known.wild.example.test.", RecordType::A).await);
    assert_no_data(&ask("y.wild.example.test.", RecordType::A).await);
    for name in ["z.y.wild.example.test.", "z.known.wild.example.test."] {
        let outcome = ask(name, RecordType::A).await;
        assert_eq!(outcome.rcode, ResponseCode::NXDomain, "{name}");
    }
    let outcome = ask("q.alias.example.test.", RecordType::A).await;
    assert_eq!(
        show(&outcome.answers),
        [
            "q.alias.example.test. 300 CNAME host.example.test.",
            "host.example.test. 300 A 192.0.2.4"
        ]
    );
}

#[tokio::test]
async fn delegations_refer_with_glue() {
    for name in [
        "sub.example.test.",
        "under.sub.example.test.",
        "x.y.sub.example.test.",
    ] {
        let outcome = ask(name, RecordType::A).await;
        assert_eq!(outcome.rcode, ResponseCode::NoError);
        assert!(
            !outcome.authoritative && outcome.answers.is_empty(),
            "{name}"
        );
        assert_eq!(
            show(&outcome.authority),
            [
                "sub.example.test. 300 NS ns.sub.example.test.",
                "sub.example.test. 300 NS ns1.example.test."
            ]
        );
        assert_eq!(
            show(&outcome.additional),
            [
                "ns.sub.example.test. 300 A 192.0.2.8",
                "ns1.example.test. 300 A 192.0.2.1",
                "ns.sub.example.test. 300 AAAA 2001:db8::8",
                "ns1.example.test. 300 AAAA 2001:db8::1"
            ]
        );
    }
    let outcome = ask("into.example.test.", RecordType::A).await;
    assert!(outcome.authoritative);
    assert_eq!((outcome.answers.len(), outcome.authority.len()), (1, 2));
    // The parent side of the cut speaks for DS.
    assert_no_data(&ask("sub.example.test.", RecordType::DS).await);
}

#[tokio::test]
async fn every_target_gets_its_addresses_a_before_aaaa() {
    let outcome = ask("_s._tcp.example.test.", RecordType::SRV).await;
    assert_eq!(outcome.answers.len(), 3);
    assert_eq!(
        show(&outcome.additional),
        [
            "host.example.test. 300 A 192.0.2.4",
            "mail2.example.test. 300 A 192.0.2.3",
            "host.other.test. 5 A 198.51.100.2",
            "mail2.example.test. 300 AAAA 2001:db8::3"
        ]
    );
    let outcome = ask("example.test.", RecordType::MX).await;
    assert_eq!(outcome.additional.len(), 3);
    let outcome = ask("example.test.", RecordType::NS).await;
    assert_eq!((outcome.answers.len(), outcome.additional.len()), (2, 3));
}

#[tokio::test]
async fn any_gives_all_and_a_transfer_is_refused() {
    let outcome = ask("example.test.", RecordType::ANY).await;
    assert_eq!(outcome.answers.len(), 5);
    assert_eq!(
        ask("host.example.test.", RecordType::ANY)
            .await
            .answers
            .len(),
        2
    );
    for rtype in [RecordType::AXFR, RecordType::IXFR] {
        let outcome = ask("example.test.", rtype).await;
        assert_eq!(outcome.rcode, ResponseCode::Refused);
    }
}

#[tokio::test]
async fn what_comes_with_portolan() {
    let zones = Zones::embedded().expect("good zones");
    let reverse = format!("1.{}ip6.arpa.", "0.".repeat(31));
    for (name, rtype, data) in [
        ("localhost.", RecordType::A, "127.0.0.1"),
        ("localhost.", RecordType::AAAA, "::1"),
        ("app.localhost.", RecordType::A, "127.0.0.1"),
        ("1.0.0.127.in-addr.arpa.", RecordType::PTR, "localhost."),
        (reverse.as_str(), RecordType::PTR, "localhost."),
    ] {
        let outcome = maybe(&zones, name, rtype).await.expect("a zone of ours");
        let found: Vec<String> = outcome.answers.iter().map(|r| r.data.to_string()).collect();
        assert_eq!(found, [data], "{name}");
    }
    for name in ["0.0.0.0.in-addr.arpa.", "2.0.0.127.in-addr.arpa."] {
        let outcome = maybe(&zones, name, RecordType::PTR).await.expect("ours");
        assert_eq!(outcome.rcode, ResponseCode::NXDomain, "{name}");
        assert_eq!(outcome.authority.len(), 1);
    }
    // Somebody's private network: their upstream knows it, we do not.
    assert_eq!(
        maybe(&zones, "1.0.0.10.in-addr.arpa.", RecordType::PTR).await,
        None
    );
}
