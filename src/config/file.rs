//! The file layer: `portolan.toml`, in which every error finds its line and key.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::{Error, Place};
use super::keys;
use super::load::Loaded;

/// Keys that say the same in another way as a key beside them, and that key: which of the two would win is
/// nothing to guess at.
const TWINS: [(&str, &str); 2] = [
    ("consul.token_file", "token"),
    ("consul.ca_path", "ca_file"),
];

/// Reads the file that was asked for, which must exist, or the default one if it exists.
pub(super) fn read(
    asked: Option<&Path>,
    default: Option<&Path>,
) -> Result<Option<(PathBuf, String)>, Error> {
    let Some(path) = asked.or(default) else {
        return Ok(None);
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.to_owned(), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && asked.is_none() => Ok(None),
        Err(error) => Err(Error::file(path, format!("cannot be read: {error}"))),
    }
}

/// Applies the file's text over the defaults, as far as it is right.
pub(super) fn apply(path: &Path, text: &str, loaded: &mut Loaded) {
    let (table, mistakes) = DeTable::parse_recoverable(text);
    let mut file = File { path, text, loaded };
    for mistake in &mistakes {
        let place = file.place(&mistake.span().unwrap_or_default(), None);
        file.wrong(place, mistake.message());
    }
    // What could be read of a file of wrong syntax would lead to mistakes that nobody made.
    if mistakes.is_empty() {
        file.walk("", table.get_ref());
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
    loaded: &'a mut Loaded,
}

impl File<'_> {
    fn place(&self, span: &Range<usize>, key: Option<String>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        Place::File {
            file: self.path.to_owned(),
            line: Some(before.matches('\n').count() + 1),
            key,
        }
    }

    fn wrong(&mut self, place: Place, message: impl AsRef<str>) {
        self.loaded.errors.push(Error::new(place, message));
    }

    fn walk(&mut self, above: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = match above {
                "" => name.get_ref().to_string(),
                _ => format!("{above}.{}", name.get_ref()),
            };
            if let Some(key) = keys::find(&path) {
                let place = self.place(&value.span(), Some(path.clone()));
                let twin = TWINS.iter().find(|(twin, _)| *twin == path);
                if let Some((_, other)) = twin.filter(|(_, other)| table.contains_key(*other)) {
                    self.wrong(
                        place,
                        format!("`{above}.{other}` is set too: keep one of the two"),
                    );
                    continue;
                }
                self.loaded.places.insert(key.path, place);
                for fault in key.read(&mut self.loaded.config, value) {
                    let path = match fault.entry {
                        Some(entry) => format!("{path}.{entry}"),
                        None => path.clone(),
                    };
                    let place = self.place(&fault.span, Some(path));
                    self.wrong(place, fault.message);
                }
                continue;
            }
            match value.get_ref() {
                DeValue::Table(inner) if keys::is_table(&path) => self.walk(&path, inner),
                _ => {
                    let message = match keys::is_table(&path) {
                        true => format!("expected a table, as in [{path}]"),
                        false => keys::unknown(&path),
                    };
                    let place = self.place(&name.span(), Some(path));
                    self.wrong(place, message);
                }
            }
        }
    }
}
