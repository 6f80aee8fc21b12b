//! What should be registered, ready to be compared and sent.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_json::Value;

use crate::docker::Registration;

use super::body::{body, status};
use super::health;
use super::identity::{CONTAINER, Identity, hash_of};

/// One service as it should be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its name.
    pub(super) name: String,
    /// `IP:PORT`.
    pub(super) endpoint: String,
    /// The name of its container.
    pub(super) container: String,
    /// What is sent, with our marks.
    pub(super) body: Value,
    /// The hash that stands in its marks.
    pub(super) hash: String,
    /// What its container's HEALTHCHECK says, if that is its check.
    pub(super) health: Option<Reported>,
}

/// A health that we report to a TTL check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reported {
    /// The check's ID at the agent.
    pub(super) check: String,
    /// `passing`, `warning` or `critical`.
    pub(super) status: String,
}

impl Wanted {
    fn new(registration: &Registration, identity: &Identity) -> Self {
        let mut body = body(registration, health::TTL);
        body["Meta"][CONTAINER] = registration.container_id.as_str().into();
        // What the HEALTHCHECK says changes while the service stays the same: not in the hash.
        let hash = hash_of(&body);
        let status = status(registration).map(str::to_owned);
        if let Some(status) = &status {
            body["Check"]["Status"] = status.as_str().into();
        }
        Self {
            name: registration.name.clone(),
            endpoint: endpoint(&registration.address.to_string(), registration.port),
            container: registration.container_name.clone(),
            body: identity.mark(body, &hash),
            hash,
            health: status.map(|status| Reported {
                check: registration.check_id(),
                status,
            }),
        }
    }
}

/// All that should be registered, by ID.
pub(super) fn wanted(
    registrations: &[Registration],
    identity: &Identity,
) -> BTreeMap<String, Wanted> {
    let entry = |registration: &Registration| {
        let wanted = Wanted::new(registration, identity);
        (registration.id.clone(), wanted)
    };
    registrations.iter().map(entry).collect()
}

/// An address and a port for people; an IPv6 address in brackets.
pub(super) fn endpoint(address: &str, port: impl Display) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}
