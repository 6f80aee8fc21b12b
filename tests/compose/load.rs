//! Requests through HAProxy without a pause, and what became of them.

use crate::world::{get, host_of};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Between the end of a request and the next.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
struct Seen {
    /// Instances that answered since the last look.
    hosts: BTreeSet<String>,
    requests: usize,
    failed: Vec<(Duration, String)>,
}

/// A client of hello1 that does not tire.
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start() -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (writer, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let start = Instant::now();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let answer = get("/hello1/load");
                let mut seen = writer.lock().unwrap_or_else(PoisonError::into_inner);
                seen.requests += 1;
                match answer {
                    Ok(body) => seen.hosts.extend(host_of(&body)),
                    Err(error) => seen.failed.push((start.elapsed(), error)),
                }
                drop(seen);
                thread::sleep(PAUSE);
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    /// Instances that have answered since the last call of `forget`.
    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.hosts.clone()
    }

    /// Only instances that answer from now on count.
    pub(crate) fn forget(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.hosts.clear();
    }

    /// Fails if any request so far has.
    pub(crate) fn assert_nothing_failed(&self, what: &str) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(seen.requests > 10, "{what}: {} requests", seen.requests);
        assert!(
            seen.failed.is_empty(),
            "{what}: {} of {} requests failed, the first of them {:?}",
            seen.failed.len(),
            seen.requests,
            seen.failed.first()
        );
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // If it has panicked, the test says so by what it counted.
            let _ = thread.join();
        }
    }
}
