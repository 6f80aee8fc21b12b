//! The API gateways that lead to a service (Consul 2.1). No index tells of them: they are read when they are asked for.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::debug;

use crate::catalog::{Instance, Realm, Scope, Service, ServiceKey, Slot};

use super::client::{Ask, Mode, RequestError, Response};
use super::contact::Context;
use super::json;
use super::subjects::ask_for;

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
    match read(&context, &context.scope_of(&realm), &key).await {
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
    key: &ServiceKey,
) -> Result<Service, RequestError> {
    let get = async |ask: Ask| -> Result<Option<Response>, RequestError> {
        let ask = Ask {
            may_be_refused: true,
            ..ask
        };
        match context.get(&ask, Mode::Stale).await {
            Err(error) if error.is_nothing() => Ok(None),
            response => response.map(Some),
        }
    };
    let of = |path: &[&str]| Ask::new(path).in_scope(scope);
    let mut instances: Vec<Instance> = Vec::new();
    let Some(entries) = get(ask_for(key, scope)).await? else {
        return Ok(Service::new(instances));
    };
    let gateways = json::entry_names(&entries.body)?;
    for gateway in gateways.iter().take(MAX_GATEWAYS) {
        let Some(bound) = get(of(&["catalog", "gateway-services", gateway])).await? else {
            continue;
        };
        let ports = json::gateway_ports(&bound.body, key.name())?;
        if ports.is_empty() {
            continue;
        }
        let Some(response) = get(of(&["health", "service", gateway])).await? else {
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
