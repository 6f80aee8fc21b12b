//! A container as we know it, and what Docker's inspect JSON says about it.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port inside a container, such as `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The number.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// Where on the host a port is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The host's address; unspecified for all of a family.
    pub ip: IpAddr,
    /// The port on the host.
    pub port: u16,
}

/// A container's place in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Endpoint {
    /// Its IPv4 address there.
    pub ipv4: Option<IpAddr>,
    /// Its global IPv6 address there.
    pub ipv6: Option<IpAddr>,
}

/// What a container's HEALTHCHECK says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not known yet.
    Starting,
    /// Good.
    Healthy,
    /// Bad.
    Unhealthy,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It runs. A paused one counts: `docker commit` pauses for moments.
    Running,
    /// It does not, and may never have; with its last exit code.
    Stopped {
        /// 0 if it never ran.
        exit_code: i64,
    },
}

/// A container, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the slash.
    pub name: String,
    /// The image as it was named at the start.
    pub image: String,
    /// The environment, in order.
    pub env: Vec<(String, String)>,
    /// The labels, its own and the image's.
    pub labels: BTreeMap<String, String>,
    /// The ports that image or command line expose.
    pub exposed: Vec<Port>,
    /// The ports that are published, with where; each at least once.
    pub published: BTreeMap<Port, Vec<Binding>>,
    /// `bridge`, `default`, `host`, `none`, `container:<id>`, or a network's name.
    pub network_mode: String,
    /// Its networks by name.
    pub networks: BTreeMap<String, Endpoint>,
    /// What it does.
    pub status: Status,
    /// When it was started last, as Docker writes it. It tells one run from another, no more.
    pub started_at: String,
    /// What its HEALTHCHECK says, if it has one.
    pub health: Option<Health>,
    /// The signal that `docker stop` sends, as configured: a name or a number.
    pub stop_signal: Option<String>,
    /// How many seconds `docker stop` gives it, as configured.
    pub stop_timeout: Option<u64>,
}

impl Container {
    /// The container whose network it uses, by name or id, if it uses that of another.
    pub(super) fn network_container(&self) -> Option<&str> {
        self.network_mode.strip_prefix("container:")
    }

    /// Does `text` mean the container of this id and name? The beginning of an id does.
    pub(super) fn is_called(text: &str, id: &str, name: &str) -> bool {
        text == name || (!text.is_empty() && id.starts_with(text))
    }
}
