//! The HTTP side for operators: `/healthz`, `/ready`, `/metrics`, and pages of JSON.
//!
//! It shows what other rooms report and knows none of them: they hand it a registry of metrics,
//! for each part that must be ready a function that says whether it is, and for each page one that makes it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

/// What the encoder writes. Prometheus asks for it by this name.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON_TYPE: &str = "application/json";
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

/// Makes a page of JSON, or says why there is nothing to show. It is called for every request: it must not wait.
pub type Page = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What the server shows.
#[derive(Clone)]
pub struct Pages {
    registry: Arc<Registry>,
    parts: Vec<(String, Probe)>,
    pages: Vec<(&'static str, Page)>,
}

impl Pages {
    /// Shows these metrics, and no part that has to be ready yet.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            parts: Vec::new(),
            pages: Vec::new(),
        }
    }

    /// Adds a page of JSON.
    #[must_use]
    pub fn with_page(mut self, name: &'static str, page: Page) -> Self {
        self.pages.push((name, page));
        self
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

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.parts.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Pages")
            .field("parts", &names)
            .finish_non_exhaustive()
    }
}

/// Serves until the token is cancelled, then lets answers that are being sent finish.
pub async fn serve(listener: TcpListener, state: Pages, shutdown: CancellationToken) {
    serve_and_drain(listener, state, shutdown, DRAIN).await;
}

