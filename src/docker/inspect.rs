//! Docker's inspect JSON, as far as we read it. Whatever is missing, `null` or unknown there is
//! left out here: releases of Docker and Podman differ, and none of it is worth losing a container.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::container::{Binding, Container, Endpoint, Health, Port, Protocol, Status};

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
    networks: Option<BTreeMap<String, Option<EndpointJson>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BindingJson {
    host_ip: Option<String>,
    host_port: Option<String>,
}

#[derive(Debug, Deserialize)]
struct EndpointJson {
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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthJson {
    status: Option<String>,
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
                .map(|(name, endpoint)| (name, endpoint.map(endpoint_of).unwrap_or_default()))
                .collect(),
            status: state.status(),
            started_at: state.started_at.unwrap_or_default(),
            health: state
                .health
                .and_then(|health| Health::parse(&health.status?)),
            stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
            stop_timeout: config
                .stop_timeout
                .and_then(|seconds| u64::try_from(seconds).ok()),
            id,
        })
    }
}

impl StateJson {
    fn status(&self) -> Status {
        let runs = match self.status.as_deref() {
            Some(status) => is_running(status),
            None => self.running == Some(true) && self.restarting != Some(true),
        };
        match runs {
            true => Status::Running,
            false => Status::Stopped {
                exit_code: self.exit_code.unwrap_or_default(),
            },
        }
    }
}

/// Does a container in this state run? One that waits for its next restart does not.
pub(super) fn is_running(state: &str) -> bool {
    matches!(state, "running" | "paused")
}

impl Health {
    /// Reads Docker's word; `none` and words of the future are no health.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "starting" => Some(Self::Starting),
            "healthy" => Some(Self::Healthy),
            "unhealthy" => Some(Self::Unhealthy),
            _ => None,
        }
    }
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

fn endpoint_of(json: EndpointJson) -> Endpoint {
    let address = |text: Option<String>| text?.parse::<IpAddr>().ok();
    Endpoint {
        ipv4: address(json.ip_address).filter(IpAddr::is_ipv4),
        ipv6: address(json.global_ipv6_address).filter(IpAddr::is_ipv6),
    }
}
