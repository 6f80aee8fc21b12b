//! `portolan register`: Docker, the reconciler and Consul's agent, and the admin server around them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use reqwest::StatusCode;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{self, Readiness};
use crate::config::{self, Config, Flags, Loaded, OnExit};
use crate::consul::{Agent, Client};
use crate::docker::{self, Follower, Snapshot, View};
use crate::register::{self, Explained, Failed, Identity, OwnerError, Reconciler, Report, table};
use crate::secret::{Token, TokenSource};

use super::Failure;
use super::build::{self, Mistakes};
use super::process::{self, Signal, Signals};
use super::running::{self, Said};

/// How long the end may take: taking services away, and then everything else. Together they stay
/// below the 5 s that a stop may take.
const WITHDRAWING: Duration = Duration::from_millis(3500);
const DRAIN: Duration = Duration::from_secs(1);

/// The admin server's page about containers.
const CONTAINERS: &str = "containers";

/// How often Docker is asked for its ID while it does not answer.
const OWNER_EVERY: Duration = Duration::from_secs(1);

/// What a registrar is to do beside what its configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegisterMode {
    /// Take over what Registrator registered under this host's name.
    pub adopt: bool,
    /// Compare once and end.
    pub once: bool,
    /// Say what would be done, and end.
    pub dry_run: bool,
    /// Say what became of the container of this name or ID, and end.
    pub explain: Option<String>,
}

/// `portolan register`: registers containers until it is told to stop, or once.
///
/// # Errors
/// [`Failure`]: what kept it from starting, or for `--once` and `--dry-run` what went wrong.
pub fn register(flags: &Flags, mode: RegisterMode) -> Result<(), Failure> {
    let load = || process::load(Config::of(flags.verb), flags);
    let loaded = load();
    process::start_log(loaded.config.log.format);
    let local = Local::new(loaded)?;
    let mut registry = Registry::default();
    let registrar = Registrar::new(&local, mode.clone(), &mut registry);
    process::runtime()?.block_on(async {
        if let Some(name) = &mode.explain {
            registrar.explain(local.config.admin.listen, name).await
        } else if mode.once || mode.dry_run {
            registrar.once().await
        } else {
            run(&local.config, registrar, registry, &|| Local::new(load())).await
        }
    })
}

/// What the configuration names, made.
struct Local {
    config: Config,
    consul: Client,
    token: Option<Token>,
    docker: docker::Client,
}

impl Local {
    /// Makes all of it.
    ///
    /// # Errors
    /// All that is wrong.
    fn new(mut loaded: Loaded) -> Result<Self, Failure> {
        let mut mistakes = Mistakes::of(&mut loaded);
        // Another agent would enter the services on another node.
        loaded.config.consul.fallback_addresses.clear();
        let consul = match loaded.config.consul.address {
            Some(_) => build::consul_client(&loaded),
            None => Err(Failure::NoConsul {
                command: "register",
            }),
        };
        let consul = mistakes.keep(consul);
        let docker = mistakes.keep(build::docker_client(&loaded));
        let made = consul.zip(docker).map(|((consul, token), docker)| Self {
            config: loaded.config,
            consul,
            token,
            docker,
        });
        mistakes.unless(made)
    }
}

/// What there is before anything runs. Cheap to clone.
#[derive(Clone)]
struct Registrar {
    consul: Client,
    docker: docker::Client,
    follow: docker::Follow,
    mode: RegisterMode,
    config: config::Register,
    metrics: register::Metrics,
    report: Report,
}

impl Registrar {
    fn new(local: &Local, mode: RegisterMode, registry: &mut Registry) -> Self {
        local.docker.register_metrics(registry);
        let config = &local.config.register;
        Self {
            consul: local.consul.clone(),
            docker: local.docker.clone(),
            follow: docker::Follow {
                resync: config.resync,
                deregister: config.deregister,
            },
            mode,
            config: config.clone(),
            metrics: register::Metrics::new(registry),
            report: Report::default(),
        }
    }

