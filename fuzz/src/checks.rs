//! What must hold of every reply.

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::op::Message;
use portolan::dns::{
    Answer, ClientSubnet, Cut, Name, Rcode, Record, Rendered, Reply, ReplyEdns, Subset, Transport,
    types,
};

use crate::wire::{Opt, Row, Sections, read};

/// RFC 1035 section 4.2.1.
const PLAIN_UDP: usize = 512;

/// Sends an answer of our own names as a client would get it, and checks the reply against it.
///
/// # Panics
/// Something does not hold.
pub fn send(answer: &Answer, name: &Name, reply: &Reply<'_>) -> Vec<u8> {
    let (bytes, sections, rendered) = write(answer, name, reply);
    records(&bytes, &sections, answer, name, reply);
    same_for_the_same_client(&rendered, reply, &sections);
    bytes
}

/// The same with an answer that came from elsewhere and holds any records.
///
/// # Panics
/// Something does not hold.
pub fn send_foreign(answer: &Answer, name: &Name, reply: &Reply<'_>) {
    let (bytes, sent, _) = write(answer, name, reply);
    let rows = |records: &[Record]| records.iter().map(Row::of).collect::<Vec<_>>();
    let (answers, authority) = (rows(&answer.answers), rows(&answer.authority));
    let additional: Vec<Row> = answer
        .additional
        .iter()
        .map(|glue| Row::of(&glue.record))
        .collect();
    assert!(same(&sent.answers, answers.iter().take(sent.answers.len())));
    assert!(is_part(&sent.additional, &additional));
    let is_cut = sent.answers.len() < answers.len() || sent.authority.len() < authority.len();
    if is_cut {
        assert!(sent.authority.is_empty() && sent.additional.is_empty());
    } else {
        assert!(same(&sent.authority, &authority));
    }
    assert_eq!(bytes[2] & 0x02 != 0, is_cut, "TC");
    let all = answers.iter().chain(&authority).chain(&additional);
    let opt = sent.opt.as_ref().map_or(0, |opt| 11 + opt.options.len());
    if 12 + reply.question.len() + opt + all.map(Row::len).sum::<usize>() <= limit(reply) {
        assert!(!is_cut && same(&sent.additional, &additional));
    }
}

fn write(answer: &Answer, name: &Name, reply: &Reply<'_>) -> (Vec<u8>, Sections, Rendered) {
    let rendered = Rendered::new(answer, name);
    assert_eq!(rendered.rcode(), answer.rcode);
    // Two bytes are there already, as over TCP.
    let mut bytes = vec![0xAA, 0xBB];
    rendered.write(reply, &mut bytes);
    assert_eq!(bytes[..2], [0xAA, 0xBB], "what was there stays");
    bytes.drain(..2);
    let sections = well_formed(&bytes, reply);
    header(&bytes, answer, reply);
    opt(&sections, answer, reply);
    (bytes, sections, rendered)
}

/// The most bytes that the client takes.
fn limit(reply: &Reply<'_>) -> usize {
    match (reply.transport, reply.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => PLAIN_UDP,
        (Transport::Udp, Some(edns)) => {
            PLAIN_UDP.max(edns.client_size.min(reply.max_udp_size).into())
        }
    }
}

/// How many answers the operator wants there to be; 0 for any number.
fn at_most(subset: Subset, reply: &Reply<'_>) -> usize {
    let is_small = reply.transport == Transport::Udp && limit(reply) == PLAIN_UDP;
    let in_512 = if is_small { subset.at_most_in_512 } else { 0 };
    let limits = [subset.at_most, in_512];
    let limits = limits.into_iter().filter(|limit| *limit != 0);
    limits.min().unwrap_or(0)
}

fn well_formed(bytes: &[u8], reply: &Reply<'_>) -> Sections {
    assert!(bytes.len() <= limit(reply), "{} bytes", bytes.len());
    let sections = read(bytes);
    let message = Message::from_vec(bytes).expect("hickory reads it");
    assert_eq!(message.queries.len(), 1);
    assert_eq!(message.answers.len(), sections.answers.len());
    assert_eq!(message.authorities.len(), sections.authority.len());
    assert_eq!(message.additionals.len(), sections.additional.len());
    assert_eq!(message.edns.is_some(), sections.opt.is_some());
    sections
}

