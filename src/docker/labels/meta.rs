//! `Meta`: what may be said there, and what may not.
//!
//! Registrator copied every `SERVICE_*` variable, passwords too. Here a label `SERVICE_X` becomes
//! the key `x`, since labels can be read by everybody anyhow; a variable only if it is named
//! `SERVICE_META_X`, which nobody does by mistake; and nothing that looks like a secret, wherever
//! it is from. What Consul would refuse the whole registration for is left out alone.

use std::collections::BTreeMap;

use super::values::{Trouble, Values};

/// Consul's limits (`agent/structs`).
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 512;
const MAX_PAIRS: usize = 64;

/// How many of those pairs are left to whoever registers, for marks of its own.
const RESERVED_PAIRS: usize = 8;

/// What keys that are not for users begin with: Consul's, and ours.
const RESERVED_PREFIXES: [&str; 2] = ["consul-", "portolan-"];

/// The keys that mean something else; and everything that begins with `check_`.
const KNOWN: [&str; 11] = [
    "name",
    "id",
    "tags",
    "ignore",
    "ip",
    "network",
    "internal",
    "port",
    "weights_passing",
    "weights_warning",
    "enable_tag_override",
];

/// Words of keys that say that the value is a secret; and every word that ends in `key`.
const SECRET_WORDS: [&str; 14] = [
    "auth",
    "cred",
    "creds",
    "dsn",
    "jwt",
    "keys",
    "pass",
    "passphrase",
    "passwd",
    "private",
    "pw",
    "pwd",
    "salt",
    "psk",
];

/// The same, wherever they stand in a word.
const SECRET_PARTS: [&str; 4] = ["credential", "password", "secret", "token"];

/// The `Meta` of one service.
pub(super) fn meta(values: &Values<'_>, trouble: &mut Trouble<'_>) -> BTreeMap<String, String> {
    let mut meta = BTreeMap::new();
    for (key, value) in values.iter() {
        let named = key.strip_prefix("meta_");
        if value.text.is_empty() || is_known(key) {
            continue;
        }
        let full = format!("SERVICE_{}", key.to_ascii_uppercase());
        let key = named.unwrap_or(key);
        if named.is_none() && !value.is_label {
            if !looks_secret(key, value.text) {
                trouble.note(format!(
                    "the variable {full} is not copied to Meta: make it a label, or name it \
                     SERVICE_META_{}",
                    key.to_ascii_uppercase()
                ));
            }
            continue;
        }
        if looks_secret(key, value.text) {
            trouble.warn(format!(
                "{full} looks like a secret and is kept out of Meta"
            ));
        } else if let Some(reason) = refusal(key, value.text) {
            trouble.warn(format!("{full} is left out of Meta: {reason}"));
        } else if meta.len() >= MAX_PAIRS - RESERVED_PAIRS && !meta.contains_key(key) {
            trouble.warn(format!(
                "{full} is left out of Meta: Consul takes {MAX_PAIRS} pairs, {RESERVED_PAIRS} of \
                 which are reserved"
            ));
        } else {
            meta.insert(key.to_owned(), value.text.to_owned());
        }
    }
    meta
}

fn is_known(key: &str) -> bool {
    KNOWN.contains(&key) || key.starts_with("check_")
}

/// Why Consul would refuse the pair.
fn refusal(key: &str, value: &str) -> Option<&'static str> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key.is_empty() || !key.bytes().all(is_good) {
        Some("Consul takes only letters, digits, - and _ in a key")
    } else if key.len() > MAX_KEY {
        Some("Consul takes keys of up to 128 bytes")
    } else if RESERVED_PREFIXES
        .iter()
        .any(|prefix| key.starts_with(prefix))
    {
        Some("keys that begin with consul- or portolan- are reserved")
    } else if value.len() > MAX_VALUE {
        Some("Consul takes values of up to 512 bytes")
    } else {
        None
    }
}

fn looks_secret(key: &str, value: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| key.contains(part))
        || key
            .split(|c: char| !c.is_ascii_alphabetic())
            .any(|word| word.ends_with("key") || SECRET_WORDS.contains(&word))
        || value.contains("-----BEGIN")
        || has_password(value)
}

/// Is it a URL with a user and a password?
fn has_password(value: &str) -> bool {
    value.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority
            .rsplit_once('@')
            .is_some_and(|(user, _)| user.contains(':'))
    })
}
