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
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::config::ResolverOpts;
use hickory_resolver::{ResponseCache, TtlConfig};
use tokio::sync::Semaphore;

pub use metrics::Metrics;
use reply::Reply;
pub use system::{check_loops, own_addresses, system_upstreams};
use upstream::Upstream;

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

/// How recursion works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The resolvers to ask, over UDP and TCP on the same port.
    pub upstreams: Vec<SocketAddr>,
    /// Their order.
    pub strategy: Strategy,
    /// How long one upstream may take for one question.
    pub timeout: Duration,
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
    /// 2 s per upstream, hedged after 300 ms, 5 s in all (after that, clients have asked again),
    /// 8192 answers, 1024 questions.
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            strategy: Strategy::default(),
            timeout: Duration::from_secs(2),
            hedge_after: Duration::from_millis(300),
            deadline: Duration::from_secs(5),
            cache_size: 8192,
            max_concurrent: 1024,
        }
    }
}

/// What recursion has to say to one question.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// NOERROR or NXDOMAIN of an upstream, SERVFAIL if none had an answer, NOTIMP for types that
    /// are not recursed.
    pub rcode: ResponseCode,
    /// Aliases in order, then the records asked for. TTLs have run down since they were learned.
    pub answers: Vec<Record>,
    /// The SOA record of a negative answer.
    pub authority: Vec<Record>,
    /// An Extended DNS Error (RFC 8914 section 4) that says why there is no answer: 13 (cached
    /// error), 14 (not ready: too much under way) or 22 (no reachable authority).
    pub extended_error: Option<u16>,
}

impl Outcome {
    fn failed(rcode: ResponseCode, extended_error: Option<u16>) -> Self {
        Self {
            rcode,
            answers: Vec::new(),
            authority: Vec::new(),
            extended_error,
        }
    }
}

const CACHED_ERROR: u16 = 13;
const NOT_READY: u16 = 14;
const NO_REACHABLE_AUTHORITY: u16 = 22;

/// How many times an alias that an upstream left open is followed.
const MAX_ALIASES: usize = 8;

/// Answers questions through upstreams. Share it in an `Arc`; it needs a tokio runtime.
pub struct Recursor {
    settings: Settings,
    upstreams: Vec<Arc<Upstream>>,
    cache: ResponseCache,
    permits: Semaphore,
    metrics: Metrics,
}

impl Recursor {
    /// Prepares recursion, which counts in `metrics`. Nothing is sent yet.
    ///
    /// # Errors
    /// There is no upstream, or one of them cannot be an upstream.
    pub fn new(settings: Settings, metrics: Metrics) -> Result<Self, Error> {
        if settings.upstreams.is_empty() {
            return Err(Error::NoUpstreams);
        }
        let mut upstreams = Vec::with_capacity(settings.upstreams.len());
        for &address in &settings.upstreams {
            let refuse = |message: String| Error::Upstream {
                upstream: address,
                message,
            };
            if address.port() == 0 || address.ip().is_multicast() {
                return Err(refuse("nobody can be asked there".to_owned()));
            }
            let upstream = Upstream::new(address, settings.timeout);
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

    /// The upstreams, in the order of the settings.
    pub fn upstreams(&self) -> &[SocketAddr] {
        &self.settings.upstreams
    }

    /// The full recursion of one question, from the cache or an upstream. Takes no longer than
    /// the deadline of the settings. Dropping it ends the work that nobody else waits for.
    pub async fn resolve(&self, name: &Name, rtype: RecordType) -> Outcome {
        if special::is_not_recursed(rtype) {
            return Outcome::failed(ResponseCode::NotImp, None);
        }
        let mut name = name.clone();
        name.set_fqdn(true);
        if let Some(outcome) = special::answer(&name, rtype) {
            return outcome;
        }
        let deadline = tokio::time::Instant::now() + self.settings.deadline;
        let mut outcome = Outcome::failed(ResponseCode::NoError, None);
        let mut at = name.to_lowercase();
        for _ in 0..=MAX_ALIASES {
            let reply = match self.reply(&at, rtype, deadline).await {
                Ok(reply) => reply,
                Err(extended_error) => {
                    return Outcome::failed(ResponseCode::ServFail, Some(extended_error));
                }
            };
            let next = reply.unfinished(rtype).cloned();
            outcome.rcode = reply.rcode;
            outcome.answers.extend(reply.answers);
            outcome.authority = reply.soa.into_iter().collect();
            match next {
                // An alias back to where we were leads nowhere else the second time.
                Some(next) if !outcome.answers.iter().any(|r| r.name == next) => {
                    at = next.to_lowercase();
                }
                _ => break,
            }
        }
        for record in &mut outcome.answers {
            // The owner as this client wrote it, not as the first one did.
            if record.name == name {
                record.name = name.clone();
            }
        }
        outcome
    }

    /// The answer to one question, or the Extended DNS Error that says why there is none.
    async fn reply(
        &self,
        name: &Name,
        rtype: RecordType,
        deadline: tokio::time::Instant,
    ) -> Result<Reply, u16> {
        let query = Query::query(name.clone(), rtype);
        if let Some(reply) = Reply::recall(&self.cache, &query, Instant::now()) {
            self.metrics.hits.inc();
            return match reply.rcode {
                ResponseCode::ServFail => Err(CACHED_ERROR),
                _ => Ok(reply),
            };
        }
        self.metrics.misses.inc();
        let Ok(_permit) = self.permits.try_acquire() else {
            self.metrics.shed.inc();
            return Err(NOT_READY);
        };
        let race = tokio::time::timeout_at(deadline, self.race(&query)).await;
        let now = Instant::now();
        if let Ok(Some(reply)) = race {
            reply.clone().remember(&self.cache, query, now);
            return Ok(reply);
        }
        self.metrics.failures.inc();
        // RFC 9520: or every client's retry would go to every upstream again.
        Reply::failed().remember(&self.cache, query, now);
        Err(NO_REACHABLE_AUTHORITY)
    }
}

#[cfg(test)]
mod tests;
