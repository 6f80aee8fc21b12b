//! The few requests to Docker's API, all of them `GET`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use reqwest::{ClientBuilder, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::http::{self, Endpoint, Fault, SetupError, Tls};

use super::container::{Container, Summary};
use super::events::Events;
use super::metrics::Metrics;

/// The oldest and the newest version of the API that we speak: `1.x`. What we read has been there,
/// and been the same, all the time.
const OLDEST: u32 = 40;
const NEWEST: u32 = 54;

/// How long an answer may take to come.
const LIST_TIME: Duration = Duration::from_secs(15);
const INSPECT_TIME: Duration = Duration::from_secs(5);

/// How long a connection may be silent before it is probed: one that a firewall forgot is noticed.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The longest body that is read, in bytes. A thousand containers are a few MiB.
const MAX_BODY: usize = 64 << 20;

/// Why Docker's API could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// No answer, or none in time.
    #[error("{0}")]
    Transport(String),
    /// An answer that is no success.
    #[error("{status}: {message}")]
    Status {
        /// HTTP's status.
        status: StatusCode,
        /// What Docker, or a proxy before it, says.
        message: String,
    },
    /// An answer that is not what Docker's API says.
    #[error("the answer cannot be read: {0}")]
    Body(#[from] serde_json::Error),
    /// An answer that is too long to be one.
    #[error("the answer is too long")]
    TooLong,
    /// No version of the API that both sides speak.
    #[error(
        "Docker offers API versions {theirs}; Portolan needs one from 1.{OLDEST} to 1.{NEWEST}"
    )]
    Version {
        /// The versions that Docker named.
        theirs: String,
    },
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Transport(causes) => Self::Transport(causes),
            Fault::TooLong => Self::TooLong,
        }
    }
}

/// A client of Docker's API. Cheap to clone; clones share the version and the counters.
#[derive(Debug, Clone)]
pub struct Client {
    http: http::Client,
    address: Arc<str>,
    /// The `x` of the version `1.x` that was agreed upon.
    version: Arc<AtomicU32>,
    pub(super) metrics: Metrics,
}

#[derive(Debug, Deserialize)]
struct VersionJson {
    #[serde(rename = "ApiVersion")]
    newest: String,
    #[serde(rename = "MinAPIVersion")]
    oldest: Option<String>,
}

#[derive(Debug, Deserialize)]
struct MessageJson {
    message: String,
}

/// An engine, as it describes itself (`GET /info`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Engine {
    /// Its ID, which lasts for as long as its data does. Empty if it has none; a copy of the data has the same.
    #[serde(rename = "ID", default)]
    pub id: String,
    /// The name of its host.
    #[serde(rename = "Name", default)]
    pub host: String,
}

impl Client {
    /// A client; nothing is sent yet. `certificates` is the directory with `ca.pem`, `cert.pem` and
    /// `key.pem` (`DOCKER_CERT_PATH`), for https. A file that is not there is not needed.
    ///
    /// # Errors
    /// [`Error`] if the certificates cannot be used.
    pub fn new(endpoint: &Endpoint, certificates: Option<&Path>) -> Result<Self, Error> {
        let certificates = certificates.filter(|_| endpoint.is_tls());
        // One that cannot be looked at is found out when it is read.
        let file = |name: &str| {
            let path = certificates?.join(name);
            path.try_exists().unwrap_or(true).then_some(path)
        };
        let tls = Tls {
            authorities: file("ca.pem").into_iter().collect(),
            client: file("cert.pem").zip(file("key.pem")),
            ..Tls::default()
        };
        let tune = |builder: ClientBuilder| builder.tcp_keepalive(KEEPALIVE);
        Ok(Self {
            http: http::Client::new(endpoint, &tls, tune)?,
            address: endpoint.to_string().into(),
            version: Arc::new(AtomicU32::new(OLDEST)),
            metrics: Metrics::default(),
        })
    }

