//! How containers become registrations.

use std::net::IpAddr;

/// Where instances are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Published ports, at the host's address: Registrator's default.
    #[default]
    Published,
    /// All exposed ports, at the container's address: Registrator's `-internal`.
    Internal,
    /// A container's published ports if it has any, else its exposed ports at its own address.
    Either,
}

/// When the services of a container that has ended are removed from Consul.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deregister {
    /// Whatever it ended with.
    #[default]
    Always,
    /// Only when it ended with 0 or was ended by a signal (a code with bit 128), as in Registrator.
    OnSuccess,
}

impl Deregister {
    /// Is a container that ended with this code to stay registered?
    pub fn keeps(self, exit_code: i64) -> bool {
        self == Self::OnSuccess && exit_code != 0 && exit_code & 128 == 0
    }
}

/// How containers become registrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where instances are reached; `SERVICE_INTERNAL` of a container goes before it.
    pub reach: Reach,
    /// Only containers that bear a `SERVICE_NAME`.
    pub explicit: bool,
    /// `--ip`: the address of published ports, whatever address they are published on (except on
    /// loopback, where nobody else would reach them). Without effect on internal ones.
    pub ip: Option<IpAddr>,
    /// The host's own address, for ports that are published on all addresses: for `register` the
    /// address of Consul's agent.
    pub host: IpAddr,
    /// Tags that every service gets, after its own.
    pub tags: Vec<String>,
    /// The first part of service ids, `<host name>:<container name>:<port>[:udp]`.
    pub host_name: String,
}
