//! What cannot be watched and seldom changes: datacenters, cluster peers, which Consul it is.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::sleep;
use tracing::debug;

use crate::catalog::Layer;

use super::contact::Standing;
use super::json;
use super::pace::Pace;
use super::request::{Ask, Mode, RequestError};
use super::watch::Context;

/// How often it is read. An unknown datacenter costs Consul nothing in between.
const EVERY: Duration = Duration::from_secs(60);

/// Reads it again and again.
pub(super) async fn poll_world(context: Context, layer: Arc<Layer>) {
    let mut pace = Pace::of_lists();
    let mut standing = Standing::new(&context.contact, &list_of_datacenters());
    loop {
        standing.begin();
        match datacenters(&context, &layer).await {
            Ok(()) => {
                standing.answered();
                peers(&context, &layer).await;
                enterprise(&context, &layer).await;
                pace.after_success();
                sleep(EVERY).await;
            }
            Err(error) => {
                standing.failed(&error);
                let pause = pace.after_failure(standing.longest_pause(&error));
                if standing.rest(pause).await {
                    pace.start_anew();
                }
            }
        }
    }
}

fn list_of_datacenters() -> Ask {
    Ask::new(&["catalog", "datacenters"])
}

async fn datacenters(context: &Context, layer: &Layer) -> Result<(), RequestError> {
    let response = context.get(&list_of_datacenters(), Mode::Stale).await?;
    layer.publish_datacenters(json::datacenters(&response.body)?);
    Ok(())
}

/// A Consul before 1.13 has no peers, and a token may not be allowed to list them.
async fn peers(context: &Context, layer: &Layer) {
    let ask = Ask::new(&["peerings"]);
    let peers = match context.get(&ask, Mode::Stale).await {
        Ok(response) => json::peers(&response.body),
        Err(RequestError::Status { status, .. }) if status == StatusCode::NOT_FOUND => {
            Ok(Default::default())
        }
        Err(error) => {
            debug!(%error, "cannot read Consul's cluster peers");
            return;
        }
    };
    match peers {
        Ok(peers) => layer.publish_peers(peers),
        Err(error) => debug!(%error, "cannot read Consul's cluster peers"),
    }
}

/// Without the agent's word it is taken for the community edition.
async fn enterprise(context: &Context, layer: &Layer) {
    let ask = Ask::new(&["agent", "self"]);
    match context.get(&ask, Mode::Stale).await {
        Ok(response) => match json::is_enterprise(&response.body) {
            Ok(enterprise) => layer.publish_enterprise(enterprise),
            Err(error) => debug!(%error, "cannot read which Consul this is"),
        },
        Err(error) => debug!(%error, "cannot read which Consul this is"),
    }
}
