//! What is read only when somebody asks: prepared queries, which are executed, and the addresses of all
//! services, for reverse names (D19).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::debug;

use crate::catalog::{
    Absence, Kind, Layer, PreparedKey, PreparedSlot, Realm, Scope, ServiceKey, Sought,
};
use crate::http::is_addressable;

use super::client::{Ask, Mode, RequestError};
use super::contact::Context;
use super::gateways;
use super::json;
use super::subjects::{ask_for, read_instances};

/// No node has this address. Without any, Consul would take ours for the client's.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// How long a result is good that sets no TTL of its own, or none above this.
const SHORTEST: Duration = Duration::from_secs(1);

/// Executes a query once there is a place, and publishes the result.
pub(super) async fn execute(
    context: Context,
    key: PreparedKey,
    slot: Arc<PreparedSlot>,
    places: Arc<Semaphore>,
) {
    let Ok(_place) = places.acquire().await else {
        slot.excuse(Duration::ZERO);
        return;
    };
    if !is_addressable(&key.name) {
        // Consul would be asked for another one.
        slot.executed(None, SHORTEST);
        return;
    }
    let scope = Scope {
        datacenter: key
            .scope
            .datacenter
            .clone()
            .or_else(|| context.datacenter.clone()),
        ..key.scope.clone()
    };
    let ask = Ask {
        client: Some(key.client.unwrap_or(NOBODY)),
        ..Ask::new(&["query", &key.name, "execute"]).in_scope(&scope)
    };
    let result = match context.get(&ask, Mode::Stale).await {
        Ok(response) => json::executed(&response.body)
            .map(Some)
            .map_err(RequestError::from),
        Err(RequestError::Status { status, .. }) if status == StatusCode::NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    };
    match result {
        Ok(executed) => {
            let ttl = executed.as_ref().and_then(|prepared| prepared.ttl);
            let ttl = Duration::from_secs(ttl.unwrap_or(0).into());
            slot.executed(executed, ttl.max(SHORTEST));
        }
        Err(error) => {
            debug!(query = key.name, %error, "cannot execute; keeping what is known");
            slot.excuse(error.asked_to_wait());
        }
    }
}

/// For how long it is remembered that there is nothing of a name: as long as the default TTL of negative
/// answers, which tells everybody else the same.
const ABSENT: Duration = Duration::from_secs(1);

/// Asks for what a list does not have, once there is a place.
pub(super) async fn find(
    context: Context,
    realm: Arc<Realm>,
    sought: Sought,
    absence: Arc<Absence>,
    places: Arc<Semaphore>,
) {
    let Ok(_place) = places.acquire().await else {
        return;
    };
    match look_for(&context, &realm, &sought).await {
        Ok(true) => {
            debug!(?sought, "found what the list does not have yet");
            absence.found();
        }
        Ok(false) => absence.absent(ABSENT),
        Err(error) => {
            debug!(?sought, %error, "cannot find out; the list decides");
            absence.excuse(error.asked_to_wait());
        }
    }
}

/// Does it exist? Then it is published.
async fn look_for(context: &Context, realm: &Realm, sought: &Sought) -> Result<bool, RequestError> {
    let scope = context.scope_of(realm);
    match sought {
        Sought::Service(name) => {
            let ask = Ask::new(&["health", "service", name]).in_scope(&scope);
            let response = context.get(&ask, Mode::Stale).await?;
            let service = json::service(&response.body)?;
            if service.instances().is_empty() {
                return Ok(false);
            }
            realm.found_service(name, service, response.index.unwrap_or(0));
        }
        Sought::Node(name) => {
            let ask = Ask::new(&["catalog", "node", name]).in_scope(&scope);
            let response = context.get(&ask, Mode::Stale).await?;
            let Some(node) = json::node(&response.body)? else {
                return Ok(false);
            };
            realm.found_node(node);
        }
        Sought::Mesh(key) => {
            let instances = match key.kind() {
                Kind::ApiGateway => gateways::read(context, &scope, key).await?,
                kind => match context.get(&ask_for(key, &scope), Mode::Stale).await {
                    Err(error) if error.is_nothing() => return Ok(false),
                    response => read_instances(kind, &response?.body)?,
                },
            };
            if instances.instances().is_empty() {
                return Ok(false);
            }
            realm.found_in_mesh(key, instances);
        }
    }
    context.metrics.published.inc();
    Ok(true)
}

// The addresses of all services are learned from the first question for a reverse name on that is no node's.
// All services are read once, a few at a time; after that new ones at once, and the others slowly in turn.

/// Services that are read at a time. Each is a connection to Consul.
const AT_A_TIME: usize = 4;

/// How often new services are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// In this time every service is read anew, if that takes no more than `MAX_PER_LOOK`.
const CYCLE: Duration = Duration::from_secs(60);

/// Services read anew in one look at most: twenty a second.
const MAX_PER_LOOK: usize = 5;

/// The longest pause after services could not be read; it doubles with every failure.
const LONGEST_LOOK: Duration = Duration::from_secs(8);

/// Keeps the addresses of all services of a realm known.
pub(super) async fn sweep(context: Context, realm: Arc<Realm>, layer: Arc<Layer>) {
    let mut pause = LOOK_EVERY;
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
        pause = match all_read {
            true => LOOK_EVERY,
            false => (pause * 2).min(LONGEST_LOOK),
        };
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
        sleep(pause).await;
    }
}

/// Reads services, a few at a time. False if one could not be read, and then no more of them are.
async fn read(context: &Context, realm: &Arc<Realm>, names: Vec<Arc<str>>) -> bool {
    let mut names = names.into_iter();
    let mut reads = JoinSet::new();
    let mut all_read = true;
    loop {
        while all_read
            && reads.len() < AT_A_TIME
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
