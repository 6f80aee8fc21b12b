//! Asks both servers, takes the replies apart, and holds every difference against the list.

use crate::{
    deviations::{self, Deviation, SECOND_DOMAIN, SIZE_OF_OPT},
    domains::{in_the_first, strays, text_in_the_first},
    model,
    support::{
        compare::{Difference, Part, compare, wrong_by_itself},
        dns::Query,
        wire::{Record, Reply, rcode, rtype},
    },
    world::ALT_DOMAIN,
};
use std::{
    cell::OnceCell, collections::BTreeMap, fmt::Write, net::SocketAddr, path::Path, time::Duration,
};

/// How much of a failure is printed; the rest is in a file.
const SHOWN_CAUSES: usize = 12;
const SHOWN_BYTES: usize = 300;

/// Whoever says what Consul's DNS says.
pub(crate) trait Oracle {
    /// What it says to a question; or why there is no answer.
    fn answer(&self, query: &Query) -> Result<Reply, String>;
}

/// A running Consul.
impl Oracle for SocketAddr {
    fn answer(&self, query: &Query) -> Result<Reply, String> {
        query.try_ask(*self)
    }
}

/// One question and what each server said.
pub(crate) struct Exchange<'a> {
    pub(crate) query: &'a Query,
    pub(crate) theirs: Reply,
    pub(crate) ours: Reply,
    consul: &'a dyn Oracle,
    portolan: SocketAddr,
    all_of_theirs: OnceCell<Vec<String>>,
    all_of_ours: OnceCell<Vec<String>>,
}

/// The questions that deviations ask of an exchange.
impl Exchange<'_> {
    pub(crate) fn rtype(&self) -> u16 {
        self.query.rtype
    }

    /// The labels left of our domain, in lower case; `None` if the name is not ours.
    pub(crate) fn labels(&self) -> Option<Vec<String>> {
        own_labels(&self.query.name)
    }

    /// Everything that Consul has to say, by TCP: what it says by UDP is a part of this.
    pub(crate) fn all_of_theirs(&self) -> &[String] {
        self.all_of_theirs
            .get_or_init(|| whole(self.query, self.consul))
    }

    /// The same of ours.
    pub(crate) fn all_of_ours(&self) -> &[String] {
        self.all_of_ours
            .get_or_init(|| whole(self.query, &self.portolan))
    }

    /// The additional addresses that we have, by TCP, in lower case.
    pub(crate) fn all_glue_of_ours(&self) -> Vec<String> {
        let reply = self.ours_at(&self.query.name);
        let glue: Vec<Record> = reply.glue().cloned().collect();
        texts(&glue)
    }

    /// Whether it is asked for the name of an address.
    pub(crate) fn is_reverse(&self) -> bool {
        self.query.name.to_lowercase().ends_with(".arpa")
    }

    /// What each server says, theirs first.
    pub(crate) fn rcodes(&self) -> (u16, u16) {
        (self.theirs.rcode(), self.ours.rcode())
    }

    /// The form of name, if it is one of ours.
    pub(crate) fn keyword(&self) -> String {
        let labels = self.labels().unwrap_or_default();
        model::keyword(&labels).unwrap_or_default().to_owned()
    }

    /// The name that is asked for, in the first domain and with a dot at its end.
    pub(crate) fn asked(&self) -> String {
        text_in_the_first(&format!("{}.", self.query.name))
    }

    /// How the answers' texts about this very name begin.
    pub(crate) fn owner(&self) -> String {
        format!("{} ", self.asked().to_lowercase())
    }

    pub(crate) fn theirs_is_cut(&self) -> bool {
        self.theirs.answers.len() < self.all_of_theirs().len()
    }

    pub(crate) fn ours_is_cut(&self) -> bool {
        self.ours.answers.len() < self.all_of_ours().len()
    }

    /// Whether each additional address of ours belongs to an SRV record.
    pub(crate) fn glue_is_of_answers(&self) -> bool {
        let srv = || self.ours.answers.iter().filter(|r| r.rtype == rtype::SRV);
        let mut glue = self.ours.glue();
        glue.all(|glue| srv().any(|srv| srv.word(3) == glue.name))
    }

    /// What they say to the same name and another type.
    pub(crate) fn theirs_for(&self, rtype: u16) -> Reply {
        let query = Query::new(&self.query.name, rtype).edns(4096);
        let said = self.consul.answer(&query);
        said.unwrap_or_else(|error| panic!("asking Consul for {query}: {error}"))
    }

    /// What we say to the same name and another type.
    pub(crate) fn ours_for(&self, rtype: u16) -> Reply {
        Query::new(&self.query.name, rtype)
            .edns(4096)
            .ask(self.portolan)
    }

    /// What we say to another name, asked by TCP.
    pub(crate) fn ours_at(&self, name: &str) -> Reply {
        let reply = Query::new(name, self.query.rtype).tcp().ask(self.portolan);
        in_the_first(name, reply)
    }

    fn lines(&self) -> String {
        format!(
            "    Consul:   {}\n    Portolan: {}",
            self.theirs.summary(),
            self.ours.summary()
        )
    }
}

