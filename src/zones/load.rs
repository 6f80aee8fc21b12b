//! Where zones come from: a folder of master files, or the copies compiled into the binary.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hickory_proto::rr::{LowerName, Name};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, ZoneType};

use crate::dns::hickory::from_hickory;

use super::{Zone, Zones, master};

/// Why zones could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file in it cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not a file of text that a person would write: a pipe, a device, or far too long.
    #[error("{}: {message}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        message: &'static str,
    },
    /// The file has an entry that is not right.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// Two files have the SOA record of the same zone.
    #[error("{}: the zone {origin} is also in {}", second.display(), first.display())]
    Twice {
        /// The zone's apex.
        origin: String,
        /// The file that was read first.
        first: PathBuf,
        /// The file that repeats it.
        second: PathBuf,
    },
}

/// What a zone file may be long, in bytes. More is not a hand-written file but a mistake.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// The zones of the repository's `zones/` folder. A test keeps this list complete.
const EMBEDDED: &[(&str, &str)] = &[
    ("localhost.zone", include_str!("../../zones/localhost.zone")),
    (
        "127.in-addr.arpa.zone",
        include_str!("../../zones/127.in-addr.arpa.zone"),
    ),
    (
        "0.in-addr.arpa.zone",
        include_str!("../../zones/0.in-addr.arpa.zone"),
    ),
    (
        "255.255.255.255.in-addr.arpa.zone",
        include_str!("../../zones/255.255.255.255.in-addr.arpa.zone"),
    ),
    (
        "loopback.ip6.arpa.zone",
        include_str!("../../zones/loopback.ip6.arpa.zone"),
    ),
    (
        "unspecified.ip6.arpa.zone",
        include_str!("../../zones/unspecified.ip6.arpa.zone"),
    ),
];

impl Zones {
    /// Reads every file in `dir` whose name ends in `.zone`, in alphabetical order. Everything else
    /// is ignored: other endings, folders, and names that start with a dot (what editors leave).
    ///
    /// A name in a file is relative to its `$ORIGIN` line, or without one to the file's own name
    /// less `.zone`. The zone's apex is where its SOA record is.
    ///
    /// # Errors
    /// Every file that cannot be read, and all that is wrong in the others, with the line. Nothing is
    /// loaded then.
    pub fn load(dir: &Path) -> Result<Self, Vec<Error>> {
        let failed = |source| Error::Read {
            path: dir.to_owned(),
            source,
        };
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir).map_err(|error| vec![failed(error)])? {
            let path = entry.map_err(|error| vec![failed(error)])?.path();
            if is_zone_file(&path) && !path.is_dir() {
                paths.push(path);
            }
        }
        paths.sort();
        let mut builder = Builder::default();
        for path in paths {
            match read(&path) {
                Ok(text) => builder.add(path, &text),
                Err(error) => builder.errors.push(error),
            }
        }
        builder.finish()
    }

    /// The zones that come with Portolan, from copies in the binary.
    ///
    /// # Errors
    /// A fault in one of them, which the tests of this room exclude.
    pub fn embedded() -> Result<Self, Vec<Error>> {
        let mut builder = Builder::default();
        for (file, text) in EMBEDDED {
            builder.add(Path::new("zones").join(file), text);
        }
        builder.finish()
    }
}

/// Zones as they come in, with the file of each, to name both when two say the same.
struct Builder {
    zones: Zones,
    files: HashMap<LowerName, PathBuf>,
    errors: Vec<Error>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            zones: Zones::empty(),
            files: HashMap::new(),
            errors: Vec::new(),
        }
    }
}

impl Builder {
    fn finish(self) -> Result<Zones, Vec<Error>> {
        match self.errors.is_empty() {
            true => Ok(self.zones),
            false => Err(self.errors),
        }
    }

    fn add(&mut self, path: PathBuf, text: &str) {
        if let Err(errors) = self.try_to_add(path, text) {
            self.errors.extend(errors);
        }
    }

    fn try_to_add(&mut self, path: PathBuf, text: &str) -> Result<(), Vec<Error>> {
        let syntax = |line, message| Error::Syntax {
            path: path.clone(),
            line,
            message,
        };
        let master = master::parse(text, origin_of(&path)).map_err(|faults| {
            let faults = faults.into_iter();
            let errors = faults.map(|fault| syntax(fault.line, fault.message));
            errors.collect::<Vec<_>>()
        })?;
        let origin = LowerName::new(&master.origin);
        match self.files.entry(origin.clone()) {
            Entry::Occupied(first) => {
                return Err(vec![Error::Twice {
                    origin: master.origin.to_string(),
                    first: first.get().clone(),
                    second: path,
                }]);
            }
            Entry::Vacant(place) => place.insert(path.clone()),
        };
        // hickory checks the zone as a whole; what it holds then is never changed again.
        let mut zone: InMemoryZoneHandler = InMemoryZoneHandler::new(
            master.origin,
            master.records,
            ZoneType::Primary,
            AxfrPolicy::Deny,
        )
        .map_err(|message| vec![syntax(1, message)])?;
        let records = std::mem::take(zone.records_get_mut());
        if let Some(apex) = from_hickory(&origin) {
            let apex = apex.to_lowercase().as_wire().into();
            self.zones.zones.insert(apex, Zone { origin, records });
        }
        Ok(())
    }
}