fn header(bytes: &[u8], answer: &Answer, reply: &Reply<'_>) {
    assert_eq!(bytes[..2], reply.id.to_be_bytes(), "the id comes back");
    let question = &bytes[12..12 + reply.question.len()];
    assert_eq!(question, reply.question, "the question comes back");
    let bit = |byte: usize, bit: u8| bytes[byte] & bit != 0;
    assert!(bit(2, 0x80), "QR");
    assert!(!bit(2, 0x78), "QUERY");
    assert_eq!(bit(2, 0x04), answer.authoritative, "AA");
    assert_eq!(bit(2, 0x01), reply.recursion_desired, "RD");
    assert_eq!(bit(3, 0x80), reply.recursion_available, "RA");
    assert!(!bit(3, 0x40), "Z");
    let authentic = answer.authentic && reply.wants_authentic;
    assert_eq!(bit(3, 0x20), authentic, "AD");
    assert_eq!(bit(3, 0x10), reply.checking_disabled, "CD");
    assert_eq!(u16::from(bytes[3] & 0x0F), answer.rcode.0 & 0x0F, "rcode");
}

fn opt(sections: &Sections, answer: &Answer, reply: &Reply<'_>) {
    let expected = reply.edns.map(|edns| Opt {
        size: edns.own_size,
        extended_rcode: (answer.rcode.0 >> 4) as u8,
        version: 0,
        flags: u16::from(edns.dnssec_ok) << 15,
        options: options(answer, edns),
    });
    assert_eq!(sections.opt, expected, "OPT if and only if it was asked");
}

