//! The layers, one over the other, and the checks that need more than one key.

use std::collections::BTreeMap;
use std::path::Path;

use crate::recursion::Upstreams;

use super::environment::{self, Strings};
use super::error::{Error, Errors, Place};
use super::flags::{Flags, Verb};
use super::settings::Config;
use super::{file, keys};

/// A configuration with what is wrong with it. Where something is wrong, the layer below holds, so that
/// all the rest can be looked at as well.
#[derive(Debug)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    pub(super) errors: Vec<Error>,
    /// Which layer had the last word on a key.
    pub(super) places: BTreeMap<&'static str, Place>,
}

impl Loaded {
    /// Applies all layers over `base`.
    ///
    /// The file is the one of `flags`, which must exist, or else `default_file`, which may be missing.
    pub fn over(
        base: Config,
        flags: &Flags,
        env: &dyn Strings,
        default_file: Option<&Path>,
    ) -> Self {
        let mut loaded = Self {
            config: base,
            errors: Vec::new(),
            places: BTreeMap::new(),
        };
        match file::read(flags.config.as_deref(), default_file) {
            Ok(Some((path, text))) => {
                file::apply(&path, &text, &mut loaded);
                loaded.config.file = Some(path);
            }
            Ok(None) => {}
            Err(error) => loaded.errors.push(error),
        }
        loaded.hear_environment(flags, env);
        for (path, words) in flags.keys() {
            let Some(key) = keys::find(path) else {
                continue;
            };
            let name = key.flag.map_or(path, |flag| flag.name);
            loaded.places.insert(key.path, Place::Flag(name));
            if let Err(message) = key.hear(&mut loaded.config, words) {
                loaded.errors.push(Error::new(Place::Flag(name), message));
            }
        }
        if flags.verb == Verb::Dev {
            loaded.config.consul.address = None;
        }
        loaded.finish();
        loaded
    }

    /// What is not used has variables that mean nothing to us: a broken one must not stop us.
    fn hear_environment(&mut self, flags: &Flags, env: &dyn Strings) {
        let has_consul = flags.verb != Verb::Dev
            && flags
                .get("consul.address")
                .is_none_or(|said| said != ["none"]);
        let serves_docker = match flags.get("docker.serve") {
            Some(said) => said == ["true"],
            None => self.config.docker.serve && flags.verb == Verb::Serve,
        };
        let is_used = |table: &str| match table {
            "consul" => has_consul,
            "docker" => serves_docker || flags.verb == Verb::Register,
            "haproxy" => flags.verb == Verb::Haproxy,
            _ => true,
        };
        environment::apply(env, is_used, self);
    }

    fn finish(&mut self) {
        let config = &mut self.config;
        let server = &mut config.server;
        server.max_tcp_connections_per_client = server
            .max_tcp_connections_per_client
            .min(server.max_tcp_connections);
        keep_first(&mut server.listen);
        keep_first(&mut config.services.directories);
        if config.recursion.upstreams == Upstreams::List(Vec::new()) {
            config.recursion.upstreams = Upstreams::None;
        }
        config.haproxy.domain.clone_from(&config.domain);

        let (config, mut wrong) = (&self.config, Vec::new());
        if config.server.listen.is_empty() && self.is_right("server.listen") {
            wrong.push(("server.listen", "expected at least one address"));
        }
        if config.alt_domain.as_ref() == Some(&config.domain) {
            wrong.push(("alt_domain", "the same as `domain`: leave it out"));
        }
        let consul = &config.consul;
        match (&consul.address, &consul.client_cert, &consul.client_key) {
            (Some(_), Some(_), None) => wrong.push((
                "consul.client_cert",
                "a client certificate needs its key: set `consul.client_key` or CONSUL_CLIENT_KEY too",
            )),
            (Some(_), None, Some(_)) => wrong.push((
                "consul.client_key",
                "a client key needs its certificate: set `consul.client_cert` or CONSUL_CLIENT_CERT too",
            )),
            _ => {}
        }
        for (key, message) in wrong {
            let error = self.error_at(key, message);
            self.errors.push(error);
        }
    }

    /// Has nothing been said against the value of a key so far?
    fn is_right(&self, key: &str) -> bool {
        let wrong = self.errors.iter().map(Error::place);
        let mut wrong = wrong.filter_map(|place| match place {
            Place::File { key, .. } => key.as_deref(),
            _ => None,
        });
        !wrong.any(|path| path == key)
    }

    /// An error about the value of a key, at the place that has set it.
    pub fn error_at(&self, key: &'static str, message: impl AsRef<str>) -> Error {
        let place = self.places.get(key).cloned();
        Error::new(place.unwrap_or(Place::Default(key)), message)
    }

    /// Takes what is wrong out of it.
    pub fn take_errors(&mut self) -> Vec<Error> {
        let errors = std::mem::take(&mut self.errors);
        Errors::of(errors).into_iter().flatten().collect()
    }

    /// The configuration, if all of it is right.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn into_config(self) -> Result<Config, Errors> {
        match Errors::of(self.errors) {
            None => Ok(self.config),
            Some(errors) => Err(errors),
        }
    }
}

impl Config {
    /// Reads the layers over the command's defaults and checks the result.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn load(
        flags: &Flags,
        env: &dyn Strings,
        default_file: Option<&Path>,
    ) -> Result<Self, Errors> {
        Loaded::over(Self::of(flags.verb), flags, env, default_file).into_config()
    }
}

/// Drops what was listed before: the second bind of one address would fail.
fn keep_first<T: PartialEq>(list: &mut Vec<T>) {
    let mut kept: Vec<T> = Vec::with_capacity(list.len());
    for item in list.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *list = kept;
}
