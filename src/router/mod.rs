//! What a name means to a client. The catalog, the zones and the upstreams are asked in one order, for
//! the name of a question and for every name that an answer leads to (`order`); what they say is
//! rendered here.
//!
//! A look never waits. [`Router::resolve`] is the first one, on the thread that has the request; what
//! is on its way hands back a [`Waiting`], and [`Router::resolve_later`] waits and takes the same look
//! again.

mod order;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::answers::{self, Domains};
use crate::catalog::{Catalog, Miss, Patience, Pending, Validity, Versions};
use crate::dns::{Answer, Name, Rcode, Reach, Rendered, Request, Transport};
use crate::recursion::{Form, Landed, Recursor};
use crate::zones::Zones;

use order::{Step, Trail};

/// The largest answer to send over UDP for names that are not ours (D20): it may cross the
/// Internet, where fragments get lost.
const FOREIGN_UDP_SIZE: u16 = 1232;

/// What an operator can change while the server runs. Exchanged as a whole.
pub struct Policy {
    /// Consul's domains.
    pub domains: Domains,
    /// How answers from the catalog are made.
    pub answers: answers::Settings,
    /// Static zones.
    pub zones: Zones,
    /// Recursion, if it is on.
    pub recursor: Option<Arc<Recursor>>,
    /// The access list: the networks that may recurse (D11); everybody may ask for our own names.
    pub recursion_for: Vec<IpNet>,
}

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// Where the query came from.
    pub address: IpAddr,
    /// Where the one is that it is asked for: the client subnet, else the address.
    pub network: IpAddr,
    /// How it came.
    pub transport: Transport,
}

impl Asker {
    /// Somebody who asks for himself.
    pub fn new(address: IpAddr, transport: Transport) -> Self {
        // A client of a dual-stack socket is its IPv4 self.
        let address = address.to_canonical();
        Self {
            address,
            network: address,
            transport,
        }
    }

    /// On whose behalf this request is.
    fn of(self, request: &Request<'_>) -> Self {
        let subnet = request.edns.and_then(|edns| edns.client_subnet);
        Self {
            network: subnet.map_or(self.network, |subnet| subnet.address),
            ..self
        }
    }
}

/// What a client may do; nothing, if nobody looked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Access {
    /// It is in one of the networks.
    pub is_known: bool,
    /// There is recursion, and this client may have it.
    pub may_recurse: bool,
}

/// What somebody wants to know.
#[derive(Debug, Clone)]
pub struct Inquiry {
    /// In lower case.
    name: Name,
    qtype: u16,
    asker: Asker,
    recursive: bool,
    /// What upstreams are asked with.
    form: Form,
}

impl Inquiry {
    /// The question of a request. `recursive`: the client may recurse, and asks for it.
    pub fn new(request: &Request<'_>, asker: Asker, recursive: bool) -> Self {
        Self {
            name: request.name().to_lowercase(),
            qtype: request.qtype(),
            asker: asker.of(request),
            recursive,
            form: Form {
                dnssec_ok: request.dnssec_ok(),
                checking_disabled: request.checking_disabled,
            },
        }
    }
}

/// What came of an inquiry.
#[derive(Debug)]
pub struct Resolved {
    /// The answer.
    pub rendered: Rendered,
    /// The largest datagram that it may go in, in bytes.
    pub max_udp_size: u16,
    /// How long it may be sent to others.
    pub validity: Validity,
    /// Its TTLs run down from then on, in milliseconds on the catalog's clock.
    pub born: Option<u64>,
}

impl Resolved {
    /// An answer for this one time.
    pub fn once(answer: &Answer, name: &Name, max_udp_size: u16) -> Self {
        Self {
            rendered: Rendered::new(answer, name),
            max_udp_size,
            validity: Validity::none(),
            born: None,
        }
    }

    /// Seconds by which the TTLs have run down at `now`, in milliseconds on the catalog's clock.
    pub fn elapsed(&self, now: u64) -> u32 {
        self.born
            .map_or(0, |born| (now.saturating_sub(born) / 1000) as u32)
    }
}

/// An inquiry that has to wait for something. It goes with the request through whatever queue there
/// is; dropped, it costs nothing.
#[derive(Debug)]
pub struct Waiting {
    pending: Pending,
    fetched: Arc<Fetched>,
    since: Instant,
}

/// What upstreams have said in the course of one inquiry: an answer that no cache keeps is found by
/// the next look as well.
#[derive(Debug, Default)]
struct Fetched(Mutex<Vec<(Name, u16, Arc<Landed>)>>);

