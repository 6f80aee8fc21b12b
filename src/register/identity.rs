//! Whose a service is: the marks that a registration bears in its metadata.
//!
//! A service is ours if it bears our owner's name, whatever its ID. The name outlives a restart,
//! a new host name and a new address; the writer's name does not, and so tells two registrars of
//! one owner apart. The hash says whether what is registered is what should be.

use std::hash::{BuildHasher, RandomState};

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::consul::AgentService;

/// Who answers for the service.
pub(super) const OWNER: &str = "portolan-owner";
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
    writer: String,
}

impl Identity {
    /// A new process of the owner.
    pub fn new(owner: impl Into<String>) -> Self {
        // The standard library's seeds are random; nothing here has to be a secret.
        let writer = RandomState::new().hash_one(std::process::id());
        Self {
            owner: owner.into(),
            writer: format!("{writer:016x}"),
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

    /// Whether the service bears our owner's name.
    pub fn owns(&self, service: &AgentService) -> bool {
        service.meta.get(OWNER) == Some(&self.owner)
    }

    /// The body of a registration with our marks in its metadata.
    pub(super) fn mark(&self, mut body: Value, hash: &str) -> Value {
        let meta = &mut body["Meta"];
        meta[OWNER] = self.owner.as_str().into();
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
