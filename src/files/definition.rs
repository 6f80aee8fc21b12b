//! One file in Consul's service-definition format (Consul `agent/config`: `service`, `services`).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::catalog::{Health, Instance, Kind, Node, Service, ServiceKey, TaggedAddress, Weights};

/// Why a file, or a directory of them, is not a catalog.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not JSON, or not in Consul's format.
    #[error("{}:{}: {}", path.display(), source.line(), without_place(source))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// It is in the format, but says something that cannot be.
    #[error("{}:{line}: service {service:?}: {message}", path.display())]
    Service {
        /// The file.
        path: PathBuf,
        /// The line of the service's name, as far as it can be told.
        line: usize,
        /// The service's name or id.
        service: String,
        /// What is wrong.
        message: String,
    },
}

/// serde_json repeats the place at the end of its message; we have it in front.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileJson {
    #[serde(default)]
    service: Option<ServiceJson>,
    #[serde(default)]
    services: Vec<ServiceJson>,
}

/// Every field that Consul's format has; a misspelt one is an error, as in Consul. Those that
/// mean nothing without an agent are read and ignored.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceJson {
    name: String,
    id: Option<String>,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default, rename = "meta")]
    _meta: BTreeMap<String, String>,
    #[serde(default)]
    tagged_addresses: BTreeMap<String, TaggedJson>,
    weights: Option<WeightsJson>,
    check: Option<CheckJson>,
    #[serde(default)]
    checks: Vec<CheckJson>,
    #[serde(default, alias = "enableTagOverride", rename = "enable_tag_override")]
    _enable_tag_override: Option<IgnoredAny>,
    #[serde(default, rename = "kind")]
    _kind: Option<IgnoredAny>,
    #[serde(default, rename = "token")]
    _token: Option<IgnoredAny>,
    #[serde(default, rename = "connect")]
    _connect: Option<IgnoredAny>,
    #[serde(default, rename = "proxy")]
    _proxy: Option<IgnoredAny>,
    #[serde(default, rename = "namespace")]
    _namespace: Option<IgnoredAny>,
    #[serde(default, rename = "partition")]
    _partition: Option<IgnoredAny>,
    #[serde(default, rename = "locality")]
    _locality: Option<IgnoredAny>,
    #[serde(default, rename = "socket_path")]
    _socket_path: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaggedJson {
    address: String,
    #[serde(default)]
    port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightsJson {
    #[serde(default = "one")]
    passing: u16,
    #[serde(default = "one")]
    warning: u16,
}

fn one() -> u16 {
    1
}

/// A check is not run; only the status that it starts with counts. Consul's forms of checks are
/// many and differ between releases, so their other fields are not looked at.
#[derive(Debug, Deserialize)]
struct CheckJson {
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Passing,
    Warning,
    Critical,
}

/// The node that services from files are on: a service without an address has this host's.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// The datacenter.
    pub datacenter: String,
}

impl Host {
    pub(super) fn node(&self) -> Node {
        Node {
            name: self.name.clone(),
            datacenter: self.datacenter.clone(),
            address: self.address.clone(),
            tagged_addresses: BTreeMap::new(),
            meta: BTreeMap::new(),
        }
    }
}

/// What some files define.
#[derive(Debug, Default)]
pub struct Definitions {
    instances: HashMap<ServiceKey, Vec<Instance>>,
    /// Ids and the file that each is from; an id is unique on its node.
    ids: HashMap<String, PathBuf>,
}

impl Definitions {
    /// Adds the services of one file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub(super) fn add(&mut self, path: &Path, text: &str, node: &Arc<Node>) -> Result<(), Error> {
        let file: FileJson = serde_json::from_str(text).map_err(|source| Error::Syntax {
            path: path.to_owned(),
            source,
        })?;
        for service in file.service.into_iter().chain(file.services) {
            let id = service.id.clone().unwrap_or_else(|| service.name.clone());
            let wrong = |message: String| Error::Service {
                path: path.to_owned(),
                line: line_of(text, &id),
                service: id.clone(),
                message,
            };
            if service.name.is_empty() {
                return Err(wrong("the name is empty".to_owned()));
            }
            if let Some(first) = self.ids.insert(id.clone(), path.to_owned()) {
                return Err(wrong(format!(
                    "the id is also used in {}; give each instance an \"id\" of its own",
                    first.display()
                )));
            }
            let key = ServiceKey::new(Kind::Service, &service.name);
            let instance = service.into_instance(id, node);
            self.instances.entry(key).or_default().push(instance);
        }
        Ok(())
    }

    /// How many services there are.
    pub fn services(&self) -> usize {
        self.instances.len()
    }

    /// How many instances there are, of all services together.
    pub fn instances(&self) -> usize {
        self.instances.values().map(Vec::len).sum()
    }

    pub(super) fn into_services(self) -> HashMap<ServiceKey, Service> {
        self.instances
            .into_iter()
            .map(|(key, instances)| (key, Service::new(instances)))
            .collect()
    }
}

impl ServiceJson {
    fn into_instance(self, id: String, node: &Arc<Node>) -> Instance {
        let health = self
            .check
            .into_iter()
            .chain(self.checks)
            .map(|check| match check.status {
                None | Some(Status::Passing) => Health::Passing,
                Some(Status::Warning) => Health::Warning,
                Some(Status::Critical) => Health::Critical,
            })
            .max();
        Instance {
            id,
            address: self.address,
            tagged_addresses: self
                .tagged_addresses
                .into_iter()
                .map(|(tag, TaggedJson { address, port })| (tag, TaggedAddress { address, port }))
                .collect(),
            port: self.port,
            ports: Vec::new(),
            tags: self.tags,
            weights: self
                .weights
                .map_or_else(Weights::default, |weights| Weights {
                    passing: weights.passing.max(1),
                    warning: weights.warning.max(1),
                }),
            health: health.unwrap_or(Health::Passing),
            node: Arc::clone(node),
        }
    }
}

/// The line on which the last `"word"` stands, or 1: duplicates are told at the second place.
fn line_of(text: &str, word: &str) -> usize {
    let quoted = format!("\"{word}\"");
    text.rfind(&quoted)
        .map_or(1, |at| text[..at].matches('\n').count() + 1)
}
