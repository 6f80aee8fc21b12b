//! Questions over HTTPS (RFC 8484): each is a GET, many of them on one connection of HTTP/2. Connections are the HTTP
//! library's; what is asked again, and for how long, is decided here.
//!
//! It is no POST because Knot Resolver (5.6) refuses a request whose body does not follow its head at once, and the
//! library sends the heads of several requests before their bodies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode, Url, dns, redirect};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;

use crate::dns::{Query, QueryEdns, Response};
use crate::http;

use super::address::Address;
use super::metrics::{Counts, Odd};
use super::trust::{Trust, distrust};
use super::{Failure, read};

/// What a message is called (RFC 8484 section 6).
const MESSAGE: HeaderValue = HeaderValue::from_static("application/dns-message");

/// The longest message.
const LONGEST: usize = 65_535;

/// The id of every query, so that caches on the way see the same request (RFC 8484 section 4.1).
const ID: u16 = 0;

/// Questions to one server at a time. One that speaks no HTTP/2 gets as many connections.
const IN_FLIGHT: usize = 256;

/// How often a question is asked, when connections end.
const TRIES: usize = 3;

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(30);

/// How often the other side of a connection has to show that it is there while it owes an answer, and how
/// quickly.
const PING_EVERY: Duration = Duration::from_secs(2);
const PONG_WITHIN: Duration = Duration::from_secs(2);

/// A server that is asked over HTTPS.
pub(super) struct Https {
    client: Client,
    url: Url,
    /// Where connections live, whoever asks on them.
    runtime: Handle,
    places: Semaphore,
    /// One question opens a connection, and the others then find it: the library would open one for each.
    opening: tokio::sync::Mutex<()>,
    /// When there was last an answer; `None` after a connection has ended.
    answered: Mutex<Option<Instant>>,
}

/// Where a server is, whatever its name.
#[derive(Debug)]
struct Place(Address);

impl dns::Resolve for Place {
    fn resolve(&self, _: dns::Name) -> dns::Resolving {
        let found = self.0.socket();
        Box::pin(async move {
            let addresses: dns::Addrs = Box::new(std::iter::once::<SocketAddr>(found?));
            Ok(addresses)
        })
    }
}

impl Https {
    /// Prepares it; nothing is connected yet.
    pub(super) fn new(
        address: &Address,
        url: &Url,
        trust: &Trust,
        runtime: Handle,
    ) -> Result<Self, String> {
        let client = Client::builder()
            .tls_backend_preconfigured(trust.speaking(&["h2", "http/1.1"]))
            .dns_resolver(Arc::new(Place(address.clone())))
            .https_only(true)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PONG_WITHIN)
            .build();
        Ok(Self {
            client: client.map_err(http::transport)?,
            url: url.clone(),
            runtime,
            places: Semaphore::new(IN_FLIGHT),
            opening: tokio::sync::Mutex::default(),
            answered: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is there a connection, as far as can be told?
    fn has_connection(&self) -> bool {
        self.lock().is_some_and(|at| at.elapsed() < IDLE)
    }

    /// Asks it, again if the connection ends before there is an answer.
    pub(super) async fn ask(
        &self,
        query: &Query,
        edns: Option<QueryEdns>,
        by: Instant,
        counts: &Counts,
    ) -> Result<Response, Failure> {
        let asking = async {
            let _place = self.places.acquire().await;
            let mut bytes = Vec::new();
            query.write(ID, edns, &mut bytes);
            let mut url = self.url.clone();
            url.query_pairs_mut()
                .append_pair("dns", &URL_SAFE_NO_PAD.encode(&bytes));
            for _ in 0..TRIES {
                let _turn = match self.has_connection() {
                    true => None,
                    false => Some(self.opening.lock().await).filter(|_| !self.has_connection()),
                };
                let exchange = exchange(self.client.clone(), url.clone());
                // Whoever gives up waiting wants no answer either.
                let exchange = AbortOnDropHandle::new(self.runtime.spawn(exchange));
                let said = exchange.await.unwrap_or(Ok(Err(Failure::Network)));
                let is_there = matches!(said, Ok(Ok(_) | Err(Failure::Unreadable)));
                *self.lock() = is_there.then(Instant::now);
                // What broke off is asked again.
                if let Ok(said) = said {
                    return said;
                }
            }
            Err(Failure::Network)
        };
        let body = timeout_at(by.into(), asking)
            .await
            .unwrap_or(Err(Failure::Timeout))
            .inspect_err(|failure| {
                if *failure == Failure::Unreadable {
                    counts.odd(Odd::Unreadable);
                }
            })?;
        read(&body, ID, query, counts).unwrap_or(Err(Failure::Unreadable))
    }
}

/// A connection ended while it was asked on: another one may not.
struct BrokeOff;

/// Asks once; what comes back is a message, as far as its server says.
async fn exchange(client: Client, url: Url) -> Result<Result<Vec<u8>, Failure>, BrokeOff> {
    let request = client.get(url).header(ACCEPT, MESSAGE);
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => {
            if let Some(why) = distrust(&error) {
                return Ok(Err(Failure::Untrusted(why)));
            }
            let is_refused = error.is_connect();
            tracing::debug!(error = http::transport(error), "a request broke off");
            return match is_refused {
                true => Ok(Err(Failure::Network)),
                false => Err(BrokeOff),
            };
        }
    };
    let is_message = response.headers().get(CONTENT_TYPE) == Some(&MESSAGE);
    if response.status() != StatusCode::OK || !is_message {
        tracing::debug!(status = %response.status(), "no message in a response");
        return Ok(Err(Failure::Unreadable));
    }
    match http::body(response, LONGEST).await {
        Ok(body) => Ok(Ok(body)),
        Err(http::Fault::TooLong) => Ok(Err(Failure::Unreadable)),
        Err(http::Fault::Transport(error)) => {
            tracing::debug!(error, "a response broke off");
            Err(BrokeOff)
        }
    }
}
