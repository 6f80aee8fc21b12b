//! A domain name in wire form.

use std::fmt;

/// RFC 1035 section 2.3.4: the longest name, with its length bytes and the root label.
const MAX_NAME: usize = 255;
/// RFC 1035 section 2.3.4: the longest label.
const MAX_LABEL: usize = 63;

/// Why something is not a domain name (RFC 1035 section 2.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label without bytes before the end of the name.
    #[error("a label is empty")]
    EmptyLabel,
    /// A label of more than 63 bytes.
    #[error("a label is longer than 63 bytes")]
    LongLabel,
    /// A name of more than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    LongName,
}

/// A complete domain name as uncompressed wire bytes (RFC 1035 section 3.1), with its case kept.
/// Names compare byte for byte; see [`Name::to_lowercase`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self(Box::new([0]))
    }

    /// A name from its labels, leftmost first.
    ///
    /// # Errors
    /// [`NameError`] if a label is empty or longer than 63 bytes, or the name than 255.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(64);
        for label in labels {
            if label.is_empty() {
                return Err(NameError::EmptyLabel);
            }
            if label.len() > MAX_LABEL {
                return Err(NameError::LongLabel);
            }
            wire.push(label.len() as u8);
            wire.extend_from_slice(label);
        }
        wire.push(0);
        if wire.len() > MAX_NAME {
            return Err(NameError::LongName);
        }
        Ok(Self(wire.into()))
    }

    /// A name from plain text with dots, such as a host name in Consul; a final dot may be there
    /// or not. There are no escapes: service and node names have none.
    ///
    /// # Errors
    /// As [`Name::from_labels`].
    pub fn from_text(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::root());
        }
        Self::from_labels(text.split('.').map(str::as_bytes))
    }

    /// This name with the labels of `text` in front.
    ///
    /// # Errors
    /// As [`Name::from_labels`].
    pub fn below(&self, text: &str) -> Result<Self, NameError> {
        Self::from_labels(text.split('.').map(str::as_bytes).chain(self.labels()))
    }

    /// The name that wire bytes begin with, and what follows it; `None` if there is none, or it is
    /// compressed.
    pub fn split_from(wire: &[u8]) -> Option<(Self, &[u8])> {
        let mut end = 0;
        loop {
            let length = usize::from(*wire.get(end)?);
            end += 1 + length;
            if length > MAX_LABEL || end > MAX_NAME || end > wire.len() {
                return None;
            }
            if length == 0 {
                let (name, rest) = wire.split_at(end);
                return Some((Self(name.into()), rest));
            }
        }
    }

    /// A name from wire bytes that were checked before.
    pub(super) fn from_checked_wire(wire: &[u8]) -> Self {
        Self(wire.into())
    }

    /// The wire bytes, with the root label at the end.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels, leftmost first, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(&self.0)
    }

    /// The same name in lower case. Length bytes are below 64, so they are no letters.
    pub fn to_lowercase(&self) -> Self {
        Self(self.0.to_ascii_lowercase().into())
    }

    /// Is this name `other` or below it, whatever the case of either (RFC 4343)?
    pub fn is_at_or_below(&self, other: &Self) -> bool {
        offset_of_suffix(&self.0, &other.0).is_some()
    }
}

/// The labels of checked wire bytes, leftmost first, without the root.
pub(crate) fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&len, tail) = rest.split_first()?;
        if len == 0 {
            return None;
        }
        let (label, tail) = tail.split_at_checked(usize::from(len))?;
        rest = tail;
        Some(label)
    })
}

/// Where in `wire` the name `suffix` starts, if `wire` ends in it, whatever the case of either.
pub(crate) fn offset_of_suffix(wire: &[u8], suffix: &[u8]) -> Option<usize> {
    let at = wire.len().checked_sub(suffix.len())?;
    if !wire[at..].eq_ignore_ascii_case(suffix) {
        return None;
    }
    // The bytes agree; they are the same labels only if a label of `wire` starts there.
    let mut start = 0;
    while start < at {
        start += usize::from(wire[start]) + 1;
    }
    (start == at).then_some(at)
}

impl fmt::Display for Name {
    /// Presentation form with a final dot and `\DDD` escapes (RFC 4343 section 2.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_root = true;
        for label in self.labels() {
            is_root = false;
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' => write!(f, "\\{}", char::from(byte))?,
                    b'!'..=b'~' => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        if is_root { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_text(text).expect("a valid name")
    }

    #[test]
    fn limits_are_those_of_rfc_1035() {
        assert_eq!(Name::from_text("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(Name::from_text(&"x".repeat(64)), Err(NameError::LongLabel));
        let long = vec!["x".repeat(63); 4].join(".");
        assert_eq!(Name::from_text(&long), Err(NameError::LongName));
        assert!(Name::from_text(&long[..253]).is_ok());
    }

    #[test]
    fn below_compares_labels_not_bytes() {
        assert!(name("web.Service.CONSUL").is_at_or_below(&name("consul")));
        assert!(name("consul").is_at_or_below(&name("consul.")));
        assert!(!name("notconsul").is_at_or_below(&name("consul")));
        // The bytes "\x06consul" stand inside a longer label here.
        let tricky = Name::from_labels([b"a\x06consul".as_slice()]).expect("a valid label");
        assert!(!tricky.is_at_or_below(&name("consul")));
    }

    #[test]
    fn display_escapes() {
        let odd = Name::from_labels([b"a.b\x00".as_slice(), b"c".as_slice()]).expect("valid");
        assert_eq!(odd.to_string(), "a\\.b\\000.c.");
        assert_eq!(Name::root().to_string(), ".");
    }
}