/// The client's network comes back (RFC 7871), and an Extended DNS Error is told (RFC 8914).
fn options(answer: &Answer, edns: ReplyEdns) -> Vec<u8> {
    let mut options = Vec::new();
    if let Some(ClientSubnet { address, prefix }) = edns.client_subnet {
        let (family, octets) = match address {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let octets = &octets[..usize::from(prefix).div_ceil(8)];
        let scope = if answer.for_client { prefix } else { 0 };
        options.extend_from_slice(&[0, 8, 0, 4 + octets.len() as u8, 0, family, prefix, scope]);
        options.extend_from_slice(octets);
    }
    for error in &answer.errors {
        options.extend_from_slice(&[0, 15, 0, 2 + error.text.len() as u8]);
        options.extend_from_slice(&error.code.to_be_bytes());
        options.extend_from_slice(&error.text);
    }
    options
}

/// What was sent is the answer, or such a part of it as may be sent.
fn records(bytes: &[u8], sent: &Sections, answer: &Answer, name: &Name, reply: &Reply<'_>) {
    let all: Vec<Row> = answer.answers.iter().map(Row::of).collect();
    let authority: Vec<Row> = answer.authority.iter().map(Row::of).collect();
    let glue: Vec<(usize, Row)> = answer
        .additional
        .iter()
        .map(|glue| (glue.of, Row::of(&glue.record)))
        .collect();
    let opt = sent.opt.as_ref().map_or(0, |opt| 11 + opt.options.len());
    let uncompressed = 12
        + reply.question.len()
        + opt
        + all.iter().chain(&authority).map(Row::len).sum::<usize>()
        + glue.iter().map(|(_, row)| row.len()).sum::<usize>();
    let (at_most, tells) = match answer.cut {
        Cut::Prefix => (0, true),
        Cut::Subset(subset) => (at_most(subset, reply), subset.truncated),
    };
    // Aliases stand in front and are no records of their own.
    let aliases = all
        .iter()
        .take_while(|row| row.rtype == types::CNAME)
        .count();
    let too_many = at_most != 0 && all.len() - aliases > at_most;
    let truncated = bytes[2] & 0x02 != 0;

    // D9: the order turns only while all are there, and only if nothing has to follow it.
    let is_whole = sent.answers.len() == all.len();
    if is_whole && answer.rotate && glue.is_empty() && authority.is_empty() {
        let (first, rest) = all.split_at(aliases);
        let turn = reply.rotation % rest.len().max(1);
        let turned = first.iter().chain(&rest[turn..]).chain(&rest[..turn]);
        assert!(same(&sent.answers, turned), "the answers, turned");
    } else {
        assert!(is_part(&sent.answers, &all), "the answers, in order");
    }
    if at_most != 0 {
        assert!(sent.answers.len() <= at_most + aliases, "a_record_limit");
    }
    aliases_lead_on(&sent.answers, name);

    let has_authority = sent.authority.len() == authority.len();
    assert!(
        has_authority && same(&sent.authority, &authority) || sent.authority.is_empty(),
        "all of Authority or nothing"
    );
    additional(sent, &all, &authority, &glue);

    if uncompressed <= limit(reply) && !too_many {
        assert!(is_whole && has_authority, "what fits is sent");
        let glue = glue.iter().map(|(_, row)| row);
        assert!(same(&sent.additional, glue), "glue that fits is sent");
    }
    // D7. Authority counts as well: of our own answers only SOA has one that may not fit. Aliases
    // that lead nowhere are no right answer to a question for addresses.
    let is_cut = !is_whole || !has_authority;
    let tells = tells || sent.answers.len() < aliases;
    assert_eq!(truncated, is_cut && tells, "TC");
    if reply.transport == Transport::Tcp && uncompressed <= usize::from(u16::MAX) {
        assert!(!is_cut || too_many, "nothing is cut over TCP");
    }
}

/// D8: only addresses of targets that are there; one run of A in the order of the targets, then
/// one of AAAA; with a cut answer everything that belongs to what is left of it.
fn additional(sent: &Sections, all: &[Row], authority: &[Row], glue: &[(usize, Row)]) {
    let targets: Vec<&[u8]> = sent
        .answers
        .iter()
        .chain(&sent.authority)
        .filter(|row| row.rtype != types::CNAME)
        .filter_map(Row::target)
        .collect();
    let is_srv = sent.answers.iter().any(|row| row.rtype == types::SRV);
    let owners: HashSet<&[u8]> = targets.iter().copied().collect();
    for row in &sent.additional {
        assert!(
            owners.contains(row.owner.as_slice()),
            "glue belongs to a target"
        );
        if is_srv {
            assert_eq!(row.owner, row.owner_as_sent, "byte by byte");
        }
    }
    let end_of_a = sent.additional.partition_point(|row| row.rtype == types::A);
    let (v4, v6) = sent.additional.split_at(end_of_a);
    assert!(
        v6.iter().all(|row| row.rtype == types::AAAA),
        "A before AAAA and nothing else"
    );
    for family in [v4, v6] {
        let mut at = 0;
        for row in family {
            while targets.get(at).is_some_and(|target| *target != row.owner) {
                at += 1;
            }
            assert!(at < targets.len(), "glue in the order of its targets");
        }
    }
    // The answers of a subset keep their glue; one that is left alone keeps what fits.
    let lost_answers = sent.answers.len() < all.len() && authority.is_empty();
    if lost_answers && sent.answers.iter().all(|row| row.rtype == types::SRV) {
        let mut kept = sent.answers.iter().peekable();
        let mut expected = HashSet::new();
        for (of, row) in all.iter().enumerate() {
            if kept.next_if(|sent| sent.same_as(row)).is_some() {
                expected.insert(of);
            }
        }
        let expected: Vec<Row> = glue
            .iter()
            .filter(|(of, _)| expected.contains(of))
            .map(|(_, row)| row.clone())
            .collect();
        let is_alone = sent.answers.len() == 1 && is_part(&sent.additional, &expected);
        assert!(
            is_alone || same(&sent.additional, &expected),
            "kept answers keep their glue"
        );
    }
}

/// Stub resolvers read the Answer section from top to bottom: each record belongs to the name that
/// was asked or to what an alias above it leads to.
fn aliases_lead_on(answers: &[Row], name: &Name) {
    let question = name.as_wire().to_ascii_lowercase();
    let mut names = vec![question.as_slice()];
    let is_zone = |row: &Row| matches!(row.rtype, types::SOA | types::NS);
    for row in answers.iter().filter(|row| !is_zone(row)) {
        assert!(
            names.contains(&row.owner.as_slice()),
            "a record whose alias is not above it"
        );
        if row.rtype == types::CNAME {
            names.extend(row.target());
        }
    }
}

/// D6: a client gets the same set, whatever the id, the turn, and the form of its address.
fn same_for_the_same_client(rendered: &Rendered, reply: &Reply<'_>, before: &Sections) {
    let client = match reply.client {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(ip) => ip.to_canonical(),
    };
    let again = Reply {
        id: !reply.id,
        rotation: reply.rotation.wrapping_add(3),
        client,
        ..*reply
    };
    let mut bytes = Vec::new();
    rendered.write(&again, &mut bytes);
    let after = read(&bytes);
    let set = |rows: &[Row]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    assert_eq!(set(&before.answers), set(&after.answers));
    assert_eq!(before.authority, after.authority);
    assert_eq!(before.additional, after.additional);
}

/// A negative answer says who is responsible and gives no records.
///
/// # Panics
/// It does not.
pub fn negative(answer: &Answer) {
    if answer.rcode == Rcode::NXDOMAIN {
        assert!(answer.answers.is_empty(), "NXDOMAIN has no answers");
    }
    if answer.answers.is_empty() && matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN) {
        let has_soa = answer
            .authority
            .iter()
            .any(|record| record.data.rtype() == types::SOA);
        assert!(has_soa, "a negative answer has a SOA");
    }
}

fn same<'a>(some: &[Row], others: impl IntoIterator<Item = &'a Row>) -> bool {
    let mut others = others.into_iter();
    some.iter()
        .all(|row| others.next().is_some_and(|other| row.same_as(other)))
        && others.next().is_none()
}

/// Are all of `some` in `all`, in that order?
fn is_part(some: &[Row], all: &[Row]) -> bool {
    let mut all = all.iter();
    some.iter().all(|row| all.any(|other| row.same_as(other)))
}
