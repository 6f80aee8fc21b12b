//! The order of things: who speaks for a name. It is one for the name of a question and for every
//! name that an answer leads to, and none of it waits.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::answers::{Asked, Maker, Moment, is_reverse, reverse_address};
use crate::catalog::{Found, Miss, Patience, Pending, Reader};
use crate::dns::{Answer, Cut, Data, ExtendedError, Glue, Name, Open, Rcode, Reach, Record, types};

use crate::recursion::{self, Question, Recursor, Told};
use crate::shares::Client;

use super::{Fetched, Inquiry, Policy};

/// Names that upstreams are asked for in the course of one inquiry.
const MAX_FETCHES: usize = 40;

/// How long an inquiry may wait for the catalog before upstreams are asked.
const BEFORE_UPSTREAMS: Duration = Duration::from_secs(2);

/// A name that is asked for: the client's, or one that an answer leads to.
pub(super) struct Step<'a> {
    /// In lower case.
    pub(super) name: &'a Name,
    pub(super) qtype: u16,
    /// For whom it is looked up outside.
    pub(super) reach: Reach,
    /// It is the client's own question.
    pub(super) is_first: bool,
}

/// One walk from a question to its answer.
pub(super) struct Trail<'a> {
    pub(super) inquiry: &'a Inquiry,
    pub(super) policy: &'a Policy,
    pub(super) reader: &'a Reader<'a>,
    /// Without it, what there is will do, and nothing is `Loading`.
    pub(super) patience: Patience,
    pub(super) fetched: &'a Arc<Fetched>,
    /// What the answer cannot be complete without.
    pub(super) pending: Vec<Pending>,
    /// How long the name in hand is worth waiting for at upstreams.
    pub(super) within: Duration,
    /// The names whose aliases were told, and how many aliases were followed.
    pub(super) seen: HashSet<Name>,
    pub(super) steps: usize,
    /// Consul spoke for the client's own question.
    pub(super) is_consuls: bool,
    /// Somebody in the house had a part in the answer; somebody outside had.
    pub(super) house: bool,
    pub(super) outside: bool,
    /// For how long what was said outside may be said again.
    pub(super) holds: Duration,
}