    /// Where it connects to, for logs.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Registers its counters, and those of its followers, as `portolan_sources_docker_*`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Agrees with Docker on the newest version of the API that both speak; the further requests
    /// use it. Gives back the `x` of `1.x`.
    ///
    /// # Errors
    /// [`Error::Version`] if there is none, or another if Docker cannot be asked.
    pub async fn negotiate(&self) -> Result<u32, Error> {
        let url = self.url("version", None);
        let theirs: VersionJson = self.json("version", url, LIST_TIME).await?;
        let refuse = || Error::Version {
            theirs: match &theirs.oldest {
                Some(oldest) => format!("{oldest} to {}", theirs.newest),
                None => format!("up to {}", theirs.newest),
            },
        };
        let newest = minor(&theirs.newest).ok_or_else(refuse)?;
        let oldest = theirs
            .oldest
            .as_deref()
            .map_or(Some(0), minor)
            .ok_or_else(refuse)?;
        let agreed = newest.min(NEWEST);
        if agreed < OLDEST.max(oldest) {
            return Err(refuse());
        }
        self.version.store(agreed, Ordering::Relaxed);
        Ok(agreed)
    }

    /// What the engine says of itself.
    ///
    /// # Errors
    /// [`Error`]; also where a proxy does not let `GET /info` pass.
    pub async fn engine(&self) -> Result<Engine, Error> {
        self.json("info", self.versioned("info"), LIST_TIME).await
    }

    /// The containers in these states, or all, in short.
    pub(super) async fn list(&self, states: Option<&[&str]>) -> Result<Vec<Summary>, Error> {
        let mut url = self.versioned("containers/json");
        match states {
            Some(states) => {
                let filters = serde_json::json!({ "status": states }).to_string();
                url.query_pairs_mut().append_pair("filters", &filters);
            }
            None => {
                url.query_pairs_mut().append_pair("all", "true");
            }
        }
        // One that cannot be read is none; the others count.
        let raw: Vec<serde_json::Value> = self.json("list", url, LIST_TIME).await?;
        let read = |value| serde_json::from_value(value).ok();
        Ok(raw.into_iter().filter_map(read).collect())
    }

    /// One container; `None` if there is none of that id.
    pub(super) async fn inspect(&self, id: &str) -> Result<Option<Container>, Error> {
        let url = self.versioned(&format!("containers/{id}/json"));
        match self.get("inspect", url, INSPECT_TIME).await {
            Ok(body) => Ok(Some(Container::from_inspect(&body)?)),
            Err(Error::Status { status, .. }) if status == StatusCode::NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What happens from now on.
    pub(super) async fn events(&self) -> Result<Events, Error> {
        let mut url = self.versioned("events");
        url.query_pairs_mut()
            .append_pair("filters", Events::FILTERS);
        let opening = self.http.request(Method::GET, url).send();
        let opened = match tokio::time::timeout(LIST_TIME, opening).await {
            Ok(response) => response.map_err(|error| Error::Transport(http::transport(error))),
            Err(_) => Err(Error::Transport("no answer in time".to_owned())),
        };
        let opened = match opened {
            Ok(response) => success(response).await,
            Err(error) => Err(error),
        };
        self.metrics.request("events", opened.is_ok());
        opened.map(Events::new)
    }

    fn versioned(&self, path: &str) -> Url {
        self.url(path, Some(self.version.load(Ordering::Relaxed)))
    }

    fn url(&self, path: &str, version: Option<u32>) -> Url {
        let version = version.map(|version| format!("v1.{version}"));
        let path = path.split('/').map(str::to_owned);
        self.http.url(version.into_iter().chain(path))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        kind: &'static str,
        url: Url,
        within: Duration,
    ) -> Result<T, Error> {
        let body = self.get(kind, url, within).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    async fn get(&self, kind: &'static str, url: Url, within: Duration) -> Result<Vec<u8>, Error> {
        let asked = async {
            let request = self.http.request(Method::GET, url).timeout(within);
            let response = request.send().await;
            let response = response.map_err(|error| Error::Transport(http::transport(error)))?;
            Ok(http::body(success(response).await?, MAX_BODY).await?)
        };
        let result = asked.await;
        self.metrics.request(kind, result.is_ok());
        result
    }
}

/// The `x` of `1.x`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.parse().ok()
}

/// The response, if it is a success; else what it says.
async fn success(mut response: reqwest::Response) -> Result<reqwest::Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let first = response.chunk().await.ok().flatten().unwrap_or_default();
    let body = String::from_utf8_lossy(&first[..first.len().min(500)])
        .trim()
        .to_owned();
    let message = serde_json::from_slice::<MessageJson>(&first).map_or(body, |json| json.message);
    Err(Error::Status { status, message })
}
