//! The owner's name, where nobody has set one: the ID of the Docker engine.
//!
//! It is the same whether the registrar runs on the host or in a container, and through every
//! restart of either, which a host name is not.

use crate::docker::{Client, Error};

/// Why there is no owner's name.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// Docker cannot be asked, or refuses to say. A proxy before it has to allow `GET /info`.
    #[error("Docker's ID cannot be read ({0}); allow GET /info, or set --owner")]
    Docker(#[from] Error),
    /// It has none, or another one each time, as Podman has.
    #[error("this engine has no lasting ID: set --owner to a name that no other host has")]
    Unstable,
}

impl OwnerError {
    /// Waiting is of no use: somebody has to do something.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unstable)
    }
}

/// The name of the owner.
///
/// # Errors
/// [`OwnerError`].
pub async fn owner(docker: &Client) -> Result<String, OwnerError> {
    let (one, other) = (docker.engine_id().await?, docker.engine_id().await?);
    match one.is_empty() || one != other {
        true => Err(OwnerError::Unstable),
        false => Ok(one),
    }
}
