//! Whose a service is, and whether somebody else is writing under our owner's name.
//!
//! A registration bears marks in its metadata. A service is ours if it bears our owner's name, whatever
//! its ID. The name outlives a restart, a new host name and a new address; the writer's name does not,
//! and so tells two registrars of one owner apart. The hash says whether what is registered is what
//! should be.
//!
//! Where nobody has set the owner's name it is the ID of the Docker engine: that is the same whether the
//! registrar runs on the host or in a container, and through every restart of either, which a host name
//! is not.
//!
//! Machines that were made from one template have engines with one ID. Where the owner's name is that of the engine,
//! the name that the engine gives its host stands beside it, and what bears another host's is not ours.

use std::hash::{BuildHasher, RandomState};

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::consul::AgentService;
use crate::docker::{Client, Engine, Error};

/// Who answers for the service.
pub(super) const OWNER: &str = "portolan-owner";
/// The host of the engine whose ID is the owner's name.
pub(super) const HOST: &str = "portolan-host";
/// What was registered.
pub(super) const HASH: &str = "portolan-hash";
/// The container that it is in.
pub(super) const CONTAINER: &str = "portolan-container";
/// The process that registered it.
pub(super) const WRITER: &str = "portolan-writer";

/// Changes when the same hash no longer means the same registration.
const HASH_VERSION: u8 = 1;

/// Who we are to Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    owner: String,
    /// The engine's host; `None` where an operator has named the owner, and so answers for its being the only one.
    host: Option<String>,
    writer: String,
}

impl Identity {
    /// A new process of the owner that an operator has named.
    pub fn new(owner: impl Into<String>) -> Self {
        // The standard library's seeds are random; nothing here has to be a secret.
        let writer = RandomState::new().hash_one(std::process::id());
        Self {
            owner: owner.into(),
            host: None,
            writer: format!("{writer:016x}"),
        }
    }

    /// A new process on the host of a Docker engine.
    pub fn of_engine(engine: Engine) -> Self {
        Self {
            host: Some(engine.host),
            ..Self::new(engine.id)
        }
    }

    /// The owner's name.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// This process's name.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// Whether the service bears our marks.
    pub fn owns(&self, service: &AgentService) -> bool {
        let is_of_host = self.host.is_none()
            || service.meta.get(HOST) == self.host.as_ref()
            || service.meta.get(WRITER) == Some(&self.writer);
        is_of_host && self.is_named(service)
    }

    /// Whether it bears our owner's name, and is not ours by its marks: it was registered by a release that did not
    /// name the host, on a host that is called otherwise since, or on a clone of this machine.
    pub(super) fn is_namesake(&self, service: &AgentService) -> bool {
        self.is_named(service) && !self.owns(service)
    }

    /// Whether it bears our owner's name, whoever's it is.
    pub(super) fn is_named(&self, service: &AgentService) -> bool {
        service.meta.get(OWNER) == Some(&self.owner)
    }

    /// The body of a registration with our marks in its metadata.
    pub(super) fn mark(&self, mut body: Value, hash: &str) -> Value {
        let meta = &mut body["Meta"];
        meta[OWNER] = self.owner.as_str().into();
        if let Some(host) = &self.host {
            meta[HOST] = host.as_str().into();
        }
        meta[HASH] = hash.into();
        meta[WRITER] = self.writer.as_str().into();
        body
    }
}

/// The hash of a registration's body. The order of keys does not matter; serde_json keeps them
/// sorted.
pub(super) fn hash_of(body: &Value) -> String {
    format!(
        "{HASH_VERSION}-{:016x}",
        xxh3_64(body.to_string().as_bytes())
    )
}

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

/// Who we are where nobody has named the owner.
///
/// # Errors
/// [`OwnerError`].
pub async fn of_engine(docker: &Client) -> Result<Identity, OwnerError> {
    let (one, other) = (docker.engine().await?, docker.engine().await?);
    match one.id.is_empty() || one.id != other.id {
        true => Err(OwnerError::Unstable),
        false => Ok(Identity::of_engine(one)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn marks_stand_beside_what_is_there() {
        let identity = Identity::new("engine");
        let body = json!({ "ID": "h:web:80", "Name": "web", "Meta": { "region": "us" } });
        let hash = hash_of(&body);
        let marked = identity.mark(body, &hash);
        let meta = json!({ "region": "us", OWNER: "engine", HASH: hash,
            WRITER: identity.writer() });
        assert_eq!(marked["Meta"], meta);
    }

    #[test]
    fn the_hash_is_of_the_content() {
        let one: Value = serde_json::from_str(r#"{"a":1,"b":[1,2]}"#).expect("JSON");
        let same: Value = serde_json::from_str(r#"{"b":[1,2],"a":1}"#).expect("JSON");
        assert_eq!(hash_of(&one), hash_of(&same));
        assert_ne!(hash_of(&one), hash_of(&json!({ "a": 1, "b": [2, 1] })));
        // A release that changes it registers everything anew, once: never by accident.
        assert_eq!(hash_of(&json!({})), "1-1349cde127705c16");
    }

    #[test]
    fn every_process_is_another_writer() {
        let (one, other) = (Identity::new("o"), Identity::new("o"));
        assert_ne!(one.writer(), other.writer());
        assert_eq!(one.writer().len(), 16);
    }
}
