//! Consul's service-definition files as a source, without Consul.
//!
//! A directory of `*.json` files in Consul's own format is a catalog of one datacenter. The
//! directories are compared with what was read last, a few times a second (D14); an edit that
//! does not parse keeps the last good services and names file and line.

mod definition;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::catalog::{Catalog, Layer};

pub use definition::{Definitions, Error, Host};

/// The longest file that is read, in bytes: more is not a file of services but a mistake.
const MAX_FILE: u64 = 64 << 20;

/// The files of the repository's `zones/consul/`. A test keeps this list complete.
const EMBEDDED: [(&str, &str); 3] = [
    (
        "zones/consul/db.json",
        include_str!("../../zones/consul/db.json"),
    ),
    (
        "zones/consul/hello1.json",
        include_str!("../../zones/consul/hello1.json"),
    ),
    (
        "zones/consul/hello2.json",
        include_str!("../../zones/consul/hello2.json"),
    ),
];

/// Where definitions come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Every `*.json` file of a directory.
    Directory(PathBuf),
    /// The copies in the binary.
    Embedded,
}

/// What a directory looked like: enough to notice that a file came, went or was written.
type Fingerprint = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// Reads all origins; none of it counts if anything is wrong.
fn load(origins: &[Origin], host: &Host) -> Result<Definitions, Vec<Error>> {
    let node = Arc::new(host.node());
    let (mut definitions, mut errors) = (Definitions::default(), Vec::new());
    for origin in origins {
        match origin {
            Origin::Embedded => {
                for (path, text) in EMBEDDED {
                    errors.extend(definitions.add(Path::new(path), text, &node).err());
                }
            }
            Origin::Directory(directory) => match files(directory) {
                Ok(paths) => {
                    for path in paths {
                        let added =
                            read(&path).and_then(|text| definitions.add(&path, &text, &node));
                        errors.extend(added.err());
                    }
                }
                Err(error) => errors.push(error),
            },
        }
    }
    match errors.is_empty() {
        true => Ok(definitions),
        false => Err(errors),
    }
}

/// What the directories look like now. A directory that cannot be read looks empty; loading it
/// then says why.
fn fingerprint(origins: &[Origin]) -> Fingerprint {
    let mut all = Vec::new();
    for origin in origins {
        let Origin::Directory(directory) = origin else {
            continue;
        };
        for path in files(directory).unwrap_or_default() {
            let metadata = fs::metadata(&path).ok();
            let length = metadata.as_ref().map_or(0, fs::Metadata::len);
            let modified = metadata.and_then(|metadata| metadata.modified().ok());
            all.push((path, length, modified));
        }
    }
    all
}

/// The `*.json` files in alphabetical order; names that start with a dot are what editors leave.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|end| end == "json") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE {
        return Err(failed(std::io::Error::other(
            "longer than 64 MiB, which is no file of services",
        )));
    }
    fs::read_to_string(path).map_err(failed)
}

/// How often the directories are looked at. Looking works on every file system and inside
/// containers, where notifications of changes do not arrive; a look at a few files costs
/// microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Definition files as a source of the catalog.
#[derive(Debug)]
pub struct Source {
    origins: Vec<Origin>,
    host: Host,
    layer: Arc<Layer>,
    seen: Fingerprint,
}

/// Definition files as they were read.
#[derive(Debug)]
pub struct Files {
    /// Where they are.
    pub origins: Vec<Origin>,
    /// What they define.
    pub definitions: Definitions,
    host: Host,
    seen: Fingerprint,
}

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// The first thing that is wrong with each file, with its line, and the directories that cannot be read.
    pub fn read(origins: Vec<Origin>, host: Host) -> Result<Self, Vec<Error>> {
        // Before they are read: what is written in between is seen as a change.
        let seen = fingerprint(&origins);
        let definitions = load(&origins, &host)?;
        Ok(Self {
            origins,
            definitions,
            host,
            seen,
        })
    }
}

