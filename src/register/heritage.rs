//! What was registered before us: by Registrator, by releases of ours that did not name the host, and on this host when
//! it was called otherwise.

use std::collections::{BTreeMap, BTreeSet};

use crate::consul::AgentService;

use super::identity::{CONTAINER, HOST, Identity, OWNER};
use super::wanted::Wanted;

/// Which of the agent's services are ours, by ID.
///
/// Those are ours that bear our marks. Of those that bear the engine's ID and not the name of its host, the ones are
/// that a container of here has at the same address, and the ones that say nothing of a host and have ours in their
/// ID. All others may be of a clone of this machine, which would miss them.
pub(super) fn ours(
    actual: &BTreeMap<String, AgentService>,
    wanted: &BTreeMap<String, Wanted>,
    identity: &Identity,
    host_name: &str,
) -> BTreeSet<String> {
    let is_of_here = |service: &AgentService| {
        let Some(container) = service.meta.get(CONTAINER) else {
            return false;
        };
        wanted.values().any(|own| {
            own.container_id() == Some(container.as_str())
                && Some(service.address.as_str()) == own.address()
        })
    };
    let has_our_name = |id: &str, service: &AgentService| {
        !service.meta.contains_key(HOST)
            && LegacyId::parse(id).is_some_and(|id| id.host == host_name)
    };
    let is_ours = |id: &str, service: &AgentService| {
        identity.owns(service)
            || identity.is_namesake(service) && (is_of_here(service) || has_our_name(id, service))
    };
    let ours = actual.iter().filter(|(id, own)| is_ours(id, own));
    ours.map(|(id, _)| id.clone()).collect()
}

/// Services that bear our engine's ID and are not ours, by the name of their host.
pub(super) fn namesakes(
    actual: &BTreeMap<String, AgentService>,
    ours: &BTreeSet<String>,
    identity: &Identity,
) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let others = actual
        .iter()
        .filter(|(id, own)| identity.is_namesake(own) && !ours.contains(*id));
    for (id, service) in others {
        let host = service.meta.get(HOST).cloned().unwrap_or_default();
        found.entry(host).or_default().push(id.clone());
    }
    found
}

/// Registrator's services that are not those of `host`, which takes its own over, by their hosts' names.
pub(super) fn of_other_hosts(
    actual: &BTreeMap<String, AgentService>,
    host: &str,
) -> BTreeMap<String, Vec<String>> {
    let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let foreign = actual
        .iter()
        .filter(|(_, own)| !own.meta.contains_key(OWNER));
    for (id, _) in foreign {
        let legacy = LegacyId::parse(id).map(|legacy| legacy.host);
        if let Some(other) = legacy.filter(|other| *other != host) {
            others.entry(other.to_owned()).or_default().push(id.clone());
        }
    }
    others
}

/// One of Registrator's IDs, `<host>:<container>:<port>` with `:udp` after it for UDP, taken apart. What
/// `SERVICE_ID` sets is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LegacyId<'a> {
    /// The name of the host, or in a container of its own the ID of Registrator's container.
    pub(super) host: &'a str,
    /// The container's name.
    pub(super) container: &'a str,
}

impl<'a> LegacyId<'a> {
    /// Takes an ID apart, as Registrator's own cleanup does:
    /// `^(.+?):([a-zA-Z0-9][a-zA-Z0-9_.-]+):[0-9]+(?::udp)?$`.
    pub(super) fn parse(id: &'a str) -> Option<Self> {
        let rest = id.strip_suffix(":udp").unwrap_or(id);
        let (rest, port) = rest.rsplit_once(':')?;
        let (host, container) = rest.split_once(':')?;
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let mut letters = container.bytes();
        let is_container = container.len() > 1
            && letters
                .next()
                .is_some_and(|byte| byte.is_ascii_alphanumeric())
            && letters.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        (is_port && is_container && !host.is_empty()).then_some(Self { host, container })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::docker::Engine;

    use super::*;

    #[test]
    fn a_clones_services_are_not_ours() {
        let engine = |host: &str| Engine {
            id: "engine".to_owned(),
            host: host.to_owned(),
        };
        let identity = Identity::of_engine(engine("here"));
        let wanted = |container: &str| Wanted {
            name: "web".to_owned(),
            endpoint: "10.0.0.1:80".to_owned(),
            container: "web".to_owned(),
            body: json!({ "Address": "10.0.0.1", "Meta": { CONTAINER: container } }),
            hash: "1-1".to_owned(),
            health: None,
        };
        let wanted = BTreeMap::from([("node:web:80".to_owned(), wanted("c1"))]);
        // Whose mark it has, its host's, its container, its address; its ID.
        for (owner, host, container, address, id, is_ours) in [
            ("engine", Some("here"), "c9", "10.0.0.9", "any", true),
            ("engine", Some("there"), "c9", "10.0.0.9", "any", false),
            (
                "engine",
                Some("there"),
                "c9",
                "10.0.0.1",
                "node:old:80",
                false,
            ),
            // This host had another name before; a clone has the same container elsewhere.
            (
                "engine",
                Some("before"),
                "c1",
                "10.0.0.1",
                "before:web:80",
                true,
            ),
            (
                "engine",
                Some("there"),
                "c1",
                "10.0.0.9",
                "there:web:80",
                false,
            ),
            // Releases of before.
            ("engine", None, "c1", "10.0.0.1", "any", true),
            ("engine", None, "c9", "10.0.0.9", "node:gone:80", true),
            ("engine", None, "c9", "10.0.0.9", "there:gone:80", false),
            ("engine", None, "c9", "10.0.0.9", "any", false),
            ("other", None, "c1", "10.0.0.1", "node:web:80", false),
            (
                "other",
                Some("here"),
                "c1",
                "10.0.0.1",
                "node:web:80",
                false,
            ),
        ] {
            let mut meta = BTreeMap::from([
                (OWNER.to_owned(), owner.to_owned()),
                (CONTAINER.to_owned(), container.to_owned()),
            ]);
            meta.extend(host.map(|host| (HOST.to_owned(), host.to_owned())));
            let service = AgentService {
                name: "web".to_owned(),
                meta,
                address: address.to_owned(),
                port: 80,
            };
            let actual = BTreeMap::from([(id.to_owned(), service)]);
            let found = ours(&actual, &wanted, &identity, "node");
            assert_eq!(found.contains(id), is_ours, "{actual:?}");
            let namesakes = namesakes(&actual, &found, &identity);
            let is_told = owner == "engine" && !is_ours;
            assert_eq!(!namesakes.is_empty(), is_told, "{actual:?}");
        }
    }

    #[test]
    fn registrators_ids_are_known() {
        for (id, host) in [
            ("node1:hello1:80", Some("node1")),
            ("node1:hello1:53:udp", Some("node1")),
            ("node-1.example:my_app.1-a:8080", Some("node-1.example")),
            ("node1:hello1", None),
            ("node1:hello1:http", None),
            ("node1:h:80", None),
            ("node1:-hello:80", None),
            ("node1:hel/lo:80", None),
            ("node1:a1:b1:80", None),
            (":hello1:80", None),
            ("hello1", None),
            ("", None),
        ] {
            assert_eq!(LegacyId::parse(id).map(|id| id.host), host, "{id}");
        }
        let id = LegacyId::parse("node1:my_app.1-a:53:udp");
        assert_eq!(id.map(|id| id.container), Some("my_app.1-a"));
    }
}
