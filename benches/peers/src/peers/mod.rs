//! The servers: how each is started on the same data, set up as its manual advises for speed, with one
//! thread unless asked for more, and without a log of queries.

pub(crate) mod consul;
mod dnsmasq;
mod echo;
mod hickory;
pub(crate) mod knot;
mod portolan;
mod unbound;

use crate::server::{Server, free_port};
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

/// A server, in the order in which tables show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    Echo,
    Portolan,
    Knot,
    Unbound,
    Dnsmasq,
    HickoryDns,
    /// A Consul server, which answers from its own memory.
    Consul,
    /// A Consul client agent, as most hosts run it, which asks the server behind it. Only the agent's
    /// own work is counted.
    ConsulAgent,
}

/// What a server is started with.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) world: &'a World,
    /// Whom to recurse through.
    pub(crate) upstream: Option<SocketAddr>,
    /// The Consul whose catalog Portolan serves; without, it is given service-definition files.
    pub(crate) consul: Option<SocketAddr>,
    pub(crate) workers: usize,
    pub(crate) cores: &'a [usize],
    /// Of its own, for its files.
    pub(crate) directory: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Peer {
    pub(crate) const ALL: [Self; 8] = [
        Self::Echo,
        Self::Portolan,
        Self::Knot,
        Self::Unbound,
        Self::Dnsmasq,
        Self::HickoryDns,
        Self::Consul,
        Self::ConsulAgent,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Portolan => "Portolan",
            Self::Knot => "Knot",
            Self::Unbound => "Unbound",
            Self::Dnsmasq => "dnsmasq",
            Self::HickoryDns => "hickory-dns",
            Self::Consul => "Consul server",
            Self::ConsulAgent => "Consul agent",
        }
    }

    /// Starts it. That it answers has to be waited for.
    pub(crate) fn start(
        self,
        world: &World,
        upstream: Option<SocketAddr>,
        consul: Option<SocketAddr>,
        cores: &[usize],
        directory: &Path,
    ) -> io::Result<Server> {
        let setup = Setup {
            world,
            upstream,
            consul,
            workers: cores.len(),
            cores,
            directory: directory.join(self.name()),
            address: (Ipv4Addr::LOCALHOST, free_port()?).into(),
        };
        fs::create_dir_all(&setup.directory)?;
        let command = match self {
            Self::Echo => echo::command(&setup),
            Self::Portolan => portolan::command(&setup)?,
            Self::Knot => knot::command(&setup)?,
            Self::Unbound => unbound::command(&setup)?,
            Self::Dnsmasq => dnsmasq::command(&setup)?,
            Self::HickoryDns => hickory::command(&setup)?,
            Self::Consul => return consul::start_server(&setup),
            Self::ConsulAgent => return consul::start_agent(&setup),
        };
        let log = setup.directory.join("log");
        Server::start(&command, cores, setup.address, log)
    }

    /// What it says its version is.
    fn version(self) -> String {
        let (mut command, flag) = match self {
            Self::Echo => return String::new(),
            Self::Portolan => (Command::new(portolan::program()), "--version"),
            Self::Knot => (Command::new("knotd"), "--version"),
            Self::Unbound => (Command::new("unbound"), "-V"),
            Self::Dnsmasq => (Command::new("dnsmasq"), "--version"),
            Self::HickoryDns => (Command::new(hickory::program()), "--version"),
            Self::Consul | Self::ConsulAgent => (Command::new(consul::program()), "version"),
        };
        let output = command.arg(flag).output();
        let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
        let text = String::from_utf8_lossy(&text);
        let is_version = |word: &&str| word.contains('.') && word.contains(char::is_numeric);
        let version = text.split_whitespace().find(is_version).unwrap_or_default();
        version.trim_start_matches('v').to_owned()
    }
}

/// The version of the server that tables call so.
pub(crate) fn version(name: &str) -> String {
    let found = Peer::ALL.iter().find(|peer| peer.name() == name);
    found.map_or_else(String::new, |peer| peer.version())
}

/// The repository, where `target` has what was built and downloaded.
pub(crate) fn repository() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.join("../..").components().collect()
}

/// Something that `run` has built or downloaded.
fn built(file: &str) -> PathBuf {
    repository().join("target").join(file)
}
