//! How a command ends when it does not end well.

use crate::{config, haproxy, recursion, register, server, zones};
use crate::{consul, docker, files};

/// Wrong configuration (`EX_CONFIG` of sysexits.h).
const CONFIGURATION: u8 = 78;
/// Anything else.
const OTHER: u8 = 1;

/// What ended a command, each thing in one line.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Several things, told at once.
    #[error("{}", lines(.0))]
    All(Vec<Self>),
    /// portolan.toml, the environment or a flag.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A zone file.
    #[error(transparent)]
    Zones(#[from] zones::Error),
    /// A service-definition file.
    #[error(transparent)]
    Services(#[from] files::Error),
    /// The upstreams.
    #[error(transparent)]
    Recursion(#[from] recursion::Error),
    /// The token or a TLS file for Consul.
    #[error("consul: {0}")]
    Consul(#[from] consul::ClientError),
    /// `consul.address` is `none` where there is nothing to do without Consul.
    #[error("consul.address: `none`, but `portolan {command}` needs Consul: name its agent")]
    NoConsul {
        /// The command.
        command: &'static str,
    },
    /// Docker cannot be asked.
    #[error("Docker cannot be asked: {0}; does it run, and may this user use its socket?")]
    Docker(docker::Error),
    /// There is no name for our services.
    #[error(transparent)]
    Owner(#[from] register::OwnerError),
    /// Docker is not followed any more.
    #[error(transparent)]
    Unfollowed(#[from] register::Unfollowed),
    /// A defect of ours ended what the command is for.
    #[error("ended by itself: {0}")]
    Task(tokio::task::JoinError),
    /// Consul's agent cannot be used.
    #[error("Consul's agent cannot be used: {0}")]
    Agent(#[from] consul::AgentError),
    /// Some services are not registered as they should be; the log says which and why.
    #[error("Consul's agent refused {services} of the services")]
    Refused {
        /// How many.
        services: usize,
    },
    /// HAProxy, or what it is to run on.
    #[error("haproxy: {0}")]
    Haproxy(#[from] haproxy::Error),
    /// A socket.
    #[error(transparent)]
    Bind(#[from] server::BindError),
    /// A socket from the service manager.
    #[error(transparent)]
    Inherit(#[from] server::InheritError),
    /// `check --running`: it does not run, or is not ready.
    #[error("not ready: {why}")]
    NotReady {
        /// What it said, or why it said nothing.
        why: String,
    },
    /// `register --explain`: no such container.
    #[error("no container is called {name:?}, or it does not run")]
    NoContainer {
        /// What was asked for.
        name: String,
    },
    /// The admin socket.
    #[error(
        "cannot listen on {address} for --admin: {source}; choose another address or `--admin none`"
    )]
    Admin {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The directory of the state file.
    #[error("state_dir {}: {source}", directory.display())]
    StateDirectory {
        /// The directory.
        directory: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something that the system would not do.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

impl From<config::Errors> for Failure {
    fn from(errors: config::Errors) -> Self {
        Self::All(errors.into_iter().map(Self::Config).collect())
    }
}

fn lines(failures: &[Failure]) -> String {
    let lines: Vec<String> = failures.iter().map(Failure::to_string).collect();
    lines.join("\n")
}

impl Failure {
    /// Each thing that is wrong.
    pub fn each(&self) -> &[Self] {
        match self {
            Self::All(failures) => failures,
            one => std::slice::from_ref(one),
        }
    }

    /// The exit code: 78 for what the configuration says, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::All(failures) => {
                let codes = failures.iter().map(Self::exit_code);
                codes.max().unwrap_or(OTHER)
            }
            Self::Config(_)
            | Self::Zones(_)
            | Self::Services(_)
            | Self::Recursion(_)
            | Self::Consul(_)
            | Self::Haproxy(haproxy::Error::Template(_) | haproxy::Error::Claim(_))
            | Self::NoConsul { .. }
            | Self::StateDirectory { .. } => CONFIGURATION,
            Self::Haproxy(_)
            | Self::Bind(_)
            | Self::Inherit(_)
            | Self::NotReady { .. }
            | Self::NoContainer { .. }
            | Self::Admin { .. }
            | Self::Docker(_)
            | Self::Owner(_)
            | Self::Unfollowed(_)
            | Self::Task(_)
            | Self::Agent(_)
            | Self::Refused { .. }
            | Self::System { .. } => OTHER,
        }
    }
}
