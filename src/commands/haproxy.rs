//! `portolan haproxy`: Consul's watches, the supervisor of HAProxy, and the admin server around them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use similar::TextDiff;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admin::{self, Readiness};
use crate::catalog::Catalog;
use crate::config::{Config, Errand, Flags};
use crate::consul;
use crate::haproxy::{self, Feeds, Report, Supervisor};
use crate::secret::TokenSource;

use super::Failure;
use super::build::{self, Mistakes};
use super::process::{self, Signal, Signals};

/// How long everything else may take to end after HAProxy: with its 8 s and one more to be stopped hard,
/// that is within the 10 s that Docker gives a container.
const DRAIN: Duration = Duration::from_millis(500);

/// `portolan haproxy`: keeps an HAProxy right until it is told to stop, or once; `adopt_config` takes over a file that
/// somebody else wrote.
///
/// # Errors
/// [`Failure`]: what kept it from starting, or from making the one change that was asked for.
pub fn haproxy(flags: &Flags, errand: Errand, adopt_config: bool) -> Result<(), Failure> {
    let mut loaded = process::load(Config::of(flags.verb), flags);
    process::start_log(loaded.config.log.format);
    let mut mistakes = Mistakes::of(&mut loaded);
    let client = mistakes.keep(match loaded.config.consul.address {
        Some(_) => build::consul_client(&loaded),
        None => Err(Failure::NoConsul { command: "haproxy" }),
    });
    let (client, _) = mistakes.unless(client)?;
    process::runtime()?.block_on(run(&loaded.config, client, errand, adopt_config))
}

async fn run(
    config: &Config,
    client: consul::Client,
    errand: Errand,
    adopt_config: bool,
) -> Result<(), Failure> {
    let (consul, settings) = (&config.consul, config.haproxy.clone());
    let mut registry = Registry::default();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());

    let (layer, interests) = Catalog::new().add_lazy("consul");
    let mut source = consul::Source::new(
        client.clone(),
        consul,
        Arc::clone(&layer),
        interests,
        consul::Metrics::new(&mut registry),
        stop.clone(),
    );
    let feeds = Feeds {
        layer: Arc::clone(&layer),
        keys: source.watch_keys(&format!("{}/", settings.prefix)),
        tags: source.watch_tags(),
    };
    let metrics = haproxy::Metrics::new(&mut registry);
    let report = Report::default();
    let output = settings.output.clone();
    let mut supervisor = Supervisor::new(settings, feeds, metrics, report.clone()).await?;
    if errand != Errand::DryRun {
        supervisor.claim(adopt_config).await?;
    }
    if let TokenSource::File(_) = consul.token {
        let following = process::follow_token(consul.token.clone(), client, stop.clone());
        tasks.spawn(following);
    }
    tasks.spawn(source.run());

    let result = match errand {
        Errand::Keep => {
            if let Some(address) = config.admin.listen {
                let listener = process::bind_admin(address).await?;
                if let Ok(address) = listener.local_addr() {
                    info!(address = %address, "admin listening");
                }
                let pages = admin::Pages::new(Arc::new(registry))
                    .with_part(layer.name(), only_told(process::readiness_of(layer)))
                    .with_part("haproxy", readiness(report));
                tasks.spawn(admin::serve(listener, pages, stop.clone()));
            }
            keep(supervisor).await
        }
        Errand::Once => supervisor.once().await.map_err(Failure::from),
        Errand::DryRun => {
            let (old, new) = supervisor.preview().await?;
            show(&output, &old, &new);
            Ok(())
        }
    };
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        warn!("stopped before all tasks had ended");
    }
    result
}

/// Runs the supervisor until SIGTERM or SIGINT, and lets it end HAProxy. A second one of them ends the
/// wait for requests in flight.
async fn keep(supervisor: Supervisor) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    let reread = Arc::new(Notify::new());
    let keeping = supervisor.keep(stop.clone(), hurry.clone(), Arc::clone(&reread));
    let mut keeping = std::pin::pin!(keeping);
    let end = || match stop.is_cancelled() {
        true => hurry.cancel(),
        false => stop.cancel(),
    };
    loop {
        tokio::select! {
            () = &mut keeping => break,
            signal = signals.next() => match signal {
                Signal::Stop => end(),
                Signal::Reload => reread.notify_one(),
            },
        }
    }
    info!("stopped");
    Ok(())
}

/// Without Consul, HAProxy goes on: that is told, and makes nothing less ready.
fn only_told(probe: admin::Probe) -> admin::Probe {
    Arc::new(move || match probe() {
        Readiness::NotReady(why) => Readiness::Ready(why),
        ready => ready,
    })
}

fn readiness(report: Report) -> admin::Probe {
    Arc::new(move || match report.ready() {
        Ok(what) => Readiness::Ready(what),
        Err(why) => Readiness::NotReady(why),
    })
}

#[expect(
    clippy::print_stdout,
    reason = "the difference is the command's output"
)]
fn show(file: &Path, old: &str, new: &str) {
    let name = file.display().to_string();
    let diff = TextDiff::from_lines(old, new);
    let diff = diff
        .unified_diff()
        .header(&name, &format!("{name} (new)"))
        .to_string();
    match diff.is_empty() {
        true => println!("{name}: nothing would change"),
        false => print!("{diff}"),
    }
}
