//! The configuration, as the settings of each room.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tracing::warn;

use crate::answers::Domains;
use crate::catalog::Catalog;
use crate::config::{
    Address, Authorities, Config, Consul, DockerAddress, RecursorStrategy, SrvTarget,
    TruncateAddresses, Upstreams,
};
use crate::consul::Client;
use crate::dns::Name;
use crate::docker;
use crate::files::{Host, Origin};
use crate::http::{Endpoint, SetupError, Tls};
use crate::recursion::{self, Recursor};
use crate::router::Policy;
use crate::server::Limits;
use crate::zones::Zones;
use crate::{answers, config, haproxy};

use super::Failure;

/// Where the system names its resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How long the first upstream may be silent before the next is asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(300);

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn answers_settings(config: &config::Answers, translate_wan_addrs: bool) -> answers::Settings {
    let ttls = config
        .service_ttl
        .iter()
        .map(|(pattern, ttl)| (pattern.clone(), seconds(*ttl)));
    answers::Settings {
        service_ttl: answers::TtlTable::new(ttls, 1),
        node_ttl: seconds(config.node_ttl),
        soa: answers::Soa {
            min_ttl: seconds(config.soa.min_ttl),
            refresh: seconds(config.soa.refresh),
            retry: seconds(config.soa.retry),
            expire: seconds(config.soa.expire),
        },
        only_passing: config.only_passing,
        truncate_addresses: config.truncate_addresses == TruncateAddresses::Tc,
        srv_target: match config.srv_target {
            SrvTarget::Consul => answers::SrvTarget::Consul,
            SrvTarget::Address => answers::SrvTarget::Address,
        },
        srv_weight_scale: config.srv_weight_scale,
        a_record_limit: config.a_record_limit,
        udp_answer_limit: config.udp_answer_limit,
        translate_wan_addrs,
    }
}

fn domain(text: &str, key: &'static str) -> Result<Name, Failure> {
    Name::from_text(text).map_err(|source| Failure::Name { key, source })
}

/// Everything that a SIGHUP can change.
pub(super) fn policy(
    config: &Config,
    zones: Zones,
    recursor: Option<Arc<Recursor>>,
) -> Result<Policy, Failure> {
    let primary = domain(&config.domain, "domain")?;
    let alternative = config
        .alt_domain
        .as_deref()
        .map(|text| domain(text, "alt_domain"))
        .transpose()?;
    let translate = config
        .consul
        .as_ref()
        .is_some_and(|consul| consul.translate_wan_addrs);
    Ok(Policy {
        domains: Domains::new(&primary, alternative.as_ref()),
        answers: answers_settings(&config.answers, translate),
        max_udp_size: config.answers.max_udp_size,
        zones,
        recursor,
        recursion_for: config.recursion.allow.clone(),
    })
}

/// The zones of the configuration's directory.
pub(super) fn zones(config: &Config) -> Result<Zones, Failure> {
    Ok(match &config.zones {
        Some(directory) => Zones::load(directory)?,
        None => Zones::empty(),
    })
}

/// How to recurse; `None` if recursion is off.
pub(super) fn recursion_settings(config: &Config) -> Result<Option<recursion::Settings>, Failure> {
    let upstreams = match &config.recursion.upstreams {
        Upstreams::None => return Ok(None),
        Upstreams::List(upstreams) => upstreams.clone(),
        Upstreams::System => match recursion::system_upstreams(Path::new(RESOLV_CONF)) {
            Ok(upstreams) => upstreams,
            // A host without a resolver can still serve its own names.
            Err(error) => {
                warn!(%error, "no recursion: name a resolver with --upstream");
                return Ok(None);
            }
        },
    };
    let own = recursion::own_addresses()?;
    recursion::check_loops(&upstreams, &config.server.listen, &own)?;
    Ok(Some(recursion::Settings {
        upstreams,
        strategy: match config.recursion.recursor_strategy {
            RecursorStrategy::Sequential => recursion::Strategy::Sequential,
            RecursorStrategy::Random => recursion::Strategy::Random,
        },
        timeout: config.recursion.recursor_timeout,
        hedge_after: HEDGE_AFTER.min(config.recursion.recursor_timeout),
        cache_size: config.recursion.cache_size as u64,
        ..recursion::Settings::default()
    }))
}

