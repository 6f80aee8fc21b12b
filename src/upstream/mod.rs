//! Resolvers that are asked: one of them by datagram and stream, with what is remembered of it, and
//! several in a race.
//!
//! hickory-resolver's transport is not used here. What a forwarder needs of it cannot be mended from
//! outside: whole negative replies, a reply without a question, the end of a TCP connection, and a cost
//! per query that is a fraction of it.

mod datagram;
mod group;
mod health;
mod metrics;
mod stream;

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::dns::{ExtendedError, Query, QueryEdns, Rcode, Response, types};

pub(crate) use datagram::watch;
pub use group::{Group, Settings, Strategy};
use health::Health;
pub use metrics::Metrics;
use metrics::{Counts, Odd};
use stream::Streams;

/// What we tell upstreams we can take over UDP: never a fragment (RFC 9715).
const UDP_SIZE: u16 = 1232;

/// For how long a server that knows no EDNS is asked without it.
const EDNS_REST: Duration = Duration::from_secs(15 * 60);

/// Until a server has been timed, it is taken to be as far away as that.
const FIRST_TIME: Duration = Duration::from_millis(100);

/// Why an upstream gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Nothing came in time.
    Timeout,
    /// The network refused.
    Network,
    /// What came was not a reply that can be read.
    Unreadable,
    /// It answered with an error, and perhaps with why.
    Rcode(Rcode, Vec<ExtendedError>),
    /// It does not recurse: it only named servers that might know.
    Lame,
}

impl Failure {
    /// Did it say something, so that the fault may be in the name that was asked for?
    fn may_be_the_name(&self) -> bool {
        matches!(self, Self::Rcode(..))
    }

    /// What it said of it.
    pub fn errors(&self) -> &[ExtendedError] {
        match self {
            Self::Rcode(_, errors) => errors,
            _ => &[],
        }
    }

    /// A reply that is no answer: anything but NOERROR and NXDOMAIN, and a referral of who does not
    /// recurse. (Who does, and names servers without an SOA record, only says more than it has to.)
    fn of(response: Response) -> Result<Response, Self> {
        match response.rcode {
            Rcode::NXDOMAIN => Ok(response),
            Rcode::NOERROR => {
                let has = |rtype| response.authority().any(|record| record.rtype == rtype);
                let is_referral = !response.recursion_available
                    && response.answers().next().is_none()
                    && has(types::NS)
                    && !has(types::SOA);
                if is_referral {
                    Err(Self::Lame)
                } else {
                    Ok(response)
                }
            }
            rcode => Err(Self::Rcode(rcode, response.errors().to_vec())),
        }
    }
}

/// One upstream.
pub struct Upstream {
    /// Where it listens, over UDP and TCP alike.
    address: SocketAddr,
    random_case: bool,
    memory: Mutex<Memory>,
    streams: Streams,
    buffers: datagram::Buffers,
    counts: Counts,
}

/// What is remembered of an upstream.
#[derive(Debug, Default)]
struct Memory {
    health: Health,
    /// How long its answers take, smoothed (RFC 6298 section 2).
    time: Option<Duration>,
    /// When it last answered again after a time of failing.
    recovered: Option<Instant>,
    /// It knows no EDNS, as far as can be told until then.
    without_edns: Option<Instant>,
}

impl Upstream {
    /// Prepares an upstream; nothing is connected yet.
    fn new(address: SocketAddr, settings: &Settings, runtime: &Handle, metrics: &Metrics) -> Self {
        let counts = metrics.of(address);
        Self {
            address,
            random_case: settings.random_case,
            memory: Mutex::default(),
            streams: Streams::new(address, runtime.clone(), counts.clone()),
            buffers: datagram::Buffers::default(),
            counts,
        }
    }

