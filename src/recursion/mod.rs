//! Recursion through upstream resolvers: failover, hedging, health, cache.
//!
//! Hickory's own `Resolver` is not used, for what it does with answers: it does not move on when an
//! upstream says SERVFAIL or REFUSED, loses the aliases of a negative answer, looks up the target
//! of an SRV record behind an alias as if it were another alias, and keeps one cache per resolver.
//! Below it are the parts that do what is wanted: the `NameServerPool`, one for each upstream (UDP,
//! TCP after a truncated answer, one query on the wire for the same question asked twice), and the
//! `ResponseCache`, one for all. So there are no search domains, no hosts file and no names that
//! hickory answers by itself. A few names that must never
//! leave the host (`localhost`, `invalid`, `onion`) are answered in `special`.
//!
//! What upstreams get to see: a query with RD, EDNS and no client's options (no DO, no CD, no
//! client subnet). What they say about DNSSEC is not passed on.

mod health;
mod metrics;
mod race;
mod reply;
mod special;
mod system;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::{ResponseCache, TtlConfig};
use ipnet::IpNet;
use tokio::sync::Semaphore;

use crate::dns::hickory::to_hickory;
use crate::dns::{Answer, Name, Rcode};

pub use metrics::Metrics;
use race::Upstream;
use reply::Reply;
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

/// In which order upstreams that are well are asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// As they are listed: the first gets everything while it is well.
    #[default]
    Sequential,
    /// In a new random order for every question.
    Random,
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
    /// How many answers the cache holds.
    pub cache_size: u64,
    /// How many questions may wait for upstreams at a time. What is more gets SERVFAIL at once.
    pub max_concurrent: usize,
}

impl Default for Settings {
    /// 2 s per upstream as in Consul, hedged after 300 ms, 5 s in all (after that, clients have asked
    /// again), 32768 answers, 1024 questions; for clients behind the same router.
    fn default() -> Self {
        Self {
            upstreams: Upstreams::System,
            allow: behind_the_same_router(),
            recursor_strategy: Strategy::default(),
            recursor_timeout: Duration::from_secs(2),
            hedge_after: Duration::from_millis(300),
            deadline: Duration::from_secs(5),
            cache_size: 32_768,
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

/// Extended DNS Errors (RFC 8914 section 4) that say why there is no answer: it was asked for a
/// moment ago and there was none; too much is under way; no upstream has one.
const CACHED_ERROR: u16 = 13;
const NOT_READY: u16 = 14;
const NO_REACHABLE_AUTHORITY: u16 = 22;

/// Answers questions through upstreams. Share it in an `Arc`; it needs a tokio runtime.
pub struct Recursor {
    settings: Settings,
    upstreams: Vec<Arc<Upstream>>,
    cache: ResponseCache,
    permits: Semaphore,
    metrics: Metrics,
}

impl Recursor {
    /// Prepares recursion through these upstreams, which counts in `metrics`. Nothing is sent yet.
    ///
    /// # Errors
    /// There is no upstream, or one of them cannot be an upstream.
    pub fn new(
        addresses: &[SocketAddr],
        mut settings: Settings,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        if addresses.is_empty() {
            return Err(Error::NoUpstreams);
        }
        settings.hedge_after = settings.hedge_after.min(settings.recursor_timeout);
        let mut upstreams = Vec::with_capacity(addresses.len());
        for &address in addresses {
            let refuse = |message: String| Error::Upstream {
                upstream: address,
                message,
            };
            if address.port() == 0 || address.ip().is_multicast() {
                return Err(refuse(
                    "not an address that queries can be sent to".to_owned(),
                ));
            }
            let upstream = Upstream::new(address, settings.recursor_timeout);
            upstreams.push(Arc::new(upstream.map_err(|e| refuse(e.to_string()))?));
        }
        for upstream in &upstreams {
            metrics.healthy(upstream.address, true);
        }
        let mut bounds = ResolverOpts::default();
        bounds.negative_max_ttl = Some(Duration::from_secs(reply::MAX_NEGATIVE_TTL.into()));
        Ok(Self {
            cache: ResponseCache::new(settings.cache_size, TtlConfig::from_opts(&bounds)),
            permits: Semaphore::new(settings.max_concurrent.min(Semaphore::MAX_PERMITS)),
            settings,
            upstreams,
            metrics,
        })
    }

    /// How long the resolution of one question may take.
    pub fn deadline(&self) -> Duration {
        self.settings.deadline
    }

    /// What can be said at once: what is never asked of an upstream, or is in the cache. `name` is in
    /// lower case. TTLs have run down since they were learned.
    pub fn recall(&self, name: &Name, qtype: u16) -> Option<Answer> {
        if special::is_not_recursed(qtype) {
            return Some(Answer::empty(Rcode::NOTIMP, false));
        }
        if let Some(answer) = special::answer(name, qtype) {
            return Some(answer);
        }
        let query = query(name, qtype)?;
        let reply = Reply::recall(&self.cache, &query, Instant::now())?;
        self.metrics.hits.inc();
        Some(match reply.rcode {
            ResponseCode::ServFail => failed(CACHED_ERROR),
            _ => reply.into_answer(name, qtype),
        })
    }

    /// The full recursion of one question: NOERROR or NXDOMAIN of an upstream, SERVFAIL if none had
    /// an answer. An alias that the upstream left open is left open. Takes no longer than the
    /// deadline of the settings. Dropping it ends the work that nobody else waits for.
    pub async fn resolve(&self, name: &Name, qtype: u16) -> Answer {
        // Somebody else may have been told meanwhile.
        if let Some(answer) = self.recall(name, qtype) {
            return answer;
        }
        self.metrics.misses.inc();
        let Some(query) = query(name, qtype) else {
            return failed(NO_REACHABLE_AUTHORITY);
        };
        let Ok(_permit) = self.permits.try_acquire() else {
            self.metrics.shed.inc();
            return failed(NOT_READY);
        };
        let race = tokio::time::timeout(self.settings.deadline, self.race(&query)).await;
        let now = Instant::now();
        if let Ok(Some(reply)) = race {
            reply.clone().remember(&self.cache, query, now);
            return reply.into_answer(name, qtype);
        }
        self.metrics.failures.inc();
        // RFC 9520: or every client's retry would go to every upstream again.
        Reply::failed().remember(&self.cache, query, now);
        failed(NO_REACHABLE_AUTHORITY)
    }
}

fn query(name: &Name, qtype: u16) -> Option<Query> {
    Some(Query::query(to_hickory(name)?, RecordType::from(qtype)))
}

fn failed(extended_error: u16) -> Answer {
    Answer {
        extended_error: Some(extended_error),
        ..Answer::empty(Rcode::SERVFAIL, false)
    }
}

#[cfg(test)]
mod tests;
