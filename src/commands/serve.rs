//! `portolan serve`: sources, catalog, answers, sockets, and the admin server around them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{self, Readiness};
use crate::catalog::{Catalog, Layer};
use crate::config::{self, Config, DEFAULT_FILE, Flags, Process};
use crate::consul::{self, Client};
use crate::files::{self, Origin};
use crate::recursion::{self, Recursor};
use crate::router::Router;
use crate::server::{self, Bound, Server, bind};
use crate::zones::Zones;

use super::signals::{Signal, Signals};
use super::{Failure, agent, logging, notify, parts};

/// How long queries that were taken may go on after a stop, and then how long everything else.
/// Together they stay below the 5 s that a stop may take.
const DRAIN_QUERIES: Duration = Duration::from_millis(3500);
const DRAIN_REST: Duration = Duration::from_secs(1);

/// What is served besides Consul's catalog.
pub(super) struct Inputs {
    pub(super) origins: Vec<Origin>,
    pub(super) zones: Zones,
}

/// `portolan serve`: runs the server until it is told to stop.
///
/// # Errors
/// [`Failure`]: what kept it from starting.
pub fn serve(flags: &Flags) -> Result<(), Failure> {
    let file = Some(Path::new(DEFAULT_FILE));
    let mut base = Config::default();
    let sockets = server::inherited()?;
    let listen: Vec<_> = sockets.iter().map(|bound| bound.address).collect();
    let load = |base: &Config| {
        let mut config = Config::load_over(base.clone(), flags, &Process, file)?;
        // Where to listen was decided by who opened the sockets.
        if !listen.is_empty() {
            config.server.listen.clone_from(&listen);
        }
        Ok(config)
    };
    let mut config = load(&base)?;
    logging::start(config.log);
    let runtime = runtime()?;
    if flags.from_agent {
        base = runtime.block_on(agent::defaults(&config))?;
        config = load(&base)?;
    }
    let inputs = |config: &Config| {
        Ok(Inputs {
            origins: parts::service_origins(config),
            zones: parts::zones(config)?,
        })
    };
    run(&runtime, &config, sockets, &inputs, &|| load(&base))
}

/// The runtime for everything that waits.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System {
            what: "start the runtime",
            source,
        })
}

/// Starts everything, serves, and stops. `sockets` are those that were open already; `inputs` and
/// `load` are asked again on SIGHUP.
pub(super) fn run(
    runtime: &Runtime,
    config: &Config,
    sockets: Vec<Bound>,
    inputs: &dyn Fn(&Config) -> Result<Inputs, Failure>,
    load: &dyn Fn() -> Result<Config, config::Error>,
) -> Result<(), Failure> {
    runtime.block_on(async {
        let running = Running::start(config, sockets, inputs(config)?).await?;
        notify::ready();
        let signals = wait_for_stop(&running, inputs, load).await;
        notify::stopping();
        running.stop().await;
        signals
    })
}

/// Everything that runs.
struct Running {
    server: Server,
    router: Arc<Router>,
    recursion_metrics: recursion::Metrics,
    consul: Option<Client>,
    tasks: TaskTracker,
    /// Stops everything but the server, which is drained first.
    stop: CancellationToken,
}

impl Running {
    async fn start(config: &Config, sockets: Vec<Bound>, inputs: Inputs) -> Result<Self, Failure> {
        let mut registry = Registry::default();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();

        // What can be wrong with the configuration is found out before a socket is opened, and
        // the sockets are opened before Consul is asked for anything.
        let recursion_metrics = recursion::Metrics::register(&mut registry);
        let recursor = recursor(config, &recursion_metrics)?;
        let client = config
            .consul
            .as_ref()
            .map(parts::consul_client)
            .transpose()?;
        // A name belongs to the first source that has it; Consul, which may be away, goes last.
        let mut catalog = Catalog::new();
        let files = if inputs.origins.is_empty() {
            None
        } else {
            let host = parts::file_host(config);
            Some(files::Source::start(inputs.origins, host, &mut catalog)?)
        };
        let docker = match config.docker.serve {
            true => Some(parts::docker_source(config, &mut registry, &mut catalog)?),
            false => None,
        };
        let state = config
            .state_dir
            .as_deref()
            .map(|directory| {
                consul::State::in_directory(directory).map_err(|source| Failure::StateDirectory {
                    directory: directory.to_owned(),
                    source,
                })
            })
            .transpose()?;
        let policy = parts::policy(config, inputs.zones, recursor)?;
        let bound = if sockets.is_empty() {
            let listen = config.server.listen.iter();
            listen
                .map(|address| bind(*address, config.server.workers))
                .collect::<Result<_, _>>()?
        } else {
            sockets
        };
        let admin = match config.admin {
            Some(address) => Some(bind_admin(address).await?),
            None => None,
        };

        if let Some(source) = files {
            tasks.spawn(source.run(stop.clone()));
        }
        if let Some(source) = docker {
            tasks.spawn(source.run(stop.clone()));
        }
        if let (Some(client), Some(settings)) = (&client, &config.consul) {
            let (layer, interests) = catalog.add_lazy("consul");
            layer.set_max_stale(settings.max_stale);
            if let Some(state) = &state {
                state.load(&layer);
                let writer = state.clone();
                tasks.spawn(writer.follow(Arc::clone(&layer), stop.clone()));
            }
            if let config::TokenSource::File(_) = settings.token {
                tasks.spawn(follow_token(
                    settings.token.clone(),
                    client.clone(),
                    stop.clone(),
                ));
            }
            let source = consul::Source::new(
                client.clone(),
                consul::Settings {
                    max_watches: settings.max_watches,
                    datacenter: settings.datacenter.clone(),
                },
                layer,
                interests,
                consul::Metrics::new(&mut registry),
                stop.clone(),
            );
            tasks.spawn(source.run());
        }
        let catalog = Arc::new(catalog);
        let metrics = server::Metrics::new(&mut registry);
        let router = Arc::new(Router::new(Arc::clone(&catalog), policy));
        let server = Server::start(
            bound,
            Arc::clone(&router),
            metrics,
            &parts::limits(config),
            CancellationToken::new(),
        )
        .map_err(|source| Failure::System {
            what: "start the server",
            source,
        })?;
        for address in server.addresses() {
            info!(address = %address, "listening");
        }
        if let Some(listener) = admin {
            if let Ok(address) = listener.local_addr() {
                info!(address = %address, "admin listening");
            }
            let mut state = admin::State::new(Arc::new(registry));
            for layer in catalog.layers() {
                state = state.with_part(layer.name(), readiness_of(Arc::clone(layer)));
            }
            tasks.spawn(admin::serve(listener, state, stop.clone()));
        }
        tasks.spawn(notify::keep_alive(stop.clone()));
        tasks.close();
        Ok(Self {
            server,
            router,
            recursion_metrics,
            consul: client,
            tasks,
            stop,
        })
    }

