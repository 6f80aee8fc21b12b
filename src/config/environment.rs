//! The environment variables of Consul's and Docker's own programs, with the meaning they have there.

use std::path::PathBuf;

use super::address::Address;
use super::docker::DockerAddress;
use super::draft::{Draft, Placed};
use super::error::{Error, Place};
use super::flags::Switch;
use super::parse;
use super::settings::Authorities;
use super::token::{Token, TokenSource};

const ADDRESS: &str = "CONSUL_HTTP_ADDR";
const TOKEN: &str = "CONSUL_HTTP_TOKEN";
const TOKEN_FILE: &str = "CONSUL_HTTP_TOKEN_FILE";
const SSL: &str = "CONSUL_HTTP_SSL";
const SSL_VERIFY: &str = "CONSUL_HTTP_SSL_VERIFY";
const CA_FILE: &str = "CONSUL_CACERT";
const CA_PATH: &str = "CONSUL_CAPATH";
const CLIENT_CERT: &str = "CONSUL_CLIENT_CERT";
const CLIENT_KEY: &str = "CONSUL_CLIENT_KEY";
const SERVER_NAME: &str = "CONSUL_TLS_SERVER_NAME";
const DOCKER_HOST: &str = "DOCKER_HOST";
const DOCKER_TLS_VERIFY: &str = "DOCKER_TLS_VERIFY";
const DOCKER_CERT_PATH: &str = "DOCKER_CERT_PATH";
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

/// Applies the variables over the layers below.
pub(super) fn apply(env: &dyn Strings, draft: &mut Draft) -> Result<(), Error> {
    if let Some(address) = read(env, ADDRESS, |text| {
        parse::or_none(text, Address::parse_as_consul)
    })? {
        draft.address = address;
    }
    // Only ever towards TLS, as in Consul: `false` leaves an https address what it is.
    if read(env, SSL, boolean)? == Some(true)
        && let Switch::On(address) = &draft.address
    {
        draft.address = Switch::On(address.clone().over_tls());
    }

    // A token file wins over a token, as in Consul.
    if let Some(token) = read(env, TOKEN, Token::new)? {
        draft.consul.token = TokenSource::Given(token);
    }
    if let Some(path) = read(env, TOKEN_FILE, parse::path)? {
        draft.consul.token = TokenSource::File(path);
    }

    let tls = &mut draft.consul.tls;
    if let Some(verify) = read(env, SSL_VERIFY, boolean)? {
        tls.verify = verify;
    }
    // A file of authorities wins over a directory, as in Consul.
    if let Some(path) = read(env, CA_PATH, parse::path)? {
        tls.authorities = Authorities::Directory(path);
    }
    if let Some(path) = read(env, CA_FILE, parse::path)? {
        tls.authorities = Authorities::File(path);
    }
    if let Some(name) = read(env, SERVER_NAME, parse::domain)? {
        tls.server_name = Some(name);
    }
    set_placed(env, CLIENT_CERT, &mut draft.client_cert)?;
    set_placed(env, CLIENT_KEY, &mut draft.client_key)
}

/// Applies Docker's variables over the layers below.
pub(super) fn apply_docker(env: &dyn Strings, draft: &mut Draft) -> Result<(), Error> {
    let docker = &mut draft.config.docker;
    if let Some(address) = read(env, DOCKER_HOST, DockerAddress::parse)? {
        docker.address = address;
    }
    if let Some(path) = read(env, DOCKER_CERT_PATH, parse::path)? {
        docker.cert_path = Some(path);
    }
    // Any value switches it on, as in Docker: even "0".
    if read(env, DOCKER_TLS_VERIFY, |_| Ok(()))?.is_some() {
        docker.address = docker.address.clone().over_tls();
        if let (DockerAddress::Http(_), None) = (&docker.address, &docker.cert_path) {
            let home = read(env, HOME, parse::path)?;
            docker.cert_path = home.map(|home| home.join(".docker"));
        }
    }
    Ok(())
}

fn set_placed(
    env: &dyn Strings,
    name: &'static str,
    target: &mut Placed<PathBuf>,
) -> Result<(), Error> {
    if let Some(path) = read(env, name, parse::path)? {
        *target = Some((path, Place::Variable(name)));
    }
    Ok(())
}

/// Reads one variable. An empty one counts as not set, as in Consul.
fn read<T>(
    env: &dyn Strings,
    name: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Error> {
    env.get(name)
        .filter(|text| !text.is_empty())
        .map(|text| parse(&text))
        .transpose()
        .map_err(|message| Error::new(Place::Variable(name), message))
}

/// The spellings of Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("expected \"true\" or \"false\", got {text:?}")),
    }
}