/// The labels left of our domain, in lower case; `None` if the name is not ours.
pub(crate) fn own_labels(name: &str) -> Option<Vec<String>> {
    let lower = name.to_lowercase();
    let left = ["consul", ALT_DOMAIN].into_iter().find_map(|domain| {
        let left = lower.strip_suffix(domain)?;
        (left.is_empty() || left.ends_with('.')).then_some(left)
    })?;
    // `\.` is no end of a label, but `\\.` is.
    let marked = left.replace("\\\\", "\\092").replace("\\.", "\\046");
    let labels = marked.split('.').filter(|label| !label.is_empty());
    Some(labels.map(str::to_owned).collect())
}

fn whole(query: &Query, server: &dyn Oracle) -> Vec<String> {
    // With EDNS, because Consul follows aliases less far without.
    let query = Query::new(&query.name, query.rtype).edns(4096).tcp();
    let reply = server.answer(&query);
    reply.map_or_else(
        |_| Vec::new(),
        |reply| texts(&in_the_first(&query.name, reply).answers),
    )
}

/// Answers as sorted texts, without TTL, in lower case.
pub(crate) fn texts(records: &[Record]) -> Vec<String> {
    let mut texts: Vec<String> = records
        .iter()
        .map(|record| record.without_ttl().to_lowercase())
        .collect();
    texts.sort();
    texts
}

/// What came of all questions so far.
#[derive(Default)]
pub(crate) struct Tally {
    asked: usize,
    /// Nothing that is compared differs.
    equal: usize,
    /// Nothing differs but the payload size in OPT.
    equal_but_for_the_size: usize,
    /// By deviation: how many questions it explained something of.
    explained: BTreeMap<&'static str, usize>,
    unexpected: Vec<Unexpected>,
}

struct Unexpected {
    /// What kind of difference it is: those that look alike are shown once.
    cause: String,
    query: String,
    detail: String,
}

impl Tally {
    /// Asks both servers and judges; says whether all was well.
    pub(crate) fn ask(&mut self, query: &Query, consul: &dyn Oracle, portolan: SocketAddr) -> bool {
        self.asked += 1;
        let patient = query.clone().patience(Duration::from_secs(5));
        let (theirs, ours) = match (consul.answer(&patient), patient.try_ask(portolan)) {
            (Ok(theirs), Ok(ours)) => (theirs, ours),
            (theirs, ours) => {
                let told = |reply: Result<Reply, String>| match reply {
                    Ok(reply) => reply.summary(),
                    Err(error) => format!("no answer: {error}"),
                };
                self.unexpected.push(Unexpected {
                    cause: "no answer".to_owned(),
                    query: query.to_string(),
                    detail: format!(
                        "    Consul:   {}\n    Portolan: {}",
                        told(theirs),
                        told(ours)
                    ),
                });
                return false;
            }
        };
        let mut wrong: Vec<String> = strays(&query.name, &ours).into_iter().collect();
        if own_labels(&query.name).is_some() {
            wrong.extend(wrong_by_itself(query, &ours));
        }
        let before = compare(&theirs, &ours);
        let exchange = Exchange {
            query,
            theirs: in_the_first(&query.name, theirs),
            ours: in_the_first(&query.name, ours),
            consul,
            portolan,
            all_of_theirs: OnceCell::new(),
            all_of_ours: OnceCell::new(),
        };
        let moved = before != compare(&exchange.theirs, &exchange.ours);
        self.judge(&exchange, wrong, moved)
    }

    fn judge(&mut self, exchange: &Exchange<'_>, wrong: Vec<String>, moved: bool) -> bool {
        let mut reasons: Vec<&'static str> = Vec::new();
        reasons.extend(moved.then_some(SECOND_DOMAIN));
        let mut causes = wrong;
        for difference in compare(&exchange.theirs, &exchange.ours) {
            let explains = |deviation: &&Deviation| {
                deviation.parts.contains(&difference.part)
                    && (deviation.holds)(exchange, &difference)
            };
            match deviations::all().find(explains) {
                Some(deviation) => reasons.push(deviation.name),
                None => causes.push(cause(&difference)),
            }
        }
        if !causes.is_empty() {
            self.unexpected.push(Unexpected {
                cause: causes.join("; "),
                query: exchange.query.to_string(),
                detail: exchange.lines(),
            });
            return false;
        }
        reasons.sort_unstable();
        reasons.dedup();
        match reasons[..] {
            [] => self.equal += 1,
            [SIZE_OF_OPT] => self.equal_but_for_the_size += 1,
            _ => {}
        }
        for reason in reasons {
            *self.explained.entry(reason).or_default() += 1;
        }
        true
    }