impl Trail<'_> {
    /// What is said to a name, with all that this leads to; `None` if nobody may speak for it here.
    pub(super) fn walk(&mut self, step: &Step<'_>) -> Option<Found<Answer>> {
        let mut answer = match self.owner(step)? {
            Ok(answer) => answer,
            Err(miss) => return Some(Err(miss)),
        };
        Some(self.follow(&mut answer, step).map(|()| answer))
    }

    /// THE order: the first that speaks for a name is the only one.
    fn owner(&mut self, step: &Step<'_>) -> Option<Found<Answer>> {
        self.loopback(step)
            .or_else(|| self.consul(step))
            .or_else(|| self.zone(step))
            .or_else(|| self.upstream(step))
    }

    /// The reverse names of loopback are every host's own, so that a zone goes before a node.
    fn loopback(&mut self, step: &Step<'_>) -> Option<Found<Answer>> {
        reverse_address(step.name.as_wire())
            .filter(|address| address.is_loopback())
            .and_then(|_| self.zone(step))
    }

    /// Consul's domains, and the reverse names of its nodes and services.
    fn consul(&mut self, step: &Step<'_>) -> Option<Found<Answer>> {
        let (name, domains) = (step.name.as_wire(), &self.policy.domains);
        let found = if let Some((domain, lookup)) = domains.parse(name, step.qtype) {
            self.maker().answer(&lookup, &self.asked(domain, step))
        } else {
            let address = reverse_address(name)?;
            let asked = self.asked(domains.primary(), step);
            match self.maker().reverse(address, &asked) {
                // It is somebody else's. Only who asks for the name itself waits until all are known.
                Err(Miss::Absent) => return None,
                Err(Miss::Loading(_)) if step.qtype != types::PTR => return None,
                found => found,
            }
        };
        self.house = true;
        self.is_consuls |= step.is_first;
        Some(match found {
            Err(Miss::Loading(_)) if self.patience == Patience::None => Err(Miss::Unready),
            found => found,
        })
    }

    fn zone(&mut self, step: &Step<'_>) -> Option<Found<Answer>> {
        let answer = self.policy.zones.lookup(step.name, step.qtype)?;
        self.house = true;
        Some(Ok(answer))
    }

    /// What was fetched or is cached, for those who may have it; else it is on its way.
    fn upstream(&mut self, step: &Step<'_>) -> Option<Found<Answer>> {
        let recursor = self.policy.recursor.as_ref()?;
        if step.reach == Reach::House || step.reach == Reach::Recursive && !self.inquiry.recursive {
            return None;
        }
        if !recursor.speaks_for(step.name) {
            return None;
        }
        self.outside = true;
        let (name, qtype) = (step.name, step.qtype);
        let form = self.inquiry.form;
        let question = Question { name, qtype, form };
        let known = self.fetched.get(name, qtype);
        let known = known.map(|landed| recursor.tell(question, &landed));
        let known = known.map_or_else(|| recursor.recall(question), Ok);
        let unsaid = match known {
            Ok(told) => return Some(Ok(self.of_upstream(step, told, recursor))),
            Err(unsaid) => unsaid,
        };
        if self.patience == Patience::None || self.fetched.len() + self.pending.len() >= MAX_FETCHES
        {
            self.holds = Duration::ZERO;
            return Some(Ok(Answer::empty(Rcode::SERVFAIL, false)));
        }
        let (recursor, fetched) = (Arc::clone(recursor), Arc::clone(self.fetched));
        let within = self.within.min(recursor.deadline() + BEFORE_UPSTREAMS);
        let (name, client) = (name.clone(), Client::of(self.inquiry.asker.address));
        let coming = async move {
            let question = Question {
                name: &name,
                qtype,
                form,
            };
            let landed = recursor.resolve(question, client, unsaid).await;
            fetched.put(name, qtype, landed);
        };
        Some(Err(Miss::Loading(Pending::new(coming, within))))
    }

    /// What an upstream says to a name, as far as it may.
    fn of_upstream(&mut self, step: &Step<'_>, told: Told, recursor: &Recursor) -> Answer {
        let mut answer = told.answer;
        self.holds = self.holds.min(told.holds);
        let withholds = recursor.withholds(step.name);
        self.cut_at_ours(&mut answer, step, withholds);
        // Who may have the name may have what upstreams make of it.
        for end in &mut answer.open {
            if end.reach != Reach::House {
                end.reach = step.reach;
            }
        }
        answer
    }

    /// What an upstream says of our own names is not passed on: its alias into them is answered by us, or
    /// withheld.
    fn cut_at_ours(&self, answer: &mut Answer, step: &Step<'_>, withholds: bool) {
        let mut at = step.name.clone();
        for (place, record) in answer.answers.iter().enumerate() {
            // Between aliases may stand what they were made from, and signatures.
            let Data::Cname(target) = &record.data else {
                continue;
            };
            if record.owner.to_lowercase() != at {
                return;
            }
            let signed = answer.answers[place..].iter();
            let signed = signed.take_while(|own| own.owner == record.owner).count();
            at = target.to_lowercase();
            if !self.is_ours(&at) {
                continue;
            }
            // Who asks for the alias itself gets no more.
            let is_followed = !matches!(step.qtype, types::CNAME | types::ANY);
            answer.rcode = Rcode::NOERROR;
            answer.authority.clear();
            if withholds {
                answer.answers.truncate(place);
                answer.open.clear();
                answer.errors = vec![recursion::filtered()];
                return;
            }
            answer.answers.truncate(place + signed);
            answer.open = is_followed
                .then_some(Open {
                    to: at,
                    of: None,
                    max_ttl: u32::MAX,
                    decides: true,
                    reach: Reach::Recursive,
                })
                .into_iter()
                .collect();
            return;
        }
    }

    /// Does somebody in the house speak for a name?
    fn is_ours(&self, name: &Name) -> bool {
        let has = |address| {
            self.reader.node_at(address).is_some() || self.reader.service_at(address).is_ok()
        };
        self.policy.domains.contain(name.as_wire())
            || self.policy.zones.have(name)
            || reverse_address(name.as_wire()).is_some_and(has)
    }

    /// The answer to a question for which nobody may speak here.
    pub(super) fn nobodys(&self, step: &Step<'_>) -> Answer {
        if self.policy.recursor.is_none() && is_reverse(step.name.as_wire()) {
            // Without upstreams nobody else can know a reverse name.
            let asked = self.asked(self.policy.domains.primary(), step);
            return self.maker().nobody(&asked);
        }
        Answer::empty(Rcode::REFUSED, false)
    }

    fn maker(&self) -> Maker<'_> {
        Maker {
            catalog: self.reader,
            settings: &self.policy.answers,
        }
    }

    fn asked<'s>(&self, domain: &'s Name, step: &'s Step<'_>) -> Asked<'s> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_1970 = since_1970.unwrap_or_default();
        let left = 1000 - u64::from(since_1970.subsec_millis());
        Asked {
            domain,
            name: step.name,
            qtype: step.qtype,
            moment: Moment {
                // Serial numbers wrap by design (RFC 1982).
                serial: since_1970.as_secs() as u32,
                serial_ends: self.reader.versions().millis() + left,
            },
            patience: self.patience,
            client: self.inquiry.asker.network,
            by_alias: !step.is_first,
        }
    }
}

