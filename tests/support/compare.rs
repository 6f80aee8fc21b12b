//! Two replies to one question, compared part by part: Consul's own DNS is the oracle.

use super::{
    consul::Consul,
    dns::Query,
    eventually,
    portolan::Portolan,
    wire::{Record, Reply, rcode, rtype},
};
use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A part of a reply that can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Rcode,
    Aa,
    Ra,
    Tc,
    Rd,
    /// The Answer section, as a set, whatever the case and TTL.
    Answers,
    Authority,
    /// Addresses (and aliases) in Additional.
    Glue,
    /// Anything else in Additional but OPT.
    Extras,
    /// TTLs of records that both have, and a SOA's minimum.
    Ttl,
    /// The case of records that both have.
    Case,
    /// OPT: whether there is one, its version, its flags and its options.
    Edns,
    /// The payload size in OPT, if both have one.
    Size,
}

/// What a service's answer is made of: what has to be equal even where the two servers have different
/// settings. TTLs, the order of records, TXT in Additional, the SOA of negative answers and the case
/// of targets are not in it: Portolan deviates there on purpose everywhere.
const SUBSTANCE: &[Part] = &[
    Part::Rcode,
    Part::Aa,
    Part::Ra,
    Part::Tc,
    Part::Answers,
    Part::Glue,
];

/// Where two replies differ: what only one of them has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) part: Part,
    pub(crate) theirs: Vec<String>,
    pub(crate) ours: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |texts: &[String]| texts.join(" | ");
        let (theirs, ours) = (side(&self.theirs), side(&self.ours));
        write!(f, "{:?}: Consul [{theirs}], ours [{ours}]", self.part)
    }
}

/// All differences between two replies.
pub(crate) fn compare(theirs: &Reply, ours: &Reply) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut note = |part, theirs: Vec<String>, ours: Vec<String>| {
        let (theirs, ours) = without_common(theirs, ours);
        if !theirs.is_empty() || !ours.is_empty() {
            found.push(Difference { part, theirs, ours });
        }
    };
    let mut scalar = |part, of: &dyn Fn(&Reply) -> String| {
        note(part, vec![of(theirs)], vec![of(ours)]);
    };
    scalar(Part::Rcode, &|reply| rcode::name(reply.rcode()));
    scalar(Part::Aa, &|reply| reply.aa().to_string());
    scalar(Part::Ra, &|reply| reply.ra().to_string());
    scalar(Part::Tc, &|reply| reply.tc().to_string());
    scalar(Part::Rd, &|reply| reply.rd().to_string());
    scalar(Part::Edns, &|reply| match reply.opt() {
        Some(opt) => format!(
            "version {} flags {:#x} options [{}]",
            opt.ttl >> 16 & 0xff,
            opt.ttl & 0xffff,
            opt.data
        ),
        None => "none".to_owned(),
    });
    if let (Some(_), Some(_)) = (theirs.opt(), ours.opt()) {
        scalar(Part::Size, &|reply| {
            reply
                .opt()
                .map_or_else(String::new, |opt| opt.class.to_string())
        });
    }
    type Section = fn(&Reply) -> Vec<&Record>;
    let sections: [(Part, Section); 4] = [
        (Part::Answers, |reply| reply.answers.iter().collect()),
        (Part::Authority, |reply| reply.authority.iter().collect()),
        (Part::Glue, |reply| {
            reply.glue().filter(|r| is_glue(r)).collect()
        }),
        (Part::Extras, |reply| {
            reply.glue().filter(|r| !is_glue(r)).collect()
        }),
    ];
    for (part, section) in sections {
        let (theirs, ours) = (section(theirs), section(ours));
        note(part, texts(&theirs, folded), texts(&ours, folded));
        // What only one has is told above; the rest may still differ in small things.
        let theirs_too = with_twin(&theirs, &ours);
        let ours_too = with_twin(&ours, &theirs);
        note(
            Part::Ttl,
            texts(&theirs_too, timed),
            texts(&ours_too, timed),
        );
        note(
            Part::Case,
            texts(&theirs_too, plain),
            texts(&ours_too, plain),
        );
    }
    found
}

fn is_glue(record: &Record) -> bool {
    record.is_address() || record.rtype == rtype::CNAME
}

fn texts(records: &[&Record], text: fn(&Record) -> String) -> Vec<String> {
    records.iter().map(|record| text(record)).collect()
}

/// The record as it is, without its TTL. A SOA has no minimum (that is a TTL), and `now` for a serial
/// that is the current time.
fn plain(record: &Record) -> String {
    let mut record = record.clone();
    if record.rtype == rtype::SOA {
        let mut words: Vec<&str> = record.data.split(' ').collect();
        words.truncate(6);
        if words[2].parse().is_ok_and(is_now) {
            words[2] = "now";
        }
        record.data = words.join(" ");
    }
    record.without_ttl()
}

fn folded(record: &Record) -> String {
    plain(record).to_lowercase()
}

fn timed(record: &Record) -> String {
    let minimum = match record.rtype {
        rtype::SOA => format!(" minimum {}", record.word(6)),
        _ => String::new(),
    };
    format!("{} ttl {}{minimum}", folded(record), record.ttl)
}

