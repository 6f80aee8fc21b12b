//! One question against several upstreams: who is asked when, and what each one's behaviour means. And each
//! of them: hickory's connections to it, and our memory of it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use tokio::task::JoinSet;

use super::Recursor;
use super::health::{self, Health};
use super::reply::{Failure, Reply};

/// A question on its way to one upstream.
struct Entrant {
    upstream: Arc<Upstream>,
    sent: Instant,
    state: State,
}

#[derive(PartialEq)]
enum State {
    /// Nothing has come back.
    Running,
    /// It said that something is wrong. With the name or with itself: that shows when another
    /// upstream answers.
    Suspect,
    /// Its failure has been noted.
    Out,
}

impl Recursor {
    /// Asks one upstream after the other until one has an answer: the next one at once when one
    /// failed, and beside it when one is slow. `None` if all failed.
    ///
    /// Dropping it, or its end, aborts what is still running.
    pub(super) async fn race(&self, query: &Query) -> Option<Reply> {
        let order = self.order();
        let mut waiting = order.iter().filter_map(|&index| self.upstreams.get(index));
        let mut entrants: Vec<Entrant> = Vec::with_capacity(order.len());
        let mut running: JoinSet<(usize, Result<Reply, Failure>)> = JoinSet::new();
        let mut is_hedge = false;
        loop {
            if let Some(upstream) = waiting.next() {
                let sent = Instant::now();
                upstream.note_asked(sent);
                if is_hedge {
                    self.metrics.hedge(upstream.address);
                }
                let (number, query) = (entrants.len(), query.clone());
                let asked = Arc::clone(upstream);
                running.spawn(async move { (number, asked.ask(&query).await) });
                entrants.push(Entrant {
                    upstream: Arc::clone(upstream),
                    sent,
                    state: State::Running,
                });
            }
            is_hedge = false;
            let more = entrants.len() < order.len();
            tokio::select! {
                done = running.join_next() => match done? {
                    Ok((number, Ok(reply))) => {
                        self.won(&entrants, number, &reply);
                        return Some(reply);
                    }
                    Ok((number, Err(failure))) => {
                        if let Some(entrant) = entrants.get_mut(number) {
                            self.lost(entrant, failure);
                        }
                    }
                    Err(error) => tracing::error!(%error, "a query to an upstream ended unexpectedly"),
                },
                () = tokio::time::sleep(self.settings.hedge_after), if more => is_hedge = true,
            }
        }
    }

    /// An upstream failed. An error that it sent is held against it only if another one answers
    /// the same question; or a broken domain would make every upstream look broken.
    fn lost(&self, entrant: &mut Entrant, failure: Failure) {
        let upstream = &entrant.upstream;
        self.metrics.query(upstream.address, failure.label());
        tracing::debug!(upstream = %upstream.address, outcome = failure.label(), "no answer");
        if failure.may_be_the_name() {
            entrant.state = State::Suspect;
        } else {
            entrant.state = State::Out;
            self.note_failure(entrant);
        }
    }

    /// An upstream answered. That tells about the others, too.
    fn won(&self, entrants: &[Entrant], winner: usize, reply: &Reply) {
        let now = Instant::now();
        for (number, entrant) in entrants.iter().enumerate() {
            let address = entrant.upstream.address;
            let took = now.saturating_duration_since(entrant.sent);
            if number == winner {
                let outcome = match reply.rcode {
                    ResponseCode::NXDomain => "nxdomain",
                    _ => "noerror",
                };
                self.metrics.query(address, outcome);
                self.metrics.latency(address, took);
                let is_well = entrant.upstream.note_success(now);
                self.metrics.healthy(address, is_well);
            } else if entrant.state == State::Suspect {
                self.note_failure(entrant);
            } else if entrant.state == State::Running {
                self.metrics.query(address, "overtaken");
                // One that had the start and was overtaken is slow or dead. It is not waited for,
                // so this is how a dead upstream is found out.
                if took >= self.settings.hedge_after {
                    self.note_failure(entrant);
                }
            }
        }
    }

