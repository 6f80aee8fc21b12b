//! The few requests to Docker's API, all of them `GET`.

use super::address::Access;

/// Why Docker's API could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer, or none in time.
    #[error("{0}")]
    Transport(String),
}

/// A client of Docker's API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`Error`] if the certificates cannot be used.
    pub fn new(access: &Access) -> Result<Self, Error> {
        let _ = access;
        Err(Error::Transport("not yet".to_owned()))
    }

    /// The ID of the engine.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn engine_id(&self) -> Result<String, Error> {
        Err(Error::Transport("not yet".to_owned()))
    }
}
