//! The template of haproxy.cfg: what it can ask for, and how its words are kept words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context, escape_formatter};

use crate::catalog::{Health, Instance, Service};
use crate::sources::consul::TagsByName;

use super::values::Texts;

/// The template in the program.
const BUILTIN: &str = include_str!("haproxy.cfg.j2");
const BUILTIN_NAME: &str = "the template in the program";

/// The port of the statistics.
const STATS_PORT: u16 = 1936;

/// A template, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    name: String,
    text: String,
}

/// Why a template gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Its file cannot be read.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is wrong, or asks for what is not there.
    #[error("{place}: {what}")]
    Wrong {
        /// File and line.
        place: String,
        /// What is wrong there.
        what: String,
    },
}

/// What does not change while the program runs.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) prefix: String,
    pub(super) tag: String,
    pub(super) domain: String,
    pub(super) resolver: SocketAddr,
    pub(super) bind: SocketAddr,
    pub(super) stats_bind: Option<SocketAddr>,
    pub(super) stats_auth: Option<String>,
    pub(super) state_file: PathBuf,
}

/// What a template is rendered from.
pub(super) struct Scene {
    pub(super) frame: Frame,
    pub(super) values: Texts,
    pub(super) services: Arc<TagsByName>,
    /// The services that get a backend, with the slots that each of them needs.
    pub(super) slots: BTreeMap<String, usize>,
    pub(super) instances: BTreeMap<String, Arc<Service>>,
    /// There are credentials for the statistics in Consul, and they are not right.
    pub(super) lacks_auth: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// Services whose instances it asked for.
    pub(super) asked: BTreeSet<String>,
}

impl Template {
    /// Reads a file, or takes the template in the program.
    ///
    /// # Errors
    /// If the file cannot be read or is no template.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, TemplateError> {
        let template = match file {
            None => Self {
                name: BUILTIN_NAME.to_owned(),
                text: BUILTIN.to_owned(),
            },
            Some(file) => Self {
                name: file.display().to_string(),
                text: std::fs::read_to_string(file).map_err(|source| TemplateError::File {
                    file: file.to_owned(),
                    source,
                })?,
            },
        };
        let parsed = Environment::new()
            .template_from_named_str(&template.name, &template.text)
            .map(drop);
        parsed.map_err(|error| template.wrong(&error))?;
        Ok(template)
    }

    /// Renders the template.
    ///
    /// # Errors
    /// With file and line, if it is wrong or asks for a key that is not there.
    pub(super) fn render(&self, scene: &Arc<Scene>) -> Result<Rendered, TemplateError> {
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_formatter(|out, state, value| match value.as_str() {
            Some(text) if !value.is_safe() => {
                let word = quoted(text).map_err(|what| invalid(what.to_owned()))?;
                out.write_str(&word).map_err(Error::from)
            }
            _ => escape_formatter(out, state, value),
        });
        add_helpers(&mut environment, scene, &asked);
        let frame = &scene.frame;
        let mut text = environment
            .template_from_named_str(&self.name, &self.text)
            .and_then(|template| {
                template.render(context! {
                    prefix => &frame.prefix,
                    tag => &frame.tag,
                    domain => &frame.domain,
                    resolver => frame.resolver.to_string(),
                    bind => frame.bind.to_string(),
                    state_file => frame.state_file.display().to_string(),
                    stats => stats(scene),
                })
            })
            .map_err(|error| self.wrong(&error))?;
        // HAProxy wants its last line whole.
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let asked = std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Rendered { text, asked })
    }

    fn wrong(&self, error: &Error) -> TemplateError {
        let name = error.name().unwrap_or(&self.name);
        let place = match error.line() {
            Some(line) => format!("{name}:{line}"),
            None => name.to_owned(),
        };
        let what = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        TemplateError::Wrong { place, what }
    }
}