    /// Asks it, over UDP and, when the answer does not fit, over TCP. NOERROR and NXDOMAIN are answers;
    /// anything else is a reason to ask another upstream.
    async fn ask(&self, query: &Query, by: Instant) -> Result<Response, Failure> {
        let start = Instant::now();
        let has_edns = self.with(|memory| memory.without_edns.is_none_or(|until| until <= start));
        let response = self.exchange(query, has_edns, by).await?;
        if !has_edns || !refuses_edns(&response) {
            return Failure::of(response);
        }
        let response = Failure::of(self.exchange(query, false, by).await?)?;
        self.with(|memory| memory.without_edns = Some(Instant::now() + EDNS_REST));
        Ok(response)
    }

    async fn exchange(
        &self,
        query: &Query,
        has_edns: bool,
        by: Instant,
    ) -> Result<Response, Failure> {
        let edns = |keepalive| {
            has_edns.then_some(QueryEdns {
                udp_size: UDP_SIZE,
                keepalive,
            })
        };
        let time = self.time();
        let said = datagram::Exchange {
            to: self.address,
            query,
            edns: edns(false),
            random_case: self.random_case,
            time,
            by,
            counts: &self.counts,
            buffers: &self.buffers,
        };
        match said.run().await {
            // Only this question goes over TCP: the next one may fit.
            Ok(response) if response.truncated => {}
            // Something between us may have cut it.
            Err(Failure::Unreadable) => {}
            said => return said,
        }
        // Few questions come this far, and all would carry what it needs.
        let response = Box::pin(self.streams.ask(query, edns(true), time, by)).await?;
        // There is no larger way to say it.
        if response.truncated {
            Err(Failure::Unreadable)
        } else {
            Ok(response)
        }
    }

    /// How long it takes, about.
    fn time(&self) -> Duration {
        self.with(|memory| memory.time).unwrap_or(FIRST_TIME)
    }

    fn health(&self) -> Health {
        self.with(|memory| memory.health.clone())
    }

    /// Notes that a question goes out.
    fn note_asked(&self, now: Instant) {
        self.with(|memory| memory.health.asked(now));
    }

    /// Notes a good answer, and how long it took.
    fn note_success(&self, took: Duration) {
        self.with(|memory| {
            if memory.health.rests() {
                memory.recovered = Some(Instant::now());
            }
            memory.health.succeeded();
            memory.time = Some(match memory.time {
                Some(time) => (time * 7 + took) / 8,
                None => took,
            });
        });
        self.counts.healthy(true);
    }

    /// Notes a failure of the question sent at `sent`.
    fn note_failure(&self, sent: Instant, now: Instant) {
        let (was_well, is_well) = self.with(|memory| {
            let was_well = memory.health.is_well(now);
            memory.health.failed(sent, now);
            (was_well, memory.health.is_well(now))
        });
        self.counts.healthy(is_well);
        if was_well && !is_well {
            tracing::warn!(upstream = %self.address, "this upstream keeps failing and is asked last from now on");
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Memory) -> T) -> T {
        // Nothing in here can leave the memory half written, so a panic elsewhere does not spoil it.
        f(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A server that does not know EDNS may say so like this (RFC 6891 section 7). Who knows it, and means
/// the question, has an OPT record in its reply.
fn refuses_edns(response: &Response) -> bool {
    match response.rcode {
        Rcode::FORMERR | Rcode::NOTIMP => response.edns.is_none(),
        rcode => rcode == Rcode::BADVERS,
    }
}

/// Reads what has come for a query of this id; `None` if it is nothing that was asked for, which is
/// counted.
fn read(
    bytes: &[u8],
    id: u16,
    query: &Query,
    counts: &Counts,
) -> Option<Result<Response, Failure>> {
    if bytes.first_chunk() != Some(&id.to_be_bytes()) {
        counts.odd(Odd::OtherId);
        return None;
    }
    match Response::parse(bytes) {
        Ok(response) if query.is_answered_by(&response) => Some(Ok(response)),
        Ok(_) => {
            counts.odd(Odd::OtherQuestion);
            None
        }
        Err(_) => {
            counts.odd(Odd::Unreadable);
            Some(Err(Failure::Unreadable))
        }
    }
}
