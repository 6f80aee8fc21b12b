//! Never wrong, never down: Portolan beside a Consul that is killed, cut off, lying, full, closed or
//! restored. What was measured is printed, one line each, after `figure:`.

#[path = "../support/mod.rs"]
mod support;

mod absent;
mod agent;
mod asking;
mod certificates;
mod churn;
mod closed;
mod clusters;
mod connections;
mod datacenters;
mod lying;
mod many;
mod outage;
mod patience;
mod peers;
mod propagation;
mod realms;
mod restarting;
mod spin;
mod stale;
mod streaming;
mod telling;
mod tokens;
mod unlisted;
mod world;

use std::{
    io::{Write, stderr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Nothing else may run beside a measurement, and a cluster of four is enough for two cores: each test
/// holds this from beginning to end.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed has let go of everything all the same.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints what was measured, whether the test passes or not.
fn figure(text: &str) {
    // Written past the harness, which keeps what a passing test prints to itself. A figure that
    // cannot be shown is no reason to fail.
    let _ = writeln!(stderr(), "figure: {text}");
}

/// The time that `percent` of all do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().checked_sub(1).expect("something was measured");
    sorted[(sorted.len() * percent / 100).min(last)]
}

/// Runs the long form of a test?
fn is_full() -> bool {
    std::env::var_os("PORTOLAN_FULL").is_some()
}
