//! What is asked of Consul, how, and what may come of it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::StatusCode;

use crate::catalog::Scope;
use crate::http::Fault;

/// The longest body that is read, in bytes. Ten thousand services of ten instances are about
/// 1 MiB of names; one service of ten thousand instances is about 10 MiB.
pub(super) const MAX_BODY: usize = 256 << 20;

/// Why a request brought nothing. None of these ever holds the token.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// No connection, or it broke.
    #[error("{0}")]
    Transport(String),
    /// Consul answered with an error. Its index is not to be read (`reference` 7.2).
    #[error("HTTP {status}: {body}")]
    Status { status: StatusCode, body: String },
    /// Consul asks to be left alone for a while (429, 503).
    #[error("HTTP {status}: asked to wait {}s", wait.as_secs())]
    RateLimited { status: StatusCode, wait: Duration },
    /// The answer is well-formed, and not believed before it is confirmed.
    #[error("not believed: {0}")]
    Suspect(&'static str),
    /// The body is longer than anything that Consul would send.
    #[error("the body is longer than {MAX_BODY} bytes")]
    TooLong,
    /// The body is not what it should be.
    #[error("not what Consul would say: {0}")]
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
    /// A short name for the metric.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Transport(_) => "transport",
            Self::Status { status, .. } if status.is_server_error() => "server_error",
            Self::Status { status, .. } if *status == StatusCode::FORBIDDEN => "forbidden",
            Self::Status { .. } => "client_error",
            Self::RateLimited { .. } => "rate_limited",
            Self::TooLong | Self::Body(_) => "body",
            // Counted as what is suspected, not as a request.
            Self::Suspect(_) => "ok",
        }
    }
}

/// What Consul answered.
#[derive(Debug)]
pub(super) struct Response {
    /// `X-Consul-Index`; `None` where there is none.
    pub(super) index: Option<u64>,
    /// `X-Consul-KnownLeader`: the server that answered knows a leader.
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
    /// From the leader, at once; to confirm what a lagging server may have said.
    Leader,
    /// From any server, as soon as the index is beyond this one or the wait is over.
    Blocking { index: u64, wait: Duration },
}
