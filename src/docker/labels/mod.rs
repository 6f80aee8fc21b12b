//! What should be registered, given what runs. Pure.
//!
//! [`desired`] turns containers into [`Registration`]s in Consul's terms, by what their labels and
//! variables say (`values`): where they are reached (`place`), how they are checked (`check`) and
//! what else is said of them (`meta`). Nothing that one container says affects another.

mod check;
mod meta;
mod place;
mod registration;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tracing::{info, warn};

use crate::catalog::Weights;
use crate::http;

use super::container::{Container, Port, Protocol, Run};

pub use registration::{Check, Probe, Reach, Registration, Settings};

use check::{check, health};
use meta::meta;
use place::{Place, Places, ports};
use values::{Metadata, Trouble, Values};

/// How much a [`Problem`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is wrong: it says why something is not registered, to who asks.
    Reason,
    /// Worth knowing: something is guessed, or works differently than in Registrator.
    Note,
    /// Something that was asked for is left out.
    Warning,
}

/// Something about a container that cannot be done as asked. It never holds the value of a
/// variable or label that is not one of our keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The container's name.
    pub container: String,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, and what is done instead.
    pub message: String,
}

/// What should be registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Sorted by id; ids are unique.
    pub registrations: Vec<Registration>,
    /// Sorted by container, each once.
    pub problems: Vec<Problem>,
    /// Why something is not registered that nothing is wrong with, sorted by container.
    pub reasons: Vec<Problem>,
}

/// Writes the problems to the log that were not told of before, and forgets those that are over.
pub fn tell(told: &mut BTreeSet<Problem>, problems: &[Problem]) {
    for problem in problems.iter().filter(|problem| !told.contains(problem)) {
        let Problem {
            container, message, ..
        } = problem;
        match problem.severity {
            Severity::Reason => {}
            Severity::Note => info!(container, "{message}"),
            Severity::Warning => warn!(container, "{message}"),
        }
    }
    *told = problems.iter().cloned().collect();
}

/// What should be registered when these containers exist. Of two registrations with one id the
/// first stays, by the name of the container. The same containers yield the same registrations,
/// in whatever order they come.
pub fn desired(containers: &[Arc<Container>], settings: &Settings) -> Desired {
    let mut running: Vec<&Container> = containers
        .iter()
        .map(AsRef::as_ref)
        .filter(|container| container.run == Run::Running)
        .collect();
    running.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));

    let mut registrations: BTreeMap<String, Registration> = BTreeMap::new();
    let mut problems = BTreeSet::new();
    for container in running {
        let mut trouble = Trouble::of(container, &mut problems);
        for registration in registrations_of(container, containers, settings, &mut trouble) {
            match registrations.get(&registration.id) {
                None => {
                    registrations.insert(registration.id.clone(), registration);
                }
                Some(first) => trouble.warn(format!(
                    "the service id {:?} is taken by container {}: left out",
                    registration.id, first.container_name
                )),
            }
        }
    }
    let (reasons, problems) = problems
        .into_iter()
        .partition(|problem: &Problem| problem.severity == Severity::Reason);
    Desired {
        registrations: registrations.into_values().collect(),
        problems,
        reasons,
    }
}

