//! What a key of `portolan.toml` is: its name, what it means, who else may set it, and how its text
//! becomes a setting. The keys themselves are rows of the table in `keys`.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::flags::Verb;
use super::parse;
use super::settings::Config;

/// One key. Whatever knows keys reads this: the file, the environment, the command line, its help, and
/// the documentation.
pub struct Key {
    /// Its name with its tables, such as `answers.node_ttl`.
    pub path: &'static str,
    /// What it means, in one sentence without a full stop.
    pub help: &'static str,
    /// What holds if nobody sets it, as people write it; `None` if that is nothing, or is found out.
    pub default: Option<&'static str>,
    /// What it may be set to, where there is no default to show.
    pub example: Option<&'static str>,
    /// The flag that sets it.
    pub flag: Option<KeyFlag>,
    /// The environment variable that sets it.
    pub variable: Option<&'static str>,
    pub(super) slot: Slot,
}

/// The flag of a key.
#[derive(Debug, Clone, Copy)]
pub struct KeyFlag {
    /// Its name without dashes.
    pub name: &'static str,
    /// What stands for its value in the help; empty for a flag that takes none and turns the default
    /// round. A comma in it says that one value may hold several.
    pub value: &'static str,
    /// The commands that take it.
    pub verbs: &'static [Verb],
}

/// The form of a key's value, and where it is put.
pub(super) enum Slot {
    /// Text that means something.
    Text(SetText),
    /// A whole number.
    Number(fn(&mut Config, i64) -> Result<(), String>),
    /// A duration.
    Time(fn(&mut Config, Duration) -> Result<(), String>),
    /// True or false.
    Switch(fn(&mut Config, bool)),
    /// A list of texts.
    List {
        /// Forgets what a lower layer listed.
        empty: fn(&mut Config),
        /// Adds one; so an error is that one's.
        add: SetText,
    },
    /// A list of texts, each of which may be a table of two lists as well.
    Rules {
        /// Forgets what a lower layer listed.
        empty: fn(&mut Config),
        /// Adds one.
        add: SetText,
        /// Adds one by its `domains` and `upstreams`.
        add_parts: SetParts,
    },
    /// A table of durations by name.
    Times(fn(&mut Config, &str, Duration) -> Result<(), String>),
}

type SetText = fn(&mut Config, &str) -> Result<(), String>;
type SetParts = fn(&mut Config, &[&str], &[&str]) -> Result<(), String>;

/// What is wrong with a value in the file.
pub(super) struct Fault {
    /// Where in the text.
    pub(super) span: Range<usize>,
    /// The entry that is wrong, if the value is a table.
    pub(super) entry: Option<String>,
    /// What is wrong.
    pub(super) message: String,
}

impl Key {
    /// Is this text, as a flag has it, a value of the key?
    ///
    /// # Errors
    /// What was expected.
    pub fn check(&self, word: &str) -> Result<(), String> {
        self.hear(&mut Config::default(), &[word])
    }

    /// May it have several values?
    pub fn is_list(&self) -> bool {
        matches!(self.slot, Slot::List { .. } | Slot::Rules { .. })
    }

