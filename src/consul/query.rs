//! Executes prepared queries.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::catalog::{PreparedKey, PreparedSlot, Scope};

use super::json;
use super::request::{Ask, Mode, RequestError};
use super::watch::Context;

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
        slot.failed();
        return;
    };
    let scope = Scope {
        datacenter: key
            .scope
            .datacenter
            .clone()
            .or_else(|| context.datacenter.clone()),
        ..key.scope.clone()
    };
    let ask = Ask {
        client: Some(key.client),
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
            debug!(query = key.name, %error, "cannot execute; what was known stays");
            slot.failed();
        }
    }
}