fn registrations_of(
    container: &Container,
    all: &[Arc<Container>],
    settings: &Settings,
    trouble: &mut Trouble<'_>,
) -> Vec<Registration> {
    let metadata = Metadata::of(container);
    let ports = ports(container, &metadata, trouble);
    let wanted: Vec<(Port, Values<'_>)> = ports
        .into_iter()
        .map(|port| (port, metadata.for_port(port)))
        .collect();
    if wanted.is_empty() {
        trouble.reason(
            "it exposes and publishes no port: publish one (-p), or name one in SERVICE_PORT"
                .to_owned(),
        );
    }
    for (port, values) in &wanted {
        if let Some(why) = unwanted(values, settings) {
            trouble.reason(format!("port {port}: {why}"));
        }
    }
    // Whoever is left out altogether is not to be told what is wrong with it.
    if wanted
        .iter()
        .all(|(_, values)| unwanted(values, settings).is_some())
    {
        return Vec::new();
    }
    let Some(places) = Places::new(container, all, settings, trouble) else {
        return Vec::new();
    };
    let reached: Vec<(Port, Values<'_>, Place)> = wanted
        .into_iter()
        .filter_map(|(port, values)| {
            let place = places.of(port, &values, trouble)?;
            Some((port, values, place))
        })
        .collect();
    // Ignored ports count, as in Registrator: names do not change with what is ignored.
    let is_group = reached.len() > 1;
    reached
        .into_iter()
        .filter(|(_, values, _)| unwanted(values, settings).is_none())
        .filter_map(|(port, values, place)| {
            let made = registration(container, settings, port, &values, place, is_group, trouble);
            if http::is_addressable(&made.name) {
                return Some(made);
            }
            trouble.warn(format!(
                "Consul could not be asked for the service name {:?}: left out",
                made.name
            ));
            None
        })
        .collect()
}

/// Why it is not to be registered, if it is not.
fn unwanted(values: &Values<'_>, settings: &Settings) -> Option<&'static str> {
    if values.flag("ignore") == Some(true) {
        Some("SERVICE_IGNORE is set")
    } else if settings.explicit && values.get("name").is_none() {
        Some("it has no SERVICE_NAME, and only containers with one are registered (--explicit)")
    } else {
        None
    }
}

fn registration(
    container: &Container,
    settings: &Settings,
    port: Port,
    values: &Values<'_>,
    place: Place,
    is_group: bool,
    trouble: &mut Trouble<'_>,
) -> Registration {
    let socket = SocketAddr::new(place.address, place.port);
    let check = check(values, container, port.number, socket, trouble);
    Registration {
        id: id(container, settings, port, values, is_group, trouble),
        name: name(container, port, values, is_group, trouble),
        tags: tags(settings, port, values),
        address: place.address,
        port: place.port,
        tagged_addresses: place.tagged,
        meta: meta(values, trouble),
        check,
        weights: weights(values, trouble),
        enable_tag_override: values.flag("enable_tag_override") == Some(true),
        container_id: container.id.clone(),
        container_name: container.name.clone(),
        health: health(values, container),
    }
}

fn id(
    container: &Container,
    settings: &Settings,
    port: Port,
    values: &Values<'_>,
    is_group: bool,
    trouble: &mut Trouble<'_>,
) -> String {
    let suffix = match port.protocol {
        Protocol::Tcp => "",
        Protocol::Udp => ":udp",
        Protocol::Sctp => ":sctp",
    };
    let given = values.value("id");
    let usable = given.filter(|given| http::is_addressable(given.text));
    if given.is_some() && usable.is_none() {
        trouble.warn(
            "SERVICE_ID cannot stand in a path, so Consul could not be told to remove it: the \
             usual id is used"
                .to_owned(),
        );
    }
    match usable {
        Some(given) if is_group && !given.is_for_port => {
            trouble
                .note("SERVICE_ID is one id for several ports: the port is added to it".to_owned());
            format!("{}:{}{suffix}", given.text, port.number)
        }
        Some(given) => given.text.to_owned(),
        None => format!(
            "{}:{}:{}{suffix}",
            settings.host_name, container.name, port.number
        ),
    }
}

fn name(
    container: &Container,
    port: Port,
    values: &Values<'_>,
    is_group: bool,
    trouble: &mut Trouble<'_>,
) -> String {
    let given = values.value("name");
    let base = given.map_or_else(|| image_name(container), |given| given.text.trim());
    let name = match is_group && !given.is_some_and(|given| given.is_for_port) {
        true => format!("{base}-{}", port.number),
        false => base.to_owned(),
    };
    let is_label = |name: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        name.len() <= 63 && name.bytes().all(good)
    };
    if !is_label(&name) {
        trouble.note(format!(
            "the service name {name:?} is no DNS label: SERVICE_NAME can give it a better one"
        ));
    }
    name
}

/// The last part of the image's name, without tag and digest, as in Registrator; of an image
/// without a name, the container's.
fn image_name(container: &Container) -> &str {
    let base = container.image.rsplit('/').next().unwrap_or_default();
    let name = base.split(['@', ':']).next().unwrap_or_default();
    if !name.is_empty() {
        name
    } else if !container.name.is_empty() {
        &container.name
    } else {
        &container.id
    }
}

fn tags(settings: &Settings, port: Port, values: &Values<'_>) -> Vec<String> {
    let own = split_tags(values.get("tags").unwrap_or_default());
    let protocol = match port.protocol {
        Protocol::Tcp => None,
        Protocol::Udp => Some("udp".to_owned()),
        Protocol::Sctp => Some("sctp".to_owned()),
    };
    let mut tags: Vec<String> = Vec::new();
    for tag in own.into_iter().chain(settings.tags.clone()).chain(protocol) {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

/// Splits at commas, apart from those with a backslash before them; empty parts are dropped.
fn split_tags(text: &str) -> Vec<String> {
    let mut tags = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek(), tags.last_mut()) {
            ('\\', Some(','), Some(tag)) => {
                characters.next();
                tag.push(',');
            }
            (',', _, _) => tags.push(String::new()),
            (_, _, Some(tag)) => tag.push(character),
            (_, _, None) => {}
        }
    }
    let trimmed = tags.iter().map(|tag| tag.trim().to_owned());
    trimmed.filter(|tag| !tag.is_empty()).collect()
}

fn weights(values: &Values<'_>, trouble: &mut Trouble<'_>) -> Option<Weights> {
    let mut read = |key: &str, least: u16| {
        let text = values.get(key)?;
        let weight = text.trim().parse().ok().filter(|weight| *weight >= least);
        if weight.is_none() {
            let key = key.to_ascii_uppercase();
            trouble.warn(format!(
                "SERVICE_{key} is no number from {least} to 65535: left out"
            ));
        }
        weight
    };
    // Consul refuses a passing weight of 0.
    let (passing, warning) = (read("weights_passing", 1), read("weights_warning", 0));
    (passing.is_some() || warning.is_some()).then(|| Weights {
        passing: passing.unwrap_or(1),
        warning: warning.unwrap_or(1),
    })
}
