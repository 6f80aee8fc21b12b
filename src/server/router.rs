//! The order of things: access list -> Consul's domain -> static zones -> recursion.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use hickory_proto::rr::RecordType;
use ipnet::IpNet;

use crate::answers::{self, Answer, Asked, Maker, Moment, Rcode, Rendered, Step};
use crate::catalog::{self, Basis, Catalog, Patience, Pending, Reader};
use crate::names::{self, Domains, Name, Query, types};
use crate::recursion::Recursor;
use crate::zones::Zones;

use super::access::AccessList;
use super::cache::Made;
use super::door::Client;
use super::metrics::Metrics;
use super::{chase, convert};

/// How long a question may wait for a service to be loaded. Resolvers ask again after one to
/// five seconds.
const LOAD_WAIT: Duration = Duration::from_secs(2);

/// How long it may wait for old data to be confirmed.
const CONFIRM_WAIT: Duration = Duration::from_millis(250);

/// The largest answer to send over UDP for names that are not ours (D20): it may cross the
/// Internet, where fragments get lost.
const FOREIGN_UDP_SIZE: u16 = 1232;

/// What an operator can change while the server runs. Exchanged as a whole.
pub struct Policy {
    /// Consul's domains.
    pub domains: Domains,
    /// How answers from the catalog are made.
    pub answers: answers::Settings,
    /// The largest UDP answer for our own names, in bytes.
    pub max_udp_size: u16,
    /// Static zones.
    pub zones: Zones,
    /// Recursion, if it is on.
    pub recursor: Option<Arc<Recursor>>,
    access: AccessList,
}

impl Policy {
    /// A policy under which the networks of `recursion_for` may recurse.
    pub fn new(
        domains: Domains,
        answers: answers::Settings,
        max_udp_size: u16,
        zones: Zones,
        recursor: Option<Arc<Recursor>>,
        recursion_for: Vec<IpNet>,
    ) -> Self {
        Self {
            domains,
            answers,
            max_udp_size,
            zones,
            recursor,
            access: AccessList::new(recursion_for),
        }
    }
}

/// Decides what a question means to a client, and answers it.
pub struct Router {
    catalog: Arc<Catalog>,
    policy: ArcSwap<Policy>,
    metrics: Metrics,
}

/// What can be said of one of our own names without waiting.
enum Own {
    Answer(Answer),
    Wait(Pending),
}

impl Router {
    /// A router over a catalog.
    pub fn new(catalog: Arc<Catalog>, policy: Policy, metrics: Metrics) -> Self {
        Self {
            catalog,
            policy: ArcSwap::from_pointee(policy),
            metrics,
        }
    }

