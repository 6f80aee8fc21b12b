//! The last known catalog on disk, so that a restart while Consul is away still answers (D4).
//!
//! One file, `catalog.state`: a line with version, length and checksum, then JSON. It is written
//! anew beside the old one and renamed over it, so that it is whole at every moment.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use xxhash_rust::xxh3::xxh3_64;

use crate::catalog::{Layer, Node, Prepared, PreparedKey, Service, ServiceKey};

use super::kept::{Kept, create};

/// Ten thousand services of ten instances are some 30 MB.
const STATE: Kept = Kept {
    name: "catalog.state",
    new: "catalog.new",
    most: 1 << 30,
    most_in_words: "1 GiB",
};

const MAGIC: &str = "portolan-catalog 1";

/// At most this often is it written.
const EVERY: Duration = Duration::from_secs(3);

/// The content: the local datacenter. Others are asked for again.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    datacenter: String,
    /// When Consul last confirmed it, since 1970: in seconds, and the milliseconds beside them.
    #[serde(rename = "written")]
    confirmed: u64,
    #[serde(default)]
    confirmed_millis: u16,
    names: Vec<Arc<str>>,
    nodes: Vec<Arc<Node>>,
    /// Services in use, the one asked for last in front.
    services: Vec<(ServiceKey, Arc<Service>)>,
    /// The last results of prepared queries.
    #[serde(default)]
    queries: Vec<(PreparedKey, Arc<Option<Prepared>>)>,
    #[serde(default)]
    datacenters: Option<Arc<BTreeSet<String>>>,
    #[serde(default)]
    peers: Option<BTreeSet<String>>,
}

/// Why a state file is not used.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("it is damaged: {0}")]
    Json(#[from] serde_json::Error),
}

/// The state file of a layer.
#[derive(Debug, Clone)]
pub struct SavedCatalog {
    directory: PathBuf,
}

impl SavedCatalog {
    /// The state in a directory, which is made if it does not exist. One that cannot be written to is read
    /// all the same.
    ///
    /// # Errors
    /// If the directory can neither be found nor made.
    pub fn in_directory(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let probe = directory.join("catalog.probe");
        let probed = create(&probe).and_then(|_| fs::remove_file(probe));
        if let Err(error) = probed {
            warn!(
                directory = %directory.display(), %error,
                "cannot write to state_dir: what is known will not survive a restart"
            );
        }
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    fn path(&self) -> PathBuf {
        self.directory.join(STATE.name)
    }

    /// Puts back what was known, as stale until Consul confirms it. A file that cannot be used is
    /// set aside: losing it is better than not starting.
    pub fn load(&self, layer: &Layer) {
        let path = self.path();
        match read(&self.directory) {
            Ok(saved) => restore(saved, layer),
            Err(StateError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let seconds = since_1970().as_secs();
                let aside = self
                    .directory
                    .join(format!("{}.damaged-{seconds}", STATE.name));
                let moved = fs::rename(&path, &aside);
                warn!(
                    file = %path.display(), %error, aside = %aside.display(), moved = moved.is_ok(),
                    "the state file cannot be used and was set aside"
                );
            }
        }
    }

    /// Writes the catalog whenever it has changed, until the stop, and then once more.
    pub async fn follow(self, layer: Arc<Layer>, stop: CancellationToken) {
        let mut written = 0;
        let mut failing = false;
        loop {
            let stopped = stop
                .run_until_cancelled(tokio::time::sleep(EVERY))
                .await
                .is_none();
            let print = fingerprint(&layer);
            // What was restored and never confirmed is in the file already.
            if print != written && layer.local().is_ready() {
                let state = self.clone();
                let from = Arc::clone(&layer);
                let result = tokio::task::spawn_blocking(move || state.write(&from)).await;
                match result {
                    Ok(Ok(length)) => {
                        written = print;
                        failing = false;
                        debug!(bytes = length, "state written");
                    }
                    Ok(Err(error)) if !failing => {
                        failing = true;
                        warn!(file = %self.path().display(), %error, "cannot write the state");
                    }
                    _ => {}
                }
            }
            if stopped {
                return;
            }
        }
    }

    fn write(&self, layer: &Layer) -> io::Result<usize> {
        let realm = layer.local();
        let mut loaded = realm.loaded();
        loaded.sort_by_key(|(_, slot)| std::cmp::Reverse(slot.last_asked()));
        // What Consul has not confirmed for a while does not become younger by being written.
        let age = Duration::from_millis(realm.stale_millis().unwrap_or_default());
        let confirmed = since_1970().saturating_sub(age);
        let saved = Saved {
            datacenter: realm.datacenter().to_string(),
            confirmed: confirmed.as_secs(),
            confirmed_millis: u16::try_from(confirmed.subsec_millis()).unwrap_or_default(),
            names: realm.names().iter().cloned().collect(),
            nodes: realm.nodes(),
            services: loaded
                .into_iter()
                .filter_map(|(key, slot)| Some((key, slot.get()?.1)))
                .collect(),
            queries: layer
                .prepared_results()
                .into_iter()
                .filter_map(|(key, slot)| Some((key, slot.get()?.1)))
                .collect(),
            datacenters: layer.places().datacenters(),
            peers: layer.places().peers(),
        };
        let body = serde_json::to_vec(&saved)?;
        let head = format!("{MAGIC} {} {:016x}\n", body.len(), xxh3_64(&body));
        STATE.replace(&self.directory, &[head.as_bytes(), &body])?;
        Ok(head.len() + body.len())
    }
}

fn read(directory: &Path) -> Result<Saved, StateError> {
    let bytes = STATE.read(directory)?;
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or(StateError::Damaged("it has no head"))?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| StateError::Damaged("its head is no text"))?;
    let mut fields = head
        .strip_prefix(MAGIC)
        .ok_or(StateError::Damaged("it is of another version"))?
        .split_whitespace();
    let length = fields.next().and_then(|text| text.parse::<usize>().ok());
    let sum = fields
        .next()
        .and_then(|text| u64::from_str_radix(text, 16).ok());
    if length != Some(body.len()) {
        return Err(StateError::Damaged("it is cut off"));
    }
    if sum != Some(xxh3_64(body)) {
        return Err(StateError::Damaged("its checksum is wrong"));
    }
    Ok(serde_json::from_slice(body)?)
}

