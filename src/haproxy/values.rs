//! Values of Consul's KV store: which of them are believed. A bad one is refused with its key and the
//! one before it stays.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use crate::consul::KeyValues;

use super::quoting::is_markable;

/// Values by key below the prefix.
pub(super) type Texts = BTreeMap<String, String>;

/// Says what is wrong with the value of a key.
pub(super) type Rule = fn(&str, &str) -> Result<(), String>;

/// What is known of the values.
pub(super) struct Values {
    /// With its final slash.
    prefix: String,
    rule: Rule,
    /// The values that are in the running configuration.
    good: Texts,
    /// There has been one.
    has_good: bool,
    refused: BTreeMap<String, Refusal>,
}

/// A value that is not taken until it is another.
struct Refusal {
    value: Vec<u8>,
    reason: String,
}

impl Values {
    /// `saved` are the values that were good when another process ended, whole keys and values.
    pub(super) fn new(prefix: &str, rule: Rule, saved: Option<&Texts>) -> Self {
        let prefix = format!("{prefix}/");
        let saved_here = saved.into_iter().flatten().filter_map(|(whole, text)| {
            let key = whole.strip_prefix(&prefix)?;
            let text = text_of(text.as_bytes()).ok()?;
            rule(key, &text).ok()?;
            Some((key.to_owned(), text))
        });
        Self {
            good: saved_here.collect(),
            prefix,
            rule,
            has_good: saved.is_some(),
            refused: BTreeMap::new(),
        }
    }

    /// What another process takes as `saved`.
    pub(super) fn to_save(&self) -> Texts {
        let good = self.good.iter();
        good.map(|(key, text)| (self.whole(key), text.clone()))
            .collect()
    }

    /// The values to try: what is right of the new ones, and what was good where one is not.
    pub(super) fn read(&mut self, keys: &KeyValues) -> Texts {
        let mut texts = Texts::new();
        let mut seen = BTreeSet::new();
        for (whole, value) in keys {
            let Some(key) = whole.strip_prefix(&self.prefix) else {
                continue;
            };
            seen.insert(key.to_owned());
            let known = self.refused.get(key);
            let stays_refused = known.is_some_and(|refusal| refusal.value == *value);
            let text = match stays_refused {
                true => None,
                false => match text_of(value).and_then(|text| {
                    (self.rule)(key, &text)?;
                    Ok(text)
                }) {
                    Ok(text) => Some(text),
                    Err(reason) => {
                        self.refuse(key, value, reason);
                        None
                    }
                },
            };
            if text.is_some() && self.refused.remove(key).is_some() {
                info!(key = whole, "the key has a new value, which is tried");
            }
            let text = text.or_else(|| self.good.get(key).cloned());
            texts.extend(text.map(|text| (key.to_owned(), text)));
        }
        self.refused.retain(|key, _| seen.contains(key));
        texts
    }

    /// Refuses a value until it is another.
    pub(super) fn refuse(&mut self, key: &str, value: &[u8], reason: String) {
        let whole = format!("{}{key}", self.prefix);
        warn!(
            key = whole,
            reason, "the value is refused; keeping the one before it"
        );
        let value = value.to_owned();
        self.refused
            .insert(key.to_owned(), Refusal { value, reason });
    }

    /// What is refused is tried again.
    pub(super) fn forget(&mut self) {
        self.refused.clear();
    }

    /// The whole key.
    pub(super) fn whole(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// These values are in the running configuration.
    pub(super) fn adopt(&mut self, texts: Texts) {
        self.good = texts;
        self.has_good = true;
    }

    /// Is anything known to be good, if only that there are no values?
    pub(super) fn has_good(&self) -> bool {
        self.has_good
    }

    /// The values that are in the running configuration.
    pub(super) fn good(&self) -> &Texts {
        &self.good
    }

    /// The keys whose values are others than in the running configuration, or new.
    pub(super) fn changed(&self, texts: &Texts) -> Vec<String> {
        let changed = texts
            .iter()
            .filter(|(key, text)| self.good.get(*key) != Some(text));
        changed.map(|(key, _)| key.clone()).collect()
    }

    /// Whole keys that are refused, with the reasons.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (String, &str)> {
        let refused = self.refused.iter();
        refused.map(|(key, refusal)| (self.whole(key), refusal.reason.as_str()))
    }
}