async fn serve_and_drain(
    listener: TcpListener,
    state: Pages,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let server = axum::serve(Bounded::new(listener), router(state))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let too_long = async {
        shutdown.cancelled().await;
        sleep(drain).await;
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

fn router(state: Pages) -> Router {
    let (metrics, pages) = (state.clone(), state.pages.clone());
    let mut paths = "not found, there are:\n/healthz\n/ready\n/metrics\n".to_owned();
    let mut router = Router::new()
        .route(
            "/healthz",
            get(async || answer(StatusCode::OK, TEXT_TYPE, "ok\n".to_owned())),
        )
        .route("/ready", get(async move || state.ready()))
        .route("/metrics", get(async move || metrics.metrics()));
    for (name, page) in pages {
        let path = format!("/{name}");
        paths.push_str(&format!("{path}\n"));
        router = router.route(&path, get(async move || json(&page)));
    }
    router.fallback(async || answer(StatusCode::NOT_FOUND, TEXT_TYPE, paths))
}

fn json(page: &Page) -> Response {
    match page() {
        Ok(text) => answer(StatusCode::OK, JSON_TYPE, text + "\n"),
        Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, why + "\n"),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response {
    // All of this is true for a moment only.
    let headers: [(HeaderName, &str); 2] =
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

// Bounds on what clients may hold: how many connections there are, and how long each may take over a
// request.

/// Connections open at once. Further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 64;

/// From one answer to the end of the next request, and for each piece of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listener whose connections are counted and end when they are too slow.
struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
    patience: Duration,
}

impl Bounded {
    fn new(listener: TcpListener) -> Self {
        Self::with(listener, MAX_CONNECTIONS, PATIENCE)
    }

    fn with(listener: TcpListener, max_connections: usize, patience: Duration) -> Self {
        Self {
            listener,
            free: Arc::new(Semaphore::new(max_connections)),
            patience,
        }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed, so there is always a permit in the end.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        // axum's own accept, which also waits out a lack of file descriptors.
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let connection = Connection {
            stream,
            patience: self.patience,
            deadline: Box::pin(sleep(self.patience)),
            _permit: permit,
        };
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that must make progress: only bytes sent to the client extend its deadline, so a
/// client that asks one byte at a time gains nothing by it.
struct Connection {
    stream: TcpStream,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Given back when the connection ends.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Fails when the deadline has passed; else sees to it that the task wakes when it does.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn extend(&mut self) {
        let deadline = Instant::now() + self.patience;
        self.deadline.as_mut().reset(deadline);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.extend();
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    // The admin server over real sockets.

    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    /// Whatever has to happen has happened by then, on the slowest machine.
    const SOON: Duration = Duration::from_secs(30);

    struct Running {
        address: SocketAddr,
        shutdown: CancellationToken,
        task: JoinHandle<()>,
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        (listener, address)
    }

    async fn start(state: Pages) -> Running {
        let (listener, address) = listener().await;
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, state, shutdown.clone()));
        Running {
            address,
            shutdown,
            task,
        }
    }

    /// Starts a server without parts that waits for so long at its end.
    async fn start_draining(drain: Duration) -> Running {
        let (listener, address) = listener().await;
        let shutdown = CancellationToken::new();
        let served = serve_and_drain(listener, empty(), shutdown.clone(), drain);
        Running {
            address,
            shutdown,
            task: tokio::spawn(served),
        }
    }

    /// Starts the same server with tighter bounds; it ends with the test.
    async fn start_bounded(max_connections: usize, patience: Duration) -> SocketAddr {
        let (listener, address) = listener().await;
        let bounded = Bounded::with(listener, max_connections, patience);
        tokio::spawn(axum::serve(bounded, router(empty())).into_future());
        address
    }

    fn empty() -> Pages {
        Pages::new(Arc::new(Registry::default()))
    }

    fn part(state: &Readiness) -> Probe {
        let state = state.clone();
        Arc::new(move || state.clone())
    }

    /// Sends one request and returns the whole answer.
    async fn ask(address: SocketAddr, request: &str) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let text = format!("{request} HTTP/1.1\r\nHost: portolan\r\nConnection: close\r\n\r\n");
            stream.write_all(text.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            answer
        };
        timeout(SOON, exchange).await.expect("an answer in time")
    }

    fn body(answer: &str) -> &str {
        answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    #[tokio::test]
    async fn healthz_is_ok_while_nothing_is_ready() {
        let waiting = part(&Readiness::NotReady("waiting".to_owned()));
        let server = start(empty().with_part("consul", waiting)).await;
        let answer = ask(server.address, "GET /healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(body(&answer), "ok\n");
    }

    #[tokio::test]
    async fn ready_lists_the_parts() {
        let listening = part(&Readiness::Ready("listening".to_owned()));
        let loaded = part(&Readiness::Ready("3 services".to_owned()));
        let state = empty()
            .with_part("server", listening)
            .with_part("files", loaded);
        let server = start(state.clone()).await;
        let answer = ask(server.address, "GET /ready").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(body(&answer), "server: listening\nfiles: 3 services\n");

        let waiting = part(&Readiness::NotReady("no answer yet".to_owned()));
        let server = start(state.with_part("consul", waiting)).await;
        let answer = ask(server.address, "GET /ready").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert_eq!(body(&answer), "consul: no answer yet\n");
    }

    #[tokio::test]
    async fn metrics_are_what_prometheus_reads() {
        let mut registry = Registry::default();
        let queries = Counter::<u64>::default();
        registry.register("portolan_server_queries", "Queries", queries.clone());
        let server = start(Pages::new(Arc::new(registry))).await;
        queries.inc();
        let answer = ask(server.address, "GET /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            answer.contains(&format!("content-type: {METRICS_TYPE}\r\n")),
            "{answer}"
        );
        assert!(
            body(&answer).contains("portolan_server_queries_total 1\n"),
            "{answer}"
        );
        assert!(body(&answer).ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn head_has_no_body_and_unknown_paths_name_the_known() {
        let server = start(empty()).await;
        let answer = ask(server.address, "HEAD /healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(body(&answer), "");

        let answer = ask(server.address, "GET /nothing").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        for path in ["/healthz", "/ready", "/metrics"] {
            assert!(body(&answer).contains(path), "{answer}");
        }
        let answer = ask(server.address, "POST /healthz").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    #[tokio::test]
    async fn it_stops_at_once_when_clients_are_idle_and_soon_when_they_dawdle() {
        // Nobody is waited for: it would be for longer than the test has patience.
        let server = start_draining(SOON * 100).await;
        ask(server.address, "GET /healthz").await;
        server.shutdown.cancel();
        timeout(SOON, server.task)
            .await
            .expect("at once")
            .expect("no panic");

        let server = start_draining(DRAIN).await;
        let mut slow = TcpStream::connect(server.address).await.expect("connected");
        slow.write_all(b"GET /hea").await.expect("sent");
        ask(server.address, "GET /healthz").await;
        server.shutdown.cancel();
        timeout(SOON, server.task)
            .await
            .expect("soon")
            .expect("no panic");
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_ends_the_connection() {
        let patience = Duration::from_millis(300);
        let address = start_bounded(8, patience).await;
        let mut slow = TcpStream::connect(address).await.expect("connected");
        let started = Instant::now();
        // A byte now and then does not extend the time.
        let mut ended = false;
        while !ended && started.elapsed() < SOON {
            let mut byte = [0];
            let sent = slow.write_all(b"G").await;
            let read = timeout(patience / 6, slow.read(&mut byte)).await;
            ended = sent.is_err() || matches!(read, Ok(Ok(0) | Err(_)));
        }
        assert!(
            ended && started.elapsed() >= patience,
            "{:?}",
            started.elapsed()
        );
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_wait_for_a_free_place() {
        let patience = Duration::from_millis(300);
        let address = start_bounded(1, patience).await;
        let _first = TcpStream::connect(address).await.expect("connected");
        let started = Instant::now();
        let answer = ask(address, "GET /healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(started.elapsed() >= patience / 2, "{:?}", started.elapsed());
    }
}
