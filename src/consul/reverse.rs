//! Learns the addresses of services that nobody watches, for reverse names (D19).
//!
//! It begins with the first question for a reverse name that is no node's. All services are read
//! once, a few at a time; after that new ones at once, and the others slowly in turn.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::debug;

use crate::catalog::{Kind, Layer, Realm, ServiceKey};

use super::json;
use super::request::{Ask, Mode};
use super::watch::Context;

/// Services that are read at a time. Each is a connection to Consul.
const AT_A_TIME: usize = 4;

/// How often new services are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// In this time every service is read anew, if that takes no more than `MAX_PER_LOOK`.
const CYCLE: Duration = Duration::from_secs(60);

/// Services read anew in one look at most: twenty a second.
const MAX_PER_LOOK: usize = 5;

/// Keeps the addresses of all services of a realm known.
pub(super) async fn sweep(context: Context, realm: Arc<Realm>, layer: Arc<Layer>) {
    let mut turn = 0;
    let mut seen = 0;
    let mut complete = false;
    let looks = (CYCLE.as_millis() / LOOK_EVERY.as_millis()) as usize;
    while layer.holds(&realm) {
        let version = realm.version();
        let mut due: Vec<Arc<str>> = Vec::new();
        let names = realm.names();
        if version != seen || !complete {
            let unknown = names.iter().filter(|name| !realm.knows_addresses(name));
            due.extend(unknown.cloned());
        }
        if complete && due.is_empty() && !names.is_empty() {
            let share = names.len().div_ceil(looks).min(MAX_PER_LOOK);
            let unwatched =
                |name: &&Arc<str>| !realm.is_loaded(&ServiceKey::new(Kind::Service, name));
            due.extend(
                names
                    .iter()
                    .skip(turn)
                    .take(share)
                    .filter(unwatched)
                    .cloned(),
            );
            turn = if turn + share >= names.len() {
                0
            } else {
                turn + share
            };
        }
        let all_read = read(&context, &realm, due).await;
        if all_read {
            seen = version;
            if !complete {
                complete = true;
                realm.reverse_complete();
                debug!(
                    services = names.len(),
                    "addresses of all services are known"
                );
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Reads services, a few at a time. False if one could not be read.
async fn read(context: &Context, realm: &Arc<Realm>, names: Vec<Arc<str>>) -> bool {
    let mut names = names.into_iter();
    let mut reads = JoinSet::new();
    let mut all_read = true;
    loop {
        while reads.len() < AT_A_TIME
            && let Some(name) = names.next()
        {
            let context = context.clone();
            let realm = Arc::clone(realm);
            reads.spawn(async move { read_one(&context, &realm, &name).await });
        }
        match reads.join_next().await {
            None => return all_read,
            Some(read) => all_read &= read.unwrap_or(false),
        }
    }
}

async fn read_one(context: &Context, realm: &Realm, name: &str) -> bool {
    let ask = Ask::new(&["health", "service", name]).in_scope(&context.scope_of(realm));
    let Ok(response) = context.get(&ask, Mode::Stale).await else {
        return false;
    };
    json::service(&response.body)
        .map(|service| realm.learn_addresses(name, &service))
        .is_ok()
}
