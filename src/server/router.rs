//! The order of things: access list -> Consul's domain -> static zones -> recursion.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use hickory_proto::rr::RecordType;
use ipnet::IpNet;

use crate::answers::{self, Answer, Asked, Maker, Rcode, Rendered, Step};
use crate::catalog::{self, Catalog, Patience, Pending};
use crate::names::{self, Domains, Name, Query, types};
use crate::recursion::Recursor;
use crate::zones::Zones;

use super::access::AccessList;
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

/// What the router says of a question.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) rendered: Arc<Rendered>,
    /// RA.
    pub(super) recursion_available: bool,
    /// The largest datagram that it may go in, in bytes.
    pub(super) max_udp_size: u16,
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
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers a question, the full way.
    pub(super) async fn route(&self, query: &Query<'_>, client: Client) -> Routed {
        let policy = self.policy.load_full();
        // 1. Access list: what is this client allowed?
        let may_recurse = policy.recursor.is_some() && policy.access.allows(client.address);
        let name = query.name();
        let respond = |answer: &Answer, max_udp_size| Routed {
            rendered: Arc::new(Rendered::new(answer, &name)),
            recursion_available: may_recurse,
            max_udp_size,
        };
        let rtype = RecordType::from(query.qtype());
        let Some(foreign) = convert::to_hickory(&name) else {
            return respond(&Answer::empty(Rcode::FORMERR, false), FOREIGN_UDP_SIZE);
        };
        // Loopback is every host's own: a zone that has it goes before a node that has it.
        let loopback = names::reverse_address(name.as_wire()).is_some_and(|ip| ip.is_loopback());
        if loopback && let Some(outcome) = policy.zones.lookup(&foreign, rtype).await {
            return respond(&convert::from_zone(outcome), FOREIGN_UDP_SIZE);
        }
        // 2. Consul's domain, and the reverse names of its nodes and services.
        if let Some(mut answer) = self.own_in_time(&policy, query, &name, client).await {
            if let Some(recursor) = &policy.recursor {
                chase::complete(&mut answer, recursor, query.qtype()).await;
            }
            return respond(&answer, policy.max_udp_size);
        }
        let recursor = policy
            .recursor
            .as_ref()
            .filter(|_| may_recurse && query.recursion_desired);
        // 3. Static zones; an alias out of them is followed for those who may recurse.
        if let Some(mut outcome) = policy.zones.lookup(&foreign, rtype).await {
            let alias = outcome.unfinished.take();
            let mut answer = convert::from_zone(outcome);
            if let (Some(recursor), Some(alias)) = (recursor, alias) {
                let rest = convert::from_recursion(recursor.resolve(&alias, rtype).await);
                answer.rcode = rest.rcode;
                answer.answers.extend(rest.answers);
                answer.authority = rest.authority;
            }
            return respond(&answer, FOREIGN_UDP_SIZE);
        }
        // 4. Recursion, for those who may and who ask for it.
        let answer = match recursor {
            Some(recursor) => convert::from_recursion(recursor.resolve(&foreign, rtype).await),
            // Without upstreams nobody else can know a reverse name.
            None if policy.recursor.is_none() && names::is_reverse(name.as_wire()) => {
                let asked = Self::asked(
                    policy.domains.primary(),
                    &name,
                    query.qtype(),
                    client,
                    Patience::Some,
                );
                self.maker(&policy).nobody(&asked)
            }
            None => Answer::empty(Rcode::REFUSED, false),
        };
        respond(&answer, FOREIGN_UDP_SIZE)
    }

    /// The same answer as [`Router::route`] gives, if it can be had without waiting.
    pub(super) fn route_at_once(&self, query: &Query<'_>, client: Client) -> Option<Routed> {
        let policy = self.policy.load();
        let name = query.name();
        let reverse = names::reverse_address(name.as_wire());
        if reverse.is_some_and(|ip| ip.is_loopback()) {
            return None;
        }
        match self.own(&policy, query, &name, client, Patience::Some)? {
            Own::Wait(_) => None,
            // A host name elsewhere must be looked up first.
            Own::Answer(answer) if !answer.outside.is_empty() && policy.recursor.is_some() => None,
            Own::Answer(answer) => Some(Routed {
                rendered: Arc::new(Rendered::new(&answer, &name)),
                recursion_available: policy.recursor.is_some()
                    && policy.access.allows(client.address),
                max_udp_size: policy.max_udp_size,
            }),
        }
    }

    fn maker<'a>(&'a self, policy: &'a Policy) -> Maker<'a> {
        Maker {
            catalog: &self.catalog,
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
        // Serial numbers wrap by design (RFC 1982).
        let serial = since_1970.map_or(0, |time| time.as_secs() as u32);
        let now = catalog::seconds();
        Asked::new(domain, name, qtype, now, serial, client.network).with(patience)
    }

    /// What can be said at once of a name, if it is one of ours.
    fn own(
        &self,
        policy: &Policy,
        query: &Query<'_>,
        name: &Name,
        client: Client,
        patience: Patience,
    ) -> Option<Own> {
        let qtype = query.qtype();
        let maker = self.maker(policy);
        if let Some((domain, lookup)) = policy.domains.parse(name.as_wire(), qtype) {
            let asked = Self::asked(domain, name, qtype, client, patience);
            return Some(match maker.answer(&lookup, &asked) {
                Step::Answer(answer) => Own::Answer(answer),
                Step::Wait(pending) => Own::Wait(pending),
                Step::Unready => Own::Answer(Answer::empty(Rcode::SERVFAIL, false)),
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

    /// The same, after waiting for what has to be loaded.
    async fn own_in_time(
        &self,
        policy: &Policy,
        query: &Query<'_>,
        name: &Name,
        client: Client,
    ) -> Option<Answer> {
        let mut deadline = tokio::time::Instant::now() + LOAD_WAIT;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let patience = if left.is_zero() {
                Patience::None
            } else {
                Patience::Some
            };
            match self.own(policy, query, name, client, patience)? {
                Own::Answer(answer) => return Some(answer),
                Own::Wait(_) if left.is_zero() => {
                    return Some(Answer::empty(Rcode::SERVFAIL, false));
                }
                // What is old is better than a client that has given up.
                Own::Wait(pending) if pending.has_old() => {
                    if !pending.wait(left.min(CONFIRM_WAIT)).await {
                        deadline = tokio::time::Instant::now();
                    }
                }
                Own::Wait(pending) => {
                    pending.wait(left).await;
                }
            }
        }
    }
}
