//! Consul's HTTP API: what is asked, how, of which agent, with which token, and what may come of it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{ClientBuilder, Method, StatusCode};

use crate::catalog::Scope;
use crate::http::{self, Endpoint, Fault, SetupError, Tls};

/// The longest body that is read, in bytes. Ten thousand services of ten instances are about
/// 1 MiB of names; one service of ten thousand instances is about 10 MiB.
pub(super) const MAX_BODY: usize = 256 << 20;

/// Why a request brought nothing. None of these ever holds the token.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// No connection, or it broke.
    #[error("{0}")]
    Transport(String),
    /// It was there, and was closed before an answer came.
    #[error("{0}")]
    Reset(String),
    /// This Consul does not have what was asked for: it has no mesh (`connect.enabled`), or is too old.
    #[error("this Consul does not have it: {0}")]
    Unsupported(String),
    /// Consul answered with an error. Its index is not to be read (`reference` 7.2).
    #[error("HTTP {status}: {body}")]
    Status { status: StatusCode, body: String },
    /// Consul asks to be left alone for a while (429, 503).
    #[error("HTTP {status}: asked to wait {}s", wait.as_secs())]
    RateLimited { status: StatusCode, wait: Duration },
    /// The answer is well-formed, and not believed before it is confirmed.
    #[error("not believed yet: {0}")]
    Suspect(&'static str),
    /// The body is longer than anything that Consul would send.
    #[error("the body is longer than {MAX_BODY} bytes")]
    TooLong,
    /// The body is not what it should be.
    #[error("the answer is not what Consul would send: {0}")]
    Body(#[from] serde_json::Error),
}

impl From<Fault> for RequestError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Transport(causes) => Self::Transport(causes),
            Fault::TooLong => Self::TooLong,
        }
    }
}

impl RequestError {
    /// How long Consul has asked to be left alone.
    pub(super) fn asked_to_wait(&self) -> Duration {
        match self {
            Self::RateLimited { wait, .. } => *wait,
            _ => Duration::ZERO,
        }
    }

    /// For how many milliseconds an agent that said this to `ask` is asked last, if it is.
    fn rest(&self, ask: &Ask) -> Option<u64> {
        match self {
            Self::Transport(_) | Self::Reset(_) => Some(REST),
            Self::Status { status, .. } if status.is_server_error() => Some(REST),
            // The agent does not know the token, or somebody in front of it lets nobody through.
            Self::Status { status, .. } if is_refusal(*status) && !ask.may_be_refused => Some(REST),
            // A 429 is about how much we ask; this is about who is asked.
            Self::RateLimited { status, wait } if *status == StatusCode::SERVICE_UNAVAILABLE => {
                Some(REST.max(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
            }
            _ => None,
        }
    }

    /// Does it say that there is nothing? What we may not see is not there, as where Consul leaves it out of a list.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::Unsupported(_) => true,
            Self::Status { status, .. } => is_refusal(*status) || *status == StatusCode::NOT_FOUND,
            _ => false,
        }
    }

    /// A short name for the metric.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Transport(_) | Self::Reset(_) => "transport",
            Self::Status { status, .. } if status.is_server_error() => "server_error",
            Self::Status { status, .. } if *status == StatusCode::FORBIDDEN => "forbidden",
            Self::Status { .. } => "client_error",
            Self::RateLimited { .. } => "rate_limited",
            Self::TooLong | Self::Body(_) => "body",
            // Counted as what is suspected, not as a request.
            Self::Suspect(_) | Self::Unsupported(_) => "ok",
        }
    }
}

/// How Consul says that, with 500 (`agent/consul/discovery_chain_endpoint.go`, `agent/structs/config_entry.go`).
const UNSUPPORTED: [&str; 2] = ["Connect must be enabled", "invalid config entry kind"];

