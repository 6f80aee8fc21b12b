//! The example microservice: says which instance answered, and in which version.
//!
//! On SIGTERM it says at `/health` that it is leaving and goes on answering for a moment, so that
//! nobody is sent away who was sent here just before.

use std::env;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const PORT: u16 = 8080;

/// From SIGTERM to the end. Whoever sends requests here must have heard of it by then.
const LEAVE: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let leaving = Arc::new(AtomicBool::new(false));
    let greeting = format!(
        "Hello from {}, version {}.\n",
        hostname(),
        env::var("HELLO_VERSION").unwrap_or_else(|_| "1".to_owned()),
    );
    let health = {
        let leaving = Arc::clone(&leaving);
        async move || match leaving.load(Ordering::Relaxed) {
            true => (StatusCode::SERVICE_UNAVAILABLE, "leaving\n"),
            false => (StatusCode::OK, "ok\n"),
        }
    };
    let hello = async move |uri: Uri| format!("{greeting}You asked for {}.\n", uri.path());
    let router = Router::new().route("/health", get(health)).fallback(hello);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
            leaving.store(true, Ordering::Relaxed);
            tokio::time::sleep(LEAVE).await;
        })
        .await
}

/// A container's is its id, unless it was given another.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
