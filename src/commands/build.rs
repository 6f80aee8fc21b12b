//! What the configuration names, made: zones, clients, upstreams, policy. All of it is made before any of it
//! is used, so that all that is wrong with it is told at once.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tracing::warn;

use crate::answers::Domains;
use crate::catalog::Catalog;
use crate::config::{Config, Loaded};
use crate::consul::{self, Authorities, Client};
use crate::dns::Name;
use crate::files::{Files, Host, Origin};
use crate::http::{Endpoint, SetupError, Tls};
use crate::recursion::{self, Recursor, ResolvConf, Upstreams};
use crate::router::Policy;
use crate::secret::Token;
use crate::upstream::{Address, Trust, TrustError};
use crate::zones::{Hosts, Zones};
use crate::{docker, files};

use super::Failure;
use super::process::RESOLV_CONF;

/// What `dev` serves where the folder it runs in has it.
const DEV_SERVICES: &str = "zones/consul";
const DEV_ZONES: &str = "zones";

/// What is wrong so far.
#[derive(Debug)]
pub(super) struct Mistakes(Vec<Failure>);

impl Mistakes {
    /// Begins with what is wrong with the configuration itself.
    pub(super) fn of(loaded: &mut Loaded) -> Self {
        let errors = loaded.take_errors().into_iter();
        Self(errors.map(Failure::Config).collect())
    }

    /// What was made, or `None` and one mistake more.
    pub(super) fn keep<T>(&mut self, made: Result<T, Failure>) -> Option<T> {
        made.map_err(|failure| match failure {
            Failure::All(failures) => self.0.extend(failures),
            failure => self.0.push(failure),
        })
        .ok()
    }

    /// What was made, unless something is wrong with anything.
    pub(super) fn unless<T>(self, made: Option<T>) -> Result<T, Failure> {
        match made {
            Some(made) if self.0.is_empty() => Ok(made),
            _ => Err(Failure::All(self.0)),
        }
    }
}

/// Where a server that is asked for nothing else looks for services and zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unnamed {
    /// Nowhere.
    Nothing,
    /// What is in front of the person goes before what is in the binary, so that an edit in the clone is
    /// seen.
    HereOrEmbedded,
}

/// What a server is made of beside its sockets.
pub(super) struct Local {
    pub(super) config: Config,
    /// Service files, if any are named.
    pub(super) files: Option<Files>,
    pub(super) zones: Zones,
    /// `None` if recursion is off.
    pub(super) upstreams: Option<Vec<Address>>,
    /// Who vouches for those that need it.
    trust: Option<Trust>,
    pub(super) consul: Option<(Client, Option<Token>)>,
    pub(super) docker: Option<docker::Client>,
    domains: Domains,
}

impl Local {
    /// Makes all of it.
    ///
    /// # Errors
    /// All that is wrong.
    pub(super) fn new(mut loaded: Loaded, unnamed: Unnamed) -> Result<Self, Failure> {
        let mut mistakes = Mistakes::of(&mut loaded);
        let config = &loaded.config;
        let files = mistakes.keep(service_files(&loaded, unnamed));
        let zones = mistakes.keep(zones(&loaded, unnamed));
        let hosts = mistakes.keep(hosts(&loaded));
        let upstreams = mistakes.keep(upstreams(&loaded));
        let trust = mistakes.keep(trust(&loaded));
        let consul = match config.consul.address {
            Some(_) => mistakes.keep(consul_client(&loaded)).map(Some),
            None => Some(None),
        };
        let docker = match config.docker.serve {
            true => mistakes.keep(docker_client(&loaded)).map(Some),
            false => Some(None),
        };
        let domains = mistakes.keep(domains(&loaded));
        let made = (|| {
            Some(Self {
                files: files?,
                zones: zones?.with_hosts(hosts?),
                upstreams: upstreams?,
                trust: trust?,
                consul: consul?,
                docker: docker?,
                domains: domains?,
                config: loaded.config,
            })
        })();
        mistakes.unless(made)
    }

    /// Everything that a SIGHUP can change. The zones are given away with it, and who recurred `before` goes on with
    /// what it knows. Call it on the runtime.
    pub(super) fn policy(
        &mut self,
        metrics: &recursion::Metrics,
        before: Option<Arc<Recursor>>,
    ) -> Result<Policy, Failure> {
        let zones = std::mem::replace(&mut self.zones, Zones::empty());
        let settings = &self.config.recursion;
        let recursor = self
            .upstreams
            .as_ref()
            .map(|upstreams| {
                let (settings, trust) = (settings.clone(), self.trust.clone());
                if let Some(recursor) = before {
                    recursor.adopt(upstreams, settings, trust)?;
                    return Ok(recursor);
                }
                let (runtime, metrics) = (Handle::current(), metrics.clone());
                Recursor::new(upstreams, settings, trust, &runtime, metrics).map(Arc::new)
            })
            .transpose()?;
        Ok(Policy {
            domains: self.domains.clone(),
            answers: self.config.answers.clone(),
            zones,
            recursor,
            recursion_for: settings.allow.clone(),
        })
    }