/// Does it say that we may not ask?
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// What Consul answered.
#[derive(Debug)]
pub(super) struct Response {
    /// `X-Consul-Index`; `None` where there is none.
    pub(super) index: Option<u64>,
    /// `X-Consul-KnownLeader`: the server that answered knows a leader. What an agent has streamed to it
    /// (`X-Consul-Query-Backend`) always says that it does not, which means nothing.
    pub(super) known_leader: bool,
    /// `X-Consul-Results-Filtered-By-ACLs`: the token may not see all of it.
    pub(super) filtered: bool,
    pub(super) body: Vec<u8>,
}

/// What is read.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    /// The path below `/v1/`.
    pub(super) path: Vec<String>,
    /// Parameters: `dc`, `peer`, `ns`, `partition`.
    pub(super) params: Vec<(&'static str, String)>,
    /// On whose behalf, for queries that are sorted by where that is.
    pub(super) client: Option<IpAddr>,
    /// Consul says 404, with an index, when there is nothing there: that is an empty answer.
    pub(super) may_be_absent: bool,
    /// A good token may have no right to it: that it is refused says nothing of the agent.
    pub(super) may_be_refused: bool,
}

impl Ask {
    pub(super) fn new(path: &[&str]) -> Self {
        Self {
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// The same in a scope.
    pub(super) fn in_scope(mut self, scope: &Scope) -> Self {
        let params = [
            ("dc", &scope.datacenter),
            ("peer", &scope.peer),
            ("ns", &scope.namespace),
            ("partition", &scope.partition),
        ];
        for (key, value) in params {
            self.params.extend(value.clone().map(|value| (key, value)));
        }
        self
    }
}

/// As in the address, for the log.
impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path.join("/"))?;
        let mut sign = '?';
        self.params.iter().try_for_each(|(key, value)| {
            write!(f, "{sign}{key}={value}")?;
            sign = '&';
            Ok(())
        })
    }
}

/// How a read goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    /// From any server, at once.
    Stale,
    /// The same, over a connection of its own: others may leave no room for one more.
    Probe,
    /// From the leader, at once; to confirm what a lagging server may have said.
    Leader,
    /// From any server, as soon as the index is beyond this one or the wait is over.
    Blocking { index: u64, wait: Duration },
}

/// How long a read that does not block may take.
const READ_TIME: Duration = Duration::from_secs(5);

/// How long Consul is left alone when it asks for that, at least and at most.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Idle connections that are kept for the next plain read.
const IDLE_CONNECTIONS: usize = 4;

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The token cannot be sent in a header. It is not repeated here.
    #[error("the ACL token holds a character that HTTP does not allow; check for line breaks")]
    Token,
}

/// The HTTP client for Consul: one agent, or several of which the first that is well is asked.
#[derive(Debug, Clone)]
pub struct Client {
    agents: Arc<Vec<Address>>,
    started: Instant,
    token: Arc<ArcSwapOption<HeaderValue>>,
}

/// One address of Consul.
#[derive(Debug)]
struct Address {
    http: http::Client,
    /// Of which the one connection is always there for the probe.
    for_probe: http::Client,
    /// Milliseconds since the client's start until which it is asked last.
    resting_until: AtomicU64,
}

/// For how long an agent that failed is asked last, if there are others.
const REST: u64 = 5000;

impl Client {
    /// A client for the agents at `endpoints`, first asked first.
    ///
    /// # Errors
    /// [`ClientError`] if a file of `tls` cannot be used or the token not be sent.
    pub fn new(
        endpoints: &[Endpoint],
        tls: &Tls,
        token: Option<&str>,
    ) -> Result<Self, ClientError> {
        let agents = endpoints
            .iter()
            .map(|endpoint| Address::new(endpoint, tls))
            .collect::<Result<_, _>>()?;
        let client = Self {
            agents: Arc::new(agents),
            started: Instant::now(),
            token: Arc::default(),
        };
        client.set_token(token)?;
        Ok(client)
    }

