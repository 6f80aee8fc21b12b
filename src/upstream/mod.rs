//! Resolvers that are asked: one of them by datagram and stream, over TLS or HTTPS, with what is remembered of it,
//! and several in a race.
//!
//! hickory-resolver's transport is not used here. What a forwarder needs of it cannot be mended from
//! outside: whole negative replies, a reply without a question, the end of a TCP connection, and a cost
//! per query that is a fraction of it.

mod address;
mod datagram;
mod dial;
mod group;
mod health;
mod https;
mod metrics;
mod stream;
mod trust;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::dns::{ExtendedError, Query, QueryEdns, Rcode, Response, types};

pub use address::{Address, Way};
pub(crate) use datagram::watch;
pub use group::{Group, Settings, Strategy};
use health::{Answered, Health};
use https::Https;
pub use metrics::Metrics;
use metrics::{Counts, Odd};
use stream::Streams;
pub use trust::{Trust, TrustError};

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
    /// Its answer fits into no datagram, and over TCP it cannot be asked.
    NoStream,
    /// What came was not a reply that can be read.
    Unreadable,
    /// It answered with an error, and perhaps with why.
    Rcode(Rcode, Vec<ExtendedError>),
    /// It does not recurse: it only named servers that might know.
    Lame,
    /// Its certificate does not show that it is the one that was to be asked, for this reason.
    Untrusted(String),
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
    address: Address,
    memory: Mutex<Memory>,
    road: Road,
    counts: Counts,
}

/// What questions go over.
enum Road {
    /// Datagrams, and a stream for an answer that does not fit.
    Plain {
        buffers: datagram::Buffers,
        sockets: datagram::Sockets,
        streams: Streams,
    },
    /// Streams, under TLS.
    Tls(Streams),
    Https(Https),
}

/// What upstreams are made with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// Where connections live, whoever asks on them.
    pub runtime: &'a Handle,
    /// Who vouches for certificates; whoever has a certificate cannot be asked without.
    pub trust: Option<&'a Trust>,
    /// Where everything is counted.
    pub metrics: &'a Metrics,
}

/// What is remembered of an upstream.
#[derive(Debug, Default)]
struct Memory {
    health: Health,
    /// How long its answers take, smoothed (RFC 6298 section 2).
    time: Option<Duration>,
    /// Its last answer.
    answered: Option<Answered>,
    /// It was not there when it was last asked.
    is_away: bool,
    /// When it was there again.
    returned: Option<Instant>,
    /// When it last answered again after a time of failing.
    recovered: Option<Instant>,
    /// Its certificate was refused, and that has been told.
    is_untrusted: bool,
    /// It knows no EDNS, as far as can be told until then.
    without_edns: Option<Instant>,
}

impl Upstream {
    /// Prepares an upstream; nothing is connected yet.
    ///
    /// # Errors
    /// What there is not, to speak to it in its way.
    pub fn new(address: Address, means: Means<'_>) -> Result<Self, String> {
        let counts = means.metrics.of(&address);
        let runtime = || means.runtime.clone();
        let trust = || {
            let nobody = || "nobody vouches for its certificate".to_owned();
            means.trust.ok_or_else(nobody)
        };
        let road = match address.way() {
            Way::Plain => Road::Plain {
                buffers: datagram::Buffers::default(),
                sockets: datagram::Sockets::default(),
                streams: Streams::new(&address, None, runtime(), counts.clone()),
            },
            Way::Tls(name) => {
                let tls = dial::Tls::new(&address, name.as_deref(), trust()?)?;
                Road::Tls(Streams::new(&address, Some(tls), runtime(), counts.clone()))
            }
            Way::Https(url) => Road::Https(Https::new(&address, url, trust()?, runtime())?),
        };
        Ok(Self {
            address,
            memory: Mutex::default(),
            road,
            counts,
        })
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Asks it; over UDP, if that is the way, with letters in random case if they are to be. NOERROR and NXDOMAIN
    /// are answers; anything else is a reason to ask another upstream.
    async fn ask(
        &self,
        query: &Query,
        random_case: bool,
        by: Instant,
    ) -> Result<Response, Failure> {
        let start = Instant::now();
        let has_edns = self.with(|memory| memory.without_edns.is_none_or(|until| until <= start));
        let response = self.exchange(query, has_edns, random_case, by).await?;
        if !has_edns || !refuses_edns(&response) {
            return Failure::of(response);
        }
        let response = Failure::of(self.exchange(query, false, random_case, by).await?)?;
        self.with(|memory| memory.without_edns = Some(Instant::now() + EDNS_REST));
        Ok(response)
    }

    async fn exchange(
        &self,
        query: &Query,
        has_edns: bool,
        random_case: bool,
        by: Instant,
    ) -> Result<Response, Failure> {
        let is_padded = self.address.is_encrypted();
        let edns = |keepalive| {
            has_edns.then_some(QueryEdns {
                udp_size: UDP_SIZE,
                keepalive,
                is_padded,
            })
        };
        let time = self.time();
        let streams = match &self.road {
            Road::Plain {
                buffers,
                sockets,
                streams,
            } => {
                let said = datagram::Exchange {
                    to: &self.address,
                    query,
                    edns: edns(false),
                    random_case,
                    time,
                    by,
                    counts: &self.counts,
                    buffers,
                    sockets,
                };
                match said.run().await {
                    // Only this question goes over TCP: the next one may fit.
                    Ok(response) if response.truncated => {}
                    // Something between us may have cut it.
                    Err(Failure::Unreadable) => {}
                    said => return said,
                }
                streams
            }
            Road::Tls(streams) => streams,
            Road::Https(https) => {
                let response = Box::pin(https.ask(query, edns(false), by, &self.counts));
                return whole(response.await?);
            }
        };
        // Few questions come this far over UDP, and all would carry what it needs.
        let said = Box::pin(streams.ask(query, edns(true), time, by)).await;
        whole(said.map_err(|failure| match failure {
            // It is there: it has just answered.
            Failure::Network if !self.address.is_encrypted() => Failure::NoStream,
            other => other,
        })?)
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

    /// Notes a good answer that came now, and how long it took.
    fn note_success(&self, took: Duration, now: Instant) {
        self.with(|memory| {
            if memory.health.rests() {
                memory.recovered = Some(now);
            }
            let sent = now.checked_sub(took).unwrap_or(now);
            memory.answered = Some(Answered { sent, at: now });
            memory.is_untrusted = false;
            if std::mem::take(&mut memory.is_away) {
                memory.returned = Some(now);
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

    /// Notes that the network refused.
    fn note_absence(&self) {
        self.with(|memory| memory.is_away = true);
    }

    /// Is it taken to be away, or was it when a question was sent then?
    fn is_away(&self, sent: Instant) -> bool {
        self.with(|memory| {
            let has_returned = memory.returned.is_some_and(|at| at > sent);
            memory.is_away || has_returned || memory.health.rests()
        })
    }

    /// Tells that it cannot be who was to be asked, once until it can.
    fn tell_distrust(&self, why: &str) {
        if !self.with(|memory| std::mem::replace(&mut memory.is_untrusted, true)) {
            tracing::warn!(
                upstream = %self.address,
                why,
                "this upstream's certificate is refused, so it is not asked"
            );
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Memory) -> T) -> T {
        // Nothing in here can leave the memory half written, so a panic elsewhere does not spoil it.
        f(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A response that came in the largest way there is to say it.
fn whole(response: Response) -> Result<Response, Failure> {
    if response.truncated {
        Err(Failure::Unreadable)
    } else {
        Ok(response)
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
