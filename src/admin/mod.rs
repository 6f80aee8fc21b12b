//! The HTTP side for operators: `/healthz`, `/ready` and `/metrics`.
//!
//! It shows what other rooms report and knows none of them: they hand it a registry of metrics
//! and, for each part that must be ready, a function that says whether it is.

mod connections;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use connections::Bounded;

/// What the encoder writes. Prometheus asks for it by this name.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// How long a stop waits for answers that are being sent.
const DRAIN: Duration = Duration::from_secs(1);

/// Whether a part of the server can do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can; with what there is to say about it, such as `12 services`.
    Ready(String),
    /// It cannot; with what it waits for, such as `no answer from Consul yet`.
    NotReady(String),
}

/// Asks a part whether it is ready. It is called for every request of `/ready`: it must not wait.
pub type Probe = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// What the server shows.
#[derive(Clone)]
pub struct State {
    registry: Arc<Registry>,
    parts: Vec<(String, Probe)>,
}

impl State {
    /// Shows these metrics, and no part that has to be ready yet.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            parts: Vec::new(),
        }
    }

    /// Adds a part that has to be ready.
    #[must_use]
    pub fn with_part(mut self, name: impl Into<String>, probe: Probe) -> Self {
        self.parts.push((name.into(), probe));
        self
    }

    fn ready(&self) -> Response {
        let states: Vec<(&str, Readiness)> = self
            .parts
            .iter()
            .map(|(name, probe)| (name.as_str(), probe()))
            .collect();
        let waiting: String = states
            .iter()
            .filter_map(|(name, state)| match state {
                Readiness::NotReady(why) => Some(format!("{name}: {why}\n")),
                Readiness::Ready(_) => None,
            })
            .collect();
        if !waiting.is_empty() {
            return answer(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, waiting);
        }
        let ready: String = states
            .iter()
            .filter_map(|(name, state)| match state {
                Readiness::Ready(what) => Some(format!("{name}: {what}\n")),
                Readiness::NotReady(_) => None,
            })
            .collect();
        answer(StatusCode::OK, TEXT_TYPE, ready)
    }

    fn metrics(&self) -> Response {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => answer(StatusCode::OK, METRICS_TYPE, text),
            Err(error) => {
                let text = format!("the metrics cannot be written: {error}\n");
                answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT_TYPE, text)
            }
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.parts.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("State")
            .field("parts", &names)
            .finish_non_exhaustive()
    }
}

/// Serves until the token is cancelled, then lets answers that are being sent finish.
pub async fn serve(listener: TcpListener, state: State, shutdown: CancellationToken) {
    serve_and_drain(listener, state, shutdown, DRAIN).await;
}

async fn serve_and_drain(
    listener: TcpListener,
    state: State,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let server = axum::serve(Bounded::new(listener), router(state))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let too_long = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    // A client that is slow to ask or to read must not hold up the end of the program.
    tokio::select! {
        result = server => {
            if let Err(error) = result {
                tracing::error!(%error, "the admin server ended");
            }
        }
        () = too_long => {}
    }
}

fn router(state: State) -> Router {
    let metrics = state.clone();
    Router::new()
        .route(
            "/healthz",
            get(async || answer(StatusCode::OK, TEXT_TYPE, "ok\n".to_owned())),
        )
        .route("/ready", get(async move || state.ready()))
        .route("/metrics", get(async move || metrics.metrics()))
        .fallback(async || {
            let paths = "not found, there are:\n/healthz\n/ready\n/metrics\n".to_owned();
            answer(StatusCode::NOT_FOUND, TEXT_TYPE, paths)
        })
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    // All of this is true for a moment only.
    let headers: [(HeaderName, &str); 2] =
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests;
