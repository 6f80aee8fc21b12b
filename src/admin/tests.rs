//! The admin server over real sockets.

use std::net::SocketAddr;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

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

async fn start(state: State) -> Running {
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

fn empty() -> State {
    State::new(Arc::new(Registry::default()))
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
    let server = start(State::new(Arc::new(registry))).await;
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
