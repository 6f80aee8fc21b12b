//! What the command line sets. It wins over everything else.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::address::Address;
use super::containers::{Deregister, OnExit};
use super::docker::DockerAddress;
use super::draft::Draft;
use super::settings::{LogFormat, Upstreams};
use super::token::TokenSource;

/// The settings given on the command line; what is `None` was not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    /// The file to read instead of the default one.
    pub config: Option<PathBuf>,
    /// `server.listen`.
    pub listen: Option<Vec<SocketAddr>>,
    /// `server.workers`.
    pub workers: Option<usize>,
    /// `consul.address`.
    pub consul: Option<Switch<Address>>,
    /// Take the agent's own `dns_config` for the defaults.
    pub from_agent: bool,
    /// `consul.token_file`.
    pub token_file: Option<PathBuf>,
    /// Docker is used, so that its variables matter.
    pub with_docker: bool,
    /// `docker.serve`.
    pub serve_docker: Option<bool>,
    /// `docker.address`.
    pub docker: Option<DockerAddress>,
    /// `[register]`.
    pub register: RegisterFlags,
    /// `services.directories`.
    pub services: Option<Vec<PathBuf>>,
    /// `zones.directory`.
    pub zones: Option<PathBuf>,
    /// `recursion.upstreams`.
    pub upstreams: Option<Upstreams>,
    /// `domain`.
    pub domain: Option<String>,
    /// `state_dir`.
    pub state_dir: Option<PathBuf>,
    /// `admin.listen`.
    pub admin: Option<Switch<SocketAddr>>,
    /// `log.format`.
    pub log_format: Option<LogFormat>,
}

/// The settings of the registrar given on the command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegisterFlags {
    /// `register.owner`.
    pub owner: Option<String>,
    /// `register.ip`.
    pub ip: Option<IpAddr>,
    /// `register.tags`.
    pub tags: Option<Vec<String>>,
    /// `register.internal`, if it is to be true.
    pub internal: bool,
    /// `register.explicit`, if it is to be true.
    pub explicit: bool,
    /// `register.deregister`.
    pub deregister: Option<Deregister>,
    /// `register.on_exit`.
    pub on_exit: Option<OnExit>,
    /// `register.resync`.
    pub resync: Option<Duration>,
}

/// A value that may be switched off with `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switch<T> {
    /// `none`.
    Off,
    /// The value.
    On(T),
}

impl<T> Switch<T> {
    /// The value, unless it is switched off.
    pub fn on(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

/// Applies the flags over the layers below.
pub(super) fn apply(flags: &Flags, draft: &mut Draft) {
    // Taken apart whole, so that a new flag cannot be forgotten here.
    let Flags {
        config: _,
        // Decides what the layers are applied over, before this.
        from_agent: _,
        // Decides whether a layer is applied, before this.
        with_docker: _,
        listen,
        workers,
        consul,
        token_file,
        serve_docker,
        docker,
        register:
            RegisterFlags {
                owner,
                ip,
                tags,
                internal,
                explicit,
                deregister,
                on_exit,
                resync,
            },
        services,
        zones,
        upstreams,
        domain,
        admin,
        state_dir,
        log_format,
    } = flags.clone();

    let config = &mut draft.config;
    set(&mut config.server.listen, listen);
    set(&mut config.server.workers, workers);
    set(&mut config.state_dir, state_dir.map(Some));
    set(&mut draft.address, consul);
    set(&mut draft.consul.token, token_file.map(TokenSource::File));
    set(&mut config.docker.serve, serve_docker);
    set(&mut config.docker.address, docker);
    let register = &mut config.register;
    set(&mut register.owner, owner.map(Some));
    set(&mut register.ip, ip.map(Some));
    set(&mut register.tags, tags);
    register.internal |= internal;
    register.explicit |= explicit;
    set(&mut register.deregister, deregister);
    set(&mut register.on_exit, on_exit);
    set(&mut register.resync, resync);
    set(&mut config.services, services);
    set(&mut config.zones, zones.map(Some));
    set(&mut config.recursion.upstreams, upstreams);
    set(&mut config.domain, domain);
    set(&mut config.admin, admin.map(Switch::on));
    set(&mut config.log, log_format);
}

fn set<T>(target: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *target = value;
    }
}
