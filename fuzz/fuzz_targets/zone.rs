//! A zone's master file: read as `--zones` does, then asked.
#![no_main]

use std::sync::LazyLock;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};
use libfuzzer_sys::fuzz_target;
use portolan::zones::{Outcome, Zones};
use portolan_fuzz::scratch;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().build();
    runtime.expect("a runtime")
});

const LABELS: &[&str] = &[
    "",
    "www",
    "ns",
    "*",
    "a.b",
    "x.www",
    "sub",
    "ns.sub",
    "_sip._udp",
];

const TYPES: &[RecordType] = &[
    RecordType::A,
    RecordType::MX,
    RecordType::SRV,
    RecordType::NS,
    RecordType::CNAME,
    RecordType::ANY,
    RecordType::AXFR,
];

fuzz_target!(|data: &[u8]| {
    let directory = scratch::holding("fuzz.test.zone", data);
    match Zones::load(directory) {
        Err(error) => {
            let text = error.to_string();
            let file = directory.join("fuzz.test.zone").display().to_string();
            assert!(text.starts_with(&file), "{text}: names the file");
            let line = text[file.len()..].strip_prefix(':');
            let line = line.and_then(|rest| rest.split(':').next()?.parse().ok());
            let lines = 1 + data.iter().filter(|byte| **byte == b'\n').count();
            assert!(
                line.is_none_or(|line: usize| (1..=lines).contains(&line)),
                "{text}"
            );
        }
        Ok(zones) => RUNTIME.block_on(ask(&zones)),
    }
});

async fn ask(zones: &Zones) {
    let origins = zones.origins();
    assert_eq!(origins.len(), 1, "one file, one zone");
    let origin = &origins[0];
    let soa = zones.lookup(origin, RecordType::SOA).await.expect("ours");
    assert_eq!(soa.rcode, ResponseCode::NoError);
    assert_eq!(soa.answers.len(), 1, "a zone has one SOA");
    for label in LABELS {
        let Ok(name) = Name::from_ascii(label).and_then(|name| name.append_domain(origin)) else {
            continue;
        };
        for rtype in TYPES {
            let outcome = zones.lookup(&name, *rtype).await.expect("ours");
            check(&name, *rtype, &outcome);
        }
    }
}

fn check(name: &Name, rtype: RecordType, outcome: &Outcome) {
    let has_soa = outcome
        .authority
        .iter()
        .any(|record| record.record_type() == RecordType::SOA);
    match outcome.rcode {
        ResponseCode::NXDomain => assert!(has_soa),
        ResponseCode::NoError => {
            let says_nothing = outcome.answers.is_empty() && outcome.authority.is_empty();
            assert!(
                !says_nothing,
                "{name} {rtype}: records, a referral or a SOA"
            );
        }
        ResponseCode::Refused => assert_eq!(rtype, RecordType::AXFR),
        other => panic!("{name} {rtype}: {other}"),
    }
    // Each record belongs to the question or to an alias above it.
    let mut at = name.clone();
    for record in &outcome.answers {
        assert_eq!(record.name, at, "{name} {rtype}");
        if let (RData::CNAME(target), true) = (&record.data, rtype != RecordType::CNAME) {
            if rtype != RecordType::ANY {
                at = target.0.clone();
            }
        }
    }
    let families: Vec<bool> = outcome
        .additional
        .iter()
        .map(|record| record.record_type() == RecordType::AAAA)
        .collect();
    assert!(families.is_sorted(), "A before AAAA");
}
