//! Questions and the answers that they have to get, as text: a line for each question.
//!
//! `who | name type | rcode | answers | additional | authority`, with nothing after the last column
//! that is not empty. An empty line and one that begins with `#` are for the reader.
//!
//! - who: `all`; `recursing`, who may recurse and asks for it; `others`, who may not or does not ask.
//! - answers: without owners. The first belongs to the name asked, the next after an alias to the
//!   alias's target. What is behind the aliases may come in any order, as addresses take turns. `*` is
//!   anything (but never a lie of the upstream).
//! - additional: with owners, in this order.
//! - authority: the owner of the SOA record.
//! - a `?` in front of the last two: these or nothing, both are right.

use crate::{
    support::{
        dns::Query,
        upstream::Transport,
        wire::{Record, Reply, rcode, rtype},
    },
    world::LIES,
};
use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who {
    may_recurse: bool,
    wants_recursion: bool,
}

/// Everybody: the first is the one who is recursed for.
const ALL: [Who; 4] = [
    Who::new(true, true),
    Who::new(true, false),
    Who::new(false, true),
    Who::new(false, false),
];

impl Who {
    const fn new(may_recurse: bool, wants_recursion: bool) -> Self {
        Self {
            may_recurse,
            wants_recursion,
        }
    }

    pub(crate) fn is_recursed_for(self) -> bool {
        self.may_recurse && self.wants_recursion
    }

    /// The access list has 127.0.0.1 and nobody else.
    fn address(self) -> Ipv4Addr {
        let last = if self.may_recurse { 1 } else { 2 };
        Ipv4Addr::new(127, 0, 0, last)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.may_recurse {
            "client"
        } else {
            "stranger"
        })?;
        f.write_str(if self.wants_recursion {
            " with RD"
        } else {
            " without RD"
        })
    }
}

/// Records that have to be there, or may be.
#[derive(Debug, Default)]
struct Expected {
    records: Vec<String>,
    or_nothing: bool,
}

impl Expected {
    fn parse(text: &str) -> Self {
        let records = text.trim_start_matches('?');
        Self {
            records: list(records).map(str::to_owned).collect(),
            or_nothing: records != text,
        }
    }

    fn matches(&self, found: &[String]) -> bool {
        same(&self.records, found) || (self.or_nothing && found.is_empty())
    }
}

/// One line of a table.
pub(crate) struct Row<'t> {
    line: &'t str,
    who: &'t str,
    name: &'t str,
    rtype: u16,
    rcode: &'t str,
    /// `None`: whatever.
    answers: Option<Vec<String>>,
    additional: Expected,
    authority: Expected,
}

impl<'t> Row<'t> {
    fn parse(line: &'t str) -> Self {
        let mut columns = line.split('|').map(str::trim);
        let mut next = || columns.next().unwrap_or_default();
        let (who, question, rcode, answers) = (next(), next(), next(), next());
        let (additional, authority) = (Expected::parse(next()), Expected::parse(next()));
        let question = question.split_once(' ');
        let (name, rtype) = question.unwrap_or_else(|| panic!("no question: {line}"));
        assert!(["all", "recursing", "others"].contains(&who), "who? {line}");
        assert_eq!(columns.next(), None, "too many columns: {line}");
        Self {
            line,
            who,
            name,
            rtype: type_of(rtype.trim()),
            rcode,
            answers: (answers != "*").then(|| aliases_first(with_owners(name, answers))),
            additional,
            authority,
        }
    }

    fn is_for(&self, who: Who) -> bool {
        match self.who {
            "recursing" => who.is_recursed_for(),
            "others" => !who.is_recursed_for(),
            _ => true,
        }
    }

    fn query(&self, who: Who, transport: Transport) -> Query {
        let query = Query::new(self.name, self.rtype).from(who.address());
        let query = if who.wants_recursion {
            query
        } else {
            query.no_recursion()
        };
        match transport {
            Transport::Udp => query.edns(1232),
            Transport::Tcp => query.tcp(),
        }
    }

