//! Reconciles whenever something may have changed, until it is told to stop.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::docker::{self, View};

use super::reconciler::Reconciler;

/// First and longest pause while the agent cannot be asked.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Whoever followed the containers has ended, and not because of a stop.
#[derive(Debug, thiserror::Error)]
#[error("the containers are no longer watched; restart Portolan")]
pub struct Unfollowed;

/// Reconciles until the stop: whenever what runs has changed, whenever `mapping` is sent anew, and at
/// every resync. Trouble with either side never ends it. While Docker is away what was last known
/// of it holds.
///
/// # Errors
/// [`Unfollowed`] if nothing will ever be known of the containers again.
pub async fn run(
    reconciler: &mut Reconciler,
    mut view: watch::Receiver<View>,
    mut mapping: watch::Receiver<docker::Settings>,
    stop: &CancellationToken,
) -> Result<(), Unfollowed> {
    let mut pause = None;
    while !stop.is_cancelled() {
        let snapshot = view.borrow_and_update().snapshot.clone();
        // Before the first list nothing is known, and so nothing is done.
        if let Some(snapshot) = snapshot {
            let pass = reconciler.reconcile(&snapshot);
            let Some(result) = stop.run_until_cancelled(pass).await else {
                return Ok(());
            };
            if let Err(error) = result {
                reconciler.unreachable(&error);
                if pause.is_none() {
                    warn!(%error, "cannot use Consul's agent; still trying");
                }
                let length = pause.map_or(FIRST_PAUSE, |pause: Duration| pause * 2);
                let length = length.min(LONGEST_PAUSE);
                pause = Some(length);
                // What changes meanwhile is seen at the next look.
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    Ok(()) = mapping.changed() => adopt(reconciler, &mut mapping),
                    () = sleep(length) => {}
                }
                continue;
            }
            if pause.take().is_some() {
                info!("Consul's agent answers again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Ok(()) = mapping.changed() => adopt(reconciler, &mut mapping),
            changed = view.changed() => if changed.is_err() && !stop.is_cancelled() {
                return Err(Unfollowed);
            },
            () = sleep_until(reconciler.next_look()) => {}
        }
    }
    Ok(())
}

/// Takes over what an operator has sent.
fn adopt(reconciler: &mut Reconciler, mapping: &mut watch::Receiver<docker::Settings>) {
    reconciler.adopt(mapping.borrow_and_update().clone());
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use prometheus_client::registry::Registry;

    use crate::consul::{Agent, Client};
    use crate::http::Tls;
    use crate::register::{Identity, Metrics, Report, Settings};

    use super::*;

    #[tokio::test]
    async fn that_nobody_follows_any_more_is_an_error_unless_told_to_stop() {
        let mapping = docker::Settings {
            reach: docker::Reach::Published,
            explicit: false,
            ip: None,
            host: Ipv4Addr::LOCALHOST.into(),
            tags: Vec::new(),
            host_name: "host".to_owned(),
        };
        // It is never asked: there is no list yet.
        let client = Client::new(&[], &Tls::default(), None).expect("a client");
        let mut reconciler = Reconciler::new(
            Agent::new(client),
            Identity::new("me"),
            Settings {
                mapping: mapping.clone(),
                adopt: false,
                resync: Duration::from_secs(30),
            },
            Metrics::new(&mut Registry::default()),
            Report::default(),
        );
        for is_stopped in [true, false] {
            let (_, view) = watch::channel(View::default());
            let (_mapping, mapping) = watch::channel(mapping.clone());
            let stop = CancellationToken::new();
            if is_stopped {
                stop.cancel();
            }
            let result = run(&mut reconciler, view, mapping, &stop).await;
            assert_eq!(result.is_ok(), is_stopped);
        }
    }
}