/// A value as text; an editor's final newline does not matter. Where it may have several lines, its template writes
/// them as lines on purpose only.
fn text_of(value: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(value).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text = text.trim();
    let is_wrong = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if text.chars().any(is_wrong) || !is_markable(text) {
        return Err("it has a control character".to_owned());
    }
    Ok(text.to_owned())
}

fn is_one_line(text: &str) -> Result<(), String> {
    match text.chars().any(char::is_control) {
        true => Err("it has more than one line, or another control character".to_owned()),
        false => Ok(()),
    }
}

/// For templates of users: their keys are their own, and what is in them is quoted.
pub(super) fn any_value(_: &str, _: &str) -> Result<(), String> {
    Ok(())
}

/// HAProxy's timeouts that may stand in `defaults`.
const TIMEOUTS: [&str; 11] = [
    "check",
    "client",
    "client-fin",
    "connect",
    "http-keep-alive",
    "http-request",
    "queue",
    "server",
    "server-fin",
    "tarpit",
    "tunnel",
];

const ALGORITHMS: [&str; 6] = [
    "first",
    "leastconn",
    "random",
    "roundrobin",
    "source",
    "static-rr",
];

/// More connections than any HAProxy has.
const MAX_CONNECTIONS: u32 = 10_000_000;

/// For the template in the program.
pub(super) fn builtin_value(key: &str, text: &str) -> Result<(), String> {
    is_one_line(text)?;
    match key {
        "maxconn" => match text.parse::<u32>() {
            Ok(1..=MAX_CONNECTIONS) => Ok(()),
            _ => Err(format!(
                "expected a number from 1 to {MAX_CONNECTIONS}, got {text:?}"
            )),
        },
        "balance" if ALGORITHMS.contains(&text) => Ok(()),
        "balance" => Err(format!(
            "expected one of {}, got {text:?}",
            ALGORITHMS.join(", ")
        )),
        "check/path" => {
            let right = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
            let expected = || format!("expected a path such as /health, got {text:?}");
            right.then_some(()).ok_or_else(expected)
        }
        // It is a secret: it is not repeated.
        "stats/auth" => match text.split_once(':') {
            Some((user, _)) if !user.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(())
            }
            _ => Err("expected USER:PASSWORD in printable ASCII without blanks".to_owned()),
        },
        _ => match key.strip_prefix("timeouts/") {
            Some(name) if TIMEOUTS.contains(&name) => timeout(text),
            Some(_) => Err(format!(
                "no such timeout; there are {}",
                TIMEOUTS.join(", ")
            )),
            None => Err(
                "no setting of the template in the program, which has maxconn, timeouts/*, \
                 balance, check/path and stats/auth"
                    .to_owned(),
            ),
        },
    }
}