    fn is_right(&self, reply: &Reply) -> bool {
        let answers = aliases_first(records(&reply.answers));
        let additional: Vec<String> = reply.glue().map(Record::without_ttl).collect();
        let authority: Vec<String> = reply.authority.iter().map(owner_of_soa).collect();
        let ours = ["consul.", "corp.example.", "arpa."];
        let name = self.name.to_lowercase();
        let from_us = ours.iter().any(|zone| name.ends_with(zone));
        let has_authority = matches!(reply.rcode(), rcode::NOERROR | rcode::NXDOMAIN);
        rcode::name(reply.rcode()) == self.rcode
            && self.answers.as_ref().is_none_or(|all| same(all, &answers))
            && self.additional.matches(&additional)
            && self.authority.matches(&authority)
            // AA speaks of the first owner (RFC 1035 section 4.1.1).
            && (!has_authority || reply.aa() == from_us)
            && !reply.tc()
            && !LIES.iter().any(|lie| reply.summary().contains(lie))
    }
}

/// A row that got another answer than it has to get.
pub(crate) struct Wrong<'t> {
    row: &'t str,
    /// What was said, with to whom.
    said: BTreeMap<String, Vec<String>>,
}

impl Wrong<'_> {
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.row == other.row
    }
}

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row)?;
        for (what, to) in &self.said {
            write!(f, "\n    said {what}\n      to {}", to.join("; "))?;
        }
        Ok(())
    }
}

/// Asks a whole table over UDP and TCP, as everybody whom the rows are for and `asks` lets ask.
/// Gives every row that is wrong.
pub(crate) fn wrong(server: SocketAddr, table: &str, asks: fn(Who) -> bool) -> Vec<Wrong<'_>> {
    let mut wrong = Vec::new();
    for row in rows(table) {
        // The same wrong answer to several is told once.
        let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let clients = ALL.into_iter().filter(|who| row.is_for(*who) && asks(*who));
        for who in clients {
            for transport in [Transport::Udp, Transport::Tcp] {
                let asked = format!("{who}, {transport:?}");
                match row.query(who, transport).try_ask(server) {
                    Ok(reply) if row.is_right(&reply) => {}
                    Ok(reply) => said.entry(in_short(&reply)).or_default().push(asked),
                    Err(error) => said.entry(error).or_default().push(asked),
                }
            }
        }
        if !said.is_empty() {
            wrong.push(Wrong {
                row: row.line,
                said,
            });
        }
    }
    wrong
}

/// As lines for `none_wrong`.
pub(crate) fn texts(wrong: &[Wrong<'_>]) -> Vec<String> {
    wrong.iter().map(Wrong::to_string).collect()
}

/// Fails with all that is wrong.
pub(crate) fn none_wrong(wrong: &[String]) {
    let all = wrong.join("\n");
    assert!(wrong.is_empty(), "{} wrong:\n{all}", wrong.len());
}

/// What is looked at of a reply, in one line.
fn in_short(reply: &Reply) -> String {
    let glue: Vec<String> = reply.glue().map(Record::without_ttl).collect();
    format!(
        "{} [{}] additional [{}] authority [{}]{}{}",
        rcode::name(reply.rcode()),
        records(&reply.answers).join(", "),
        glue.join(", "),
        records(&reply.authority).join(", "),
        if reply.aa() { " AA" } else { "" },
        if reply.tc() { " TC" } else { "" },
    )
}

fn rows(table: &str) -> impl Iterator<Item = Row<'_>> {
    let lines = table.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(Row::parse)
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// The records of a chain of aliases and what is at its end, from their types and data.
fn with_owners(name: &str, answers: &str) -> Vec<String> {
    let mut owner = name;
    let mut records = Vec::new();
    for record in list(answers) {
        records.push(format!("{owner} {record}"));
        owner = record.strip_prefix("CNAME ").unwrap_or(owner);
    }
    records
}

/// The aliases as they came, and the others sorted.
fn aliases_first(mut records: Vec<String>) -> Vec<String> {
    let aliases = records
        .iter()
        .take_while(|record| record.contains(" CNAME "))
        .count();
    records[aliases..].sort();
    records
}

fn records(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::without_ttl).collect()
}

/// The owner of an SOA record, whose serial number and the like are not looked at; all of any other.
fn owner_of_soa(record: &Record) -> String {
    if record.rtype == rtype::SOA {
        record.name.clone()
    } else {
        record.without_ttl()
    }
}

/// Names are the same in every case of their letters.
fn same(expected: &[String], found: &[String]) -> bool {
    expected.len() == found.len()
        && expected
            .iter()
            .zip(found)
            .all(|(expected, found)| expected.eq_ignore_ascii_case(found))
}

fn type_of(name: &str) -> u16 {
    let known = (1..=257).find(|number| rtype::name(*number) == name);
    known.unwrap_or_else(|| panic!("no type: {name}"))
}
