//! Recursion through upstream resolvers: what they said is kept link by link, and nothing but what was
//! asked of them gets any further.
//!
//! A few names that must never leave the host (`localhost`, `invalid`, `onion`) are answered in
//! `special`. Otherwise a question passes as it came: DO and CD go to the upstream, and what it says of
//! its checking comes back (AD, signatures, Extended DNS Errors). A client's other options stay here.

mod cache;
mod link;
mod metrics;
mod scrub;
mod special;
mod system;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};

use crate::dns::{Answer, ExtendedError, Name, Open, Query, Rcode, Reach, Response};
use crate::upstream::{self, Group, Strategy};

use cache::Cache;
pub use link::Form;
use link::Link;
pub use metrics::Metrics;
use scrub::Links;
pub use system::{check_loops, own_addresses, system_upstreams};

/// Why recursion cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Recursion without an upstream.
    #[error("no upstream to recurse through")]
    NoUpstreams,
    /// The operating system's list of resolvers cannot be read.
    #[error("{}: {source}; name a resolver with --upstream", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The operating system's list of resolvers is empty.
    #[error("{}: no nameserver line that can be used; name a resolver with --upstream", path.display())]
    NoneInFile {
        /// The file.
        path: PathBuf,
    },
    /// An upstream is one of our own listeners.
    #[error(
        "upstream {upstream} is Portolan itself (it listens on {listener}): every question would \
         come back; name another resolver with --upstream, or --upstream none"
    )]
    Loop {
        /// The upstream.
        upstream: SocketAddr,
        /// The listener that it reaches.
        listener: SocketAddr,
    },
    /// The system does not list its interfaces.
    #[error("cannot list this host's addresses: {0}")]
    Interfaces(io::Error),
    /// An upstream cannot be asked.
    #[error("upstream {upstream}: {message}")]
    Upstream {
        /// The upstream.
        upstream: SocketAddr,
        /// Why.
        message: String,
    },
}

/// The resolvers that an operator wants to be asked, over UDP and TCP on the same port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// Those in the system's resolv.conf.
    System,
    /// These, in this order.
    List(Vec<SocketAddr>),
    /// Recursion is off.
    None,
}

/// What an operator may set about recursion: the keys of `[recursion]`, and three times and limits that
/// are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who is asked.
    pub upstreams: Upstreams,
    /// Clients that may recurse. No network of v4-mapped addresses is in here: compare with a client's
    /// canonical address.
    pub allow: Vec<IpNet>,
    /// In which order upstreams that are well are asked.
    pub recursor_strategy: Strategy,
    /// How long one upstream may take for one question.
    pub recursor_timeout: Duration,
    /// After how long without an answer the next upstream is asked as well. The first good answer
    /// of all wins.
    pub hedge_after: Duration,
    /// How long one question may take in all.
    pub deadline: Duration,
    /// Whether upstreams are asked with letters in random case.
    pub random_case: bool,
    /// Bytes that the answers of upstreams may take in memory.
    pub cache: u64,
    /// How many questions may wait for upstreams at a time. What is more gets SERVFAIL at once.
    pub max_concurrent: usize,
}

impl Default for Settings {
    /// 2 s per upstream as in Consul, hedged after 300 ms, 5 s in all (after that, clients have asked
    /// again), 64 MiB, 1024 questions; for clients behind the same router.
    fn default() -> Self {
        Self {
            upstreams: Upstreams::System,
            allow: behind_the_same_router(),
            recursor_strategy: Strategy::default(),
            recursor_timeout: Duration::from_secs(2),
            hedge_after: Duration::from_millis(300),
            deadline: Duration::from_secs(5),
            random_case: false,
            cache: 64 << 20,
            max_concurrent: 1024,
        }
    }
}

/// Loopback, private and link-local networks.
fn behind_the_same_router() -> Vec<IpNet> {
    let networks = [
        (IpAddr::from([127, 0, 0, 0]), 8),
        (IpAddr::from([10, 0, 0, 0]), 8),
        (IpAddr::from([172, 16, 0, 0]), 12),
        (IpAddr::from([192, 168, 0, 0]), 16),
        (IpAddr::from([169, 254, 0, 0]), 16),
        (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128),
        (IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, 0]), 7),
        (IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10),
    ];
    networks
        .into_iter()
        .map(|(address, prefix)| IpNet::new_assert(address, prefix))
        .collect()
}

/// Extended DNS Errors (RFC 8914 section 4) that say why there is no answer, where no upstream says it:
/// there was none a moment ago; too much is under way; no upstream has one.
const CACHED_ERROR: u16 = 13;
const NOT_READY: u16 = 14;
const NO_REACHABLE_AUTHORITY: u16 = 22;