    /// The running containers as a source of the catalog.
    pub(super) fn docker_source(
        &self,
        client: &docker::Client,
        registry: &mut Registry,
        catalog: &mut Catalog,
    ) -> Result<docker::Source, Failure> {
        client.register_metrics(registry);
        let name = host_name()?;
        let settings = docker::Settings {
            reach: docker::Reach::Either,
            explicit: false,
            ip: self.config.docker.ip,
            host: docker_host(&self.config),
            tags: Vec::new(),
            host_name: name.clone(),
        };
        let host = docker::Host {
            name,
            datacenter: self.config.datacenter.clone(),
        };
        let follow = docker::Follow::default();
        let client = client.clone();
        Ok(docker::Source::new(
            client, follow, settings, &host, catalog,
        ))
    }
}

fn origins(config: &Config, unnamed: Unnamed) -> Vec<Origin> {
    let directories = &config.services.directories;
    match unnamed {
        Unnamed::HereOrEmbedded if directories.is_empty() => {
            let here = Path::new(DEV_SERVICES);
            vec![match here.is_dir() {
                true => Origin::Directory(here.to_owned()),
                false => Origin::Embedded,
            }]
        }
        _ => directories.iter().cloned().map(Origin::Directory).collect(),
    }
}

fn service_files(loaded: &Loaded, unnamed: Unnamed) -> Result<Option<Files>, Failure> {
    let origins = origins(&loaded.config, unnamed);
    if origins.is_empty() {
        return Ok(None);
    }
    let named = |path: &Path| {
        loaded
            .config
            .services
            .directories
            .iter()
            .any(|dir| dir == path)
    };
    let files = Files::read(origins, file_host(&loaded.config));
    files.map(Some).map_err(|errors| {
        all(errors, |error| match &error {
            files::Error::Read { path, .. } if named(path) => loaded
                .error_at("services.directories", error.to_string())
                .into(),
            _ => error.into(),
        })
    })
}

fn zones(loaded: &Loaded, unnamed: Unnamed) -> Result<Zones, Failure> {
    let zones = match (&loaded.config.zones.directory, unnamed) {
        (Some(directory), _) => Zones::load(directory),
        (None, Unnamed::Nothing) => Ok(Zones::empty()),
        (None, Unnamed::HereOrEmbedded) => match Path::new(DEV_ZONES) {
            here if here.is_dir() => Zones::load(here),
            _ => Zones::embedded(),
        },
    };
    let named = |path: &PathBuf| Some(path) == loaded.config.zones.directory.as_ref();
    zones.map_err(|errors| {
        all(errors, |error| match &error {
            crate::zones::Error::Read { path, .. } if named(path) => {
                loaded.error_at("zones.directory", error.to_string()).into()
            }
            _ => error.into(),
        })
    })
}

fn hosts(loaded: &Loaded) -> Result<Hosts, Failure> {
    Hosts::read(&loaded.config.recursion.hosts).map_err(|errors| {
        all(errors, |error| {
            loaded.error_at("recursion.hosts", error.to_string()).into()
        })
    })
}

fn all<E>(errors: Vec<E>, told: impl FnMut(E) -> Failure) -> Failure {
    Failure::All(errors.into_iter().map(told).collect())
}

fn domains(loaded: &Loaded) -> Result<Domains, Failure> {
    let name = |text: &str, key: &'static str| {
        let name = Name::from_text(text);
        name.map_err(|error| Failure::Config(loaded.error_at(key, error.to_string())))
    };
    let primary = name(&loaded.config.domain, "domain")?;
    let alternative = loaded.config.alt_domain.as_deref();
    let alternative = alternative
        .map(|text| name(text, "alt_domain"))
        .transpose()?;
    Ok(Domains::new(&primary, alternative.as_ref()))
}

/// Who is asked for what is not forwarded elsewhere; `None` if recursion is off.
fn upstreams(loaded: &Loaded) -> Result<Option<Vec<Address>>, Failure> {
    let recursion = &loaded.config.recursion;
    let upstreams = match &recursion.upstreams {
        Upstreams::None => Vec::new(),
        Upstreams::List(upstreams) => upstreams.clone(),
        // A host without a resolver can still serve its own names, and may get one.
        Upstreams::System => match ResolvConf::read(Path::new(RESOLV_CONF)) {
            Ok(conf) => {
                conf.warn();
                if conf.servers.is_empty() {
                    warn!("{RESOLV_CONF} names no resolver yet; name one with --upstream");
                }
                conf.servers
            }
            Err(error) => {
                warn!(%error, "no resolver yet; name one with --upstream");
                Vec::new()
            }
        },
    };
    let is_off = recursion.upstreams == Upstreams::None && recursion.forward.is_empty();
    if is_off {
        return Ok(None);
    }
    let own = recursion::own_addresses()?;
    let forward = recursion.forward.iter().flat_map(|own| &own.upstreams);
    let all = upstreams.iter().chain(forward);
    recursion::check_loops(all, &loaded.config.server.listen, &own)?;
    Ok(Some(upstreams))
}

