//! What the list of containers says about one, and whether that is what we know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::container::{Container, Endpoint, Health, Port, Protocol};
use super::inspect::is_running;

/// Where a container is reached, as a list tells it: what it does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    /// The published ports, each with that of the host.
    ports: Option<BTreeSet<(Port, u16)>>,
    networks: Option<BTreeMap<String, Option<Endpoint>>>,
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
struct HealthJson {
    #[serde(default)]
    status: Option<String>,
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
                let endpoint = |(name, json): (&String, &Value)| (name.clone(), endpoint(json));
                networks.iter().map(endpoint).collect()
            }),
        }
    }

    fn health(&self) -> Option<Health> {
        if let Some(health) = &self.health {
            return Health::parse(health.status.as_deref()?);
        }
        let (_, word) = self.status.as_deref()?.rsplit_once('(')?;
        let word = word.trim_end_matches(')');
        Health::parse(word.strip_prefix("health: ").unwrap_or(word))
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
fn endpoint(json: &Value) -> Option<Endpoint> {
    let address = |key: &str| Some(json[key].as_str()?.parse::<IpAddr>().ok());
    Some(Endpoint {
        ipv4: address("IPAddress")?.filter(IpAddr::is_ipv4),
        ipv6: address("GlobalIPv6Address")?.filter(IpAddr::is_ipv6),
    })
}
