//! The services with their tags, for whoever chooses services by tag. The names that DNS answers
//! with are a watch of their own (`service.rs`), which does not care for tags.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch::Sender;

use super::json;
use super::pace::Pace;
use super::request::Ask;
use super::service::OWN_SERVICE;
use super::watch::{Context, Subject};

/// The tags of each service, which are those of all its instances. Names are in lower case.
pub type TagsByName = BTreeMap<String, BTreeSet<String>>;

/// `/v1/catalog/services`, with the tags.
pub(super) struct Tags {
    context: Context,
    published: Sender<Option<Arc<TagsByName>>>,
}

impl Tags {
    pub(super) fn new(context: Context, published: Sender<Option<Arc<TagsByName>>>) -> Self {
        Self { context, published }
    }

    fn known(&self) -> Arc<TagsByName> {
        self.published.borrow().clone().unwrap_or_default()
    }
}

impl Subject for Tags {
    fn ask(&self) -> Ask {
        let scope = self.context.scope_of(self.context.contact.realm());
        Ask::new(&["catalog", "services"]).in_scope(&scope)
    }

    fn pace(&self) -> Pace {
        Pace::of_lists()
    }

    type News = TagsByName;

    fn read(body: &[u8]) -> serde_json::Result<Self::News> {
        json::service_tags(body)
    }

    fn takes_away(&self, news: &Self::News) -> bool {
        self.known().iter().any(|(name, tags)| {
            let now = news.get(name);
            now.is_none_or(|now| !tags.is_subset(now))
        })
    }

    fn empties(&self, news: &Self::News) -> bool {
        let has_others = |tags: &TagsByName| tags.keys().any(|name| name != OWN_SERVICE);
        !has_others(news) && has_others(&self.known())
    }

    fn confirmation(&self) -> Ask {
        self.ask()
    }

    /// As for the names: where the servers' own service was seen, it is still there.
    fn confirms(&self, body: &[u8]) -> serde_json::Result<bool> {
        let news = json::service_tags(body)?;
        let is_whole = news.contains_key(OWN_SERVICE) || !self.known().contains_key(OWN_SERVICE);
        Ok(news.len() <= 1 && is_whole)
    }

    fn publish(&mut self, news: Self::News) {
        self.context.publish(&self.published, news);
    }

    fn confirmed(&mut self) {}
}
