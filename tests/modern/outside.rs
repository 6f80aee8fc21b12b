//! The rest of the Internet, as the recorded agents' recursor told it.

use crate::support::upstream::{self, Action, Upstream};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, AAAA, CNAME, PTR, SOA, TXT},
    },
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

type Zone = BTreeMap<String, BTreeMap<String, Value>>;

/// Starts an upstream with that zone.
pub(crate) fn start(zone: &Zone) -> Upstream {
    let zone = zone.clone();
    Upstream::start(move |query, _| answer(&zone, query))
}

fn answer(zone: &Zone, query: &Message) -> Action {
    let question = upstream::question(query);
    let mut name = question.name.clone();
    let mut message = upstream::reply(query, ResponseCode::NoError);
    loop {
        let asked = name.to_ascii().to_lowercase();
        let Some(known) = zone.get(asked.trim_end_matches('.')) else {
            return negative(query, ResponseCode::NXDomain);
        };
        let ttl = known.get("ttl").and_then(Value::as_u64).unwrap_or(300);
        let ttl = u32::try_from(ttl).expect("a TTL");
        let of_type = |kind: &str| -> Vec<&str> {
            let texts = known.get(kind).and_then(Value::as_array);
            let texts = texts.into_iter().flatten();
            texts.filter_map(Value::as_str).collect()
        };
        let kind = question.query_type.to_string();
        for text in of_type(&kind) {
            let record = Record::from_rdata(name.clone(), ttl, data(&kind, text));
            message.answers.push(record);
        }
        let alias = of_type("CNAME").first().map(|alias| (*alias).to_owned());
        let Some(alias) = alias.filter(|_| kind != "CNAME") else {
            break;
        };
        let record = Record::from_rdata(name.clone(), ttl, data("CNAME", &alias));
        message.answers.push(record);
        name = parse(&alias);
    }
    match message.answers.is_empty() {
        true => negative(query, ResponseCode::NoError),
        false => Action::Answer(message),
    }
}

/// With the SOA of the recursor's script, whose serial number is the time.
fn negative(query: &Message, code: ResponseCode) -> Action {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("a time after 1970").as_secs();
    let soa = SOA::new(
        parse("ns.example.com."),
        parse("h.example.com."),
        u32::try_from(now).expect("a serial number"),
        2,
        3,
        4,
        60,
    );
    let mut message = upstream::reply(query, code);
    let soa = Record::from_rdata(parse("example.com."), 60, RData::SOA(soa));
    message.authorities.push(soa);
    Action::Answer(message)
}

fn data(kind: &str, text: &str) -> RData {
    match kind {
        "A" => RData::A(A(text.parse().expect("an address of the recording"))),
        "AAAA" => RData::AAAA(AAAA(text.parse().expect("an address of the recording"))),
        "CNAME" => RData::CNAME(CNAME(parse(text))),
        "PTR" => RData::PTR(PTR(parse(text))),
        "TXT" => RData::TXT(TXT::new(vec![text.to_owned()])),
        other => panic!("the recording has no {other}"),
    }
}

fn parse(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name of the recording");
    name.set_fqdn(true);
    name
}
