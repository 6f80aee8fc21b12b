//! What an operator may ask: does it work?

use std::sync::{Arc, Mutex, PoisonError};

/// How it stands with Consul, as of the last comparison. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Status {
    now: Arc<Mutex<Result<String, String>>>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            now: Arc::new(Mutex::new(Err("nothing compared yet".to_owned()))),
        }
    }
}

impl Status {
    /// What there is to say if all is well, or what is wrong.
    ///
    /// # Errors
    /// What is wrong.
    pub fn get(&self) -> Result<String, String> {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says how it stands.
    pub fn set(&self, now: Result<String, String>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}