pub(super) fn limits(config: &Config) -> Limits {
    let server = &config.server;
    Limits {
        queue: server.queue_size,
        tcp_connections: server.max_tcp_connections,
        tcp_connections_per_client: server.max_tcp_connections_per_client,
        tcp_idle: server.tcp_idle_timeout,
    }
}

/// The HTTP client for Consul, with the token as it is now.
pub(super) fn consul_client(consul: &Consul) -> Result<Client, Failure> {
    let endpoints: Vec<Endpoint> = std::iter::once(&consul.address)
        .chain(&consul.fallback_addresses)
        .map(|address| match address {
            Address::Http(url) => Endpoint::Http(url.clone()),
            Address::Unix(path) => Endpoint::Unix(path.clone()),
        })
        .collect();
    let tls = Tls {
        authorities: match &consul.tls.authorities {
            Authorities::System => Vec::new(),
            Authorities::File(file) => vec![file.clone()],
            Authorities::Directory(directory) => pem_files(directory)?,
        },
        client: consul
            .tls
            .client
            .as_ref()
            .map(|client| (client.certificate.clone(), client.key.clone())),
        server_name: consul.tls.server_name.clone(),
        insecure: !consul.tls.verify,
    };
    let token = consul.token.read()?;
    Ok(Client::new(
        &endpoints,
        &tls,
        token.as_ref().map(config::Token::expose),
    )?)
}

fn pem_files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |source| {
        let path = directory.to_owned();
        Failure::Consul(SetupError::File { path, source }.into())
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The node that services from files are on.
pub(super) fn file_host(config: &Config) -> Host {
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

/// The directories of service files, as configured.
pub(super) fn service_origins(config: &Config) -> Vec<Origin> {
    config
        .services
        .iter()
        .cloned()
        .map(Origin::Directory)
        .collect()
}

/// Where Docker is.
pub(super) fn docker_endpoint(config: &config::Docker) -> Endpoint {
    match &config.address {
        DockerAddress::Unix(path) => Endpoint::Unix(path.clone()),
        DockerAddress::Http(url) => Endpoint::Http(url.clone()),
    }
}

/// A client of Docker's API.
pub(super) fn docker_client(config: &config::Docker) -> Result<docker::Client, Failure> {
    docker::Client::new(&docker_endpoint(config), config.cert_path.as_deref())
        .map_err(Failure::DockerAccess)
}

/// The running containers as a source, and its layer.
pub(super) fn docker_source(
    config: &Config,
    registry: &mut Registry,
    catalog: &mut Catalog,
) -> Result<docker::Source, Failure> {
    let client = docker_client(&config.docker)?;
    client.register_metrics(registry);
    let name = host_name()?;
    let settings = docker::Settings {
        reach: docker::Reach::Either,
        explicit: false,
        ip: config.docker.ip,
        host: docker_host(config),
        tags: Vec::new(),
        host_name: name.clone(),
    };
    let host = docker::Host {
        name,
        datacenter: config.datacenter.clone(),
    };
    let pace = docker::Pace::default();
    Ok(docker::Source::new(client, pace, settings, &host, catalog))
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

/// How to keep HAProxy.
pub(super) fn haproxy_settings(config: &Config) -> haproxy::Settings {
    let config::Haproxy {
        prefix,
        tag,
        template,
        output,
        program,
        master_socket,
        exec,
        resolver,
        bind,
        stats_bind,
        stats_auth,
        min_slots,
        doubt,
        heal_after,
        stop_timeout,
    } = config.haproxy.clone();
    haproxy::Settings {
        prefix,
        tag,
        template,
        output,
        program,
        master_socket,
        exec,
        resolver,
        domain: config.domain.clone(),
        bind,
        stats_bind,
        stats_auth: stats_auth.map(|auth| auth.expose().to_owned()),
        min_slots,
        doubt,
        heal_after,
        stop_timeout,
    }
}
