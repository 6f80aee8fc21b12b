//! What the command line says: a command, and words for keys. It wins over everything else.

use std::path::PathBuf;

use super::keys;
use super::settings::Config;

/// The commands, as far as keys are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `serve`, and `check`, which takes what `serve` takes.
    Serve,
    /// `dev`.
    Dev,
    /// `register`.
    Register,
    /// `haproxy`.
    Haproxy,
}

impl Verb {
    /// Defaults that hold for this command alone. Each listens on an address of its own, so that all of
    /// them can run on one host.
    pub fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Serve => &[],
            Self::Dev => &[("server.listen", "127.0.0.1:8053")],
            Self::Register => &[
                ("admin.listen", "127.0.0.1:8055"),
                ("consul.max_watches", "8"),
            ],
            Self::Haproxy => &[
                ("admin.listen", "127.0.0.1:8056"),
                ("consul.max_watches", "8"),
            ],
        }
    }
}

impl Config {
    /// What holds for a command before anybody has set anything.
    pub fn of(verb: Verb) -> Self {
        let mut config = Self::default();
        for (path, text) in verb.defaults() {
            let heard = keys::find(path).map(|key| key.hear(&mut config, &[text]));
            debug_assert_eq!(heard, Some(Ok(())), "{path}");
        }
        config
    }
}

/// The command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// The command.
    pub verb: Verb,
    /// The file to read instead of the default one.
    pub config: Option<PathBuf>,
    /// Take the agent's own `dns_config` for the defaults.
    pub from_agent: bool,
    /// Words by key.
    keys: Vec<(&'static str, Vec<String>)>,
}

impl Flags {
    /// A command without flags.
    pub fn new(verb: Verb) -> Self {
        Self {
            verb,
            config: None,
            from_agent: false,
            keys: Vec::new(),
        }
    }

    /// Sets a key.
    ///
    /// # Errors
    /// What is wrong with the words, or that there is no such key.
    pub fn set(&mut self, path: &str, words: &[impl AsRef<str>]) -> Result<(), String> {
        let key = keys::find(path).ok_or_else(|| keys::unknown(path))?;
        key.hear(&mut Config::default(), words)?;
        let words = words.iter().map(|word| word.as_ref().to_owned());
        self.keys.push((key.path, words.collect()));
        Ok(())
    }

    /// The same, for a chain of them.
    ///
    /// # Errors
    /// As [`Flags::set`].
    pub fn with(mut self, path: &str, words: &[&str]) -> Result<Self, String> {
        self.set(path, words)?;
        Ok(self)
    }

    /// What was said about a key.
    pub fn get(&self, path: &str) -> Option<&[String]> {
        let said = self.keys.iter().rev().find(|(key, _)| *key == path);
        said.map(|(_, words)| words.as_slice())
    }

    /// All that was said.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        self.keys
            .iter()
            .map(|(key, words)| (*key, words.as_slice()))
    }
}