fn restore(saved: Saved, layer: &Layer) {
    let millis = Duration::from_millis(saved.confirmed_millis.into());
    let age =
        since_1970().saturating_sub(Duration::from_secs(saved.confirmed).saturating_add(millis));
    let services = saved.services.len();
    let realm = layer.local();
    realm.name_datacenter(&saved.datacenter);
    let age_millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    realm.mark_stale(realm.versions().millis().wrapping_sub(age_millis));
    let services_of = saved
        .services
        .into_iter()
        .map(|(key, service)| (key, (*service).clone()))
        .collect();
    let names: HashSet<Arc<str>> = saved.names.into_iter().collect();
    realm.restore(names, saved.nodes, services_of);
    for (key, result) in saved.queries {
        if let Some(result) = result.as_ref() {
            layer.restore_prepared(&key, result.clone());
        }
    }
    if let Some(datacenters) = saved.datacenters {
        layer.publish_datacenters(datacenters.as_ref().clone());
    }
    if let Some(peers) = saved.peers {
        // What each exports is learned from Consul.
        layer.publish_peers(peers.into_iter().map(|peer| (peer, None)).collect());
    }
    info!(
        services,
        seconds = age.as_secs(),
        "the last known catalog is served until Consul confirms it"
    );
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Changes whenever something that is saved does.
fn fingerprint(layer: &Layer) -> u64 {
    let realm = layer.local();
    let services = realm.loaded();
    let queries = layer.prepared_results();
    let services = services.iter().map(|(_, slot)| slot.version());
    let queries = queries.iter().map(|(_, slot)| slot.version());
    let mut versions: Vec<u64> = services.chain(queries).collect();
    versions.push(realm.version());
    versions.sort_unstable();
    let mut bytes: Vec<u8> = versions.iter().flat_map(|v| v.to_le_bytes()).collect();
    let datacenters = layer.places().datacenters();
    let datacenters = datacenters.map(|known| known.as_ref().clone());
    for names in [datacenters, layer.places().peers()].iter().flatten() {
        bytes.extend(
            names
                .iter()
                .flat_map(|name| [name.as_bytes(), b" "])
                .flatten(),
        );
    }
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;

    use super::super::kept;
    use super::*;
    use crate::catalog::{Catalog, Found, Kind, Loaded, Miss, Patience, Peers, Scope};

    fn query() -> PreparedKey {
        PreparedKey {
            name: "db".to_owned(),
            scope: Scope::default(),
            client: None,
        }
    }

    fn saved(directory: &Path) -> SavedCatalog {
        let state = SavedCatalog::in_directory(directory).expect("a directory");
        let (layer, _interests) = Catalog::new().add_lazy("test");
        let realm = layer.local();
        let key = ServiceKey::new(Kind::Service, "web");
        realm.name_datacenter("dc1");
        let names = HashSet::from(["web".into(), "db".into()]);
        realm.restore(names, Vec::new(), vec![(key, Service::new(Vec::new()))]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        layer.publish_datacenters(names(&["dc1", "dc2"]));
        layer.publish_peers(Peers::from([("east".to_owned(), None)]));
        let result = Prepared {
            service: "db".to_owned(),
            datacenter: "dc1".to_owned(),
            peer: None,
            ttl: Some(10),
            instances: Vec::new(),
        };
        layer.restore_prepared(&query(), result);
        state.write(&layer).expect("written");
        state
    }

    fn look(layer: &Layer, name: &str) -> Found<Loaded<Service>> {
        let key = ServiceKey::new(Kind::Service, name);
        layer.service(&Scope::default(), &key, Patience::Some)
    }

    #[test]
    fn what_was_written_comes_back_stale() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = saved(directory.path());
        let (layer, _interests) = Catalog::new().add_lazy("test");
        state.load(&layer);
        assert_eq!(*layer.local().datacenter(), "dc1");
        assert!(matches!(look(&layer, "web"), Ok(loaded) if loaded.stale));
        assert!(matches!(look(&layer, "db"), Err(Miss::Loading(_))));
        assert!(matches!(look(&layer, "nope"), Err(Miss::Absent)));
        let known = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            layer.places().datacenters(),
            Some(Arc::new(known(&["dc1", "dc2"])))
        );
        assert_eq!(layer.places().peers(), Some(known(&["east"])));
        let queries = layer.prepared_results();
        assert_eq!(queries.len(), 1);
        assert_eq!(queries[0].0, query());
    }

    /// What an earlier Portolan has left is no less true.
    #[test]
    fn a_file_without_queries_and_datacenters_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = r#"{"datacenter":"dc1","written":1,"names":["web"],"nodes":[],"services":[]}"#;
        let head = format!("{MAGIC} {} {:016x}\n", body.len(), xxh3_64(body.as_bytes()));
        fs::write(directory.path().join(STATE.name), head + body).expect("written");
        let (layer, _interests) = Catalog::new().add_lazy("test");
        let state = SavedCatalog::in_directory(directory.path()).expect("a directory");
        state.load(&layer);
        assert!(layer.local().lists("web"));
        assert_eq!(layer.places().datacenters(), None);
    }

    /// However often a restart writes it anew: it is as old as Consul's last word.
    #[test]
    fn an_age_outlives_restarts() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = saved(directory.path());
        for life in 0..3 {
            let (layer, _interests) = Catalog::new().add_lazy("test");
            state.load(&layer);
            let realm = layer.local();
            if life == 0 {
                let now = realm.versions().millis();
                realm.mark_fresh();
                realm.mark_stale(now.wrapping_sub(42_000));
            }
            let age = realm.stale_millis().expect("it is stale");
            assert!((42_000..43_000).contains(&age), "{age} in life {life}");
            state.write(&layer).expect("written");
        }
    }

    #[test]
    fn it_is_for_us_alone_and_no_link_is_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = saved(directory.path());
        let path = directory.path().join(STATE.name);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), kept::MODE);

        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").expect("written");
        let new = directory.path().join("catalog.new");
        std::os::unix::fs::symlink(&precious, &new).expect("a link");
        let (layer, _interests) = Catalog::new().add_lazy("test");
        assert!(state.write(&layer).is_err());
        assert_eq!(fs::read(&precious).expect("there"), b"precious");
    }

    /// A pipe would be waited for, and a file without end be read.
    #[test]
    fn what_is_no_state_file_is_set_aside_at_once() {
        for what in ["link", "pipe", "directory", "endless"] {
            let directory = tempfile::tempdir().expect("a directory");
            let state = saved(directory.path());
            let path = directory.path().join(STATE.name);
            let elsewhere = directory.path().join("elsewhere");
            fs::rename(&path, &elsewhere).expect("moved");
            match what {
                "link" => std::os::unix::fs::symlink(&elsewhere, &path).expect("a link"),
                "pipe" => {
                    let made = std::process::Command::new("mkfifo").arg(&path).status();
                    assert!(
                        made.is_ok_and(|status| status.success()),
                        "mkfifo of coreutils"
                    );
                }
                "directory" => fs::create_dir(&path).expect("a directory"),
                _ => {
                    let file = File::create(&path).expect("a file");
                    file.set_len(20 << 30).expect("a file with a hole");
                }
            }
            let (layer, _interests) = Catalog::new().add_lazy("test");
            let start = std::time::Instant::now();
            state.load(&layer);
            assert!(start.elapsed() < Duration::from_secs(1), "{what}");
            assert!(!layer.local().is_ready(), "{what}");
            assert!(fs::symlink_metadata(&path).is_err(), "{what} is set aside");
        }
    }

    /// Not even root can write there.
    #[test]
    fn a_directory_that_is_only_readable_is_no_reason_not_to_start() {
        let state = SavedCatalog::in_directory(Path::new("/proc/self"));
        let (layer, _interests) = Catalog::new().add_lazy("test");
        state.expect("a start").load(&layer);
        assert!(!layer.local().is_ready());
    }

    #[test]
    fn damage_is_set_aside() {
        for harm in ["cut", "flip", "empty", "version"] {
            let directory = tempfile::tempdir().expect("a directory");
            let state = saved(directory.path());
            let path = directory.path().join(STATE.name);
            let mut bytes = fs::read(&path).expect("there");
            match harm {
                "cut" => bytes.truncate(bytes.len() - 9),
                "flip" => *bytes.last_mut().expect("not empty") ^= 1,
                "empty" => bytes.clear(),
                _ => bytes[MAGIC.len() - 1] = b'9',
            }
            fs::write(&path, bytes).expect("written");
            let (layer, _interests) = Catalog::new().add_lazy("test");
            state.load(&layer);
            assert!(!layer.local().is_ready(), "{harm}");
            let names: Vec<_> = fs::read_dir(directory.path())
                .expect("there")
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            assert!(
                names.len() == 1 && names[0].contains("damaged"),
                "{harm}: {names:?}"
            );
        }
    }
}