    /// Prints the sums; fails if something is unexpected.
    pub(crate) fn conclude(&self, what: &str) {
        let alike = self.equal + self.equal_but_for_the_size;
        println!(
            "{what}: {} questions; {alike} answers equal ({} of them but for the size in OPT), {} \
             differ as listed, {} unexpectedly",
            self.asked,
            self.equal_but_for_the_size,
            self.asked - alike - self.unexpected.len(),
            self.unexpected.len()
        );
        for deviation in deviations::all() {
            if let Some(count) = self.explained.get(deviation.name) {
                println!("{count:7} {} ({})", deviation.name, deviation.because);
            }
        }
        assert!(
            self.unexpected.is_empty(),
            "{}",
            report(what, &self.unexpected, self.asked)
        );
    }

    /// Fails if something that is listed did not happen: what Consul 1.8.7 shows, or what a newer one does.
    pub(crate) fn has_seen_all(&self, of_newer: bool) {
        let never: Vec<&str> = deviations::all()
            .filter(|deviation| deviations::is_of_newer_consul(deviation) == of_newer)
            .map(|deviation| deviation.name)
            .filter(|name| !self.explained.contains_key(name))
            .collect();
        assert!(
            never.is_empty(),
            "deviations that are listed and never happened: {never:?}"
        );
    }
}

/// A difference without what is only this question's own.
fn cause(difference: &Difference) -> String {
    let side = |texts: &[String]| {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for text in texts {
            let kind = match difference.part {
                Part::Answers | Part::Authority | Part::Glue | Part::Extras | Part::Case => {
                    text.split(' ').nth(1).unwrap_or(text)
                }
                Part::Ttl => "a TTL",
                _ => text,
            };
            *kinds.entry(kind).or_default() += 1;
        }
        let kinds: Vec<String> = kinds
            .into_iter()
            .map(|(kind, count)| match count {
                1 => kind.to_owned(),
                _ => format!("{kind}s"),
            })
            .collect();
        if kinds.is_empty() {
            "-".to_owned()
        } else {
            kinds.join("+")
        }
    };
    let (theirs, ours) = (side(&difference.theirs), side(&difference.ours));
    format!("{:?} {theirs} / {ours}", difference.part)
}

/// The causes, the rarest first, each with its shortest example; the whole list goes to a file.
fn report(what: &str, unexpected: &[Unexpected], asked: usize) -> String {
    let mut causes: BTreeMap<&str, Vec<&Unexpected>> = BTreeMap::new();
    for one in unexpected {
        causes.entry(&one.cause).or_default().push(one);
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|(cause, ones)| (ones.len(), cause.len()));
    for (_, ones) in &mut causes {
        ones.sort_by_key(|one| one.query.len());
    }
    let mut full = String::new();
    for (cause, ones) in &causes {
        let _ = writeln!(full, "## {cause}: {}", ones.len());
        for one in ones {
            let _ = writeln!(full, "{}\n{}", one.query, one.detail);
        }
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("parity-{what}-unexpected.txt"));
    std::fs::write(&file, full).expect("writing the list of differences");
    let mut text = format!(
        "{} of {asked} answers differ unexpectedly, for {} causes (Consul / ours); all are in {}\n",
        unexpected.len(),
        causes.len(),
        file.display()
    );
    for (cause, ones) in causes.iter().take(SHOWN_CAUSES) {
        let _ = writeln!(text, "{} times {cause}: {}", ones.len(), ones[0].query);
        for line in ones[0].detail.lines() {
            let short: String = line.chars().take(SHOWN_BYTES).collect();
            let _ = writeln!(text, "{short}");
        }
    }
    text
}

/// The sorted data of the answers, in lower case.
pub(crate) fn data_of(reply: &Reply) -> Vec<String> {
    let data = reply.data();
    data.iter().map(|data| data.to_lowercase()).collect()
}

/// Ours is an answer without records, with its SOA.
pub(crate) fn is_nodata(reply: &Reply) -> bool {
    reply.rcode() == rcode::NOERROR
        && reply.answers.is_empty()
        && reply.authority.iter().any(|r| r.rtype == rtype::SOA)
}