    /// Takes over a configuration. What needs new sockets or sources waits for a restart.
    fn adopt(&self, config: &Config, inputs: Inputs) -> Result<(), Failure> {
        let recursor = recursor(config, &self.recursion_metrics)?;
        let policy = parts::policy(config, inputs.zones, recursor)?;
        if let (Some(client), Some(settings)) = (&self.consul, &config.consul) {
            let token = settings.token.read()?;
            client.set_token(token.as_ref().map(config::Token::expose))?;
        }
        self.router.adopt(policy);
        Ok(())
    }

    async fn stop(self) {
        if !self.server.drain(DRAIN_QUERIES).await {
            warn!("some queries were still unanswered");
        }
        self.stop.cancel();
        if tokio::time::timeout(DRAIN_REST, self.tasks.wait())
            .await
            .is_err()
        {
            warn!("some tasks were still running");
        }
        info!("stopped");
    }
}

/// How often a token's file is looked at: tokens are rotated, and nobody sends a signal for it.
const TOKEN_EVERY: Duration = Duration::from_secs(1);

/// Follows the file that the token is in.
pub(super) async fn follow_token(
    source: config::TokenSource,
    client: Client,
    stop: CancellationToken,
) {
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
                    warn!(%error, "the token cannot be read; the old one stays");
                    told.clone_from(&failure);
                }
                continue;
            }
        };
        (failure, told) = (None, None);
        if last.as_ref() != Some(&token) {
            match client.set_token(Some(token.expose())) {
                Ok(()) => info!("token read again"),
                Err(error) => error!(%error, "token refused; the old one stays"),
            }
            last = Some(token);
        }
    }
}

fn recursor(
    config: &Config,
    metrics: &recursion::Metrics,
) -> Result<Option<Arc<Recursor>>, Failure> {
    parts::recursion_settings(config)?
        .map(|settings| Recursor::new(settings, metrics.clone()).map(Arc::new))
        .transpose()
        .map_err(Failure::from)
}

pub(super) async fn bind_admin(address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Failure::Admin { address, source })
}

pub(super) fn readiness_of(layer: Arc<Layer>) -> admin::Probe {
    Arc::new(move || {
        let realm = layer.local();
        if layer.is_too_stale(realm) {
            let seconds = realm.stale_millis().unwrap_or_default() / 1000;
            Readiness::NotReady(format!(
                "older than max_stale: last current {seconds} s ago"
            ))
        } else if realm.is_ready() {
            let (services, nodes) = (realm.service_count(), realm.node_count());
            let age = realm.stale_millis().map_or_else(String::new, |age| {
                format!(", stale: last current {} s ago", age / 1000)
            });
            Readiness::Ready(format!("{services} services, {nodes} nodes{age}"))
        } else {
            Readiness::NotReady("no data yet".to_owned())
        }
    })
}

/// Serves until SIGTERM or SIGINT; takes over the configuration anew on SIGHUP.
async fn wait_for_stop(
    running: &Running,
    inputs: &dyn Fn(&Config) -> Result<Inputs, Failure>,
    load: &dyn Fn() -> Result<Config, config::Error>,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    loop {
        if signals.next().await == Signal::Stop {
            return Ok(());
        }
        notify::reloading();
        let adopted = load()
            .map_err(Failure::from)
            .and_then(|config| running.adopt(&config, inputs(&config)?));
        match adopted {
            Ok(()) => info!("configuration, token and zones read again"),
            Err(error) => error!(%error, "reload refused; everything stays as it was"),
        }
        notify::ready();
    }
}
