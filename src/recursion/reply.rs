//! What an upstream said, brought into one shape: hickory reports a negative answer as an error,
//! most of the time.

use std::collections::HashMap;
use std::time::Instant;

use hickory_proto::op::{DnsResponse, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{LowerName, Name as HickoryName, RData, Record, RecordType};
use hickory_resolver::ResponseCache;
use hickory_resolver::net::{DnsError, NetError, NoRecords};

use crate::dns::hickory::{from_hickory, host, record};
use crate::dns::{Answer, Data, Name, Open, Rcode, Reach};

/// The longest that an absence is remembered, in seconds (RFC 2308 section 5 advises one to three
/// hours).
pub(super) const MAX_NEGATIVE_TTL: u32 = 3600;
/// For how long a failure is remembered, in seconds: the least that RFC 9520 section 3.2 asks for.
const FAILURE_TTL: u32 = 1;

/// The answer to one question, or the memory of a failure (then the rcode says so).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    pub(super) rcode: ResponseCode,
    /// The chain of aliases first and in order, then the records asked for.
    pub(super) answers: Vec<Record>,
    /// Of a negative answer, if the upstream sent it. Its TTL is how long the absence may be
    /// remembered.
    pub(super) soa: Option<Record>,
}

/// Why an upstream gave no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing came in time.
    Timeout,
    /// The network refused, or what came was not DNS.
    Network,
    /// It answered with an error.
    Rcode(ResponseCode),
    /// It does not recurse: it only named servers that might know.
    Lame,
    /// It answered another question.
    Mismatch,
}

impl Failure {
    /// The value of the `outcome` label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::Rcode(ResponseCode::ServFail) => "servfail",
            Self::Rcode(ResponseCode::Refused) => "refused",
            Self::Rcode(ResponseCode::FormErr) => "formerr",
            Self::Rcode(ResponseCode::NotImp) => "notimp",
            Self::Rcode(_) => "other_rcode",
            Self::Lame => "lame",
            Self::Mismatch => "mismatch",
        }
    }

    /// Did it say something, so that the fault may be in the name that was asked for?
    pub(super) fn may_be_the_name(self) -> bool {
        matches!(self, Self::Rcode(_))
    }
}

impl Reply {
    /// Reads what hickory makes of a response to `query`. NOERROR and NXDOMAIN are answers;
    /// anything else is a reason to ask another upstream.
    pub(super) fn read(
        query: &Query,
        result: Result<DnsResponse, NetError>,
    ) -> Result<Self, Failure> {
        let (rcode, answers, authority) = match result {
            Ok(response) => {
                let message = response.into_message();
                // Hickory compares it over UDP, not over TCP.
                if !message.queries.iter().all(|asked| asked == query) {
                    return Err(Failure::Mismatch);
                }
                let rcode = message.metadata.response_code;
                (rcode, message.answers, message.authorities)
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let authority = none.authorities.as_deref().unwrap_or_default();
                (none.response_code, Vec::new(), authority.to_vec())
            }
            Err(NetError::Dns(DnsError::ResponseCode(rcode))) => {
                return Err(Failure::Rcode(rcode));
            }
            Err(NetError::Timeout) => return Err(Failure::Timeout),
            Err(_) => return Err(Failure::Network),
        };
        if !matches!(rcode, ResponseCode::NoError | ResponseCode::NXDomain) {
            return Err(Failure::Rcode(rcode));
        }
        let answers = in_chain_order(answers, query.name());
        let negative = is_negative(&answers, query.query_type());
        let soa = authority.iter().find(|r| is_soa(r));
        if rcode == ResponseCode::NoError
            && answers.is_empty()
            && soa.is_none()
            && authority.iter().any(|r| r.record_type() == RecordType::NS)
        {
            return Err(Failure::Lame);
        }
        let soa = soa.filter(|_| negative).cloned().map(with_negative_ttl);
        Ok(Self {
            rcode,
            answers,
            soa,
        })
    }

    /// The memory of a question that no upstream could answer.
    pub(super) fn failed() -> Self {
        Self {
            rcode: ResponseCode::ServFail,
            answers: Vec::new(),
            soa: None,
        }
    }