/// Who vouches for the certificates of those who are asked, if anybody has to.
fn trust(loaded: &Loaded) -> Result<Option<Trust>, Failure> {
    let recursion = &loaded.config.recursion;
    let listed: &[Address] = match &recursion.upstreams {
        Upstreams::List(upstreams) => upstreams,
        Upstreams::System | Upstreams::None => &[],
    };
    if !recursion.need_trust(listed) {
        return Ok(None);
    }
    let trust = Trust::new(recursion.ca_file.as_deref());
    let at_key = |error: TrustError| loaded.error_at("recursion.ca_file", error.to_string());
    trust
        .map(Some)
        .map_err(|error| Failure::Config(at_key(error)))
}

/// The HTTP client for Consul, with the token as it is now, and that token.
///
/// # Errors
/// Every file that cannot be read, at the key that names it.
pub(super) fn consul_client(loaded: &Loaded) -> Result<(Client, Option<Token>), Failure> {
    let consul = &loaded.config.consul;
    let (key, authorities) = match &consul.authorities {
        Authorities::System => ("consul.ca_file", Vec::new()),
        Authorities::File(file) => ("consul.ca_file", vec![file.clone()]),
        Authorities::Directory(directory) => (
            "consul.ca_path",
            pem_files(directory).map_err(|source| {
                let message = format!("{}: {source}", directory.display());
                loaded.error_at("consul.ca_path", message)
            })?,
        ),
    };
    let files = authorities.iter().map(|file| (key, file));
    let files = files
        .chain(
            consul
                .client_cert
                .iter()
                .map(|file| ("consul.client_cert", file)),
        )
        .chain(
            consul
                .client_key
                .iter()
                .map(|file| ("consul.client_key", file)),
        );
    let unreadable = files.clone().filter_map(|(key, file)| {
        let source = File::open(file).err()?;
        let message = format!("expected a PEM file, but {}: {source}", file.display());
        Some(Failure::Config(loaded.error_at(key, message)))
    });
    let mut wrong: Vec<Failure> = unreadable.collect();
    let token = consul.token.read().map_err(|error| {
        let error = loaded.error_at("consul.token_file", error.to_string());
        wrong.push(Failure::Config(error));
    });
    let (true, Ok(token)) = (wrong.is_empty(), token) else {
        return Err(Failure::All(wrong));
    };
    let tls = Tls {
        authorities: authorities.clone(),
        client: consul.client_cert.clone().zip(consul.client_key.clone()),
        server_name: consul.tls_server_name.clone(),
        insecure: !consul.verify,
    };
    let endpoints: Vec<Endpoint> = consul
        .address
        .iter()
        .chain(&consul.fallback_addresses)
        .cloned()
        .collect();
    let client = Client::new(&endpoints, &tls, token.as_ref().map(Token::expose));
    let client = client.map_err(|error| {
        let consul::ClientError::Setup(SetupError::Pem { path, .. }) = &error else {
            return Failure::Consul(error);
        };
        match files.clone().find(|(_, file)| *file == path) {
            Some((key, _)) => loaded.error_at(key, error.to_string()).into(),
            None => Failure::Consul(error),
        }
    })?;
    Ok((client, token))
}

fn pem_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The node that services from files are on.
fn file_host(config: &Config) -> Host {
    // A service without an address of its own is on this host; the address that others reach it
    // at cannot be known, but it is one that the host listens on.
    let address = config
        .server
        .listen
        .iter()
        .map(|listen| listen.ip())
        .find(|ip| !ip.is_unspecified())
        .unwrap_or_else(|| IpAddr::from([127, 0, 0, 1]));
    Host {
        name: "portolan".to_owned(),
        address: address.to_string(),
        datacenter: config.datacenter.clone(),
    }
}

/// A client of Docker's API.
///
/// # Errors
/// A certificate that cannot be used.
pub(super) fn docker_client(loaded: &Loaded) -> Result<docker::Client, Failure> {
    let docker = &loaded.config.docker;
    docker::Client::new(&docker.address, docker.cert_path.as_deref()).map_err(|error| {
        loaded
            .error_at("docker.cert_path", error.to_string())
            .into()
    })
}

/// Where published ports are: an address that is listened on can be reached by those who ask us,
/// unless it is loopback, which a container that asks through its host's resolver would take for
/// its own.
fn docker_host(config: &Config) -> IpAddr {
    let listened = config.server.listen.iter().map(|listen| listen.ip());
    listened
        .into_iter()
        .find(|ip| !ip.is_unspecified() && !ip.is_loopback())
        .or_else(docker::host_address)
        .unwrap_or_else(|| IpAddr::from([127, 0, 0, 1]))
}

/// The name of this host.
pub(super) fn host_name() -> Result<String, Failure> {
    let name = nix::unistd::gethostname().map_err(|source| Failure::System {
        what: "read this host's name",
        source: source.into(),
    })?;
    Ok(name.to_string_lossy().into_owned())
}
