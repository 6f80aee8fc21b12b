//! How far what we hold can be behind: an index cannot tell that its server is cut off, and a
//! blocking query cannot tell that its agent hangs, so that is asked on its own.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::catalog;

use super::request::{Ask, Mode, RequestError};
use super::watch::Context;

/// How often is asked.
const EVERY: Duration = Duration::from_secs(1);

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(1);

/// Failures in a row that make an outage: one alone may be a restart.
const FAILURES: u32 = 2;

/// How often the age is logged during an outage.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Marks the realm stale while its servers cannot be reached or have no leader, and fresh when
/// they can.
pub(super) async fn follow(context: Context, stop: CancellationToken) {
    stop.run_until_cancelled(run(context)).await;
}

async fn run(context: Context) {
    let contact = &context.contact;
    let realm = contact.realm();
    let ask = Ask::new(&["catalog", "service", "consul"]).in_scope(&context.scope_of(realm));
    let mut failures = 0;
    let mut logged = Instant::now();
    loop {
        let asked = catalog::millis();
        let trouble = match timeout(PATIENCE, context.get(&ask, Mode::Stale)).await {
            Ok(Ok(response)) if response.known_leader => None,
            Ok(Ok(_)) => Some("its servers have no leader".to_owned()),
            // It is there, and has an opinion of us.
            Ok(Err(RequestError::Status { status, .. })) if status.is_client_error() => None,
            Ok(Err(RequestError::RateLimited { .. })) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer in {} s", PATIENCE.as_secs())),
        };
        let age = realm.stale_millis();
        match trouble {
            None => {
                failures = 0;
                contact.note_good(asked);
                if let Some(age) = age.filter(|_| realm.is_ready()) {
                    realm.mark_fresh();
                    contact.revive();
                    info!(
                        seconds = age / 1000,
                        "Consul is back; what is served is current again"
                    );
                }
            }
            Some(trouble) => {
                failures += 1;
                if failures >= FAILURES && age.is_none() {
                    realm.mark_stale(contact.last_good());
                    warn!(trouble, "Consul is away; the last known good is served");
                    logged = Instant::now();
                } else if let Some(age) = age.filter(|_| logged.elapsed() >= LOG_EVERY) {
                    warn!(seconds = age / 1000, trouble, "Consul is still away");
                    logged = Instant::now();
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
