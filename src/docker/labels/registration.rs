//! One service instance as Consul is to hear of it, and what an operator may say of all.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::catalog::Weights;
use crate::docker::health::Healthcheck;

/// Everything that a registration can say, in Consul's terms. What Consul would reject is not in
/// here: see [`super::desired`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The service id, unique among all registrations of one [`super::Desired`].
    pub id: String,
    /// The service's name.
    pub name: String,
    /// Tags in the order they were given, each once.
    pub tags: Vec<String>,
    /// Where it is reached.
    pub address: IpAddr,
    /// The port that goes with the address.
    pub port: u16,
    /// The addresses by family (`lan_ipv4`, `lan_ipv6`) of an instance that has both; else empty.
    pub tagged_addresses: BTreeMap<String, (IpAddr, u16)>,
    /// Metadata: no key is one that Consul rejects, and none looks like a secret.
    pub meta: BTreeMap<String, String>,
    /// The check that `SERVICE_CHECK_*` asks for, or the container's own HEALTHCHECK.
    pub check: Option<Check>,
    /// SRV weights; `None` leaves them to Consul.
    pub weights: Option<Weights>,
    /// Others may change the tags, in the catalog.
    pub enable_tag_override: bool,
    /// The id of the container, 64 hexadecimal digits.
    pub container_id: String,
    /// The container's name, without the slash.
    pub container_name: String,
    /// What the container's HEALTHCHECK says now, if it has one and `SERVICE_CHECK_HEALTHCHECK` does
    /// not switch it off. With another `check` than [`Probe::Health`] it is not for Consul.
    pub health: Option<Healthcheck>,
}

impl Registration {
    /// The id that Consul's agent gives the one check of this registration.
    pub fn check_id(&self) -> String {
        format!("service:{}", self.id)
    }
}

/// How Consul's agent is to check an instance. Durations are in Go's notation, as Consul takes
/// them, and known to be good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is done.
    pub probe: Probe,
    /// How often; `None` for the checks that Consul does not run itself.
    pub interval: Option<String>,
    /// For how long at most; `None` leaves it to Consul.
    pub timeout: Option<String>,
    /// `passing`, `warning` or `critical`; `None` leaves it to Consul, for which it is critical.
    pub initial_status: Option<String>,
    /// After how long in critical state Consul drops the service; `None` for never.
    pub deregister_after: Option<String>,
    /// The certificate is not verified.
    pub tls_skip_verify: bool,
}

/// The kinds of checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `SERVICE_CHECK_HTTP` and `SERVICE_CHECK_HTTPS`.
    Http {
        /// The whole URL.
        url: String,
        /// The method; `None` for GET.
        method: Option<String>,
    },
    /// `SERVICE_CHECK_TCP`: can it be connected to?
    Tcp {
        /// `IP:PORT`.
        target: String,
    },
    /// `SERVICE_CHECK_GRPC`: gRPC's own health protocol.
    Grpc {
        /// `IP:PORT`.
        target: String,
        /// Over TLS.
        tls: bool,
    },
    /// `SERVICE_CHECK_SCRIPT` and `SERVICE_CHECK_CMD`: a program that the agent runs.
    Script {
        /// The program and its arguments.
        args: Vec<String>,
    },
    /// `SERVICE_CHECK_DOCKER`: a program that the agent runs inside the container.
    Docker {
        /// The container's id.
        container_id: String,
        /// The shell.
        shell: Option<String>,
        /// The program and its arguments.
        args: Vec<String>,
    },
    /// `SERVICE_CHECK_TTL`: the service reports by itself, at least this often.
    Ttl {
        /// Go's notation.
        ttl: String,
    },
    /// The container's own HEALTHCHECK, reported to Consul as a TTL check by whoever registers.
    Health,
}

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
