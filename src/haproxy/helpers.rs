//! What a template can call.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, context};

use crate::catalog::{Health, Instance};

use super::program::passes;
use super::quoting::lines;
use super::template::{Model, address, healthy};

/// What is wrong with a call.
pub(super) fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Adds all that a template can call. The services whose instances it asks for are noted in `asked`.
pub(super) fn add_helpers(
    environment: &mut Environment<'_>,
    model: &Arc<Model>,
    asked: &Arc<Mutex<BTreeSet<String>>>,
) {
    let from = Arc::clone(model);
    environment.add_function("key", move |key: String| {
        let relative = from.relative(&key).to_owned();
        let found = from.values.get(&relative).cloned();
        found.ok_or_else(|| {
            let whole = format!("{}/{relative}", from.settings.prefix);
            invalid(format!("there is no key {whole}; `key_or` takes a default"))
        })
    });
    let from = Arc::clone(model);
    environment.add_function("key_or", move |key: String, default: Value| {
        let found = from.values.get(from.relative(&key));
        found.map_or(default, |text| Value::from(text.clone()))
    });
    for (name, is_deep) in [("keys", false), ("tree", true)] {
        let from = Arc::clone(model);
        environment.add_function(name, move |below: Option<String>| {
            let below = below.unwrap_or_default();
            let mut inside = from.relative(&below).trim_matches('/').to_owned();
            if !inside.is_empty() {
                inside.push('/');
            }
            let pairs = from.values.iter();
            let pairs = pairs.filter_map(|(key, value)| Some((key.strip_prefix(&inside)?, value)));
            pairs
                .filter(|(key, _)| is_deep || !key.contains('/'))
                .map(|(key, value)| context! { key, value })
                .collect::<Vec<Value>>()
        });
    }
    environment.add_function("lines", |text: String| {
        let lines = lines(&text).map_err(|what| invalid(what.to_owned()))?;
        Ok::<_, Error>(Value::from_safe_string(lines))
    });
    let from = Arc::clone(model);
    environment.add_function("services", move || {
        let services = from.services.iter();
        services
            .map(|(name, tags)| context! { name, tags })
            .collect::<Vec<Value>>()
    });
    let (from, asked) = (Arc::clone(model), Arc::clone(asked));
    environment.add_function("service", move |wanted: String, options: Kwargs| {
        let mut wanted = Wanted::parse(&wanted, &from)?;
        if let Some(tag) = options.get::<Option<String>>("tag")? {
            wanted.tag = Some(tag);
        }
        options.assert_all_used()?;
        let service = from.instances.get(&wanted.name);
        let instances = service.map(|service| service.instances());
        let instances = instances.unwrap_or_default().iter();
        let instances = instances
            .filter(|instance| wanted.has(instance))
            .map(|instance| {
                context! {
                    id => &instance.id,
                    address => address(instance),
                    port => instance.served_port(),
                    node => &instance.node.name,
                    node_address => &instance.node.address,
                    tags => &instance.tags,
                    weight => instance.weight(),
                    health => in_words(instance.health),
                }
            })
            .collect::<Vec<Value>>();
        asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(wanted.name);
        Ok(instances)
    });
    environment.add_function("json", |text: String| {
        let value: Result<Value, _> = serde_json::from_str(&text);
        value.map_err(|error| invalid(format!("this is not JSON: {error}")))
    });
    environment.add_function("env", |name: String, default: Option<Value>| {
        if !passes(&name) {
            return Err(invalid(format!(
                "the variable {name} is not for templates; those that begin with HAPROXY_ are"
            )));
        }
        let found = std::env::var(&name).ok().map(Value::from);
        found
            .or(default)
            .ok_or_else(|| invalid(format!("there is no variable {name}")))
    });
    let from = Arc::clone(model);
    environment.add_function("tagged", move || {
        let backends = from.backends.iter();
        backends
            .map(|(name, backend)| {
                let (slots, tags) = (backend.slots, &backend.tags);
                let instances = from.instances.get(name);
                let instances = instances.map_or(0, |service| healthy(service).count());
                context! { name, slots, tags, instances }
            })
            .collect::<Vec<Value>>()
    });
}

/// Which instances of a service are asked for: `NAME`, `TAG.NAME`, and each of them with `|any` or with what their health
/// may be, as in `web|passing,warning`.
struct Wanted {
    name: String,
    tag: Option<String>,
    healths: Vec<Health>,
}

const HEALTHS: [Health; 3] = [Health::Passing, Health::Warning, Health::Critical];

/// Those that DNS would answer with.
const WELL: &str = "passing,warning";

impl Wanted {
    fn parse(text: &str, model: &Model) -> Result<Self, Error> {
        let text = text.to_ascii_lowercase();
        let unknown = || {
            invalid(format!(
                "there is no service {text:?}; known are NAME, TAG.NAME, NAME|any and NAME|passing,warning, but no \
                 NAME@DATACENTER and NAME~NEAR"
            ))
        };
        let (name, filter) = text.split_once('|').unwrap_or((text.as_str(), WELL));
        let words = filter.split(',').map(|word| {
            let mut all = HEALTHS.into_iter();
            all.find(|health| in_words(*health) == word.trim())
        });
        let healths = match filter {
            "any" => HEALTHS.to_vec(),
            _ => words.collect::<Option<_>>().ok_or_else(unknown)?,
        };
        // Such a name is of no use in DNS, but there may be one.
        let is_whole = model.services.contains_key(name);
        let (tag, name) = match name.rsplit_once('.') {
            Some((tag, name)) if !is_whole => (Some(tag.to_owned()), name),
            _ => (None, name),
        };
        if !is_whole && name.contains(['.', '@', '~']) {
            return Err(unknown());
        }
        let name = name.to_owned();
        Ok(Self { name, tag, healths })
    }

    fn has(&self, instance: &Instance) -> bool {
        let is_meant = self.healths.contains(&instance.health);
        is_meant && self.tag.as_ref().is_none_or(|tag| instance.has_tag(tag))
    }
}

fn in_words(health: Health) -> &'static str {
    match health {
        Health::Passing => "passing",
        Health::Warning => "warning",
        Health::Critical => "critical",
    }
}