    /// What a flag without a value says: the opposite of the default.
    pub fn turned_round(&self) -> &'static str {
        match self.default {
            Some("true") => "false",
            _ => "true",
        }
    }

    /// Text as `portolan.toml` has a value of this key.
    pub fn in_toml(&self, text: &str) -> String {
        match self.slot {
            Slot::Text(_) | Slot::Time(_) => format!("{text:?}"),
            Slot::Number(_) | Slot::Switch(_) => text.to_owned(),
            Slot::List { .. } | Slot::Rules { .. } => {
                let members = text.split(", ").map(|member| format!("{member:?}"));
                format!("[{}]", members.collect::<Vec<_>>().join(", "))
            }
            Slot::Times(_) => format!("{{ {text} }}"),
        }
    }

    /// Sets what words of a flag or a variable say.
    pub(super) fn hear(
        &self,
        config: &mut Config,
        words: &[impl AsRef<str>],
    ) -> Result<(), String> {
        if let Slot::List { empty, add } | Slot::Rules { empty, add, .. } = self.slot {
            empty(config);
            return words.iter().try_for_each(|word| add(config, word.as_ref()));
        }
        let word = words.last().map_or("", AsRef::as_ref);
        match self.slot {
            Slot::Text(set) => set(config, word),
            Slot::Number(set) => {
                let number = word.parse();
                set(
                    config,
                    number.map_err(|_| format!("expected a number, got {word:?}"))?,
                )
            }
            Slot::Time(set) => set(config, parse::time(word)?),
            Slot::Switch(set) => {
                set(config, boolean(word)?);
                Ok(())
            }
            Slot::List { .. } | Slot::Rules { .. } | Slot::Times(_) => {
                Err("this is set in the configuration file".to_owned())
            }
        }
    }

    /// Sets what the file says. Whatever of it is wrong is left as it was.
    pub(super) fn read(&self, config: &mut Config, value: &Spanned<DeValue<'_>>) -> Vec<Fault> {
        let raw = value.get_ref();
        let set = match (&self.slot, raw) {
            (Slot::Text(set), DeValue::String(text)) => set(config, text),
            (Slot::Text(_), _) => wrong_type("a string", raw),
            (Slot::Number(set), _) => match integer(raw) {
                Some(number) => set(config, number),
                None => wrong_type("a number", raw),
            },
            (Slot::Time(set), _) => duration(raw).and_then(|time| set(config, time)),
            (Slot::Switch(set), DeValue::Boolean(on)) => {
                set(config, *on);
                Ok(())
            }
            (Slot::Switch(_), _) => wrong_type("true or false", raw),
            (Slot::List { empty, add }, DeValue::Array(members)) => {
                empty(config);
                return each(members, |member| match member {
                    DeValue::String(text) => add(config, text),
                    other => wrong_type("a string", other),
                });
            }
            (
                Slot::Rules {
                    empty,
                    add,
                    add_parts,
                },
                DeValue::Array(members),
            ) => {
                empty(config);
                return each(members, |member| match member {
                    DeValue::String(text) => add(config, text),
                    DeValue::Table(rule) => parts(rule)
                        .and_then(|(domains, upstreams)| add_parts(config, &domains, &upstreams)),
                    other => wrong_type("a string or a table", other),
                });
            }
            (Slot::Rules { .. }, _) => wrong_type("a list, as in [[recursion.forward]]", raw),
            (Slot::List { .. }, _) => {
                wrong_type("a list of strings, as in [\"one\", \"two\"]", raw)
            }
            (Slot::Times(set), DeValue::Table(entries)) => {
                let mut seen = Vec::new();
                let mut set = |name: &str, value: &DeValue<'_>| {
                    let lower = name.to_lowercase();
                    if seen.contains(&lower) {
                        return Err(format!("{lower:?} is set twice: case does not matter"));
                    }
                    seen.push(lower);
                    set(config, name, duration(value)?)
                };
                let all = entries.iter().filter_map(|(name, value)| {
                    let set = set(name.get_ref(), value.get_ref());
                    set.err().map(|message| Fault {
                        span: name.span(),
                        entry: Some(name.get_ref().to_string()),
                        message,
                    })
                });
                return all.collect();
            }
            (Slot::Times(_), _) => Err(format!("expected a table, as in [{}]", self.path)),
        };
        let fault = set.err().map(|message| Fault {
            span: value.span(),
            entry: None,
            message,
        });
        fault.into_iter().collect()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.path)
    }
}

/// Adds each member of a list; gives what is wrong with which.
fn each(
    members: &DeArray<'_>,
    mut add: impl FnMut(&DeValue<'_>) -> Result<(), String>,
) -> Vec<Fault> {
    let added = members.iter().filter_map(|member| {
        let message = add(member.get_ref()).err()?;
        Some(Fault {
            span: member.span(),
            entry: None,
            message,
        })
    });
    added.collect()
}

/// The two lists of a rule.
fn parts<'a>(rule: &'a DeTable<'_>) -> Result<(Vec<&'a str>, Vec<&'a str>), String> {
    const NAMES: [&str; 2] = ["domains", "upstreams"];
    let known = |name: &str| NAMES.contains(&name);
    if let Some((name, _)) = rule.iter().find(|(name, _)| !known(name.get_ref())) {
        let name = name.get_ref();
        return Err(format!(
            "unknown key `{name}`, known here: domains, upstreams"
        ));
    }
    let [domains, upstreams] = NAMES.map(|name| {
        let list = rule
            .get(name)
            .ok_or_else(|| format!("`{name}` is missing"))?;
        let DeValue::Array(members) = list.get_ref() else {
            return wrong_type(
                "a list of strings, as in [\"one\", \"two\"]",
                list.get_ref(),
            );
        };
        let texts = members.iter().map(|member| match member.get_ref() {
            DeValue::String(text) => Ok(&**text),
            other => wrong_type("a string", other),
        });
        texts.collect::<Result<Vec<_>, _>>()
    });
    Ok((domains?, upstreams?))
}

/// Says what stands there, never the value: it may be a secret.
fn wrong_type<T>(expected: &str, value: &DeValue<'_>) -> Result<T, String> {
    let got = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Err(format!("expected {expected}, got {got}"))
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A duration with its unit, or whole seconds.
fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    if let DeValue::String(text) = value {
        return parse::time(text);
    }
    match integer(value) {
        Some(seconds) => u64::try_from(seconds)
            .map(Duration::from_secs)
            .map_err(|_| "a duration cannot be negative".to_owned()),
        None => wrong_type(
            "a duration such as \"500ms\", \"1s\" or \"5m\", or whole seconds",
            value,
        ),
    }
}

/// The spellings of Go's `strconv.ParseBool`, as Consul takes them in its variables.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("expected \"true\" or \"false\", got {text:?}")),
    }
}