impl Fetched {
    fn put(&self, name: Name, qtype: u16, landed: Landed) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((name, qtype, Arc::new(landed)));
    }

    fn get(&self, name: &Name, qtype: u16) -> Option<Arc<Landed>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .find(|(own, own_type, _)| own == name && *own_type == qtype)
            .map(|(_, _, landed)| Arc::clone(landed))
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Decides what a question means to a client, and answers it.
pub struct Router {
    catalog: Arc<Catalog>,
    policy: ArcSwap<Policy>,
}

impl Router {
    /// A router over a catalog.
    pub fn new(catalog: Arc<Catalog>, policy: Policy) -> Self {
        Self {
            catalog,
            policy: ArcSwap::from_pointee(policy),
        }
    }

    /// From now on, another policy.
    pub fn adopt(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
        self.versions().new_epoch();
    }

    /// Recursion as it is now, if it is on.
    pub fn recursor(&self) -> Option<Arc<Recursor>> {
        self.policy.load().recursor.clone()
    }

    /// The clock and the versions that tell whether a [`Resolved`] still holds.
    pub fn versions(&self) -> &Arc<Versions> {
        self.catalog.versions()
    }

    /// What the access list says of this client.
    pub fn access(&self, asker: Asker) -> Access {
        let policy = self.policy.load();
        let mut networks = policy.recursion_for.iter();
        let is_known = networks.any(|network| network.contains(&asker.address));
        Access {
            is_known,
            may_recurse: is_known && policy.recursor.is_some(),
        }
    }

    /// The first look.
    ///
    /// # Errors
    /// What has to be waited for.
    pub fn resolve(&self, inquiry: &Inquiry) -> Result<Resolved, Waiting> {
        let fetched = Arc::default();
        self.look(inquiry, Patience::Some, &fetched)
            .map_err(|pending| Waiting {
                pending,
                fetched,
                since: Instant::now(),
            })
    }

    /// Waits and looks again, until all is said or the time is up: then with what there is. Before each look
    /// it waits for `room` to put the answer, which is the caller's together with it.
    pub async fn resolve_later<F: Future>(
        &self,
        inquiry: &Inquiry,
        waiting: Waiting,
        room: impl Fn() -> F,
    ) -> (Resolved, F::Output) {
        let Waiting {
            mut pending,
            fetched,
            since,
        } = waiting;
        loop {
            let patience = if pending.wait(since).await {
                Patience::Some
            } else {
                Patience::None
            };
            let place = room().await;
            match self.look(inquiry, patience, &fetched) {
                Ok(resolved) => return (resolved, place),
                Err(next) => pending = next,
            }
        }
    }

    /// Looks once. What is on its way is the error; without patience nothing is.
    fn look(
        &self,
        inquiry: &Inquiry,
        patience: Patience,
        fetched: &Arc<Fetched>,
    ) -> Result<Resolved, Pending> {
        // Before the policy: what is adopted in between makes the answer look older, not newer.
        let reader = self.catalog.read();
        let policy = self.policy.load();
        let born = self.versions().millis();
        let mut trail = Trail {
            inquiry,
            policy: &policy,
            reader: &reader,
            patience,
            fetched,
            pending: Vec::new(),
            within: Duration::MAX,
            seen: HashSet::new(),
            steps: 0,
            is_consuls: false,
            house: false,
            outside: false,
            holds: Duration::MAX,
        };
        let first = Step {
            name: &inquiry.name,
            qtype: inquiry.qtype,
            reach: Reach::Recursive,
            is_first: true,
        };
        let said = trail
            .walk(&first)
            .unwrap_or_else(|| Ok(trail.nobodys(&first)));
        let max_udp_size = match trail.is_consuls {
            true => policy.answers.max_udp_size,
            false => FOREIGN_UDP_SIZE,
        };
        let answer = match said {
            Ok(answer) if trail.pending.is_empty() => answer,
            Ok(_) => return Err(Pending::all(trail.pending)),
            Err(Miss::Loading(pending)) => {
                trail.pending.push(pending);
                return Err(Pending::all(trail.pending));
            }
            Err(Miss::Absent | Miss::Unready) => {
                let failed = Answer::empty(Rcode::SERVFAIL, false);
                return Ok(Resolved::once(&failed, &inquiry.name, max_udp_size));
            }
        };
        let (house, outside, holds) = (trail.house, trail.outside, trail.holds);
        let mut resolved = Resolved {
            validity: reader.into_validity(),
            ..Resolved::once(&answer, &inquiry.name, max_udp_size)
        };
        if outside {
            resolved.born = Some(born).filter(|_| !house);
            let is_said = matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN);
            if is_said && !house && !holds.is_zero() {
                let holds = u64::try_from(holds.as_millis()).unwrap_or(u64::MAX);
                resolved.validity.ends_at(born.saturating_add(holds));
            } else {
                // What was found outside has a time of its own, and may not all have been found.
                resolved.validity = Validity::none();
            }
        }
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests;
