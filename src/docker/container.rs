//! A container as we know it, as an inspection and the list of containers tell of it.
//!
//! Whatever is missing, `null` or unknown in Docker's JSON is left out here: releases of Docker and
//! Podman differ, and none of it is worth losing a container.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::health::{HealthJson, Healthcheck, ProbingJson};

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

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
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
pub struct Attachment {
    /// Its IPv4 address there.
    pub ipv4: Option<IpAddr>,
    /// Its global IPv6 address there.
    pub ipv6: Option<IpAddr>,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
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
    pub networks: BTreeMap<String, Attachment>,
    /// What it does.
    pub run: Run,
    /// When it was started last, as Docker writes it. It tells one run from another, no more.
    pub started_at: String,
    /// What its HEALTHCHECK says, if it has one.
    pub health: Option<Healthcheck>,
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

/// `GET /containers/{id}/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectJson {
    id: String,
    name: Option<String>,
    config: Option<ConfigJson>,
    host_config: Option<HostConfigJson>,
    network_settings: Option<NetworkSettingsJson>,
    state: Option<StateJson>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigJson {
    image: Option<String>,
    env: Option<Vec<String>>,
    labels: Option<BTreeMap<String, Option<String>>>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    stop_signal: Option<String>,
    stop_timeout: Option<i64>,
    healthcheck: Option<ProbingJson>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfigJson {
    network_mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettingsJson {
    ports: Option<BTreeMap<String, Option<Vec<BindingJson>>>>,
    networks: Option<BTreeMap<String, Option<AttachmentJson>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BindingJson {
    host_ip: Option<String>,
    host_port: Option<String>,
}

#[derive(Debug, Deserialize)]
struct AttachmentJson {
    #[serde(rename = "IPAddress")]
    ip_address: Option<String>,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StateJson {
    status: Option<String>,
    running: Option<bool>,
    restarting: Option<bool>,
    exit_code: Option<i64>,
    started_at: Option<String>,
    health: Option<HealthJson>,
}

impl Container {
    /// Reads what Docker's inspection of one container says.
    ///
    /// # Errors
    /// What is wrong with the JSON.
    pub fn from_inspect(json: &[u8]) -> Result<Self, serde_json::Error> {
        let InspectJson {
            id,
            name,
            config,
            host_config,
            network_settings,
            state,
        } = serde_json::from_slice(json)?;
        let config = config.unwrap_or_default();
        let network = network_settings.unwrap_or_default();
        let state = state.unwrap_or_default();
        let name = name.unwrap_or_default();
        let retries = config.healthcheck.unwrap_or_default().retries();
        let is_paused = state.status.as_deref() == Some("paused");
        let health = state
            .health
            .as_ref()
            .and_then(|own| own.meant(is_paused, retries));
        Ok(Self {
            name: name.trim_start_matches('/').to_owned(),
            image: config.image.unwrap_or_default(),
            env: config.env.into_iter().flatten().map(variable).collect(),
            labels: config
                .labels
                .into_iter()
                .flatten()
                .map(|(key, value)| (key, value.unwrap_or_default()))
                .collect(),
            exposed: ports(config.exposed_ports),
            published: network
                .ports
                .into_iter()
                .flatten()
                .filter_map(|(port, bindings)| {
                    let bindings = bindings.iter().flatten().filter_map(binding);
                    let bindings: Vec<Binding> = bindings.collect();
                    (!bindings.is_empty()).then_some((Port::parse(&port)?, bindings))
                })
                .collect(),
            network_mode: host_config
                .and_then(|host| host.network_mode)
                .unwrap_or_default(),
            networks: network
                .networks
                .into_iter()
                .flatten()
                .map(|(name, found)| (name, found.map(attachment).unwrap_or_default()))
                .collect(),
            run: state.run(),
            started_at: state.started_at.unwrap_or_default(),
            health,
            stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
            stop_timeout: config
                .stop_timeout
                .and_then(|seconds| u64::try_from(seconds).ok()),
            id,
        })
    }
}

impl StateJson {
    fn run(&self) -> Run {
        let runs = match self.status.as_deref() {
            Some(status) => is_running(status),
            None => self.running == Some(true) && self.restarting != Some(true),
        };
        match runs {
            true => Run::Running,
            false => Run::Stopped {
                exit_code: self.exit_code.unwrap_or_default(),
            },
        }
    }
}

/// Does a container in this state run? One that waits for its next restart does not.
fn is_running(state: &str) -> bool {
    matches!(state, "running" | "paused")
}

impl Port {
    /// Reads `80`, `80/tcp`, `53/udp` or `9/sctp`.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let number = number.parse().ok().filter(|number| *number != 0)?;
        let protocol = Protocol::parse(protocol)?;
        Some(Self { number, protocol })
    }
}

impl Protocol {
    /// Reads `tcp`, `udp` or `sctp`.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }
}

fn variable(text: String) -> (String, String) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text, String::new()),
    }
}

fn ports<V>(map: Option<BTreeMap<String, V>>) -> Vec<Port> {
    let keys = map.into_iter().flatten().map(|(port, _)| port);
    let mut ports: Vec<Port> = keys.filter_map(|port| Port::parse(&port)).collect();
    ports.sort();
    ports
}

fn binding(json: &BindingJson) -> Option<Binding> {
    let ip = match json.host_ip.as_deref() {
        None | Some("") => Ipv4Addr::UNSPECIFIED.into(),
        Some(ip) => ip.parse().ok()?,
    };
    let port = json.host_port.as_deref()?.parse().ok()?;
    (port != 0).then_some(Binding { ip, port })
}

fn attachment(json: AttachmentJson) -> Attachment {
    let address = |text: Option<String>| text?.parse::<IpAddr>().ok();
    Attachment {
        ipv4: address(json.ip_address).filter(IpAddr::is_ipv4),
        ipv6: address(json.global_ipv6_address).filter(IpAddr::is_ipv6),
    }
}

/// Where a container is reached, as a list tells it: what it does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    /// The published ports, each with that of the host.
    ports: Option<BTreeSet<(Port, u16)>>,
    networks: Option<BTreeMap<String, Option<Attachment>>>,
}