/// HAProxy's form of a time: a number, and a unit or milliseconds.
fn timeout(text: &str) -> Result<(), String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &text[digits.len()..] {
        "us" => Some(0.001),
        "" | "ms" => Some(1.0),
        "s" => Some(1e3),
        "m" => Some(60e3),
        "h" => Some(3_600e3),
        "d" => Some(86_400e3),
        _ => None,
    };
    let millis = digits
        .parse::<u32>()
        .ok()
        .zip(factor)
        .map(|(n, f)| f64::from(n) * f);
    match millis {
        // At 0 HAProxy waits for ever; its timers hold 31 bits of milliseconds.
        Some(millis) if millis >= 1.0 && millis < f64::from(i32::MAX) => Ok(()),
        _ => Err(format!(
            "expected a time above 0 such as 30s, 500ms, or 5000 for milliseconds, got {text:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pairs: &[(&str, &str)]) -> KeyValues {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| (format!("p/{key}"), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn a_bad_value_leaves_the_one_before_it() {
        let mut values = Values::new("p", builtin_value, None);
        let texts = values.read(&keys(&[
            ("maxconn", "100\n"),
            ("timeouts/client", "3s"),
            ("nonsense", ""),
        ]));
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert_eq!(texts["maxconn"], "100");
        values.adopt(texts);
        let texts = values.read(&keys(&[("maxconn", "many"), ("timeouts/client", "4s")]));
        assert_eq!(
            (&*texts["maxconn"], &*texts["timeouts/client"]),
            ("100", "4s")
        );
        assert_eq!(values.changed(&texts), ["timeouts/client"]);
        let refused: Vec<_> = values.refusals().map(|(key, _)| key).collect();
        assert_eq!(refused, ["p/maxconn"], "and no longer p/nonsense");
        let texts = values.read(&keys(&[("maxconn", "200")]));
        assert_eq!(texts["maxconn"], "200");
        assert_eq!(values.refusals().count(), 0);
    }

    #[test]
    fn another_process_knows_what_was_good() {
        let mut values = Values::new("p", builtin_value, None);
        let texts = values.read(&keys(&[("maxconn", "100"), ("balance", "first")]));
        values.adopt(texts);
        let saved = values.to_save();
        let mut later = Values::new("p", builtin_value, Some(&saved));
        assert!(later.has_good());
        let texts = later.read(&keys(&[("maxconn", "many")]));
        assert_eq!(
            texts,
            Texts::from([("maxconn".to_owned(), "100".to_owned())])
        );
        // Of other keys, or by another rule, they are worth nothing.
        let elsewhere = Values::new("q", builtin_value, Some(&saved));
        assert!(elsewhere.good().is_empty());
        let wrong = Texts::from([("p/maxconn".to_owned(), "many".to_owned())]);
        assert!(
            Values::new("p", builtin_value, Some(&wrong))
                .good()
                .is_empty()
        );
    }

    #[test]
    fn a_value_is_one_line() {
        for value in ["a\0b", "a\x1bb", "a\u{f8f0}b"] {
            assert!(text_of(value.as_bytes()).is_err(), "{value:?}");
        }
        // Lines are for templates that ask for them.
        for value in ["1\nbackend x", "a\rb", "a\tb"] {
            assert!(any_value("x", &text_of(value.as_bytes()).expect("text")).is_ok());
            assert!(builtin_value("check/path", value).is_err(), "{value:?}");
        }
        assert!(text_of(b"\xff").is_err());
        assert_eq!(text_of(b" a b \r\n").as_deref(), Ok("a b"));
    }

    #[test]
    fn settings_of_the_built_in_template() {
        for (key, value) in [
            ("maxconn", "1"),
            ("timeouts/client", "5000"),
            ("timeouts/http-keep-alive", "500ms"),
            ("balance", "leastconn"),
            ("check/path", "/health?deep=1"),
            ("stats/auth", "me:it's#secret"),
        ] {
            assert_eq!(builtin_value(key, value), Ok(()), "{key}");
        }
        for (key, value) in [
            ("maxconn", "0"),
            ("maxconn", "4096 nbthread 1"),
            ("maxconn", ""),
            ("timeouts/client", "0"),
            ("timeouts/client", "1 s"),
            ("timeouts/client", "s"),
            ("timeouts/client", "-1s"),
            ("timeouts/client", "99d"),
            ("timeouts/klient", "1s"),
            ("balance", "best"),
            ("check/path", "health"),
            ("check/path", "/a b"),
            ("stats/auth", "me"),
            ("stats/auth", ":pw"),
            ("mxaconn", "1"),
        ] {
            let error = builtin_value(key, value).expect_err(value);
            let shown = key == "stats/auth" && !value.is_empty() && error.contains(value);
            assert!(!shown, "{error}");
        }
    }
}