// What an answer leads to: the name behind an alias, and the addresses of hosts. Both are looked for by the
// one order, and put where they belong.

/// Aliases that are followed. Chains that people make have one or two.
const MAX_STEPS: usize = 16;

/// How long an answer that is right without it waits for an upstream: where the operator chose the
/// name in Consul, and where a zone leads to a host of others.
const CHOSEN_WAIT: Duration = Duration::from_secs(2);
const HOST_WAIT: Duration = Duration::from_millis(250);

impl Trail<'_> {
    /// Adds to the answer to `step` what it leads to.
    pub(super) fn follow(&mut self, answer: &mut Answer, step: &Step<'_>) -> Found<()> {
        let ends = std::mem::take(&mut answer.open);
        let has_hosts = ends.iter().any(|end| end.of.is_some());
        for end in ends {
            let before = self.within;
            self.within = before.min(match (end.decides, end.reach) {
                (true, _) => Duration::MAX,
                (false, Reach::Everyone) => CHOSEN_WAIT,
                (false, _) => HOST_WAIT,
            });
            let followed = match end.of {
                None => self.go_on(answer, &end, step),
                Some(of) => self.add_host(answer, of, &end, step),
            };
            self.within = before;
            followed?;
        }
        if has_hosts {
            // All A before any AAAA, in the order of the answers (D8).
            answer
                .additional
                .sort_by_key(|glue| (glue.record.data.rtype(), glue.of));
        }
        Ok(())
    }

    /// Goes on behind the alias at the end of an answer. A name met twice ends the walk with what was
    /// found.
    fn go_on(&mut self, answer: &mut Answer, end: &Open, step: &Step<'_>) -> Found<()> {
        for record in &answer.answers {
            if let Data::Cname(_) = record.data {
                self.seen.insert(record.owner.to_lowercase());
            }
        }
        let to = end.to.to_lowercase();
        if self.steps == MAX_STEPS || self.seen.contains(&to) {
            return Ok(());
        }
        self.steps += 1;
        // ANY of an alias is about addresses. Consul is asked for them as its own DNS does; an upstream
        // may refuse ANY (RFC 8482), and a zone would not follow its own aliases.
        let types: &[u16] = match step.qtype {
            types::ANY if !self.policy.domains.contain(to.as_wire()) => &[types::A, types::AAAA],
            _ => &[step.qtype],
        };
        for (at, &qtype) in types.iter().enumerate() {
            let before = (types.len() > 1).then(|| (self.seen.clone(), self.steps));
            let next = Step {
                name: &to,
                qtype,
                reach: reach(end, step),
                is_first: false,
            };
            match self.walk(&next) {
                // Nobody may say it here: the answer is right as it is.
                None => {}
                Some(Ok(mut rest)) => {
                    if step.qtype == types::ANY {
                        rest.answers.retain(|record| match record.data {
                            Data::A(_) | Data::Aaaa(_) => true,
                            // The aliases on the way are the same for both families.
                            Data::Cname(_) => at == 0,
                            _ => false,
                        });
                        rest.additional.clear();
                    }
                    append(answer, rest, end, step.qtype);
                }
                Some(Err(Miss::Loading(pending))) => self.pending.push(pending),
                Some(Err(miss)) => return Err(miss),
            }
            if let Some((seen, steps)) = before {
                (self.seen, self.steps) = (seen, steps);
            }
        }
        Ok(())
    }

    /// Adds all addresses of a host (D21). They stand under its own name even if aliases lead there:
    /// HAProxy looks for nothing else.
    fn add_host(
        &mut self,
        answer: &mut Answer,
        of: usize,
        end: &Open,
        step: &Step<'_>,
    ) -> Found<()> {
        let to = end.to.to_lowercase();
        for qtype in [types::A, types::AAAA] {
            let before = (
                std::mem::take(&mut self.seen),
                std::mem::take(&mut self.steps),
            );
            let walked = self.walk(&Step {
                name: &to,
                qtype,
                reach: reach(end, step),
                is_first: false,
            });
            (self.seen, self.steps) = before;
            match walked {
                None => {}
                Some(Ok(rest)) => {
                    let addresses = rest.answers.into_iter();
                    let addresses = addresses.filter(|record| record.data.rtype() == qtype);
                    answer.additional.extend(addresses.map(|record| Glue {
                        of,
                        record: Record {
                            owner: end.to.clone(),
                            ttl: record.ttl.min(end.max_ttl),
                            data: record.data,
                        },
                    }));
                }
                Some(Err(Miss::Loading(pending))) => self.pending.push(pending),
                Some(Err(miss)) if end.reach == Reach::Everyone => return Err(miss),
                // A zone's answer is right without them, and may have them the next time.
                Some(Err(_)) => self.reader.ends_at(0),
            }
        }
        Ok(())
    }
}

