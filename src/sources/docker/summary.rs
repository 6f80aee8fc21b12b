//! What the list of containers says about one, and whether that is what we know.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::container::{Container, Health};
use super::inspect::is_running;

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
    networks: Option<BTreeMap<String, serde::de::IgnoredAny>>,
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

    /// The code that it ended with, if it ended.
    pub(super) fn exit_code(&self) -> Option<i64> {
        let rest = self.status.as_deref()?.strip_prefix("Exited (")?;
        rest.split(')').next()?.parse().ok()
    }

    /// Is what we know of the container still so, as far as a list can tell? An event that was lost
    /// is made up for by this.
    pub(super) fn agrees_with(&self, known: &Container) -> bool {
        let networks = self
            .network_settings
            .as_ref()
            .and_then(|settings| settings.networks.as_ref());
        self.name() == known.name
            && self.health() == known.health
            && networks.is_none_or(|listed| listed.keys().eq(known.networks.keys()))
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
