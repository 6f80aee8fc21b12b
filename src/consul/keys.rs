//! What Consul's KV store holds under a prefix, for whoever is configured from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tokio::sync::watch::Sender;

use super::pace::Pace;
use super::request::Ask;
use super::watch::{Context, Subject};

/// Values by key, as they are stored. The keys are whole, with the prefix.
pub type KeyValues = BTreeMap<String, Vec<u8>>;

/// `/v1/kv/PREFIX?recurse`.
pub(super) struct Keys {
    context: Context,
    prefix: String,
    published: Sender<Option<Arc<KeyValues>>>,
}

/// An element of the body.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PairJson {
    key: String,
    /// `null` for a key without a value.
    #[serde(default, deserialize_with = "from_base64")]
    value: Vec<u8>,
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    let text = text.unwrap_or_default();
    STANDARD.decode(text).map_err(D::Error::custom)
}

impl Keys {
    pub(super) fn new(
        context: Context,
        prefix: &str,
        published: Sender<Option<Arc<KeyValues>>>,
    ) -> Self {
        Self {
            context,
            prefix: prefix.to_owned(),
            published,
        }
    }
}

impl Subject for Keys {
    /// Consul says 404 when there is no key under the prefix.
    fn ask(&self) -> Ask {
        let mut path = vec!["kv"];
        path.extend(self.prefix.split('/'));
        let scope = self.context.scope_of(self.context.contact.realm());
        let mut ask = Ask::new(&path).in_scope(&scope);
        ask.params.push(("recurse", "true".to_owned()));
        ask.may_be_absent = true;
        ask
    }

    fn pace(&self) -> Pace {
        Pace::of_lists()
    }

    type News = KeyValues;

    fn read(body: &[u8]) -> serde_json::Result<Self::News> {
        if body.is_empty() {
            return Ok(KeyValues::new());
        }
        let pairs: Vec<PairJson> = serde_json::from_slice(body)?;
        // A key that ends in a slash is a folder of Consul's user interface.
        let pairs = pairs.into_iter().filter(|pair| !pair.key.ends_with('/'));
        Ok(pairs.map(|pair| (pair.key, pair.value)).collect())
    }

    fn takes_away(&self, news: &Self::News) -> bool {
        let known = self.published.borrow();
        let mut known = known.iter().flat_map(|known| known.keys());
        known.any(|key| !news.contains_key(key))
    }

    fn empties(&self, news: &Self::News) -> bool {
        let known = self.published.borrow();
        news.is_empty() && known.as_ref().is_some_and(|known| !known.is_empty())
    }

    fn confirmation(&self) -> Ask {
        self.ask()
    }

    fn confirms(&self, body: &[u8]) -> serde_json::Result<bool> {
        Ok(Self::read(body)?.is_empty())
    }

    fn publish(&mut self, news: Self::News) {
        self.context.publish(&self.published, news);
    }

    fn confirmed(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_folders_left_out() {
        let body = br#"[{"Key":"a/","Value":null},{"Key":"a/b","Value":"NDA5Ng=="},
            {"Key":"a/c","Value":null}]"#;
        let keys = Keys::read(body).expect("Consul's form");
        let expected = [("a/b", "4096"), ("a/c", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(keys, KeyValues::from(expected));
        assert!(Keys::read(b"").expect("nothing").is_empty());
        for body in ["{}", "[{\"Key\":\"a\",\"Value\":\"?\"}]", "<html>"] {
            assert!(Keys::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
