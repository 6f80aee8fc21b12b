//! Answers of any shape, rendered and cut: whatever a client takes of one can be read back, and says
//! nothing that the answer does not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::Message;
use proptest::prelude::*;

use super::hickory::record as ours;
use super::*;

const NAMES: [&str; 6] = [
    "www.corp.example",
    "a.corp.example",
    "b.a.corp.example",
    "web.service.consul",
    "0a000001.addr.dc1.consul",
    "org",
];

fn name() -> impl Strategy<Value = Name> {
    prop::sample::select(NAMES.to_vec()).prop_map(|text| Name::from_text(text).expect("a name"))
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        4 => any::<u32>().prop_map(|ip| Data::A(Ipv4Addr::from(ip))),
        1 => any::<u128>().prop_map(|ip| Data::Aaaa(Ipv6Addr::from(ip))),
        4 => (name(), any::<u16>()).prop_map(|(target, port)| Data::Srv {
            priority: 1,
            weight: 1,
            port,
            target,
        }),
        1 => name().prop_map(Data::Ns),
        1 => "[a-z]{0,40}".prop_map(|text| Data::Other {
            rtype: types::TXT,
            rdata: [&[text.len() as u8], text.as_bytes()].concat(),
        }),
        // A mail exchange, whose host no pointer may reach.
        1 => name().prop_map(|host| Data::Other {
            rtype: types::MX,
            rdata: [&[0, 10], host.as_wire()].concat(),
        }),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (name(), data()).prop_map(|(owner, data)| Record {
        owner,
        ttl: 60,
        data,
    })
}

/// Addresses of the hosts of answers: of SRV records under their targets, of others under any name.
fn glue() -> impl Strategy<Value = (usize, Name, u32)> {
    (0..40_usize, name(), any::<u32>())
}

fn cut() -> impl Strategy<Value = Cut> {
    let subset = (any::<bool>(), any::<bool>(), 0..5_usize);
    prop_oneof![
        Just(Cut::Prefix),
        subset.prop_map(|(by_client, truncated, at_most)| {
            Cut::Subset(Subset {
                by_client,
                truncated,
                at_most,
                at_most_in_512: 0,
            })
        }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let aliases = prop::collection::vec((name(), name()), 0..3);
    let answers = prop::collection::vec(record(), 0..40);
    let authority = prop::collection::vec(record(), 0..3);
    let additional = prop::collection::vec(glue(), 0..40);
    let parts = (
        aliases,
        answers,
        authority,
        additional,
        cut(),
        any::<bool>(),
    );
    parts.prop_map(|(aliases, answers, authority, additional, cut, rotate)| {
        let alias = |(owner, target)| Record {
            owner,
            ttl: 60,
            data: Data::Cname(target),
        };
        let mut all: Vec<Record> = aliases.into_iter().map(alias).collect();
        all.extend(answers);
        let glue = additional.into_iter().filter_map(|(of, owner, ip)| {
            let owner = match all.get(of).map(|record| &record.data) {
                Some(Data::Srv { target, .. }) => target.clone(),
                Some(_) => owner,
                None => return None,
            };
            let record = Record {
                owner,
                ttl: 60,
                data: Data::A(Ipv4Addr::from(ip)),
            };
            Some(Glue { of, record })
        });
        Answer {
            additional: glue.collect(),
            answers: all,
            authority,
            cut,
            rotate,
            ..Answer::empty(Rcode::NOERROR, true)
        }
    })
}

/// Records in one form, whatever the case of names.
fn text(record: &Record) -> String {
    format!("{} {:?}", record.owner, record.data).to_lowercase()
}

fn texts<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeSet<String> {
    records.into_iter().map(text).collect()
}

fn read(records: &[hickory_proto::rr::Record]) -> BTreeSet<String> {
    let converted: Vec<Record> = records.iter().filter_map(ours).collect();
    assert_eq!(converted.len(), records.len());
    texts(&converted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn what_is_sent_of_an_answer_is_a_part_of_it(
        answer in answer(),
        asked in name(),
        size in prop::sample::select(vec![512_u16, 600, 700, 900, 1232, 4096]),
        client in any::<u32>(),
        rotation in any::<usize>(),
    ) {
        let question = [asked.as_wire(), &types::A.to_be_bytes(), &[0, 1]].concat();
        let reply = Reply {
            id: 7,
            question: &question,
            recursion_desired: true,
            wants_authentic: false,
            checking_disabled: false,
            recursion_available: false,
            transport: Transport::Udp,
            max_udp_size: 65507,
            edns: Some(ReplyEdns {
                client_size: size,
                own_size: 1232,
                dnssec_ok: false,
                client_subnet: None,
            }),
            client: IpAddr::from(Ipv4Addr::from(client)),
            rotation,
            elapsed: 0,
        };
        let rendered = Rendered::new(&answer, &asked);
        let mut out = Vec::new();
        rendered.write(&reply, &mut out);
        prop_assert!(out.len() <= usize::from(size));
        let message = Message::from_vec(&out).expect("hickory can read it");
        prop_assert!(read(&message.answers).is_subset(&texts(&answer.answers)));
        prop_assert!(read(&message.authorities).is_subset(&texts(&answer.authority)));
        let glue = texts(answer.additional.iter().map(|glue| &glue.record));
        let sent = read(&message.additionals);
        prop_assert!(sent.is_subset(&glue), "{:?} of {:?}", sent, glue);
        if rendered.fits(&reply) {
            prop_assert_eq!(message.answers.len(), answer.answers.len());
            prop_assert_eq!(sent, glue);
        }
    }
}
