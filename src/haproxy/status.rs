//! How it stands, for `/ready`.

use std::sync::{Arc, Mutex, PoisonError};

/// How the supervisor stands, for others to look at.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_up: bool,
    is_current: bool,
    backends: usize,
    /// Why HAProxy did not start the last time.
    unstarted: Option<String>,
    /// What is wrong with the last change.
    problem: Option<String>,
    /// Keys that are refused.
    refusals: Vec<String>,
}

impl Status {
    /// `Ok` while HAProxy runs on a configuration that was made here or is the last good one; with
    /// what there is to say either way. What is refused does not make it less ready: HAProxy goes on
    /// with what was good.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<String, String> {
        let state = self.lock();
        let mut text = match (state.is_up, state.is_current) {
            (true, true) => format!("{} backends", state.backends),
            (true, false) => "the last good configuration of before".to_owned(),
            (false, _) => "HAProxy does not run".to_owned(),
        };
        let wrongs = state.unstarted.iter().chain(&state.problem);
        for wrong in wrongs.chain(&state.refusals) {
            text.push_str("; ");
            text.push_str(wrong);
        }
        match state.is_up {
            true => Ok(text),
            false => Err(text),
        }
    }

    pub(super) fn set_up(&self, is_up: bool) {
        self.lock().is_up = is_up;
    }

    pub(super) fn is_current(&self, backends: usize) {
        let mut state = self.lock();
        state.is_current = true;
        state.backends = backends;
    }

    pub(super) fn set_unstarted(&self, why: Option<String>) {
        self.lock().unstarted = why;
    }

    pub(super) fn set_problem(&self, problem: Option<String>) {
        self.lock().problem = problem;
    }

    pub(super) fn set_refusals(&self, refusals: Vec<String>) {
        self.lock().refusals = refusals;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