/// Links of a chain that one answer has: no reply has as many.
const MAX_LINKS: usize = 4096;

/// Of the memory for answers one part of this many is the workers', for what they render of them.
const WORKERS_SHARE: u64 = 4;

impl Settings {
    /// Bytes that workers may keep of what they made of upstreams' answers, all together.
    pub fn workers_cache(&self) -> usize {
        usize::try_from(self.cache / WORKERS_SHARE).unwrap_or(usize::MAX)
    }
}

/// A question for upstreams.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// In lower case.
    pub name: &'a Name,
    /// QTYPE.
    pub qtype: u16,
    /// What else it is asked with.
    pub form: Form,
}

/// A question on its way, for all who ask it meanwhile: the first one goes for the others, and if he
/// leaves, the next one does.
type Flight = Arc<OnceCell<Arc<Links>>>;

/// Answers questions through upstreams. Share it in an `Arc`.
pub struct Recursor {
    settings: Settings,
    upstreams: Group,
    cache: Arc<Cache>,
    flights: Mutex<HashMap<Query, Flight>>,
    permits: Semaphore,
    metrics: Metrics,
}

impl Recursor {
    /// Prepares recursion through these upstreams, which counts in `metrics`. Connections live on
    /// `runtime`, whoever asks. Nothing is sent yet.
    ///
    /// # Errors
    /// There is no upstream, or one of them cannot be an upstream.
    pub fn new(
        addresses: &[SocketAddr],
        settings: Settings,
        runtime: &Handle,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        if addresses.is_empty() {
            return Err(Error::NoUpstreams);
        }
        for &address in addresses {
            if address.port() == 0 || address.ip().is_multicast() {
                return Err(Error::Upstream {
                    upstream: address,
                    message: "not an address that queries can be sent to".to_owned(),
                });
            }
        }
        let how = upstream::Settings {
            strategy: settings.recursor_strategy,
            timeout: settings.recursor_timeout,
            random_case: settings.random_case,
            hedge_after: settings.hedge_after,
        };
        let cache = Arc::new(Cache::new(settings.cache - settings.cache / WORKERS_SHARE));
        metrics.show(&cache);
        Ok(Self {
            upstreams: Group::new(addresses, how, runtime, &metrics.upstreams),
            cache,
            flights: Mutex::default(),
            permits: Semaphore::new(settings.max_concurrent.min(Semaphore::MAX_PERMITS)),
            settings,
            metrics,
        })
    }

    /// How long the resolution of one question may take.
    pub fn deadline(&self) -> Duration {
        self.settings.deadline
    }

    /// What can be said at once: what is never asked of an upstream, or is in the cache. TTLs have run
    /// down since they were learned. An alias whose target is not known is left open.
    pub fn recall(&self, question: Question<'_>) -> Option<Answer> {
        let Question { name, qtype, form } = question;
        if special::is_not_recursed(qtype) {
            return Some(Answer::empty(Rcode::NOTIMP, false));
        }
        if let Some(answer) = special::answer(name, qtype) {
            return Some(answer);
        }
        let now = Instant::now();
        let answer = told(question, now, |at| self.cache.get(at, qtype, form, now))?;
        self.metrics.hits.inc();
        Some(match answer.rcode {
            Rcode::SERVFAIL if answer.errors.is_empty() => failed(CACHED_ERROR),
            _ => answer,
        })
    }

    /// The full recursion of one question: NOERROR or NXDOMAIN of an upstream, SERVFAIL if none had
    /// an answer. An alias that the upstream left open is left open. Takes no longer than the
    /// deadline of the settings. Dropping it ends the work that nobody else waits for.
    pub async fn resolve(&self, question: Question<'_>) -> Answer {
        // Somebody else may have been told meanwhile.
        if let Some(answer) = self.recall(question) {
            return answer;
        }
        self.metrics.misses.inc();
        let Question { name, qtype, form } = question;
        let query = Query::new(name, qtype, form.dnssec_ok, form.checking_disabled);
        let seat = Seat::take(self, query);
        let Some(links) = seat.fly(question).await else {
            self.metrics.shed.inc();
            return failed(NOT_READY);
        };
        let now = Instant::now();
        let mut found = Found::new(&links);
        let answer = told(question, now, |at| {
            found
                .next(at)
                .or_else(|| self.cache.get(at, qtype, form, now))
        });
        match answer {
            Some(answer) if answer.rcode != Rcode::SERVFAIL || !answer.errors.is_empty() => answer,
            _ => failed(NO_REACHABLE_AUTHORITY),
        }
    }