    /// From now on, another policy.
    pub fn adopt(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
        catalog::new_epoch();
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The access list: is there recursion, and for this client?
    pub(super) fn may_recurse(&self, client: Client) -> bool {
        let policy = self.policy.load();
        policy.recursor.is_some() && policy.access.allows(client.address)
    }

    /// Answers a question, the full way. `recursive`: the client may recurse, and asks for it.
    pub(super) async fn route(&self, query: &Query<'_>, client: Client, recursive: bool) -> Made {
        let mut basis = Basis::begin();
        let policy = self.policy.load_full();
        let name = query.name().to_lowercase();
        let rtype = RecordType::from(query.qtype());
        let Some(foreign) = convert::to_hickory(&name) else {
            return made(
                &Answer::empty(Rcode::FORMERR, false),
                &name,
                FOREIGN_UDP_SIZE,
                Basis::none(),
            );
        };
        // Loopback is every host's own: a zone that has it goes before a node that has it.
        let loopback = names::reverse_address(name.as_wire()).is_some_and(|ip| ip.is_loopback());
        if loopback && let Some(outcome) = policy.zones.lookup(&foreign, rtype).await {
            return made(&convert::from_zone(outcome), &name, FOREIGN_UDP_SIZE, basis);
        }
        // 2. Consul's domain, and the reverse names of its nodes and services.
        let (own, basis_of_own) = self.own_in_time(&policy, query, &name, client).await;
        if let Some(mut answer) = own {
            let mut basis = basis_of_own;
            if let Some(recursor) = policy
                .recursor
                .as_ref()
                .filter(|_| !answer.outside.is_empty())
            {
                chase::complete(&mut answer, recursor, query.qtype()).await;
                // What was found outside has a time of its own, and may not all have been found.
                basis = Basis::none();
            }
            return made(&answer, &name, policy.max_udp_size, basis);
        }
        let recursor = policy.recursor.as_ref().filter(|_| recursive);
        // 3. Static zones; an alias out of them is followed for those who may recurse.
        if let Some(mut outcome) = policy.zones.lookup(&foreign, rtype).await {
            let alias = outcome.unfinished.take();
            let mut answer = convert::from_zone(outcome);
            if let (Some(recursor), Some(alias)) = (recursor, alias) {
                let rest = convert::from_recursion(recursor.resolve(&alias, rtype).await);
                answer.rcode = rest.rcode;
                answer.answers.extend(rest.answers);
                answer.authority = rest.authority;
                basis = Basis::none();
            }
            return made(&answer, &name, FOREIGN_UDP_SIZE, basis.with(&basis_of_own));
        }
        // 4. Recursion, for those who may and who ask for it.
        let Some(recursor) = recursor else {
            // Without upstreams nobody else can know a reverse name.
            let is_nobodys = policy.recursor.is_none() && names::is_reverse(name.as_wire());
            let answer = if is_nobodys {
                let reader = Reader::new(&self.catalog, basis);
                let asked = Self::asked(
                    policy.domains.primary(),
                    &name,
                    query.qtype(),
                    client,
                    Patience::Some,
                );
                let answer = Self::maker(&reader, &policy).nobody(&asked);
                basis = reader.into_basis();
                answer
            } else {
                Answer::empty(Rcode::REFUSED, false)
            };
            return made(&answer, &name, FOREIGN_UDP_SIZE, basis.with(&basis_of_own));
        };
        let born = catalog::millis();
        let answer = convert::from_recursion(recursor.resolve(&foreign, rtype).await);
        match lifetime(&answer) {
            Some(seconds) => basis.ends_at(born + 1000 * u64::from(seconds)),
            None => basis = Basis::none(),
        }
        Made {
            born: Some(born),
            ..made(&answer, &name, FOREIGN_UDP_SIZE, basis.with(&basis_of_own))
        }
    }

    /// The same answer as [`Router::route`] gives, if it can be had without waiting.
    pub(super) fn route_at_once(&self, query: &Query<'_>, client: Client) -> Option<Made> {
        let basis = Basis::begin();
        let policy = self.policy.load();
        let name = query.name().to_lowercase();
        let reverse = names::reverse_address(name.as_wire());
        if reverse.is_some_and(|ip| ip.is_loopback()) {
            return None;
        }
        let reader = Reader::new(&self.catalog, basis);
        match Self::own(&reader, &policy, query, &name, client, Patience::Some)? {
            Own::Wait(_) => None,
            // A host name elsewhere must be looked up first.
            Own::Answer(answer) if !answer.outside.is_empty() && policy.recursor.is_some() => None,
            Own::Answer(answer) => Some(made(
                &answer,
                &name,
                policy.max_udp_size,
                reader.into_basis(),
            )),
        }
    }

    fn maker<'a>(reader: &'a Reader<'a>, policy: &'a Policy) -> Maker<'a> {
        Maker {
            catalog: reader,
            settings: &policy.answers,
            domains: &policy.domains,
        }
    }

    fn asked<'a>(
        domain: &'a Name,
        name: &'a Name,
        qtype: u16,
        client: Client,
        patience: Patience,
    ) -> Asked<'a> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_1970 = since_1970.unwrap_or_default();
        let moment = Moment {
            now: catalog::seconds(),
            // Serial numbers wrap by design (RFC 1982).
            serial: since_1970.as_secs() as u32,
            serial_ends: catalog::millis() + 1000 - u64::from(since_1970.subsec_millis()),
        };
        Asked::new(domain, name, qtype, moment, client.network).with(patience)
    }

    /// What can be said at once of a name, if it is one of ours.
    fn own(
        reader: &Reader<'_>,
        policy: &Policy,
        query: &Query<'_>,
        name: &Name,
        client: Client,
        patience: Patience,
    ) -> Option<Own> {
        let qtype = query.qtype();
        let maker = Self::maker(reader, policy);
        if let Some((domain, lookup)) = policy.domains.parse(name.as_wire(), qtype) {
            let asked = Self::asked(domain, name, qtype, client, patience);
            return Some(match maker.answer(&lookup, &asked) {
                Step::Answer(answer) => Own::Answer(answer),
                Step::Wait(pending) => Own::Wait(pending),
                Step::Unready => {
                    reader.ends_at(0);
                    Own::Answer(Answer::empty(Rcode::SERVFAIL, false))
                }
            });
        }
        let address = names::reverse_address(name.as_wire())?;
        let asked = Self::asked(policy.domains.primary(), name, qtype, client, patience);
        match maker.reverse(address, &asked) {
            Ok(answer) => answer.map(Own::Answer),
            // Only who asks for the name waits until all of them are known.
            Err(pending) if qtype == types::PTR => Some(Own::Wait(pending)),
            Err(_) => None,
        }
    }

    /// The same, after waiting for what has to be loaded, and what it was made from; also for a
    /// name that is none of ours.
    async fn own_in_time(
        &self,
        policy: &Policy,
        query: &Query<'_>,
        name: &Name,
        client: Client,
    ) -> (Option<Answer>, Basis) {
        let mut deadline = tokio::time::Instant::now() + LOAD_WAIT;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let patience = if left.is_zero() {
                Patience::None
            } else {
                Patience::Some
            };
            let (own, basis) = {
                let reader = Reader::new(&self.catalog, Basis::begin());
                let own = Self::own(&reader, policy, query, name, client, patience);
                (own, reader.into_basis())
            };
            match own {
                None => return (None, basis),
                Some(Own::Answer(answer)) => return (Some(answer), basis),
                Some(Own::Wait(_)) if left.is_zero() => {
                    let failed = Answer::empty(Rcode::SERVFAIL, false);
                    return (Some(failed), Basis::none());
                }
                // What is old is better than a client that has given up.
                Some(Own::Wait(pending)) if pending.has_old() => {
                    if !pending.wait(left.min(CONFIRM_WAIT)).await {
                        deadline = tokio::time::Instant::now();
                    }
                }
                Some(Own::Wait(pending)) => {
                    pending.wait(left).await;
                }
            }
        }
    }
}

fn made(answer: &Answer, name: &Name, max_udp_size: u16, basis: Basis) -> Made {
    Made {
        rendered: Rendered::new(answer, name),
        max_udp_size,
        basis,
        born: None,
    }
}

/// How many seconds an upstream's answer may be kept: until the first of its TTLs has run down.
/// `None` for failures, and for answers without a TTL.
fn lifetime(answer: &Answer) -> Option<u32> {
    if answer.extended_error.is_some() || !matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
    {
        return None;
    }
    let records = answer.answers.iter().chain(&answer.authority);
    records
        .map(|record| record.ttl)
        .min()
        .filter(|ttl| *ttl > 0)
}
