//! `SERVICE_*`: what a container says about its services, in its environment and labels.
//!
//! Registrator's precedence: the environment is read first, then the labels, so that a label
//! replaces a variable of the same key; what is said for a port (`SERVICE_80_NAME`) goes before
//! what is said for all, and what is said for a port and protocol (`SERVICE_53_UDP_NAME`) before
//! both. Keys are not case-sensitive after the prefix.

use std::collections::{BTreeMap, BTreeSet};

use crate::docker::container::{Container, Port, Protocol};

use super::{Problem, Severity};

const PREFIX: &str = "SERVICE_";

/// For which ports something is said; a later one goes before an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    All,
    Number(u16),
    Exact(Port),
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'a> {
    /// The text; may be empty.
    pub(super) text: &'a str,
    /// It is from a label, which everybody may see, and not from the environment.
    pub(super) is_label: bool,
    /// It was said for this port alone.
    pub(super) is_for_port: bool,
}

/// Everything that a container says.
#[derive(Debug)]
pub(super) struct Metadata<'a> {
    entries: BTreeMap<(Scope, String), (&'a str, bool)>,
}

impl<'a> Metadata<'a> {
    pub(super) fn of(container: &'a Container) -> Self {
        let variables = container.env.iter().map(|(key, value)| (key, value, false));
        let labels = container
            .labels
            .iter()
            .map(|(key, value)| (key, value, true));
        let mut entries = BTreeMap::new();
        for (key, text, is_label) in variables.chain(labels) {
            if let Some(key) = key.strip_prefix(PREFIX) {
                entries.insert(scope(&key.to_ascii_lowercase()), (text.as_str(), is_label));
            }
        }
        Self { entries }
    }

    /// What is said for a port.
    pub(super) fn for_port(&self, port: Port) -> Values<'a> {
        let mut values = BTreeMap::new();
        // In the order of the scopes, so that the closer one replaces the wider one.
        for ((scope, key), (text, is_label)) in &self.entries {
            let applies = match scope {
                Scope::All => true,
                Scope::Number(number) => *number == port.number,
                Scope::Exact(exact) => *exact == port,
            };
            if applies {
                let value = Value {
                    text,
                    is_label: *is_label,
                    is_for_port: *scope != Scope::All,
                };
                values.insert(key.clone(), value);
            }
        }
        Values { values }
    }

    /// What is said for all ports under a key, unless it is blank.
    pub(super) fn for_all(&self, key: &str) -> Option<&'a str> {
        let (text, _) = self.entries.get(&(Scope::All, key.to_owned()))?;
        (!text.trim().is_empty()).then_some(text)
    }
}

/// `80_name` is the name for port 80, `53_udp_name` the one for 53/udp.
fn scope(key: &str) -> (Scope, String) {
    let all = || (Scope::All, key.to_owned());
    let Some((number, rest)) = key.split_once('_') else {
        return all();
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return all();
    }
    // A number that is no port is said for a port that does not exist.
    let number = number.parse().unwrap_or(0);
    if let Some((protocol, key)) = rest.split_once('_')
        && let Some(protocol) = Protocol::parse(protocol)
    {
        return (Scope::Exact(Port { number, protocol }), key.to_owned());
    }
    (Scope::Number(number), rest.to_owned())
}

/// What is said for one port, by lower-case key.
#[derive(Debug)]
pub(super) struct Values<'a> {
    values: BTreeMap<String, Value<'a>>,
}

impl<'a> Values<'a> {
    /// The value of a key, unless it is blank.
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        self.value(key).map(|value| value.text)
    }

    /// The same, with where it was said.
    pub(super) fn value(&self, key: &str) -> Option<Value<'a>> {
        let value = self.values.get(key).copied();
        value.filter(|value| !value.text.trim().is_empty())
    }

    /// Is it switched on? Anything but the words for "no" switches it on; Registrator took those
    /// for "yes" too.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let off = ["false", "0", "no", "off"];
        let text = self.get(key)?.trim();
        Some(!off.iter().any(|word| text.eq_ignore_ascii_case(word)))
    }

    /// All keys with their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Value<'a>)> {
        self.values
            .iter()
            .map(|(key, value)| (key.as_str(), *value))
    }
}

/// Takes the problems of one container.
pub(super) struct Trouble<'a> {
    container: &'a str,
    problems: &'a mut BTreeSet<Problem>,
}

impl<'a> Trouble<'a> {
    /// Takes those of this container.
    pub(super) fn of(container: &'a Container, problems: &'a mut BTreeSet<Problem>) -> Self {
        Self {
            container: &container.name,
            problems,
        }
    }

    /// Takes problems that were told already, or concern nobody.
    pub(super) fn unheard(problems: &'a mut BTreeSet<Problem>) -> Self {
        Self {
            container: "",
            problems,
        }
    }

    pub(super) fn reason(&mut self, message: String) {
        self.add(Severity::Reason, message);
    }

    pub(super) fn note(&mut self, message: String) {
        self.add(Severity::Note, message);
    }

    pub(super) fn warn(&mut self, message: String) {
        self.add(Severity::Warning, message);
    }

    fn add(&mut self, severity: Severity, message: String) {
        self.problems.insert(Problem {
            container: self.container.to_owned(),
            severity,
            message,
        });
    }
}
