//! One request to Consul, and what may go wrong with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{ClientBuilder, Method, StatusCode};

use crate::http::{self, Endpoint, SetupError, Tls};

use super::request::{Ask, MAX_BODY, Mode, RequestError, Response};

/// How long a read that does not block may take.
const READ_TIME: Duration = Duration::from_secs(5);

/// Idle connections that are kept for the next plain read.
const IDLE_CONNECTIONS: usize = 4;

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The token cannot be sent in a header. It is not repeated here.
    #[error("the ACL token holds a character that HTTP cannot carry")]
    Token,
}

/// The HTTP client for Consul: one agent, or several of which the first that is well is asked.
#[derive(Debug, Clone)]
pub struct Client {
    agents: Arc<Vec<Agent>>,
    started: Instant,
    token: Arc<ArcSwapOption<HeaderValue>>,
}

/// One address of Consul.
#[derive(Debug)]
struct Agent {
    http: http::Client,
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
            .map(|endpoint| Agent::new(endpoint, tls))
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
        let now = self.millis();
        let agent = self
            .agents
            .iter()
            .find(|agent| agent.resting_until.load(Ordering::Relaxed) <= now)
            .or_else(|| self.agents.first())
            .ok_or_else(|| RequestError::Transport("no address".to_owned()))?;
        let token = self.token.load_full();
        let result = agent.send(method, ask, mode, body, token).await;
        let until = match &result {
            Err(RequestError::Transport(_)) => self.millis() + REST,
            Err(RequestError::Status { status, .. }) if status.is_server_error() => {
                self.millis() + REST
            }
            _ => 0,
        };
        agent.resting_until.store(until, Ordering::Relaxed);
        result
    }

    fn millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Agent {
    fn new(endpoint: &Endpoint, tls: &Tls) -> Result<Self, SetupError> {
        let tune = |builder: ClientBuilder| builder.pool_max_idle_per_host(IDLE_CONNECTIONS);
        Ok(Self {
            http: http::Client::new(endpoint, tls, tune)?,
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
                Mode::Stale => {
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
        let mut request = self.http.request(method, url).timeout(timeout).body(body);
        if let Some(client) = ask.client {
            // Consul takes it for the source of the request.
            request = request.header("X-Forwarded-For", client.to_string());
        }
        if let Some(token) = token {
            request = request.header("X-Consul-Token", (*token).clone());
        }
        let response = request.send().await;
        let response = response.map_err(|error| RequestError::Transport(http::transport(error)))?;
        let status = response.status();
        let index = index_of(response.headers());
        let is = |name: &str, value: &str| {
            let header = response.headers().get(name);
            header.is_some_and(|header| header.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
        };
        let known_leader = !is("X-Consul-KnownLeader", "false");
        let filtered = is("X-Consul-Results-Filtered-By-ACLs", "true");
        if matches!(status.as_u16(), 429 | 503) {
            let wait = retry_after(response.headers());
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
        if !status.is_success() {
            let body = http::body(response, 1024).await.unwrap_or_default();
            let body = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(RequestError::Status { status, body });
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
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers
        .get("Retry-After")
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    Duration::from_secs(seconds.unwrap_or(1).clamp(1, 60))
}
