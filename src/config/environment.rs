//! The environment variables of Consul's and Docker's own programs, with the meaning they have there.

use crate::http::Endpoint;

use super::error::{Error, Place};
use super::key::boolean;
use super::keys::KEYS;
use super::load::Loaded;
use super::parse;

/// Variables that are no key's: each changes what another one sets.
const SSL: &str = "CONSUL_HTTP_SSL";
const DOCKER_TLS_VERIFY: &str = "DOCKER_TLS_VERIFY";
const HOME: &str = "HOME";

/// Where variables are looked up: the process's environment, or a map in tests.
pub trait Strings {
    /// The variable's value, if it is set.
    fn get(&self, key: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process;

impl Strings for Process {
    fn get(&self, key: &str) -> Option<String> {
        // A value that is not UTF-8 is kept readable, so that the error about it can show it.
        std::env::var_os(key).map(|value| value.to_string_lossy().into_owned())
    }
}

/// Applies the variables of keys whose table is used over the layers below. An empty one counts as not set,
/// as in Consul.
pub(super) fn apply(env: &dyn Strings, is_used: impl Fn(&str) -> bool, loaded: &mut Loaded) {
    for key in KEYS {
        let table = key.path.split('.').next().unwrap_or_default();
        let Some(variable) = key.variable.filter(|_| is_used(table)) else {
            continue;
        };
        if let Some(text) = get(env, variable) {
            let place = Place::Variable(variable);
            loaded.places.insert(key.path, place.clone());
            if let Err(message) = key.hear(&mut loaded.config, &[text]) {
                loaded.errors.push(Error::new(place, message));
            }
        }
    }
    if is_used("consul") {
        consul_ssl(env, loaded);
    }
    if is_used("docker") {
        docker_tls(env, loaded);
    }
}

/// Only ever towards TLS, as in Consul: `false` leaves an https address what it is.
fn consul_ssl(env: &dyn Strings, loaded: &mut Loaded) {
    let Some(text) = get(env, SSL) else { return };
    match boolean(&text) {
        Ok(true) => {
            let address = &mut loaded.config.consul.address;
            *address = address.take().map(Endpoint::over_tls);
        }
        Ok(false) => {}
        Err(message) => loaded
            .errors
            .push(Error::new(Place::Variable(SSL), message)),
    }
}

/// Any value switches it on, as in Docker: even "0".
fn docker_tls(env: &dyn Strings, loaded: &mut Loaded) {
    if get(env, DOCKER_TLS_VERIFY).is_none() {
        return;
    }
    let docker = &mut loaded.config.docker;
    docker.address = docker.address.clone().over_tls();
    if let (Endpoint::Http(_), None) = (&docker.address, &docker.cert_path) {
        let home = get(env, HOME).and_then(|home| parse::path(&home).ok());
        docker.cert_path = home.map(|home| home.join(".docker"));
    }
}

fn get(env: &dyn Strings, name: &str) -> Option<String> {
    env.get(name).filter(|text| !text.is_empty())
}
