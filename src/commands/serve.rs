//! `portolan serve`: sources, catalog, answers, sockets, and the admin server around them.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admin;
use crate::catalog::{Catalog, Layer};
use crate::config::{Config, Flags, Loaded};
use crate::consul::{self, Client};
use crate::router::Router;
use crate::secret::{Token, TokenSource};
use crate::server::{self, Bound, Server, bind};
use crate::{files, recursion};

use super::Failure;
use super::build::{Local, Unnamed};
use super::defaults::Defaults;
use super::process::{self, Signal, Signals};

/// How long queries that were taken may go on after a stop, and then how long everything else.
/// Together they stay below the 5 s that a stop may take.
const DRAIN_QUERIES: Duration = Duration::from_millis(3500);
const DRAIN_REST: Duration = Duration::from_secs(1);

/// How often is looked whether Consul is there, so that the agent can be asked which was away at the start.
const LOOK_FOR_AGENT: Duration = Duration::from_millis(500);

/// One that does not say although Consul is there is left alone for so long: most likely the token may not
/// read the agent.
const LEAVE_AGENT: Duration = Duration::from_secs(60);

/// `portolan serve`: answers until it is told to stop.
///
/// # Errors
/// [`Failure`]: what kept it from starting.
pub fn serve(flags: &Flags) -> Result<(), Failure> {
    let sockets = server::inherited()?;
    let listen: Vec<_> = sockets.iter().map(|bound| bound.address).collect();
    let load = |base: Config| {
        let mut loaded = process::load(base, flags);
        // Where to listen was decided by who opened the sockets.
        if !listen.is_empty() {
            loaded.config.server.listen.clone_from(&listen);
        }
        loaded
    };
    let mut recipe = Recipe {
        load: &load,
        unnamed: Unnamed::Nothing,
        defaults: Defaults::of(flags),
    };
    process::start_log(recipe.load().config.log.format);
    let runtime = process::runtime()?;
    runtime.block_on(recipe.ask_agent());
    let local = recipe.local()?;
    runtime.block_on(run(local, sockets, recipe))
}

/// `portolan dev`: the server on its embedded catalog and zones, with no Consul, no root and no file to
/// write.
///
/// # Errors
/// [`Failure`]: what kept it from starting.
pub fn dev(flags: &Flags) -> Result<(), Failure> {
    let recipe = Recipe {
        load: &|base| process::load(base, flags),
        unnamed: Unnamed::HereOrEmbedded,
        defaults: Defaults::of(flags),
    };
    process::start_log(recipe.load().config.log.format);
    let local = recipe.local()?;
    let origins = local.files.as_ref().map(|files| &files.origins);
    info!(?origins, "serving the services of");
    process::runtime()?.block_on(run(local, Vec::new(), recipe))
}

/// How what is served is made, at the start and again later.
struct Recipe<'a> {
    /// Reads the configuration over its defaults.
    load: &'a dyn Fn(Config) -> Loaded,
    unnamed: Unnamed,
    defaults: Defaults,
}

impl Recipe<'_> {
    fn load(&self) -> Loaded {
        (self.load)(self.defaults.base())
    }

    fn local(&self) -> Result<Local, Failure> {
        Local::new(self.load(), self.unnamed)
    }

    /// True if the agent has other defaults than before.
    async fn ask_agent(&mut self) -> bool {
        let loaded = self.load();
        self.defaults.ask_agent(&loaded).await
    }
}

/// Runs a server on these sockets, or on new ones, until a signal ends it.
async fn run(local: Local, sockets: Vec<Bound>, recipe: Recipe<'_>) -> Result<(), Failure> {
    let serving = Serving::start(local, sockets).await?;
    process::tell_ready();
    let signals = wait_for_stop(&serving, recipe).await;
    process::tell_stopping();
    serving.stop().await;
    signals
}

/// Everything that runs.
struct Serving {
    server: Server,
    router: Arc<Router>,
    recursion_metrics: recursion::Metrics,
    consul: Option<(Client, Arc<Layer>)>,
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
        let policy = local.policy(&recursion_metrics, None)?;
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
        let mut consul = None;
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
            consul = Some((client.clone(), Arc::clone(&layer)));
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
        let settings = server::Settings {
            outside_cache: config.recursion.workers_cache(),
            ..config.server.clone()
        };
        let server = Server::start(
            bound,
            Arc::clone(&router),
            metrics,
            &settings,
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
        tasks.spawn(process::follow_resolv_conf(
            Arc::clone(&router),
            config.server.listen.clone(),
            stop.clone(),
        ));
        tasks.spawn(process::keep_alive(stop.clone()));
        tasks.close();
        Ok(Self {
            server,
            router,
            recursion_metrics,
            consul,
            tasks,
            stop,
        })
    }

    /// Takes over a configuration. What needs new sockets or sources waits for a restart.
    fn adopt(&self, mut local: Local) -> Result<(), Failure> {
        if let (Some((client, _)), Some((_, token))) = (&self.consul, &local.consul) {
            client.set_token(token.as_ref().map(Token::expose))?;
        }
        let policy = local.policy(&self.recursion_metrics, self.router.recursor())?;
        self.router.adopt(policy);
        Ok(())
    }

    /// Is Consul there, as far as anybody knows?
    fn has_consul(&self) -> bool {
        let consul = self.consul.as_ref();
        consul.is_some_and(|(_, layer)| {
            let realm = layer.local();
            realm.is_ready() && realm.stale_millis().is_none()
        })
    }

    /// Waits until Consul is there, from `since` on.
    async fn consul(&self, since: Instant) {
        sleep_until(since).await;
        while !self.has_consul() {
            sleep(LOOK_FOR_AGENT).await;
        }
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

/// Serves until SIGTERM or SIGINT; takes over the configuration anew on SIGHUP, and the agent's settings
/// once it can be asked for them.
async fn wait_for_stop(serving: &Serving, mut recipe: Recipe<'_>) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut ask_agent = Instant::now();
    loop {
        let is_reload = tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => return Ok(()),
                Signal::Reload => true,
            },
            () = serving.consul(ask_agent), if recipe.defaults.lack_agent() => false,
        };
        if is_reload {
            process::tell_reloading();
        }
        // An agent that hangs delays no stop. A second SIGHUP is one with the first.
        let is_news = loop {
            tokio::select! {
                is_news = recipe.ask_agent() => break is_news,
                signal = signals.next() => if signal == Signal::Stop {
                    return Ok(());
                },
            }
        };
        if serving.has_consul() {
            ask_agent = Instant::now() + LEAVE_AGENT;
        }
        if is_reload || is_news {
            match recipe.local().and_then(|local| serving.adopt(local)) {
                Ok(()) if is_reload => info!("configuration, token and zones read again"),
                Ok(()) => {}
                Err(failure) => process::tell_refusal(&failure),
            }
        }
        if is_reload {
            process::tell_ready();
        }
    }
}
