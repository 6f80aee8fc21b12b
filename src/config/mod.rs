//! `portolan.toml`, the environment and the flags become one validated [`Config`].
//!
//! A flag beats the environment, which beats the file, which beats the default. Each layer is
//! applied over the one before it in [`Config::load`], so the order stands in one place. Whatever
//! is wrong is an [`Error`] that names its place: file, line and key, or the variable.
//!
//! This room knows no other: it hands out plain addresses, durations and paths, and `commands`
//! turns them into the settings of the rooms that need them.

mod address;
mod containers;
mod docker;
mod document;
mod draft;
mod duration;
mod environment;
mod error;
mod file;
mod flags;
mod keys;
pub mod parse;
mod schema;
mod settings;
mod token;

pub use address::Address;
pub use containers::{Deregister, Docker, OnExit, Register};
pub use docker::DockerAddress;
pub use environment::{Process, Strings};
pub use error::{Error, Place};
pub use flags::{Flags, RegisterFlags, Switch};
pub use settings::{
    Answers, Authorities, ClientCertificate, Config, Consul, LogFormat, Recursion,
    RecursorStrategy, Server, Soa, SrvTarget, Tls, TruncateAddresses, Upstreams,
};
pub use token::{Token, TokenSource};

use std::path::Path;

use draft::Draft;

/// The file that is read when `--config` names none; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/portolan/portolan.toml";

impl Config {
    /// Reads the layers and checks the result.
    ///
    /// The file is `flags.config`, which must exist, or else `default_file`, which may be missing.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn load(
        flags: &Flags,
        env: &dyn Strings,
        default_file: Option<&Path>,
    ) -> Result<Self, Error> {
        Self::load_over(Self::default(), flags, env, default_file)
    }

    /// The same over other defaults than ours, such as those of the agent beside us.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_over(
        base: Self,
        flags: &Flags,
        env: &dyn Strings,
        default_file: Option<&Path>,
    ) -> Result<Self, Error> {
        let mut draft = Draft::over(base);
        if let Some((path, text)) = file::read(flags.config.as_deref(), default_file)? {
            file::apply(&path, &text, &mut draft)?;
            draft.config.file = Some(path);
        }
        // What is not used has variables that mean nothing to us: a broken one must not stop us.
        let serves_docker = flags.serve_docker.unwrap_or(draft.config.docker.serve);
        if flags.with_docker || serves_docker {
            environment::apply_docker(env, &mut draft)?;
        }
        if flags.consul != Some(Switch::Off) {
            environment::apply(env, &mut draft)?;
        }
        flags::apply(flags, &mut draft);
        draft.finish()
    }
}

#[cfg(test)]
mod tests;
