//! A zone's master file: read as `--zones` does, then asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan::dns::{Answer, Data, Name, Rcode, types};
use portolan::zones::Zones;
use portolan_fuzz::scratch;

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

const TYPES: &[u16] = &[
    types::A,
    types::MX,
    types::SRV,
    types::NS,
    types::CNAME,
    types::ANY,
    types::AXFR,
];

fuzz_target!(|data: &[u8]| {
    let directory = scratch::holding("fuzz.test.zone", data);
    match Zones::load(directory) {
        Err(errors) => {
            assert!(!errors.is_empty(), "a refusal has a reason");
            let file = directory.join("fuzz.test.zone").display().to_string();
            let lines = 1 + data.iter().filter(|byte| **byte == b'\n').count();
            for error in errors {
                let text = error.to_string();
                assert!(text.starts_with(&file), "{text}: names the file");
                let line = text[file.len()..].strip_prefix(':');
                let line = line.and_then(|rest| rest.split(':').next()?.parse().ok());
                assert!(
                    line.is_none_or(|line: usize| (1..=lines).contains(&line)),
                    "{text}"
                );
            }
        }
        Ok(zones) => ask(&zones),
    }
});

fn ask(zones: &Zones) {
    let origins = zones.origins();
    assert_eq!(origins.len(), 1, "one file, one zone");
    let origin = origins[0].to_lowercase();
    let soa = zones.lookup(&origin, types::SOA).expect("ours");
    assert_eq!(soa.rcode, Rcode::NOERROR);
    assert_eq!(soa.answers.len(), 1, "a zone has one SOA");
    for label in LABELS {
        let name = match *label {
            "" => Ok(origin.clone()),
            label => origin.below(label),
        };
        let Ok(name) = name else { continue };
        for qtype in TYPES {
            let answer = zones.lookup(&name, *qtype).expect("ours");
            check(&name, *qtype, &answer);
        }
    }
}

fn check(name: &Name, qtype: u16, answer: &Answer) {
    let has_soa = answer
        .authority
        .iter()
        .any(|record| record.data.rtype() == types::SOA);
    match answer.rcode {
        Rcode::NXDOMAIN => assert!(has_soa),
        Rcode::NOERROR => {
            let says_nothing = answer.answers.is_empty() && answer.authority.is_empty();
            assert!(
                !says_nothing,
                "{name} {qtype}: records, a referral or a SOA"
            );
        }
        Rcode::REFUSED => assert_eq!(qtype, types::AXFR),
        other => panic!("{name} {qtype}: {other:?}"),
    }
    // What one zone says, it says of the name that was asked for.
    for record in &answer.answers {
        assert_eq!(record.owner, *name, "{name} {qtype}");
    }
    // And it leads where its records point.
    for end in &answer.open {
        let record = &answer.answers[end.of.unwrap_or(0)];
        match &record.data {
            Data::Cname(target) => assert_eq!(end.to, *target),
            Data::Ns(target) | Data::Srv { target, .. } => assert_eq!(end.to, *target),
            Data::Other { rtype, .. } => assert_eq!(*rtype, types::MX),
            other => panic!("{name} {qtype}: {other:?} leads nowhere"),
        }
    }
    let families: Vec<bool> = answer
        .additional
        .iter()
        .map(|glue| glue.record.data.rtype() == types::AAAA)
        .collect();
    assert!(families.is_sorted(), "A before AAAA");
}
