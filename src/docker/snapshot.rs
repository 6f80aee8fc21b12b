//! What runs, at one moment, and of what too little is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::container::Container;

/// A container that ended, with an error, and still exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// What it ended with.
    pub exit_code: i64,
}

/// What runs, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The containers that run and are not being stopped, sorted by name.
    pub containers: Vec<Arc<Container>>,
    /// Containers that run but could not be inspected, id to name: nothing is known about them,
    /// so whatever is registered for them is to stay.
    pub unknown: BTreeMap<String, String>,
    /// With [`OnSuccess`](super::Deregister::OnSuccess): containers that ended with an error, by
    /// id. Whatever is registered for them is to stay.
    pub failed: BTreeMap<String, Ended>,
}

impl Snapshot {
    /// The containers whose registered services are to stay as they are, id to name: those that
    /// failed, those of which nothing is known, and those in the network of one of the latter.
    pub fn kept(&self) -> BTreeMap<String, String> {
        let failed = self.failed.iter();
        let failed = failed.map(|(id, ended)| (id.clone(), ended.name.clone()));
        let mut kept = self.unknown.clone();
        kept.extend(failed);
        let is_unknown = |other: &str| {
            let mut unknown = self.unknown.iter();
            unknown.any(|(id, name)| Container::is_called(other, id, name))
        };
        let dependent = self.containers.iter();
        let dependent =
            dependent.filter(|container| container.network_container().is_some_and(is_unknown));
        kept.extend(dependent.map(|container| (container.id.clone(), container.name.clone())));
        kept
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_hangs_on_the_unknown_is_kept_with_it() {
        let container = |id: &str, mode: &str| {
            let json = json!({
                "Id": id, "Name": format!("/{id}-name"), "HostConfig": { "NetworkMode": mode },
            });
            let container = Container::from_inspect(json.to_string().as_bytes());
            Arc::new(container.expect("an inspection"))
        };
        let ended = Ended {
            name: "failed-name".to_owned(),
            exit_code: 1,
        };
        let snapshot = Snapshot {
            containers: vec![
                container("by-id", "container:dark"),
                container("by-name", "container:dark-name"),
                container("of-another", "container:by-id"),
                container("of-none", "container:"),
                container("on-its-own", "bridge"),
            ],
            unknown: BTreeMap::from([("dark".to_owned(), "dark-name".to_owned())]),
            failed: BTreeMap::from([("failed".to_owned(), ended)]),
        };
        let kept = ["by-id", "by-name", "dark", "failed"];
        let kept = kept.map(|id| (id.to_owned(), format!("{id}-name")));
        assert_eq!(snapshot.kept(), BTreeMap::from(kept));
    }
}
