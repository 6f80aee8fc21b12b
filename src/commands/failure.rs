//! How a command ends when it does not end well.

use crate::sources::{consul, files};
use crate::{config, haproxy, recursion, server, zones};

/// Wrong configuration (`EX_CONFIG` of sysexits.h).
const CONFIGURATION: u8 = 78;
/// Anything else.
const OTHER: u8 = 1;

/// What ended a command, in one line.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// portolan.toml or the environment.
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
    /// A name in the configuration.
    #[error("{key}: {source}")]
    Name {
        /// The key that holds it.
        key: &'static str,
        /// What is wrong with it.
        source: crate::names::NameError,
    },
    /// HAProxy, or what it is to run on.
    #[error("haproxy: {0}")]
    Haproxy(#[from] haproxy::Error),
    /// There is nothing to configure HAProxy from.
    #[error("consul.address is `none`: `portolan haproxy` needs Consul")]
    NoConsul,
    /// A socket.
    #[error(transparent)]
    Bind(#[from] server::BindError),
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

impl Failure {
    /// The exit code: 78 for what the configuration says, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Zones(_)
            | Self::Services(_)
            | Self::Recursion(_)
            | Self::Consul(_)
            | Self::Haproxy(haproxy::Error::Template(_))
            | Self::NoConsul
            | Self::StateDirectory { .. }
            | Self::Name { .. } => CONFIGURATION,
            Self::Haproxy(_) | Self::Bind(_) | Self::Admin { .. } | Self::System { .. } => OTHER,
        }
    }
}