fn is_now(serial: u64) -> bool {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.is_ok_and(|now| now.as_secs().abs_diff(serial) <= 5)
}

/// The records of `these` that `others` have too, as often as they have them.
fn with_twin<'a>(these: &[&'a Record], others: &[&Record]) -> Vec<&'a Record> {
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for other in others {
        *left.entry(folded(other)).or_default() += 1;
    }
    let mut taken = |record: &&&Record| match left.get_mut(&folded(record)) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    };
    these
        .iter()
        .filter(|record| taken(record))
        .copied()
        .collect()
}

/// Takes away from both lists, sorted, what they have in common.
fn without_common(mut one: Vec<String>, mut other: Vec<String>) -> (Vec<String>, Vec<String>) {
    one.sort();
    other.sort();
    let mut only_one = Vec::new();
    for text in one {
        match other.iter().position(|same| *same == text) {
            Some(at) => {
                other.remove(at);
            }
            None => only_one.push(text),
        }
    }
    (only_one, other)
}

/// Asks both the same and says how the replies differ in substance, or what is wrong with ours by
/// itself.
pub(crate) fn differences(
    consul: &Consul,
    portolan: &Portolan,
    query: &Query,
) -> Result<(), String> {
    let theirs = query.try_ask(consul.dns())?;
    let ours = query.try_ask(portolan.dns())?;
    let mut wrong = wrong_by_itself(query, &ours);
    wrong.extend(wrong_default_ttls(query, &ours));
    let differences = compare(&theirs, &ours);
    let substantial = differences.iter().filter(|d| SUBSTANCE.contains(&d.part));
    wrong.extend(substantial.map(Difference::to_string));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{query}: {}\n    Consul:   {}\n    Portolan: {}",
        wrong.join(", "),
        theirs.summary(),
        ours.summary()
    ))
}

/// What holds for every answer of ours about Consul's names.
pub(crate) fn wrong_by_itself(query: &Query, ours: &Reply) -> Vec<String> {
    let mut wrong = Vec::new();
    // A zone transfer is refused without a word.
    if query.rtype == rtype::AXFR {
        return wrong;
    }
    let mut check = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    check(
        ours.question == query.question(),
        "the question is not echoed byte for byte",
    );
    check(ours.aa(), "AA is not set");
    let of_the_zone = matches!(query.rtype, rtype::SOA | rtype::NS);
    let asked = format!("{}.", query.name);
    check(
        of_the_zone || ours.answers.first().is_none_or(|first| first.name == asked),
        "the first answer is of another name: aliases come first",
    );
    let soa = ours.authority.iter().filter(|r| r.rtype == rtype::SOA);
    if ours.answers.is_empty() {
        check(soa.count() == 1, "a negative answer without its one SOA");
        check(
            matches!(ours.rcode(), rcode::NOERROR | rcode::NXDOMAIN),
            "neither NOERROR nor NXDOMAIN",
        );
    } else {
        check(soa.count() == 0, "a SOA beside answers");
    }
    check(
        ours.glue().all(Record::is_address),
        "Additional has more than addresses and OPT",
    );
    check(
        ours.additional.iter().position(|r| r.rtype == rtype::OPT)
            == ours.opt().map(|_| ours.additional.len() - 1),
        "OPT is not last",
    );
    for srv in ours.answers.iter().filter(|r| r.rtype == rtype::SRV) {
        let target = srv.word(3);
        check(
            target == target.to_lowercase(),
            "an SRV target that is not lower case",
        );
    }
    wrong
}

/// What is wrong with the TTLs of an answer about Consul's names, under the default settings (D17).
fn wrong_default_ttls(query: &Query, ours: &Reply) -> Option<String> {
    let name = query.name.to_lowercase();
    let of_a_node = [".node.", ".addr."].iter().any(|part| name.contains(part));
    let ttl = if of_a_node { 5 } else { 1 };
    let mut soa = ours.authority.iter().filter(|r| r.rtype == rtype::SOA);
    let mut records = ours.answers.iter().chain(ours.glue());
    let good = matches!(query.rtype, rtype::SOA | rtype::NS)
        || records.all(|r| r.ttl == ttl) && soa.all(|r| r.ttl == 1 && r.word(6) == "1");
    (!good).then(|| format!("a TTL that is not {ttl}, or not 1 of a negative answer"))
}

/// Waits until Consul's own answer to `name` is `expected` (the sorted data of the records) and
/// Portolan's is the same in everything.
pub(crate) fn settles(
    consul: &Consul,
    portolan: &Portolan,
    name: &str,
    rtype: u16,
    expected: &[&str],
) {
    let query = Query::new(name, rtype).edns(4096);
    let what = format!("{name} is {expected:?}");
    eventually(Duration::from_secs(5), &what, || {
        let theirs = query.try_ask(consul.dns())?;
        if theirs.data() != expected {
            return Err(format!("Consul says {}", theirs.summary()));
        }
        differences(consul, portolan, &query)
    });
}