    /// From now on, another token; `None` for none.
    ///
    /// # Errors
    /// [`ClientError::Token`], and the old one stays.
    pub fn set_token(&self, token: Option<&str>) -> Result<(), ClientError> {
        let header = token
            .map(|token| {
                let mut value = HeaderValue::from_str(token).map_err(|_| ClientError::Token)?;
                // Keeps it out of every debug print.
                value.set_sensitive(true);
                Ok::<_, ClientError>(value)
            })
            .transpose()?;
        self.token.store(header.map(Arc::new));
        Ok(())
    }

    /// The token that is sent.
    pub(super) fn token(&self) -> Option<Arc<HeaderValue>> {
        self.token.load_full()
    }

    /// Reads from the first agent that is well.
    pub(super) async fn get(&self, ask: &Ask, mode: Mode) -> Result<Response, RequestError> {
        self.send(Method::GET, ask, mode, Vec::new()).await
    }

    /// Writes to the first agent that is well.
    pub(super) async fn put(&self, ask: &Ask, body: Vec<u8>) -> Result<Response, RequestError> {
        self.send(Method::PUT, ask, Mode::Leader, body).await
    }

    async fn send(
        &self,
        method: Method,
        ask: &Ask,
        mode: Mode,
        body: Vec<u8>,
    ) -> Result<Response, RequestError> {
        let agent = self
            .well()
            .or_else(|| self.agents.first())
            .ok_or_else(|| RequestError::Transport("no address".to_owned()))?;
        let token = self.token.load_full();
        let result = agent.send(method, ask, mode, body, token).await;
        let rest = result.as_ref().err().and_then(|error| error.rest(ask));
        let until = rest.map_or(0, |rest| self.millis().saturating_add(rest));
        agent.resting_until.store(until, Ordering::Relaxed);
        match result {
            // It has its rest, and no other agent has asked for one.
            Err(RequestError::RateLimited { status, .. })
                if rest.is_some() && self.well().is_some() =>
            {
                let body = "the next address is asked".to_owned();
                Err(RequestError::Status { status, body })
            }
            result => result,
        }
    }

    /// The first agent that did not fail a moment ago.
    fn well(&self) -> Option<&Address> {
        let now = self.millis();
        let is_well = |agent: &&Address| agent.resting_until.load(Ordering::Relaxed) <= now;
        self.agents.iter().find(is_well)
    }