    /// As the answer to the question that it is the reply to; `name` is in lower case. An alias at the
    /// end is left open if the upstream did not say that nothing is behind it.
    pub(super) fn into_answer(self, name: &Name, qtype: u16) -> Answer {
        let rtype = RecordType::from(qtype);
        let is_open = self.rcode == ResponseCode::NoError
            && self.soa.is_none()
            && is_negative(&self.answers, rtype);
        let mut answer = Answer {
            authority: self.soa.iter().filter_map(record).collect(),
            ..Answer::empty(Rcode(self.rcode.into()), false)
        };
        for own in &self.answers {
            let Some(mut converted) = record(own) else {
                continue;
            };
            if converted.owner.to_lowercase() == *name {
                // As this client wrote it, not as the first one did.
                converted.owner = name.clone();
            }
            let of = answer.answers.len();
            answer.answers.push(converted);
            // Whatever the upstream knows of its hosts it would have sent.
            answer
                .open
                .extend(host(&own.data).and_then(from_hickory).map(|to| Open {
                    to,
                    of: Some(of),
                    max_ttl: u32::MAX,
                    decides: false,
                    reach: Reach::House,
                }));
        }
        if is_open && let Some(Data::Cname(target)) = answer.answers.last().map(|last| &last.data) {
            answer.open.push(Open {
                to: target.clone(),
                of: None,
                max_ttl: u32::MAX,
                decides: true,
                reach: Reach::Recursive,
            });
        }
        answer
    }

    /// Puts it into the cache.
    ///
    /// An alias that leads to nothing is kept no longer than the absence may be, and what has no
    /// SOA record to say how long is not kept at all (RFC 2308 section 5).
    pub(super) fn remember(mut self, cache: &ResponseCache, query: Query, now: Instant) {
        let negative = is_negative(&self.answers, query.query_type());
        let negative_ttl = match (&self.soa, self.rcode) {
            (_, ResponseCode::ServFail) => Some(FAILURE_TTL),
            (soa, _) => soa.as_ref().map(|soa| soa.ttl),
        };
        let entry = if self.answers.is_empty() {
            let mut none = NoRecords::new(query.clone(), self.rcode);
            none.negative_ttl = negative_ttl;
            none.authorities = self.soa.map(|soa| [soa].into());
            Err(none.into())
        } else {
            if negative {
                let Some(most) = negative_ttl else { return };
                for record in &mut self.answers {
                    record.ttl = record.ttl.min(most);
                }
            }
            let mut message = Message::response(0, OpCode::Query);
            message.metadata.response_code = self.rcode;
            message.answers = self.answers;
            message.authorities.extend(self.soa);
            Ok(message)
        };
        cache.insert(query, entry, now);
    }

    /// Takes it out of the cache, with TTLs that have run down since.
    pub(super) fn recall(cache: &ResponseCache, query: &Query, now: Instant) -> Option<Self> {
        match cache.get(query, now)? {
            Ok(message) => Some(Self {
                rcode: message.metadata.response_code,
                answers: message.answers,
                soa: message.authorities.into_iter().find(is_soa),
            }),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Some(Self {
                rcode: none.response_code,
                answers: Vec::new(),
                soa: none.authorities.and_then(|all| all.first().cloned()),
            }),
            Err(_) => None,
        }
    }
}

/// Do the records end without one of the type that was asked for?
fn is_negative(answers: &[Record], rtype: RecordType) -> bool {
    let wanted = |r: &Record| rtype == RecordType::ANY || r.record_type() == rtype;
    !answers.iter().any(wanted)
}

fn is_soa(record: &Record) -> bool {
    record.record_type() == RecordType::SOA
}

/// RFC 2308 section 5: the lesser of the SOA record's TTL and its MINIMUM field.
fn with_negative_ttl(mut record: Record) -> Record {
    if let RData::SOA(soa) = &record.data {
        record.ttl = record.ttl.min(soa.minimum).min(MAX_NEGATIVE_TTL);
    }
    record
}