/// For whom a name is looked up outside that the answer to `step` leads to: what stays in the house
/// stays there wherever it leads.
fn reach(end: &Open, step: &Step<'_>) -> Reach {
    match step.reach {
        Reach::House => Reach::House,
        _ => end.reach,
    }
}

/// Puts behind an answer what the alias at its end leads to.
fn append(answer: &mut Answer, rest: Answer, end: &Open, qtype: u16) {
    let before = answer.answers.len();
    answer
        .answers
        .extend(rest.answers.into_iter().map(|record| Record {
            ttl: record.ttl.min(end.max_ttl),
            ..record
        }));
    // The addresses of servers that the end refers to say nothing without it.
    if end.decides || answer.answers.len() > before {
        let last = answer.answers.len().saturating_sub(1);
        let glue = rest.additional.into_iter().map(|glue| Glue {
            of: (glue.of + before).min(last),
            ..glue
        });
        answer.additional.extend(glue);
    }
    // A part of its addresses is a right answer of a service, wherever they come from (D7); of other
    // records who asks has to know that some are missing.
    let is_about_addresses = matches!(qtype, types::A | types::AAAA | types::ANY);
    // Nor is a part of it right where a signature goes over all.
    let mut records = answer.answers.iter().map(|record| record.data.rtype());
    let is_signed = records.any(|rtype| rtype == types::RRSIG);
    if answer.cut == Cut::Prefix || !is_about_addresses || is_signed {
        answer.cut = rest.cut;
    }
    answer.rotate |= rest.rotate;
    answer.for_client |= rest.for_client;
    if end.decides {
        answer.rcode = rest.rcode;
        answer.authority = rest.authority;
        ExtendedError::add(&mut answer.errors, &rest.errors);
        answer.authentic &= rest.authentic;
    }
}