/// The statistics: everybody may see them who can reach them, so without credentials nobody can from
/// elsewhere, unless the operator says so.
fn stats(scene: &Scene) -> Value {
    let key = scene.values.get("stats/auth");
    let auth = key.or(scene.frame.stats_auth.as_ref());
    let address = match auth {
        Some(_) => SocketAddr::from(([0, 0, 0, 0], STATS_PORT)),
        None => SocketAddr::from(([127, 0, 0, 1], STATS_PORT)),
    };
    let mut bind = scene.frame.stats_bind.unwrap_or(address);
    // Whoever wants credentials does not want the page open to all because they are mistyped.
    if auth.is_none() && scene.lacks_auth && !bind.ip().is_loopback() {
        bind.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let bind = bind.to_string();
    context! { bind, auth }
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Text as one word of HAProxy's configuration.
fn quoted(text: &str) -> Result<String, &'static str> {
    if text.chars().any(char::is_control) {
        return Err("a value that is written holds a control character");
    }
    let special = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '\\' | '#');
    if !text.is_empty() && !text.contains(special) {
        return Ok(text.to_owned());
    }
    // Nothing is special between single quotes but their end.
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

/// What a template can call.
fn add_helpers(
    environment: &mut Environment<'_>,
    scene: &Arc<Scene>,
    asked: &Arc<Mutex<BTreeSet<String>>>,
) {
    let from = Arc::clone(scene);
    environment.add_function("key", move |key: String| {
        let relative = from.relative(&key).to_owned();
        let found = from.values.get(&relative).cloned();
        found.ok_or_else(|| {
            let whole = format!("{}/{relative}", from.frame.prefix);
            invalid(format!("there is no key {whole}; `key_or` takes a default"))
        })
    });
    let from = Arc::clone(scene);
    environment.add_function("key_or", move |key: String, default: Value| {
        let found = from.values.get(from.relative(&key));
        found.map_or(default, |text| Value::from(text.clone()))
    });
    let from = Arc::clone(scene);
    environment.add_function("keys", move |below: Option<String>| {
        let below = below.unwrap_or_default();
        let mut inside = from.relative(&below).trim_matches('/').to_owned();
        if !inside.is_empty() {
            inside.push('/');
        }
        let pairs = from.values.iter();
        let pairs = pairs.filter_map(|(key, value)| Some((key.strip_prefix(&inside)?, value)));
        let direct = pairs.filter(|(key, _)| !key.contains('/'));
        direct
            .map(|(key, value)| context! { key, value })
            .collect::<Vec<Value>>()
    });
    let from = Arc::clone(scene);
    environment.add_function("services", move || {
        let services = from.services.iter();
        services
            .map(|(name, tags)| context! { name, tags })
            .collect::<Vec<Value>>()
    });
    let (from, asked) = (Arc::clone(scene), Arc::clone(asked));
    environment.add_function("service", move |name: String| {
        let name = name.to_ascii_lowercase();
        let service = from.instances.get(&name);
        asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name);
        healthy(service)
            .map(|instance| {
                context! {
                    id => &instance.id,
                    address => address(instance),
                    port => instance.port,
                    node => &instance.node.name,
                    tags => &instance.tags,
                    weight => instance.weight(),
                }
            })
            .collect::<Vec<Value>>()
    });
    let from = Arc::clone(scene);
    environment.add_function("tagged", move || {
        let slots = from.slots.iter();
        slots
            .map(|(name, slots)| {
                let tags = from.services.get(name);
                let instances = healthy(from.instances.get(name)).count();
                context! { name, slots, tags, instances }
            })
            .collect::<Vec<Value>>()
    });
}

impl Scene {
    /// Keys may be written whole, as in a template of Consul Template.
    fn relative<'a>(&self, key: &'a str) -> &'a str {
        let key = key.trim_start_matches('/');
        let below = key.strip_prefix(self.frame.prefix.as_str());
        below.and_then(|rest| rest.strip_prefix('/')).unwrap_or(key)
    }
}

/// The instances that DNS would answer with.
fn healthy(service: Option<&Arc<Service>>) -> impl Iterator<Item = &Instance> {
    let instances = service.map(|service| service.instances());
    let instances = instances.unwrap_or_default().iter();
    instances.filter(|instance| instance.health != Health::Critical)
}

/// Where an instance is: its own address, or its node's.
pub(super) fn address(instance: &Instance) -> &str {
    match instance.address.as_str() {
        "" => &instance.node.address,
        own => own,
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