    fn note_failure(&self, entrant: &Entrant) {
        let upstream = &entrant.upstream;
        let now = Instant::now();
        let was_well = upstream.health().is_well(now);
        let is_well = upstream.note_failure(entrant.sent, now);
        self.metrics.healthy(upstream.address, is_well);
        if was_well && !is_well {
            tracing::warn!(upstream = %upstream.address, "this upstream keeps failing and is asked last from now on");
        }
    }

    fn order(&self) -> Vec<usize> {
        let health: Vec<Health> = self.upstreams.iter().map(|u| u.health()).collect();
        // The keys of the standard library's hasher are the source of chance at hand.
        let chance = RandomState::new().build_hasher().finish();
        health::order(
            &health,
            self.settings.recursor_strategy,
            Instant::now(),
            chance,
        )
    }
}

/// Questions on one TCP connection at a time. Hickory's 32 are few for a server.
const PER_TCP_CONNECTION: usize = 256;
/// What we tell upstreams we can take over UDP: never a fragment (RFC 9715).
const UDP_SIZE: u16 = 1232;

/// One upstream.
pub(super) struct Upstream {
    /// Where it listens, over UDP and TCP alike.
    pub(super) address: SocketAddr,
    timeout: Duration,
    pool: NameServerPool<TokioRuntimeProvider>,
    health: Mutex<Health>,
}

impl Upstream {
    /// Prepares an upstream; nothing is connected yet.
    pub(super) fn new(address: SocketAddr, timeout: Duration) -> Result<Self, NetError> {
        let mut udp = ConnectionConfig::udp();
        udp.port = address.port();
        let mut tcp = ConnectionConfig::tcp();
        tcp.port = address.port();
        let server = NameServerConfig::new(address.ip(), true, vec![udp, tcp]);

        let mut options = ResolverOpts::default();
        // Within it hickory sends a datagram again, and still takes the answer to the first.
        options.timeout = timeout;
        options.num_concurrent_reqs = 1;
        options.max_active_requests = PER_TCP_CONNECTION;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.edns_payload_len = UDP_SIZE;
        let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
        let provider = TokioRuntimeProvider::default();
        Ok(Self {
            address,
            timeout,
            pool: NameServerPool::from_config([server], context, provider),
            health: Mutex::default(),
        })
    }

    /// Asks it, over UDP and, when the answer does not fit, over TCP. Takes no longer than the
    /// timeout.
    pub(super) async fn ask(&self, query: &Query) -> Result<Reply, Failure> {
        match tokio::time::timeout(self.timeout, self.exchange(query)).await {
            Ok(result) => Reply::read(query, result),
            Err(_) => Err(Failure::Timeout),
        }
    }

    async fn exchange(&self, query: &Query) -> Result<DnsResponse, NetError> {
        let mut options = DnsRequestOptions::default();
        options.edns_payload_len = UDP_SIZE;
        let request = DnsRequest::from_query(query.clone(), options);
        let result = self.pool.send(request).first_answer().await;
        match &result {
            // RFC 6891 section 7: a server that does not know EDNS may say so like this.
            Err(NetError::Dns(DnsError::ResponseCode(
                ResponseCode::FormErr | ResponseCode::NotImp,
            ))) => {
                options.use_edns = false;
                let request = DnsRequest::from_query(query.clone(), options);
                self.pool.send(request).first_answer().await
            }
            _ => result,
        }
    }

    /// A copy of what is remembered of it.
    pub(super) fn health(&self) -> Health {
        self.with_health(|health| health.clone())
    }

    /// Notes that a question goes out.
    pub(super) fn note_asked(&self, now: Instant) {
        self.with_health(|health| health.asked(now));
    }

    /// Notes a good answer; says whether it is asked in its turn from now on.
    pub(super) fn note_success(&self, now: Instant) -> bool {
        self.with_health(|health| {
            health.succeeded();
            health.is_well(now)
        })
    }

    /// Notes a failure of the question sent at `sent`; says whether it is asked in its turn from
    /// now on.
    pub(super) fn note_failure(&self, sent: Instant, now: Instant) -> bool {
        self.with_health(|health| {
            health.failed(sent, now);
            health.is_well(now)
        })
    }

    fn with_health<T>(&self, f: impl FnOnce(&mut Health) -> T) -> T {
        // Nothing in here can leave the memory half written, so a panic elsewhere does not spoil it.
        f(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
