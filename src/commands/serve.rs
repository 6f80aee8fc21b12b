//! `portolan serve`: sources, catalog, answers, sockets, and the admin server around them.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admin;
use crate::catalog::Catalog;
use crate::config::{Config, Flags};
use crate::consul::{self, Client};
use crate::router::Router;
use crate::secret::{Token, TokenSource};
use crate::server::{self, Bound, Server, bind};
use crate::{files, recursion};

use super::Failure;
use super::build::{self, Local, Unnamed};
use super::process::{self, Signal, Signals};

/// How long queries that were taken may go on after a stop, and then how long everything else.
/// Together they stay below the 5 s that a stop may take.
const DRAIN_QUERIES: Duration = Duration::from_millis(3500);
const DRAIN_REST: Duration = Duration::from_secs(1);

/// `portolan serve`: answers until it is told to stop.
///
/// # Errors
/// [`Failure`]: what kept it from starting.
pub fn serve(flags: &Flags) -> Result<(), Failure> {
    let sockets = server::inherited()?;
    let listen: Vec<_> = sockets.iter().map(|bound| bound.address).collect();
    let load = |base: &Config| {
        let mut loaded = process::load(base.clone(), flags);
        // Where to listen was decided by who opened the sockets.
        if !listen.is_empty() {
            loaded.config.server.listen.clone_from(&listen);
        }
        loaded
    };
    let mut base = Config::of(flags.verb);
    let mut loaded = load(&base);
    process::start_log(loaded.config.log.format);
    let runtime = process::runtime()?;
    if flags.from_agent {
        base = runtime.block_on(build::agents_defaults(&loaded))?;
        loaded = load(&base);
    }
    let local = Local::new(loaded, Unnamed::Nothing)?;
    let again = || Local::new(load(&base), Unnamed::Nothing);
    runtime.block_on(run(local, sockets, &again))
}

/// `portolan dev`: the server on its embedded catalog and zones, with no Consul, no root and no file to
/// write.
///
/// # Errors
/// [`Failure`]: what kept it from starting.
pub fn dev(flags: &Flags) -> Result<(), Failure> {
    let load = || process::load(Config::of(flags.verb), flags);
    let loaded = load();
    process::start_log(loaded.config.log.format);
    let local = Local::new(loaded, Unnamed::HereOrEmbedded)?;
    let origins = local.files.as_ref().map(|files| &files.origins);
    info!(?origins, "serving the services of");
    let again = || Local::new(load(), Unnamed::HereOrEmbedded);
    process::runtime()?.block_on(run(local, Vec::new(), &again))
}

/// Runs a server on these sockets, or on new ones, until a signal ends it; `again` is what a SIGHUP reads.
async fn run(
    local: Local,
    sockets: Vec<Bound>,
    again: &dyn Fn() -> Result<Local, Failure>,
) -> Result<(), Failure> {
    let serving = Serving::start(local, sockets).await?;
    process::tell_ready();
    let signals = wait_for_stop(&serving, again).await;
    process::tell_stopping();
    serving.stop().await;
    signals
}

/// Everything that runs.
struct Serving {
    server: Server,
    router: Arc<Router>,
    recursion_metrics: recursion::Metrics,
    consul: Option<Client>,
    tasks: TaskTracker,
    /// Stops everything but the server, which is drained first.
    stop: CancellationToken,
}

impl Serving {
    async fn start(mut local: Local, sockets: Vec<Bound>) -> Result<Self, Failure> {
        let mut registry = Registry::default();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();

        // What can be wrong with the configuration is found out before a socket is opened, and
        // the sockets are opened before Consul is asked for anything.
        let recursion_metrics = recursion::Metrics::register(&mut registry);
        let policy = local.policy(&recursion_metrics)?;
        let files = local.files.take();
        let Local { config, .. } = &local;
        // A name belongs to the first source that has it; Consul, which may be away, goes last.
        let mut catalog = Catalog::new();
        let files = files.map(|files| files::Source::start(files, &mut catalog));
        let docker = local
            .docker
            .as_ref()
            .map(|client| local.docker_source(client, &mut registry, &mut catalog))
            .transpose()?;
        let state = config
            .state_dir
            .as_deref()
            .map(|directory| {
                consul::SavedCatalog::in_directory(directory).map_err(|source| {
                    Failure::StateDirectory {
                        directory: directory.to_owned(),
                        source,
                    }
                })
            })
            .transpose()?;
        let bound = if sockets.is_empty() {
            let listen = config.server.listen.iter();
            listen
                .map(|address| bind(*address, config.server.workers))
                .collect::<Result<_, _>>()?
        } else {
            sockets
        };
        let admin = match config.admin.listen {
            Some(address) => Some(process::bind_admin(address).await?),
            None => None,
        };

        if let Some(source) = files {
            tasks.spawn(source.run(stop.clone()));
        }
        if let Some(source) = docker {
            tasks.spawn(source.run(stop.clone()));
        }
        if let Some((client, _)) = &local.consul {
            let settings = &config.consul;
            let (layer, interests) = catalog.add_lazy("consul");
            layer.set_max_stale(settings.max_stale);
            if let Some(state) = &state {
                state.load(&layer);
                let writer = state.clone();
                tasks.spawn(writer.follow(Arc::clone(&layer), stop.clone()));
            }
            if let TokenSource::File(_) = settings.token {
                tasks.spawn(process::follow_token(
                    settings.token.clone(),
                    client.clone(),
                    stop.clone(),
                ));
            }
            let source = consul::Source::new(
                client.clone(),
                settings,
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
            &config.server,
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
            let mut pages = admin::Pages::new(Arc::new(registry));
            for layer in catalog.layers() {
                pages = pages.with_part(layer.name(), process::readiness_of(Arc::clone(layer)));
            }
            tasks.spawn(admin::serve(listener, pages, stop.clone()));
        }
        tasks.spawn(process::keep_alive(stop.clone()));
        tasks.close();
        Ok(Self {
            server,
            router,
            recursion_metrics,
            consul: local.consul.map(|(client, _)| client),
            tasks,
            stop,
        })
    }

    /// Takes over a configuration. What needs new sockets or sources waits for a restart.
    fn adopt(&self, mut local: Local) -> Result<(), Failure> {
        let policy = local.policy(&self.recursion_metrics)?;
        if let (Some(client), Some((_, token))) = (&self.consul, &local.consul) {
            client.set_token(token.as_ref().map(Token::expose))?;
        }
        self.router.adopt(policy);
        Ok(())
    }

    async fn stop(self) {
        if !self.server.drain(DRAIN_QUERIES).await {
            warn!("stopped with some queries unanswered");
        }
        self.stop.cancel();
        if tokio::time::timeout(DRAIN_REST, self.tasks.wait())
            .await
            .is_err()
        {
            warn!("stopped before all tasks had ended");
        }
        info!("stopped");
    }
}

/// Serves until SIGTERM or SIGINT; takes over the configuration anew on SIGHUP.
async fn wait_for_stop(
    serving: &Serving,
    again: &dyn Fn() -> Result<Local, Failure>,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    loop {
        if signals.next().await == Signal::Stop {
            return Ok(());
        }
        process::tell_reloading();
        match again().and_then(|local| serving.adopt(local)) {
            Ok(()) => info!("configuration, token and zones read again"),
            Err(failure) => process::tell_refusal(&failure),
        }
        process::tell_ready();
    }
}
