//! `portolan.toml`, the environment and the flags become one validated [`Config`].
//!
//! A flag beats the environment, which beats the file, which beats the default. What can be set stands
//! in one table, [`KEYS`], which every layer reads. Each layer is applied over the one before it in
//! [`Loaded::over`], so the order stands in one place. Whatever is wrong is an [`Error`] that names its
//! place: file, line and key, the variable, or the flag; all of them are found at once.
//!
//! What is set are the rooms' own `Settings`; the rooms know nothing of files, flags and variables.

mod address;
mod environment;
mod error;
mod file;
mod flags;
mod forward;
mod key;
mod keys;
mod load;
pub(crate) mod parse;
mod settings;

pub use environment::{Process, Strings};
pub use error::{Error, Errors, Place};
pub use flags::{Flags, Verb};
pub use key::{Key, KeyFlag};
pub use keys::KEYS;
pub use load::Loaded;
pub use settings::{
    Admin, Config, Docker, Errand, Log, LogFormat, OnExit, Register, Services, Zones,
};

/// The file that is read when `--config` names none; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/portolan/portolan.toml";

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::example;
