//! Answers with any records, as zones and upstreams give them: rendered, cut, and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan::dns::{Answer, Data, ExtendedError, Glue, Name, Rcode, Record, Request};
use portolan_fuzz::client::Client;
use portolan_fuzz::input::Input;
use portolan_fuzz::words::label;
use portolan_fuzz::{checks, show};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let client = Client::read(&mut input);
    let mut names = vec![Name::root()];
    for _ in 0..=input.below(16) {
        let name = name(&mut input, &names);
        names.extend(name);
    }
    let question = names[input.below(names.len())].clone();
    let records = [0; 3].map(|_| records(&mut input, &names));
    let [answers, authority, additional] = records;
    // Zones say of no glue what it belongs to.
    let glue = |record| Glue { of: 0, record };
    let mut answer = Answer {
        answers,
        authority,
        additional: additional.into_iter().map(glue).collect(),
        ..Answer::empty(Rcode(input.u16() & 0xFFF), input.flag())
    };
    if input.flag() {
        let text = vec![b'x'; input.below(100)];
        answer.errors.push(ExtendedError::new(input.u16(), &text));
    }
    answer.authentic = input.flag();
    show(|| format!("{question}\n{answer:#?}"));
    let request = client.request(&question, input.u16());
    let query = Request::parse(&request).expect("a well-formed query");
    checks::send_foreign(&answer, &question, &client.reply(&query));
});

/// A name with some labels of its own in front of one that was there before.
fn name(input: &mut Input<'_>, names: &[Name]) -> Option<Name> {
    let before = &names[input.below(names.len())];
    let mut labels: Vec<Vec<u8>> = (0..input.below(4)).map(|_| label(input)).collect();
    labels.extend(before.labels().map(<[u8]>::to_vec));
    Name::from_labels(labels.iter().map(Vec::as_slice)).ok()
}

/// Some records, or one of them many times.
fn records(input: &mut Input<'_>, names: &[Name]) -> Vec<Record> {
    let mut all: Vec<Record> = (0..input.below(8)).map(|_| record(input, names)).collect();
    let times = input.below(256);
    if let Some(last) = all.last().cloned().filter(|_| times >= 128) {
        // Where compression pointers no longer reach.
        let padding = (0..times - 127).map(|at| Record {
            data: Data::Txt(vec![vec![at as u8; 150]]),
            ..last.clone()
        });
        all.splice(0..0, padding);
    }
    all
}

fn record(input: &mut Input<'_>, names: &[Name]) -> Record {
    let name = |input: &mut Input<'_>| names[input.below(names.len())].clone();
    let owner = name(input);
    let data = match input.below(9) {
        0 => Data::A(input.u32().into()),
        1 => Data::Aaaa(u128::from(input.u32()).into()),
        2 => Data::Srv {
            priority: input.u16(),
            weight: input.u16(),
            port: input.u16(),
            target: name(input).to_lowercase(),
        },
        3 => Data::Cname(name(input)),
        4 => Data::Ns(name(input)),
        5 => Data::Ptr(name(input)),
        6 => Data::Soa {
            mname: name(input),
            rname: name(input),
            serial: input.u32(),
            refresh: u32::from(input.u16()),
            retry: u32::from(input.u16()),
            expire: u32::from(input.u16()),
            minimum: input.u32(),
        },
        7 => {
            let strings = (0..input.below(4)).map(|_| label(input));
            Data::Txt(strings.collect())
        }
        _ => Data::Other {
            rtype: 65280 + u16::from(input.byte()),
            rdata: label(input).repeat(input.below(32)),
        },
    };
    Record {
        owner,
        ttl: input.u32(),
        data,
    }
}
