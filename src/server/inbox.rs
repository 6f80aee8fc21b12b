//! The way of an answer from the runtime to the worker that was asked for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::cache::{Key, Made};

/// Answers made on the runtime that a worker has not taken yet; more are not kept.
const INBOX: usize = 256;

/// Where the runtime leaves for a worker what can be sent again.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    made: Mutex<Vec<(Key, Made)>>,
    /// So that an empty one costs a worker no lock.
    is_filled: AtomicBool,
}

impl Inbox {
    pub(super) fn put(&self, key: Key, made: Made) {
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < INBOX {
            all.push((key, made));
            self.is_filled.store(true, Ordering::Release);
        }
    }

    pub(super) fn take(&self) -> Vec<(Key, Made)> {
        if !self.is_filled.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_filled.store(false, Ordering::Release);
        std::mem::take(&mut all)
    }
}
