//! The text of `portolan.toml`, in which every error finds its line and key.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::duration::{Time, show};
use super::error::{Error, Place};
use super::keys;

/// The largest TTL of RFC 2181, section 8.
const MAX_TTL: Duration = Duration::from_secs(i32::MAX as u64);

/// A text value as the schema holds it, with its place.
pub(super) type Text = Option<Spanned<String>>;
/// A list of text values.
pub(super) type Texts = Option<Spanned<List>>;
/// A number.
pub(super) type Number = Option<Spanned<i64>>;
/// A duration.
pub(super) type Span = Option<Spanned<Time>>;

/// The members of a list. Serde's own would call itself a sequence in errors.
pub(super) struct List(pub(super) Vec<Spanned<String>>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;

        impl<'de> Visitor<'de> for ListVisitor {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings, as in [\"one\", \"two\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<List, A::Error> {
                let mut list = Vec::new();
                while let Some(member) = members.next_element()? {
                    list.push(member);
                }
                Ok(List(list))
            }
        }

        deserializer.deserialize_seq(ListVisitor)
    }
}

/// A file whose keys are all known.
pub(super) struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    /// Where each key and each value stands, and the key's full name.
    places: Vec<(Range<usize>, String)>,
}

impl<'a> Document<'a> {
    /// Reads the text. Wrong syntax and unknown keys are errors.
    pub(super) fn parse(path: &'a Path, text: &'a str) -> Result<Self, Error> {
        let mut document = Self {
            path,
            text,
            places: Vec::new(),
        };
        let table = DeTable::parse(text).map_err(|error| document.toml_error(&error))?;
        let mut wrong = Vec::new();
        document.walk("", table.get_ref(), &mut wrong);
        // Tables come in alphabetical order; people read from the top.
        match wrong.into_iter().min_by_key(|(span, _)| span.start) {
            Some((span, message)) => Err(document.error(&span, message)),
            None => Ok(document),
        }
    }

    /// Reads the text into the schema. A value of the wrong type is an error.
    pub(super) fn schema<T: DeserializeOwned>(&self) -> Result<T, Error> {
        toml::from_str(self.text).map_err(|error| self.toml_error(&error))
    }

    /// The place of the value that covers the span.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let covers = |place: &Range<usize>| place.start <= span.start && span.end <= place.end;
        let key = self
            .places
            .iter()
            .filter(|(place, _)| covers(place))
            .min_by_key(|(place, _)| place.len())
            .map(|(_, key)| key.clone());
        let before = self.text.get(..span.start).unwrap_or(self.text);
        Place::File {
            file: self.path.to_owned(),
            line: Some(before.matches('\n').count() + 1),
            key,
        }
    }

    /// An error about the value that covers the span.
    pub(super) fn error(&self, span: &Range<usize>, message: impl AsRef<str>) -> Error {
        Error::new(self.place(span), message)
    }

    /// Sets the target if there is a value, after the check has turned it into the right type.
    pub(super) fn set<R, T>(
        &self,
        target: &mut T,
        raw: Option<Spanned<R>>,
        check: impl FnOnce(R) -> Result<T, String>,
    ) -> Result<(), Error> {
        if let Some(raw) = raw {
            let span = raw.span();
            *target = check(raw.into_inner()).map_err(|message| self.error(&span, message))?;
        }
        Ok(())
    }

    /// Sets the target to a text value.
    pub(super) fn text<T>(
        &self,
        target: &mut T,
        raw: Text,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<(), Error> {
        self.set(target, raw, |text| parse(&text))
    }

    /// Sets the target to a text value that may be missing otherwise.
    pub(super) fn optional<T>(
        &self,
        target: &mut Option<T>,
        raw: Text,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<(), Error> {
        self.set(target, raw, |text| parse(&text).map(Some))
    }

    /// Sets the target to a list of text values. The error is at the one that is wrong.
    pub(super) fn list<T>(
        &self,
        target: &mut Vec<T>,
        raw: Texts,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<(), Error> {
        let Some(raw) = raw else { return Ok(()) };
        *target = raw
            .into_inner()
            .0
            .into_iter()
            .map(|text| parse(text.get_ref()).map_err(|message| self.error(&text.span(), message)))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Sets the target to a number within the range.
    pub(super) fn number<T: TryFrom<i64>>(
        &self,
        target: &mut T,
        raw: Number,
        range: RangeInclusive<i64>,
    ) -> Result<(), Error> {
        self.set(target, raw, |number| {
            let inside = Some(number).filter(|number| range.contains(number));
            inside
                .and_then(|number| T::try_from(number).ok())
                .ok_or_else(|| {
                    format!(
                        "expected {} to {}, got {number}",
                        range.start(),
                        range.end()
                    )
                })
        })
    }

    /// Sets the target to a duration within the range.
    pub(super) fn time(
        &self,
        target: &mut Duration,
        raw: Span,
        range: RangeInclusive<Duration>,
    ) -> Result<(), Error> {
        self.set(target, raw, |Time(time)| match range.contains(&time) {
            true => Ok(time),
            false => Err(format!(
                "expected {} to {}, got {}",
                show(*range.start()),
                show(*range.end()),
                show(time)
            )),
        })
    }

    /// Sets the target to a duration that a DNS record can hold.
    pub(super) fn seconds(&self, target: &mut Duration, raw: Span) -> Result<(), Error> {
        self.set(target, raw, |Time(time)| {
            if time.subsec_nanos() != 0 {
                return Err(format!("DNS counts whole seconds, got {}", show(time)));
            }
            match time <= MAX_TTL {
                true => Ok(time),
                false => Err(format!("expected {} at most", show(MAX_TTL))),
            }
        })
    }

    fn toml_error(&self, error: &toml::de::Error) -> Error {
        match error.span() {
            // Serde's message repeats a value of the wrong type.
            Some(span) => match self.place(&span) {
                place @ Place::File { .. } if is_secret(&place) => {
                    Error::new(place, "expected a string")
                }
                place => Error::new(place, error.message()),
            },
            None => Error::file(self.path, error.message()),
        }
    }

    /// Notes the places of all keys below the given one, and those that should not be there.
    fn walk(&mut self, above: &str, table: &DeTable<'_>, wrong: &mut Vec<(Range<usize>, String)>) {
        for (key, value) in table {
            let path = match above {
                "" => key.get_ref().to_string(),
                _ => format!("{above}.{}", key.get_ref()),
            };
            self.places.push((key.span(), path.clone()));
            self.places.push((value.span(), path.clone()));
            match value.get_ref() {
                DeValue::Table(inner) if path == keys::SERVICE_TTL => {
                    // Its keys are names of services: whatever they are, they are known.
                    for (name, ttl) in inner {
                        let path = format!("{path}.{}", name.get_ref());
                        self.places.push((name.span(), path.clone()));
                        self.places.push((ttl.span(), path));
                    }
                }
                _ if keys::is_key(&path) && path != keys::SERVICE_TTL => {}
                DeValue::Table(inner) if keys::is_table(&path) => self.walk(&path, inner, wrong),
                _ if keys::is_table(&path) || path == keys::SERVICE_TTL => {
                    wrong.push((key.span(), format!("expected a table, as in [{path}]")));
                }
                _ => wrong.push((key.span(), keys::unknown(&path))),
            }
        }
    }
}

fn is_secret(place: &Place) -> bool {
    matches!(place, Place::File { key: Some(key), .. } if key == "consul.token")
}
