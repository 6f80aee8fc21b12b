//! What an upstream sends: the reply is read whole or not at all, as hickory reads it, and what of it is
//! told to a client is about the name that was asked for.

#![no_main]

use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;
use portolan::dns::{Answer, Data, Name, RawRecord, Rendered, Response, types};
use portolan::recursion::{Form, Question, said};
use portolan_fuzz::show;

/// The longest that anything is kept, in seconds.
const MAX_TTL: u32 = 7 * 86_400;

fuzz_target!(|data: &[u8]| {
    let Some((&flags, bytes)) = data.split_first() else {
        return;
    };
    let Ok(response) = Response::parse(bytes) else {
        return;
    };
    show(|| format!("{response:#?}"));
    second_opinion(bytes, &response);
    let asked = response.question().and_then(Name::split_from);
    let Some((name, [high, low, ..])) = asked else {
        return;
    };
    let name = name.to_lowercase();
    let question = Question {
        name: &name,
        qtype: u16::from_be_bytes([*high, *low]),
        form: Form {
            dnssec_ok: flags & 1 != 0,
            checking_disabled: flags & 2 != 0,
        },
    };
    let answer = said(question, &response);
    show(|| format!("{answer:#?}"));
    is_of_the_chain(question, &answer);
    let _ = Rendered::new(&answer, &name).size();
});

/// Where hickory can read a message, it reads the same.
fn second_opinion(bytes: &[u8], response: &Response) {
    let Ok(message) = Message::from_vec(bytes) else {
        return;
    };
    assert_eq!(message.metadata.id, response.id);
    assert_eq!(message.metadata.truncation, response.truncated);
    assert_eq!(message.metadata.authentic_data, response.authentic);
    let of_class_in = |records: &[hickory_proto::rr::Record]| {
        let class_in = |record: &&hickory_proto::rr::Record| u16::from(record.dns_class) == 1;
        let names = records.iter().filter(class_in);
        let place = |record: &hickory_proto::rr::Record| {
            let labels: Vec<Vec<u8>> = record.name.iter().map(<[u8]>::to_vec).collect();
            (labels, u16::from(record.record_type()), record.ttl)
        };
        names.map(place).collect::<Vec<_>>()
    };
    let place = |record: RawRecord<'_>| {
        let (owner, _) = Name::split_from(record.owner).expect("a name");
        let labels: Vec<Vec<u8>> = owner.labels().map(<[u8]>::to_vec).collect();
        (labels, record.rtype, record.ttl)
    };
    assert_eq!(
        of_class_in(&message.answers),
        response.answers().map(place).collect::<Vec<_>>()
    );
    assert_eq!(
        of_class_in(&message.authorities),
        response.authority().map(place).collect::<Vec<_>>()
    );
}

/// Nothing is told but the chain from the name on, and the proofs beside it.
fn is_of_the_chain(question: Question<'_>, answer: &Answer) {
    let mut chain = vec![question.name.clone()];
    for record in &answer.answers {
        let owner = record.owner.to_lowercase();
        assert!(record.ttl <= MAX_TTL, "{record:?}");
        let is_above = |rtype: u16| {
            matches!(rtype, types::DNAME | types::RRSIG)
                && chain.last().is_some_and(|last| last.is_at_or_below(&owner))
        };
        assert!(
            chain.contains(&owner) || is_above(record.data.rtype()),
            "{record:?} is not of {chain:?}"
        );
        if let Data::Cname(target) = &record.data
            && question.qtype != types::CNAME
            && question.qtype != types::ANY
        {
            chain.push(target.to_lowercase());
        }
        if record.data.rtype() == types::RRSIG {
            let wants = question.form.dnssec_ok
                || matches!(question.qtype, types::RRSIG | types::ANY);
            assert!(wants, "{record:?}");
        }
    }
    for record in &answer.authority {
        assert!(record.ttl <= MAX_TTL, "{record:?}");
        let rtype = record.data.rtype();
        assert!(rtype == types::SOA || question.form.dnssec_ok, "{record:?}");
    }
}
