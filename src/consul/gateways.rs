//! The API gateways that lead to a service (Consul 2.1). No index tells of them: they are read when they are asked for.

use std::sync::Arc;

use reqwest::StatusCode;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::catalog::{Instance, Realm, Scope, Service, ServiceKey, Slot};

use super::client::{Ask, Mode, RequestError, Response};
use super::contact::Context;
use super::json;

/// Gateways that are looked at for a service. Datacenters have a few.
const MAX_GATEWAYS: usize = 64;

/// Reads them once there is a place, and publishes what there is.
pub(super) async fn refresh(
    context: Context,
    realm: Arc<Realm>,
    key: ServiceKey,
    slot: Arc<Slot<Service>>,
    places: Arc<Semaphore>,
) {
    let Ok(_place) = places.acquire().await else {
        return;
    };
    match read(&context, &context.scope_of(&realm), key.name()).await {
        Ok(gateways) => {
            if realm.publish(&key, &slot, gateways) {
                context.metrics.published.inc();
            }
        }
        Err(error) => {
            debug!(service = %key, %error, "cannot refresh; keeping what is known");
            slot.excuse(error.asked_to_wait());
        }
    }
}

/// The instances of all gateways that have a bound route to the service, each with the port of the listener.
pub(super) async fn read(
    context: &Context,
    scope: &Scope,
    service: &str,
) -> Result<Service, RequestError> {
    let get = async |path: &[&str]| -> Result<Option<Response>, RequestError> {
        let ask = Ask {
            may_be_refused: true,
            ..Ask::new(path).in_scope(scope)
        };
        match context.get(&ask, Mode::Stale).await {
            // A Consul that knows no such gateways, or does not show them to us, has none.
            Err(RequestError::Status { status, .. })
                if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED =>
            {
                Ok(None)
            }
            Err(RequestError::Unsupported(_)) => Ok(None),
            response => response.map(Some),
        }
    };
    let mut instances: Vec<Instance> = Vec::new();
    let Some(entries) = get(&["config", "api-gateway"]).await? else {
        return Ok(Service::new(instances));
    };
    let gateways = json::entry_names(&entries.body)?;
    for gateway in gateways.iter().take(MAX_GATEWAYS) {
        let Some(bound) = get(&["catalog", "gateway-services", gateway]).await? else {
            continue;
        };
        let ports = json::gateway_ports(&bound.body, service)?;
        if ports.is_empty() {
            continue;
        }
        let Some(response) = get(&["health", "service", gateway]).await? else {
            continue;
        };
        let own = json::service(&response.body)?;
        for port in ports {
            instances.extend(own.instances().iter().map(|instance| Instance {
                port,
                ports: Vec::new(),
                ..instance.clone()
            }));
        }
    }
    Ok(Service::new(instances))
}
