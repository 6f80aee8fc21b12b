//! What stands around every command: the runtime, the log, signals, the service manager, the token file and
//! the admin socket.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::admin::{self, Readiness};
use crate::catalog::Layer;
use crate::config::{Config, DEFAULT_FILE, Flags, Loaded, LogFormat, Process, Verb};
use crate::consul::Client;
use crate::recursion::{self, ResolvConf};
use crate::router::Router;
use crate::secret::TokenSource;

use super::Failure;

/// What is logged when `RUST_LOG` does not say: our own events, and of libraries only trouble.
const DEFAULT_FILTER: &str = "warn,portolan=info";

/// How often a token file is looked at.
const TOKEN_EVERY: Duration = Duration::from_secs(1);

/// Where the system says who its resolvers are, and how often is looked whether it says something else. What is
/// the same twice counts.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
const RESOLV_CONF_EVERY: Duration = Duration::from_millis(500);

/// The configuration of a command, with what is wrong with it. `dev` needs no file.
pub(super) fn load(base: Config, flags: &Flags) -> Loaded {
    let file = Some(Path::new(DEFAULT_FILE)).filter(|_| flags.verb != Verb::Dev);
    Loaded::over(base, flags, &Process, file)
}

/// Logs to stderr from now on, as text or as JSON lines, filtered by `RUST_LOG`. A second call changes
/// nothing.
pub(super) fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| DEFAULT_FILTER.into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}

/// The runtime of a command.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System {
            what: "start the runtime",
            source,
        })
}

/// Asks whom `resolv.conf` names, as that changes, while the system's resolvers are asked. What is half written
/// is no change, and who names nobody changes nothing.
pub(super) async fn follow_resolv_conf(
    router: Arc<Router>,
    listeners: Vec<SocketAddr>,
    stop: CancellationToken,
) {
    let read = || ResolvConf::read(Path::new(RESOLV_CONF)).unwrap_or_default();
    let mut adopted = read();
    let mut last = adopted.clone();
    let mut told = adopted.passed_over.clone();
    loop {
        let pause = stop.run_until_cancelled(tokio::time::sleep(RESOLV_CONF_EVERY));
        if pause.await.is_none() {
            return;
        }
        let Some(recursor) = router.recursor().filter(|own| own.follows_system()) else {
            continue;
        };
        let now = read();
        let is_still = now == last;
        last = now.clone();
        if !is_still || now == adopted {
            continue;
        }
        adopted = now.clone();
        // A host whose interfaces cannot be listed has no address of ours that could be one of them.
        let own = recursion::own_addresses().unwrap_or_default();
        let now = now.without_loops(&listeners, &own);
        if told != now.passed_over {
            now.warn();
            told.clone_from(&now.passed_over);
        }
        if now.servers.is_empty() {
            warn!("{RESOLV_CONF} names no resolver; those of before are asked");
        } else {
            match recursor.follow(&now.servers) {
                Ok(()) => info!(upstreams = ?now.servers, "{RESOLV_CONF} has changed"),
                Err(error) => warn!(%error, "{RESOLV_CONF} has changed; those of before are asked"),
            }
        }
    }
}

/// Follows the file that the token is in.
pub(super) async fn follow_token(source: TokenSource, client: Client, stop: CancellationToken) {
    let mut last = source.read().ok().flatten();
    let (mut failure, mut told): (Option<String>, Option<String>) = (None, None);
    while stop
        .run_until_cancelled(tokio::time::sleep(TOKEN_EVERY))
        .await
        .is_some()
    {
        let token = match source.read() {
            Ok(Some(token)) => token,
            // A file that is being replaced may be missing or empty for a moment.
            Ok(None) => continue,
            Err(error) => {
                // Told once for each thing that is wrong, if it still is at the second look.
                let text = error.to_string();
                if failure.replace(text.clone()) == Some(text) && told != failure {
                    warn!(%error, "the token cannot be read; keeping the old one");
                    told.clone_from(&failure);
                }
                continue;
            }
        };
        (failure, told) = (None, None);
        if last.as_ref() != Some(&token) {
            match client.set_token(Some(token.expose())) {
                Ok(()) => info!("token read again"),
                Err(error) => error!(%error, "token refused; keeping the old one"),
            }
            last = Some(token);
        }
    }
}

pub(super) async fn bind_admin(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Failure::Admin { address, source })
}

pub(super) fn readiness_of(layer: Arc<Layer>) -> admin::Probe {
    Arc::new(move || {
        let realm = layer.local();
        let why = realm
            .trouble()
            .map_or_else(String::new, |trouble| format!(", {trouble}"));
        if layer.is_too_stale(realm) {
            let seconds = realm.stale_millis().unwrap_or_default() / 1000;
            Readiness::NotReady(format!(
                "older than max_stale: last current {seconds} s ago{why}"
            ))
        } else if realm.is_ready() {
            let (services, nodes) = (realm.service_count(), realm.node_count());
            let age = match (realm.stale_millis(), realm.unread()) {
                (Some(age), _) => format!(", stale: last current {} s ago{why}", age / 1000),
                (None, Some((unread, age))) => {
                    let (what, why) = (unread.what, &unread.why);
                    format!(", {what} last read {} s ago: {why}", age / 1000)
                }
                (None, None) => String::new(),
            };
            Readiness::Ready(format!("{services} services, {nodes} nodes{age}"))
        } else {
            Readiness::NotReady(format!("waiting for the first answer from Consul{why}"))
        }
    })
}

/// Tells in the log why nothing was adopted, a line for each mistake.
pub(super) fn tell_refusal(failure: &Failure) {
    for error in failure.each() {
        error!(%error, "reload refused; keeping everything as it was");
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals that a command listens to.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|source| Failure::System {
                what: "listen for signals",
                source,
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

// What the service manager is told (sd_notify(3)): that we are ready, that we read the configuration
// again, that we stop, and, if it asked for that, that we are alive. Started by anything else, all of this
// does nothing.

/// The sockets are open. Whether names can be answered already is for `/ready` to say: a boot must
/// not wait for Consul.
pub(super) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read again; [`tell_ready`] ends that.
pub(super) fn tell_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no clock for the service manager"),
    }
}

/// The end has begun.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that we are alive, twice as often as the service manager wants to hear it. It is said from
/// the runtime that answers queries, so a runtime that hangs is noticed.
pub(super) async fn keep_alive(stop: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut beat = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    while stop.run_until_cancelled(beat.tick()).await.is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager does not listen");
    }
}
