//! What is wrong with the configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong: one place, one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Error {
    place: Place,
    message: String,
}

impl Error {
    /// An error with the given message at the given place.
    ///
    /// The message is put on one line: some parsers wrap theirs.
    pub(super) fn new(place: Place, message: impl AsRef<str>) -> Self {
        let lines: Vec<&str> = message.as_ref().lines().map(str::trim).collect();
        Self {
            place,
            message: lines.join(", "),
        }
    }

    /// An error about a whole file.
    pub(super) fn file(path: &Path, message: impl AsRef<str>) -> Self {
        let place = Place::File {
            file: path.to_owned(),
            line: None,
            key: None,
        };
        Self::new(place, message)
    }

    /// Where it is wrong.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What is wrong, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// All that is wrong, from the top of the file to its end, then the variables. Never empty. Exit code 78.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(Vec<Error>);

impl Errors {
    pub(super) fn of(mut errors: Vec<Error>) -> Option<Self> {
        errors.sort_by_key(|error| match &error.place {
            Place::File { line, .. } => line.unwrap_or_default(),
            _ => usize::MAX,
        });
        Some(Self(errors)).filter(|errors| !errors.0.is_empty())
    }
}

impl IntoIterator for Errors {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Error::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file, and within it as much as is known.
    File {
        /// As it was named.
        file: PathBuf,
        /// Counted from 1.
        line: Option<usize>,
        /// With its tables: `consul.address`.
        key: Option<String>,
    },
    /// An environment variable.
    Variable(&'static str),
    /// A flag, by its name without dashes.
    Flag(&'static str),
    /// A key that nobody set: its default.
    Default(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, key } => {
                write!(f, "{}", file.display())?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                }
                if let Some(key) = key {
                    write!(f, ": key `{key}`")?;
                }
                Ok(())
            }
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Default(key) => write!(f, "key `{key}`"),
        }
    }
}
