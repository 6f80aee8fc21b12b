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
//! What another process of ours wrote before this one began is our own past. What appears later
//! under the name of another process means that two of them run: each would take away what only
//! the other knows, for ever. So what a living one wrote is left as it is, and an operator is told.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::consul::AgentService;
use crate::docker::{Client, Error};

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

/// A process that has written nothing for this long is our past as well: it may have been one
/// that ended just after this one began.
const CALM: Duration = Duration::from_secs(180);

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

/// Who wrote what bears our owner's name.
#[derive(Debug)]
pub(super) struct Writers {
    /// This process.
    me: String,
    /// Who wrote each service, as last seen; `None` before the first look.
    seen: Option<BTreeMap<String, String>>,
    /// Others that write, and when they last did.
    living: BTreeMap<String, Instant>,
}

impl Writers {
    pub(super) fn new(me: &str) -> Self {
        Self {
            me: me.to_owned(),
            seen: None,
            living: BTreeMap::new(),
        }
    }

    /// Takes note of all services of our owner, by ID, with their writers. Gives the writers that
    /// were not known to be alive.
    pub(super) fn observe(
        &mut self,
        services: BTreeMap<String, String>,
        now: Instant,
    ) -> Vec<String> {
        self.living
            .retain(|_, last| now.duration_since(*last) < CALM);
        let mut found = Vec::new();
        if let Some(seen) = &self.seen {
            for (id, writer) in &services {
                let is_news = *writer != self.me && seen.get(id) != Some(writer);
                if is_news && self.living.insert(writer.clone(), now).is_none() {
                    found.push(writer.clone());
                }
            }
        }
        self.seen = Some(services);
        found
    }

    /// This process has written a service.
    pub(super) fn wrote(&mut self, id: &str) {
        if let Some(seen) = &mut self.seen {
            seen.insert(id.to_owned(), self.me.clone());
        }
    }

    /// Did another one write this that still writes?
    pub(super) fn have(&self, service: &AgentService) -> bool {
        let writer = service.meta.get(WRITER);
        writer.is_some_and(|writer| self.is_living(writer))
    }

    /// Whether the writer is another process that is alive.
    pub(super) fn is_living(&self, writer: &str) -> bool {
        self.living.contains_key(writer)
    }

    /// How many others are alive.
    pub(super) fn living(&self) -> usize {
        self.living.len()
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

    fn services(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(id, writer): &(&str, &str)| ((*id).to_owned(), (*writer).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn the_past_is_no_other_writer() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        let past = [("a", "old"), ("b", "older")];
        assert!(writers.observe(services(&past), now).is_empty());
        writers.wrote("a");
        let taken_over = [("a", "me"), ("b", "older")];
        assert!(writers.observe(services(&taken_over), now).is_empty());
        assert!(!writers.is_living("old") && !writers.is_living("older"));
    }

    #[test]
    fn what_others_write_later_tells_them() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        writers.observe(services(&[("a", "me")]), now);
        // One that was ours, and one that is new.
        let found = writers.observe(services(&[("a", "x"), ("b", "x"), ("c", "y")]), now);
        assert_eq!(found, ["x", "y"]);
        assert!(writers.is_living("x") && writers.is_living("y"));
        // Told once.
        let found = writers.observe(services(&[("a", "x"), ("d", "x")]), now);
        assert!(found.is_empty());
        assert_eq!(writers.living(), 2);
    }

    #[test]
    fn one_that_is_calm_is_the_past() {
        let now = Instant::now();
        let mut writers = Writers::new("me");
        writers.observe(services(&[]), now);
        writers.observe(services(&[("a", "x")]), now);
        writers.observe(services(&[("a", "x")]), now + CALM);
        assert!(!writers.is_living("x"));
        // Until it writes again.
        let again = services(&[("a", "x"), ("b", "x")]);
        assert_eq!(writers.observe(again, now + CALM), ["x"]);
    }
}