    /// Asks upstreams, and keeps what they say.
    async fn ask(&self, question: Question<'_>, query: &Query) -> Links {
        let Question { name, qtype, form } = question;
        let said = self
            .upstreams
            .ask(query, Instant::now() + self.settings.deadline)
            .await;
        let now = Instant::now();
        let links = match said {
            Ok(response) => scrub::links(name, qtype, form, &response, now),
            Err(errors) => {
                self.metrics.failures.inc();
                // RFC 9520: or every client's retry would go to every upstream again.
                vec![(name.clone(), Arc::new(Link::failed(errors, now)))]
            }
        };
        for (own, link) in &links {
            self.cache.put(own, qtype, form, link, now);
        }
        links
    }
}

/// A place on a flight. The last one who leaves it takes it off the list.
struct Seat<'a> {
    recursor: &'a Recursor,
    query: Query,
    flight: Flight,
}

impl<'a> Seat<'a> {
    fn take(recursor: &'a Recursor, query: Query) -> Self {
        let mut flights = recursor
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let flight = Arc::clone(flights.entry(query.clone()).or_default());
        drop(flights);
        Self {
            recursor,
            query,
            flight,
        }
    }

    /// What comes of it; `None` if there are too many already.
    async fn fly(&self, question: Question<'_>) -> Option<Arc<Links>> {
        let links = self.flight.get_or_try_init(|| async {
            let _permit = self.recursor.permits.try_acquire().map_err(|_| ())?;
            Ok::<_, ()>(Arc::new(self.recursor.ask(question, &self.query).await))
        });
        links.await.ok().cloned()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let flights = &self.recursor.flights;
        let mut flights = flights.lock().unwrap_or_else(PoisonError::into_inner);
        let is_listed = flights
            .get(&self.query)
            .is_some_and(|own| Arc::ptr_eq(own, &self.flight));
        // Ours, and the list's.
        let is_last = Arc::strong_count(&self.flight) <= 2;
        if is_listed && (is_last || self.flight.initialized()) {
            flights.remove(&self.query);
        }
    }
}

/// What a reply says to a question, with nothing that was not asked for: pure.
pub fn said(question: Question<'_>, response: &Response) -> Answer {
    let now = Instant::now();
    let Question { name, qtype, form } = question;
    let links = scrub::links(name, qtype, form, response, now);
    let mut found = Found::new(&links);
    let answer = told(question, now, |at| found.next(at));
    answer.unwrap_or_else(|| failed(NO_REACHABLE_AUTHORITY))
}

/// Links that are walked through in their order, from one to where it leads.
struct Found<'a>(std::slice::Iter<'a, (Name, Arc<Link>)>);

impl<'a> Found<'a> {
    fn new(links: &'a Links) -> Self {
        Self(links.iter())
    }

    fn next(&mut self, name: &Name) -> Option<Arc<Link>> {
        let (_, link) = self.0.next().filter(|(own, _)| own == name)?;
        Some(Arc::clone(link))
    }
}

/// The answer that links make, from that of the question's name on; `None` if that is not known.
fn told(
    question: Question<'_>,
    now: Instant,
    mut link_at: impl FnMut(&Name) -> Option<Arc<Link>>,
) -> Option<Answer> {
    let mut answer = Answer {
        authentic: true,
        ..Answer::empty(Rcode::NOERROR, false)
    };
    let mut at = question.name.clone();
    let mut seen = HashSet::new();
    loop {
        let Some(link) = link_at(&at) else {
            if seen.is_empty() {
                return None;
            }
            answer.authentic = false;
            answer.open.push(Open {
                to: at,
                of: None,
                max_ttl: u32::MAX,
                decides: true,
                reach: Reach::Recursive,
            });
            break;
        };
        link.tell(&at, now, &mut answer);
        let Some(next) = &link.alias else { break };
        seen.insert(at);
        if seen.len() == MAX_LINKS || seen.contains(next) {
            break;
        }
        at = next.clone();
    }
    for (of, record) in answer.answers.iter().enumerate() {
        // Whatever the upstream knows of its hosts it would have sent.
        answer.open.extend(record.data.host().map(|to| Open {
            to,
            of: Some(of),
            max_ttl: u32::MAX,
            decides: false,
            reach: Reach::House,
        }));
    }
    Some(answer)
}

fn failed(error: u16) -> Answer {
    Answer {
        errors: vec![ExtendedError::new(error, b"")],
        ..Answer::empty(Rcode::SERVFAIL, false)
    }
}

#[cfg(test)]
mod tests;