/// Puts the aliases that lead away from `name` in front, each before what it leads to: some
/// resolvers shuffle the section, and stub resolvers read it from top to bottom. Takes time in
/// proportion to their number.
pub(super) fn in_chain_order(records: Vec<Record>, name: &HickoryName) -> Vec<Record> {
    let mut records: Vec<Option<Record>> = records.into_iter().map(Some).collect();
    let mut aliases: HashMap<LowerName, usize> = HashMap::new();
    for (at, record) in records.iter().enumerate() {
        if let Some(record) = record
            && matches!(record.data, RData::CNAME(_))
        {
            // Of two for one name the first counts.
            aliases.entry(fully_qualified(&record.name)).or_insert(at);
        }
    }
    let mut at = fully_qualified(name);
    let mut sorted = Vec::with_capacity(records.len());
    while let Some(record) = aliases.remove(&at).and_then(|place| records[place].take()) {
        if let RData::CNAME(target) = &record.data {
            at = fully_qualified(&target.0);
        }
        sorted.push(record);
    }
    sorted.extend(records.into_iter().flatten());
    sorted
}

fn fully_qualified(name: &HickoryName) -> LowerName {
    let mut name = name.clone();
    name.set_fqdn(true);
    LowerName::new(&name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};
    use hickory_resolver::{TtlBounds, TtlConfig};

    use super::*;
    use crate::dns::types;

    fn name(text: &str) -> HickoryName {
        HickoryName::from_ascii(text).expect("a name")
    }

    fn a(owner: &str, ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, 1)))
    }

    fn cname(owner: &str, target: &str) -> Record {
        Record::from_rdata(name(owner), 300, RData::CNAME(CNAME(name(target))))
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let soa = SOA::new(name("n."), name("r."), 1, 2, 3, 4, minimum);
        Record::from_rdata(name("test."), ttl, RData::SOA(soa))
    }

    fn question() -> Query {
        Query::query(name("a.test."), RecordType::A)
    }

    fn response(rcode: ResponseCode, answers: &[Record], authority: &[Record]) -> DnsResponse {
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.response_code = rcode;
        message.add_query(question());
        message.answers = answers.to_vec();
        message.authorities = authority.to_vec();
        DnsResponse::from_message(message).expect("a response")
    }

    /// As hickory hands it over.
    fn read(
        rcode: ResponseCode,
        answers: &[Record],
        authority: &[Record],
    ) -> Result<Reply, Failure> {
        let result = DnsError::from_response(response(rcode, answers, authority));
        Reply::read(&question(), result.map_err(NetError::from))
    }

    fn cache() -> ResponseCache {
        ResponseCache::new(10, TtlConfig::from(TtlBounds::default()))
    }

    fn leads_to(reply: &Reply, qtype: u16) -> Option<String> {
        let asked = Name::from_text("a.test").expect("a name");
        let open = reply.clone().into_answer(&asked, qtype).open;
        open.first().map(|end| end.to.to_string())
    }

    #[test]
    fn aliases_come_first_and_in_order() {
        let shuffled = [
            a("c.test.", 9),
            cname("b.test.", "c.test."),
            cname("A.test.", "b.test."),
        ];
        let reply = read(ResponseCode::NoError, &shuffled, &[]).expect("an answer");
        let owners: Vec<String> = reply.answers.iter().map(|r| r.name.to_string()).collect();
        assert_eq!(owners, ["A.test.", "b.test.", "c.test."]);
        assert_eq!(leads_to(&reply, types::A), None);
        // A circle ends.
        let circle = [cname("a.test.", "b.test."), cname("b.test.", "a.test.")];
        assert_eq!(in_chain_order(circle.to_vec(), &name("a.test.")).len(), 2);
    }

    #[test]
    fn negative_answers_are_answers() {
        for rcode in [ResponseCode::NXDomain, ResponseCode::NoError] {
            let reply = read(rcode, &[], &[soa(900, 60)]).expect("an answer");
            assert_eq!((reply.rcode, reply.answers.len()), (rcode, 0));
            assert_eq!(reply.soa.map(|r| r.ttl), Some(60));
            // Behind an alias: the alias stays (RFC 2308 section 2.1).
            let alias = [cname("a.test.", "b.test.")];
            let reply = read(rcode, &alias, &[soa(30, 60)]).expect("an answer");
            assert_eq!((reply.rcode, reply.answers.len()), (rcode, 1));
            assert_eq!(leads_to(&reply, types::A), None);
            assert_eq!(reply.soa.map(|r| r.ttl), Some(30));
        }
        assert!(read(ResponseCode::NoError, &[], &[]).is_ok());
    }

    #[test]
    fn errors_and_referrals_are_not() {
        for rcode in [
            ResponseCode::ServFail,
            ResponseCode::Refused,
            ResponseCode::Unknown(99),
        ] {
            assert_eq!(read(rcode, &[], &[]), Err(Failure::Rcode(rcode)));
        }
        let referral = Record::from_rdata(name("test."), 9, RData::NS(NS(name("ns.test."))));
        assert_eq!(
            read(ResponseCode::NoError, &[], &[referral]),
            Err(Failure::Lame)
        );
        assert_eq!(
            Reply::read(&question(), Err(NetError::Timeout)),
            Err(Failure::Timeout)
        );
        let other = Query::query(name("b.test."), RecordType::A);
        let response = response(ResponseCode::NoError, &[a("a.test.", 1)], &[]);
        assert_eq!(Reply::read(&other, Ok(response)), Err(Failure::Mismatch));
    }

    #[test]
    fn an_open_end_is_noticed() {
        let alias = [cname("a.test.", "b.test.")];
        let reply = read(ResponseCode::NoError, &alias, &[]).expect("an answer");
        assert_eq!(leads_to(&reply, types::A).as_deref(), Some("b.test."));
        assert_eq!(leads_to(&reply, types::CNAME), None);
        assert_eq!(leads_to(&reply, types::ANY), None);
    }

    #[test]
    fn what_is_remembered_runs_down() {
        let (cache, now) = (cache(), Instant::now());
        let after = |s| now + Duration::from_secs(s);
        let reply = read(ResponseCode::NoError, &[a("a.test.", 10)], &[]).expect("an answer");
        reply.remember(&cache, question(), now);
        let hit = Reply::recall(&cache, &question(), after(4)).expect("a hit");
        assert_eq!(hit.answers[0].ttl, 6);
        assert_eq!(Reply::recall(&cache, &question(), after(11)), None);

        let reply = read(ResponseCode::NXDomain, &[], &[soa(60, 20)]).expect("an answer");
        reply.remember(&cache, question(), now);
        let hit = Reply::recall(&cache, &question(), after(5)).expect("a hit");
        assert_eq!(hit.rcode, ResponseCode::NXDomain);
        assert_eq!(hit.soa.map(|r| r.ttl), Some(15));
        assert_eq!(Reply::recall(&cache, &question(), after(21)), None);
    }

    #[test]
    fn an_alias_to_nothing_is_kept_as_long_as_the_nothing() {
        let (cache, now) = (cache(), Instant::now());
        let after = |s| now + Duration::from_secs(s);
        let alias = [cname("a.test.", "b.test.")];
        let reply = read(ResponseCode::NXDomain, &alias, &[soa(60, 20)]).expect("an answer");
        reply.remember(&cache, question(), now);
        let hit = Reply::recall(&cache, &question(), after(5)).expect("a hit");
        assert_eq!(
            (hit.rcode, hit.answers[0].ttl),
            (ResponseCode::NXDomain, 15)
        );
        assert_eq!(Reply::recall(&cache, &question(), after(21)), None);

        let reply = read(ResponseCode::NoError, &alias, &[]).expect("an answer");
        let other = Query::query(name("c.test."), RecordType::A);
        reply.remember(&cache, other.clone(), now);
        assert_eq!(Reply::recall(&cache, &other, now), None);
    }

    #[test]
    fn a_failure_is_remembered_for_a_second() {
        let (cache, now) = (cache(), Instant::now());
        Reply::failed().remember(&cache, question(), now);
        let hit = Reply::recall(&cache, &question(), now).expect("a hit");
        assert_eq!(hit, Reply::failed());
        let later = now + Duration::from_millis(1001);
        assert_eq!(Reply::recall(&cache, &question(), later), None);
    }
}
