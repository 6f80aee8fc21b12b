//! What an answer leads to: the name behind an alias, and the addresses of hosts. Both are looked for
//! by the one order, and put where they belong.

use std::time::Duration;

use crate::catalog::{Found, Miss};
use crate::dns::{Answer, Cut, Data, Glue, Open, Reach, Record, types};

use super::order::{Step, Trail};

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
    if answer.cut == Cut::Prefix || !is_about_addresses {
        answer.cut = rest.cut;
    }
    answer.rotate |= rest.rotate;
    answer.for_client |= rest.for_client;
    if end.decides {
        answer.rcode = rest.rcode;
        answer.authority = rest.authority;
        answer.extended_error = rest.extended_error.or(answer.extended_error);
    }
}