fn is_zone_file(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|ending| ending == "zone")
}

/// The file's name as an origin; `None` if it is not a name.
fn origin_of(path: &Path) -> Option<Name> {
    let mut name = Name::from_ascii(path.file_stem()?.to_str()?).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let unfit = |message| Error::Unfit {
        path: path.to_owned(),
        message,
    };
    // Looked at before it is opened: to open a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(unfit("not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err(unfit("longer than 64 MiB"));
    }
    String::from_utf8(bytes).map_err(|e| Error::Syntax {
        path: path.to_owned(),
        line: line_at(e.as_bytes(), e.utf8_error().valid_up_to()),
        message: "not UTF-8 text".to_owned(),
    })
}

/// The line, counted from 1, that holds the octet at `offset`.
fn line_at(bytes: &[u8], offset: usize) -> usize {
    1 + bytes.iter().take(offset).filter(|b| **b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOA: &str = "@ 60 IN SOA ns admin 1 2 3 4 5\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("a file");
        }
        dir
    }

    fn error(files: &[(&str, &str)]) -> String {
        let dir = folder(files);
        let error = Zones::load(dir.path())
            .map(|z| z.origins())
            .expect_err("a fault");
        let lines: Vec<String> = error.iter().map(ToString::to_string).collect();
        let text = lines.join("\n");
        text.replace(&format!("{}/", dir.path().display()), "")
    }

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("zones")
    }

    #[test]
    fn only_zone_files_count() {
        let dir = folder(&[
            ("a.test.zone", SOA),
            ("b.zone", &format!("$ORIGIN other.test.\n{SOA}")),
            (".#c.zone", "rubbish"),
            ("d.zone.sample", "rubbish"),
            ("readme", "rubbish"),
        ]);
        fs::create_dir(dir.path().join("consul")).expect("a folder");
        fs::create_dir(dir.path().join("e.zone")).expect("a folder");
        let origins = Zones::load(dir.path()).expect("good zones").origins();
        let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
        assert_eq!(origins, ["a.test.", "other.test."]);
    }

    #[test]
    fn errors_name_file_and_line() {
        let bad = format!("{SOA}a 60 IN A 192.0.2.1\nb 60 IN A nonsense\n");
        let message = error(&[("a.test.zone", &bad), ("ok.zone", SOA)]);
        assert!(
            message.starts_with("a.test.zone:3: not valid A data"),
            "{message}"
        );
        assert_eq!(
            error(&[("a.test.zone", "a 1 A 192.0.2.1\n")]),
            "a.test.zone:1: the zone has no SOA record"
        );
        assert_eq!(
            error(&[
                ("a.test.zone", SOA),
                ("b.zone", &format!("$ORIGIN a.test.\n{SOA}"))
            ]),
            "b.zone: the zone a.test. is also in a.test.zone"
        );
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let bad = format!("{SOA}a 60 IN A nonsense\nb 60 IN A 192.0.2.1\nc 60 IN AAAA 192.0.2.1\n");
        let cut = format!("{SOA}$TTL soon\na IN A nonsense\n");
        let text = error(&[
            ("a.test.zone", &bad),
            ("b.test.zone", &cut),
            ("c.zone", "a 1 A"),
        ]);
        let places: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split(": ").next())
            .collect();
        let expected = [
            "a.test.zone:2",
            "a.test.zone:4",
            "b.test.zone:2",
            "c.zone:1",
        ];
        assert_eq!(places, expected, "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = folder(&[]);
        let missing = dir.path().join("missing");
        let message = Zones::load(&missing)
            .map(|z| z.origins())
            .expect_err("no folder");
        assert!(
            message[0]
                .to_string()
                .starts_with(&missing.display().to_string())
        );

        fs::write(dir.path().join("a.zone"), b"; ok\n\xff\n").expect("a file");
        let message = Zones::load(dir.path())
            .map(|z| z.origins())
            .expect_err("not text");
        assert!(
            message[0].to_string().ends_with("a.zone:2: not UTF-8 text"),
            "{message:?}"
        );

        let dir = folder(&[]);
        std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join("a.zone"))
            .expect("a link");
        let message = Zones::load(dir.path())
            .map(|z| z.origins())
            .expect_err("a dead link");
        assert!(message[0].to_string().contains("a.zone: "), "{message:?}");
    }

    #[test]
    fn the_embedded_zones_are_those_of_the_repository() {
        let mut files: Vec<String> = fs::read_dir(repository())
            .expect("the folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| is_zone_file(path))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        files.sort();
        let mut embedded: Vec<&str> = EMBEDDED.iter().map(|(file, _)| *file).collect();
        embedded.sort_unstable();
        assert_eq!(embedded, files);
        let loaded = Zones::load(&repository()).expect("good zones").origins();
        assert_eq!(Zones::embedded().expect("good zones").origins(), loaded);
        assert_eq!(loaded.len(), files.len());
    }

    #[test]
    fn the_sample_is_a_correct_master_file() {
        let path = repository().join("example.zone.sample");
        let text = fs::read_to_string(path).expect("the sample");
        let mut builder = Builder::default();
        builder.add(PathBuf::from("example.zone"), &text);
        let zones = builder.finish().expect("a correct file");
        assert_eq!(zones.origins().len(), 1);
    }
}