/// An element of `GET /containers/json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Summary {
    pub(super) id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    state: Option<String>,
    /// For people: `Up 5 minutes (healthy)`, `Exited (1) 3 hours ago`.
    #[serde(default)]
    status: Option<String>,
    /// From API 1.52.
    #[serde(default)]
    health: Option<HealthJson>,
    #[serde(default)]
    network_settings: Option<NetworksJson>,
    /// Read without a type: what is odd in it is not to cost the container.
    #[serde(default)]
    ports: Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworksJson {
    #[serde(default)]
    networks: Option<BTreeMap<String, Value>>,
}

impl Summary {
    /// Its name: the one without a second slash, which links put before other names.
    pub(super) fn name(&self) -> &str {
        let names = self.names.iter().flatten();
        let mut names = names.map(|name| name.trim_start_matches('/'));
        names.find(|name| !name.contains('/')).unwrap_or_default()
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.as_deref().is_some_and(is_running)
    }

    /// The code that it ended with, if it ended. One that waits for its next restart did.
    pub(super) fn exit_code(&self) -> Option<i64> {
        let status = self.status.as_deref()?;
        let rest = status
            .strip_prefix("Exited (")
            .or_else(|| status.strip_prefix("Restarting ("))?;
        rest.split(')').next()?.parse().ok()
    }

    /// Is what we know of the container still so, as far as a list can tell? An event that was lost
    /// is made up for by this.
    pub(super) fn agrees_with(&self, known: &Container) -> bool {
        self.name() == known.name && self.health() == known.health
    }

    /// Where it is reached.
    pub(super) fn reached(&self) -> Reached {
        let settings = self.network_settings.as_ref();
        let networks = settings.and_then(|settings| settings.networks.as_ref());
        Reached {
            ports: self
                .ports
                .as_array()
                .map(|ports| ports.iter().filter_map(published).collect()),
            networks: networks.map(|networks| {
                let told = |(name, json): (&String, &Value)| (name.clone(), listed(json));
                networks.iter().map(told).collect()
            }),
        }
    }

    fn health(&self) -> Option<Healthcheck> {
        if let Some(health) = &self.health {
            return health.word();
        }
        let (_, word) = self.status.as_deref()?.rsplit_once('(')?;
        let word = word.trim_end_matches(')');
        Healthcheck::parse(word.strip_prefix("health: ").unwrap_or(word))
    }
}

impl Reached {
    /// Is the container known to be reached there?
    pub(super) fn agrees_with(&self, known: &Container) -> bool {
        let ports = || {
            let bindings = known.published.iter();
            let published = bindings
                .flat_map(|(port, bindings)| bindings.iter().map(|binding| (*port, binding.port)));
            published.collect::<BTreeSet<_>>()
        };
        self.ports.as_ref().is_none_or(|listed| *listed == ports())
            && self.networks.as_ref().is_none_or(|listed| {
                listed.len() == known.networks.len()
                    && listed.iter().all(|(name, listed)| {
                        let known = known.networks.get(name);
                        known.is_some_and(|known| listed.is_none_or(|listed| listed == *known))
                    })
            })
    }
}

/// An element of the list of ports, if the port is published.
fn published(json: &Value) -> Option<(Port, u16)> {
    let number = |key: &str| {
        let number = json[key].as_u64().and_then(|port| u16::try_from(port).ok());
        number.filter(|port| *port != 0)
    };
    let protocol = Protocol::parse(json["Type"].as_str()?)?;
    let port = Port {
        number: number("PrivatePort")?,
        protocol,
    };
    Some((port, number("PublicPort")?))
}

/// The addresses in one network, if they are told.
fn listed(json: &Value) -> Option<Attachment> {
    let address = |key: &str| Some(json[key].as_str()?.parse::<IpAddr>().ok());
    Some(Attachment {
        ipv4: address("IPAddress")?.filter(IpAddr::is_ipv4),
        ipv6: address("GlobalIPv6Address")?.filter(IpAddr::is_ipv6),
    })
}