    fn millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Address {
    fn new(endpoint: &Endpoint, tls: &Tls) -> Result<Self, SetupError> {
        let tune = |builder: ClientBuilder| builder.pool_max_idle_per_host(IDLE_CONNECTIONS);
        Ok(Self {
            http: http::Client::new(endpoint, tls, tune)?,
            for_probe: http::Client::new(endpoint, tls, tune)?,
            resting_until: AtomicU64::new(0),
        })
    }

    async fn send(
        &self,
        method: Method,
        ask: &Ask,
        mode: Mode,
        body: Vec<u8>,
        token: Option<Arc<HeaderValue>>,
    ) -> Result<Response, RequestError> {
        let path = ask.path.iter().map(String::as_str);
        let mut url = self.http.url(std::iter::once("v1").chain(path));
        let mut timeout = READ_TIME;
        {
            let mut query = url.query_pairs_mut();
            for (key, value) in &ask.params {
                query.append_pair(key, value);
            }
            match mode {
                Mode::Leader => {}
                Mode::Stale | Mode::Probe => {
                    query.append_key_only("stale");
                }
                Mode::Blocking { index, wait } => {
                    query
                        .append_key_only("stale")
                        .append_pair("index", &index.to_string())
                        .append_pair("wait", &format!("{}ms", wait.as_millis()));
                    // Consul adds up to a sixteenth of the wait.
                    timeout = wait + wait / 16 + READ_TIME;
                }
            }
        }
        let http = match mode {
            Mode::Probe => &self.for_probe,
            _ => &self.http,
        };
        let mut request = http.request(method, url).timeout(timeout).body(body);
        if let Some(client) = ask.client {
            // Consul takes it for the source of the request.
            request = request.header("X-Forwarded-For", client.to_string());
        }
        if let Some(token) = token {
            request = request.header("X-Consul-Token", (*token).clone());
        }
        let response = request.send().await;
        let response = response.map_err(|error| {
            let was_there = !error.is_connect() && !error.is_timeout();
            let causes = http::transport(error);
            match was_there {
                true => RequestError::Reset(causes),
                false => RequestError::Transport(causes),
            }
        })?;
        let status = response.status();
        let index = index_of(response.headers());
        let is = |name: &str, value: &str| {
            let header = response.headers().get(name);
            header.is_some_and(|header| header.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
        };
        let known_leader =
            is("X-Consul-Query-Backend", "streaming") || !is("X-Consul-KnownLeader", "false");
        let filtered = is("X-Consul-Results-Filtered-By-ACLs", "true");
        let wait = retry_after(response.headers());
        let is_limit = match status {
            StatusCode::TOO_MANY_REQUESTS => true,
            // Else it is a load balancer that has no agent: nobody's wish.
            StatusCode::SERVICE_UNAVAILABLE => wait.is_some(),
            _ => false,
        };
        if is_limit {
            let wait = wait.unwrap_or(SHORTEST_WAIT);
            return Err(RequestError::RateLimited { status, wait });
        }
        let is_absent = status == StatusCode::NOT_FOUND && ask.may_be_absent && index.is_some();
        if is_absent {
            return Ok(Response {
                index,
                known_leader,
                filtered,
                body: Vec::new(),
            });
        }
        if status.is_redirection() {
            let to = response.headers().get("Location");
            let to = to.and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            let body = format!("it sends us to {to}, which is not followed: name that address");
            return Err(RequestError::Status { status, body });
        }
        if !status.is_success() {
            let body = http::body(response, 1024).await.unwrap_or_default();
            let body = String::from_utf8_lossy(&body).trim().to_owned();
            let is_unsupported = UNSUPPORTED.iter().any(|start| body.starts_with(start));
            return Err(match is_unsupported {
                true => RequestError::Unsupported(body),
                false => RequestError::Status { status, body },
            });
        }
        Ok(Response {
            index,
            known_leader,
            filtered,
            body: http::body(response, MAX_BODY).await?,
        })
    }
}

fn index_of(headers: &HeaderMap) -> Option<u64> {
    headers.get("X-Consul-Index")?.to_str().ok()?.parse().ok()
}

/// How long to stay away when Consul asks for it: what it says, within reason.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("Retry-After")?.to_str().ok()?;
    let wait = seconds.parse().map_or(SHORTEST_WAIT, Duration::from_secs);
    Some(wait.clamp(SHORTEST_WAIT, LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What makes an agent rest, so that the next address is asked.
    #[test]
    fn which_agent_rests() {
        let status = |status: u16| RequestError::Status {
            status: StatusCode::from_u16(status).expect("a status"),
            body: String::new(),
        };
        let limited = |status: u16, seconds| RequestError::RateLimited {
            status: StatusCode::from_u16(status).expect("a status"),
            wait: Duration::from_secs(seconds),
        };
        let always = Ask::new(&["catalog", "nodes"]);
        let seldom = Ask {
            may_be_refused: true,
            ..Ask::new(&["agent", "self"])
        };
        for (error, rest, rest_of_seldom) in [
            (
                RequestError::Transport("refused".to_owned()),
                Some(REST),
                Some(REST),
            ),
            (status(500), Some(REST), Some(REST)),
            (status(502), Some(REST), Some(REST)),
            (status(504), Some(REST), Some(REST)),
            (status(401), Some(REST), None),
            (status(403), Some(REST), None),
            (status(404), None, None),
            (limited(503, 1), Some(REST), Some(REST)),
            (limited(503, 30), Some(30_000), Some(30_000)),
            (limited(429, 30), None, None),
            (RequestError::Suspect("empty"), None, None),
        ] {
            assert_eq!(error.rest(&always), rest, "{error}");
            assert_eq!(error.rest(&seldom), rest_of_seldom, "{error}");
        }
    }
}