    fn reconciler(&self, identity: Identity) -> Result<Reconciler, Failure> {
        let settings = register::Settings {
            mapping: mapping(&self.config)?,
            adopt: self.mode.adopt,
            resync: self.config.resync,
        };
        Ok(Reconciler::new(
            Agent::new(self.consul.clone()),
            identity,
            settings,
            self.metrics.clone(),
            self.report.clone(),
        ))
    }

    /// What runs now, and who compares it.
    async fn look(&self) -> Result<(Snapshot, Reconciler), Failure> {
        let snapshot = Follower::once(&self.docker, &self.follow);
        let snapshot = snapshot.await.map_err(Failure::Docker)?;
        let identity = match &self.config.owner {
            Some(owner) => Identity::new(owner),
            None => register::of_engine(&self.docker).await?,
        };
        Ok((snapshot, self.reconciler(identity)?))
    }

    /// `--explain`: what the registrar that runs says of a container, or what one would do with it.
    #[expect(clippy::print_stdout, reason = "the answer is the command's output")]
    #[expect(
        clippy::print_stderr,
        reason = "whose answer it is does not belong to it"
    )]
    async fn explain(&self, admin: Option<SocketAddr>, name: &str) -> Result<(), Failure> {
        let said = match running::ask(admin, CONTAINERS).await {
            Ok(Said { status, text }) if status == StatusCode::SERVICE_UNAVAILABLE => {
                let why = text.trim_end().to_owned();
                return Err(Failure::NotReady { why });
            }
            Ok(Said { text, .. }) => serde_json::from_str::<Vec<Explained>>(&text)
                .map_err(|_| "whoever listens on the admin address is no registrar".to_owned()),
            Err(why) => Err(why),
        };
        let containers = match said {
            Ok(containers) => containers,
            Err(why) => {
                eprintln!("No registrar was asked ({why}). This is what one would do:");
                let (snapshot, mut reconciler) = self.look().await?;
                reconciler.explain(&snapshot).await?
            }
        };
        let called: Vec<&Explained> = containers
            .iter()
            .filter(|container| container.is_called(name))
            .collect();
        if called.is_empty() {
            let name = name.to_owned();
            return Err(Failure::NoContainer { name });
        }
        for container in called {
            print!("{}", container.text());
        }
        Ok(())
    }

    /// `--once` and `--dry-run`.
    #[expect(clippy::print_stdout, reason = "the plan is the command's output")]
    async fn once(&self) -> Result<(), Failure> {
        let (snapshot, mut reconciler) = self.look().await?;
        if self.mode.dry_run {
            print!("{}", table(&reconciler.preview(&snapshot).await?));
            return Ok(());
        }
        match reconciler.reconcile(&snapshot).await? {
            Failed(0) => Ok(()),
            Failed(services) => Err(Failure::Refused { services }),
        }
    }

    /// Registers until the stop, and then does what is to be done at the end.
    async fn register(
        self,
        view: watch::Receiver<View>,
        mapping: watch::Receiver<docker::Settings>,
        stop: CancellationToken,
    ) -> Result<(), Failure> {
        let identity = self.identity();
        let identity = match stop.run_until_cancelled(identity).await {
            // Docker was never there, so we have registered nothing.
            None => return Ok(()),
            Some(identity) => identity?,
        };
        let owner = identity.owner();
        info!(owner, "services are registered under this owner name");
        let mut reconciler = self.reconciler(identity)?;
        let followed = register::run(&mut reconciler, view, mapping, &stop).await;
        if self.config.on_exit == OnExit::Deregister {
            match timeout(WITHDRAWING, reconciler.withdraw()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => error!(%error, "services stay registered"),
                Err(_) => error!("services stay registered: Consul's agent is too slow"),
            }
        }
        Ok(followed?)
    }

    /// Who we are, as soon as it can be known.
    async fn identity(&self) -> Result<Identity, OwnerError> {
        if let Some(owner) = &self.config.owner {
            return Ok(Identity::new(owner));
        }
        let mut told = false;
        loop {
            match register::of_engine(&self.docker).await {
                Err(error) if !error.is_final() => {
                    self.report.set(Err(error.to_string()));
                    if !std::mem::replace(&mut told, true) {
                        warn!(%error, "cannot tell which Docker engine this is, so nothing is registered yet; still trying");
                    }
                }
                ended => return ended,
            }
            sleep(OWNER_EVERY).await;
        }
    }
}