impl Source {
    /// Publishes what the files define, and follows them from then on.
    pub fn start(files: Files, catalog: &mut Catalog) -> Self {
        let layer = catalog.add_complete("files", &files.host.datacenter);
        let source = Self {
            origins: files.origins,
            host: files.host,
            layer,
            seen: files.seen,
        };
        source.publish(files.definitions);
        source
    }

    fn publish(&self, definitions: Definitions) {
        let node = Arc::new(self.host.node());
        self.layer
            .local()
            .publish_all(definitions.into_services(), vec![node]);
    }

    /// Follows the files until the stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            // Reading a directory blocks; a slow file system must not hold up the runtime.
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(source) => self = source,
                Err(error) => {
                    warn!(%error, "no longer watching the service files; restart Portolan");
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        let now = fingerprint(&self.origins);
        if now == self.seen {
            return;
        }
        match load(&self.origins, &self.host) {
            Ok(definitions) => {
                info!(
                    services = definitions.services(),
                    instances = definitions.instances(),
                    "service files read again"
                );
                self.publish(definitions);
            }
            Err(errors) => {
                for error in errors {
                    warn!(%error, "service file refused; keeping the last good services");
                }
            }
        }
        // Also after an error: it is told once, and again when a file changes.
        self.seen = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            name: "here".to_owned(),
            address: "127.0.0.1".to_owned(),
            datacenter: "dc1".to_owned(),
        }
    }

    fn load_text(text: &str) -> Result<Definitions, Error> {
        let mut definitions = Definitions::default();
        let node = Arc::new(host().node());
        definitions.add(Path::new("web.json"), text, &node)?;
        Ok(definitions)
    }

    #[test]
    fn the_embedded_files_are_those_of_the_repository() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("zones/consul");
        let on_disk = files(&directory).expect("the repository has the directory");
        let names: Vec<_> = on_disk.iter().filter_map(|path| path.file_name()).collect();
        let embedded: Vec<_> = EMBEDDED
            .iter()
            .filter_map(|(path, _)| Path::new(path).file_name())
            .collect();
        assert_eq!(embedded, names);
        let definitions = load(&[Origin::Embedded], &host()).expect("they are right");
        assert_eq!((definitions.services(), definitions.instances()), (3, 4));
    }

    #[test]
    fn a_definition_with_everything() {
        let definitions = load_text(
            r#"{"service": {"name": "Web", "id": "web-1", "address": "10.0.0.1", "port": 80,
"tags": ["a"], "meta": {"k": "v"}, "weights": {"passing": 3},
"enable_tag_override": true, "token": "x",
"tagged_addresses": {"lan_ipv4": {"address": "10.0.0.1", "port": 80}},
"check": {"http": "http://x/", "interval": "10s", "status": "warning"}}}"#,
        )
        .expect("Consul's format");
        let services = definitions.into_services();
        let key = crate::catalog::ServiceKey::new(crate::catalog::Kind::Service, "web");
        let instance = &services[&key].instances()[0];
        assert_eq!(instance.health, crate::catalog::Health::Warning);
        assert_eq!((instance.weights.passing, instance.weights.warning), (3, 1));
    }

    #[test]
    fn mistakes_name_file_and_line() {
        for (text, expected) in [
            (
                "{\n\"service\": {\n\"name\": 7}}",
                "web.json:3: invalid type",
            ),
            (
                "{\n\"service\": {\"nmae\": \"x\"}}",
                "web.json:2: unknown field `nmae`",
            ),
            ("{\n\n\"service\": {", "web.json:3: EOF"),
            (
                "{\"service\": {\"name\": \"x\", \"port\": 70000}}",
                "web.json:1: invalid value",
            ),
            (
                "{\"service\": {\"name\": \"\"}}",
                "web.json:1: service \"\": the name is empty",
            ),
            (
                "{\"services\": [{\"name\": \"x\"},\n{\"name\": \"x\"}]}",
                "web.json:2: service \"x\": the id is also used in web.json",
            ),
            (
                "{\"service\": {\"name\": \"x\", \"check\": {\"status\": \"bad\"}}}",
                "web.json:1: unknown variant `bad`",
            ),
        ] {
            let error = load_text(text).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
