//! One request to Consul, and what may go wrong with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Certificate, Identity, Method, StatusCode};
use url::Url;

use super::request::{Ask, Mode, RequestError, Response};

/// The longest body that is read, in bytes. Ten thousand services of ten instances are about
/// 1 MiB of names; one service of ten thousand instances is about 10 MiB.
pub(super) const MAX_BODY: usize = 256 << 20;

/// How long a connection may take to open.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long a read that does not block may take.
const READ_TIME: Duration = Duration::from_secs(5);

/// Idle connections that are kept for the next plain read.
const IDLE_CONNECTIONS: usize = 4;

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Over TCP; a path is put before that of every request.
    Http(Url),
    /// Over a Unix socket.
    Unix(PathBuf),
}

/// Files of a TLS connection, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Who may vouch for Consul's certificate; empty for those that the system trusts.
    pub authorities: Vec<PathBuf>,
    /// Our certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The name to expect in Consul's certificate, if it is not the host of the address.
    pub server_name: Option<String>,
    /// Is Consul's certificate not checked?
    pub insecure: bool,
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not PEM, or a certificate and a key do not go together.
    #[error("{}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the TLS library says.
        source: reqwest::Error,
    },
    /// The HTTP library cannot be set up.
    #[error("cannot set up HTTP: {0}")]
    Http(String),
    /// `tls_server_name` goes with no address.
    #[error("cannot use the server name {name:?}: {message}")]
    ServerName {
        /// The name.
        name: String,
        /// What is wrong.
        message: String,
    },
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
    http: reqwest::Client,
    base: Url,
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
        tls: &TlsFiles,
        token: Option<&str>,
    ) -> Result<Self, ClientError> {
        // Another part of the process may have chosen one already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
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
    fn new(endpoint: &Endpoint, tls: &TlsFiles) -> Result<Self, ClientError> {
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIME)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tcp_nodelay(true)
            .user_agent(concat!("portolan/", env!("CARGO_PKG_VERSION")));
        let base = match endpoint {
            Endpoint::Http(url) => {
                let mut base = url.clone();
                // `join` replaces what follows the last slash.
                if !base.path().ends_with('/') {
                    base.set_path(&format!("{}/", url.path()));
                }
                base
            }
            Endpoint::Unix(path) => {
                builder = builder.unix_socket(path.clone());
                UNIX_BASE.clone()
            }
        };
        let (base, mut builder) = match &tls.server_name {
            Some(name) => under_name(base, name, builder)?,
            None => (base, builder),
        };
        let mut roots = Vec::new();
        for path in &tls.authorities {
            roots.extend(Certificate::from_pem_bundle(&read(path)?).map_err(pem(path))?);
        }
        // Without TLS the system's own authorities are not looked for: an image that holds nothing
        // but this program has none, and the TLS library would not start without.
        if !tls.authorities.is_empty() || base.scheme() != "https" {
            builder = builder.tls_certs_only(roots);
        }
        if let Some((certificate, key)) = &tls.client {
            let mut both = read(certificate)?;
            both.push(b'\n');
            both.extend(read(key)?);
            builder = builder.identity(Identity::from_pem(&both).map_err(pem(certificate))?);
        }
        if tls.insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        Ok(Self {
            http: builder
                .build()
                .map_err(|error| ClientError::Http(in_full(&error)))?,
            base,
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
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // A name with a slash or a question mark stays one segment.
            segments.pop_if_empty().push("v1").extend(&ask.path);
        }
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
        let response = request.send().await.map_err(transport)?;
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
            let body = limited(response, 1024).await.unwrap_or_default();
            let body = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(RequestError::Status { status, body });
        }
        Ok(Response {
            index,
            known_leader,
            filtered,
            body: limited(response, MAX_BODY).await?,
        })
    }
}

/// The same address under another name: the TLS library takes the name from the URL.
fn under_name(
    mut base: Url,
    name: &str,
    builder: reqwest::ClientBuilder,
) -> Result<(Url, reqwest::ClientBuilder), ClientError> {
    let refuse = |message: String| ClientError::ServerName {
        name: name.to_owned(),
        message,
    };
    let addresses = base
        .socket_addrs(|| None)
        .map_err(|error| refuse(error.to_string()))?;
    base.set_host(Some(name))
        .map_err(|error| refuse(error.to_string()))?;
    Ok((base, builder.resolve_to_addrs(name, &addresses)))
}

static UNIX_BASE: std::sync::LazyLock<Url> =
    std::sync::LazyLock::new(|| Url::parse("http://localhost/").unwrap_or_else(|_| unreachable!()));

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    fs::read(path).map_err(|source| ClientError::File {
        path: path.to_owned(),
        source,
    })
}

fn pem(path: &Path) -> impl FnOnce(reqwest::Error) -> ClientError {
    let path = path.to_owned();
    move |source| ClientError::Pem { path, source }
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

/// The whole body, if it is not too long.
async fn limited(mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, RequestError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > most {
            return Err(RequestError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The library's errors say least at the top; the causes are what helps. Its URL is left out: it
/// stands in the log line already.
fn transport(error: reqwest::Error) -> RequestError {
    RequestError::Transport(in_full(&error.without_url()))
}

/// An error with its causes.
fn in_full(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