/// How containers become registrations.
fn mapping(config: &config::Register) -> Result<docker::Settings, Failure> {
    Ok(docker::Settings {
        reach: match config.internal {
            true => docker::Reach::Internal,
            false => docker::Reach::Published,
        },
        explicit: config.explicit,
        ip: config.ip,
        // Replaced by the address of Consul's agent.
        host: Ipv4Addr::LOCALHOST.into(),
        tags: config.tags.clone(),
        host_name: build::host_name()?,
    })
}

async fn run(
    config: &Config,
    registrar: Registrar,
    registry: Registry,
    again: &dyn Fn() -> Result<Local, Failure>,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let admin = match config.admin.listen {
        Some(address) => Some(process::bind_admin(address).await?),
        None => None,
    };
    let consul = registrar.consul.clone();
    let (follower, view) = Follower::new(registrar.docker.clone(), registrar.follow.clone());
    let (mapping_sender, mapping_receiver) = watch::channel(mapping(&config.register)?);
    if let Some(listener) = admin {
        if let Ok(address) = listener.local_addr() {
            info!(%address, "admin listening");
        }
        let pages = admin::Pages::new(Arc::new(registry))
            .with_part("docker", docker_readiness(view.clone()))
            .with_part("consul", consul_readiness(registrar.report.clone()))
            .with_page(CONTAINERS, containers_page(registrar.report.clone()));
        tasks.spawn(admin::serve(listener, pages, stop.clone()));
    }
    if let source @ TokenSource::File(_) = config.consul.token.clone() {
        tasks.spawn(process::follow_token(source, consul.clone(), stop.clone()));
    }
    tasks.spawn(follower.run(stop.clone()));
    let registering = tasks.spawn(registrar.register(view, mapping_receiver, stop.clone()));
    tasks.close();
    let result = tokio::select! {
        signals = wait_for_stop(&consul, &mapping_sender, again) => signals,
        // It ends before the stop only if it cannot go on.
        ended = registering => ended.unwrap_or_else(|error| Err(Failure::Task(error))),
    };
    stop.cancel();
    if timeout(WITHDRAWING + DRAIN, tasks.wait()).await.is_err() {
        warn!("stopped before all tasks had ended");
    }
    info!("stopped");
    result
}

fn docker_readiness(view: watch::Receiver<View>) -> admin::Probe {
    Arc::new(move || {
        let view = view.borrow();
        match (&view.trouble, &view.snapshot) {
            (Some(trouble), _) => Readiness::NotReady(trouble.to_string()),
            (None, None) => Readiness::NotReady("no answer yet".to_owned()),
            (None, Some(snapshot)) => {
                Readiness::Ready(format!("{} containers", snapshot.containers.len()))
            }
        }
    })
}

fn containers_page(report: Report) -> admin::Page {
    Arc::new(move || {
        let containers = report.containers()?;
        serde_json::to_string_pretty(&containers[..]).map_err(|error| error.to_string())
    })
}

fn consul_readiness(report: Report) -> admin::Probe {
    Arc::new(move || match report.get() {
        Ok(what) => Readiness::Ready(what),
        Err(why) => Readiness::NotReady(why),
    })
}

/// Waits for SIGTERM or SIGINT; takes over token and mapping anew on SIGHUP.
async fn wait_for_stop(
    consul: &Client,
    mappings: &watch::Sender<docker::Settings>,
    again: &dyn Fn() -> Result<Local, Failure>,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    loop {
        if signals.next().await == Signal::Stop {
            return Ok(());
        }
        let adopted = again().and_then(|local| {
            let mapping = mapping(&local.config.register)?;
            consul.set_token(local.token.as_ref().map(Token::expose))?;
            mappings.send_replace(mapping);
            Ok(())
        });
        match adopted {
            Ok(()) => info!("configuration and token read again"),
            Err(failure) => process::tell_refusal(&failure),
        }
    }
}
