//! The rest of the Internet, as both servers' recursor tells it.

use crate::support::upstream::{self, Action, Upstream};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, MX, PTR, TXT},
    },
};
use std::net::Ipv4Addr;

/// Starts the one upstream of both servers.
pub(crate) fn start() -> Upstream {
    Upstream::start(|query, _| answer(query))
}

fn answer(query: &Message) -> Action {
    let question = upstream::question(query);
    let asked = question.name.to_ascii().to_lowercase();
    let asked = asked.trim_end_matches('.');
    if asked == "broken.example.com" {
        return upstream::failure(query, ResponseCode::ServFail);
    }
    let Some(known) = records(asked) else {
        return upstream::negative(query, ResponseCode::NXDomain);
    };
    let wanted: Vec<(&str, RData)> = known
        .into_iter()
        .filter(|(_, data)| [question.query_type, RecordType::CNAME].contains(&data.record_type()))
        .collect();
    // An alias to another type alone is NODATA of the name it leads to.
    if wanted.is_empty() {
        return upstream::negative(query, ResponseCode::NoError);
    }
    let mut message = upstream::reply(query, ResponseCode::NoError);
    for (owner, data) in wanted {
        let owner = if owner == asked {
            question.name.clone()
        } else {
            name(owner)
        };
        message.answers.push(Record::from_rdata(owner, 300, data));
    }
    Action::Answer(message)
}

/// All that there is at a name, aliases with what they lead to; `None` if there is no such name.
fn records(asked: &str) -> Option<Vec<(&str, RData)>> {
    let v4 = |last: u8| RData::A(A(Ipv4Addr::new(203, 0, 113, last)));
    let v6 = |text: &str| RData::AAAA(AAAA(text.parse().expect("an address of the script")));
    let alias = |to: &str| RData::CNAME(CNAME(name(to)));
    let www = "www.example.com";
    Some(match asked {
        "www.example.com" => vec![(asked, v4(10))],
        "under_score.example.com" => vec![(asked, v4(11))],
        "dual.example.com" => vec![(asked, v4(12)), (asked, v6("2001:db8::12"))],
        "six.example.com" => vec![(asked, v6("2001:db8::13"))],
        "many.example.com" => (20..28).map(|last| (asked, v4(last))).collect(),
        "alias.example.com" => vec![(asked, alias(www)), (www, v4(10))],
        "empty.example.com" => Vec::new(),
        "loop.example.com" => vec![
            (asked, alias("pool.example.com")),
            ("pool.example.com", alias(asked)),
        ],
        "text.example.com" => vec![(asked, RData::TXT(TXT::new(vec!["hello".to_owned()])))],
        "mail.example.com" => vec![(asked, RData::MX(MX::new(10, name(www))))],
        "10.113.0.203.in-addr.arpa" => vec![(asked, RData::PTR(PTR(name(www))))],
        _ => return None,
    })
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name of the script");
    name.set_fqdn(true);
    name
}
