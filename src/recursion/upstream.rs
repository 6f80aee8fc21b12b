//! One resolver that we recurse through: hickory's connections to it, and our memory of it.

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

use super::health::Health;
use super::reply::{Failure, Reply};

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
