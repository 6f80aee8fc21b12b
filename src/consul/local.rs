//! The services of one agent, read and written: what a registrar needs of it.
//!
//! None of this reaches the servers by itself: the agent keeps what is registered with it, and
//! brings the catalog in line.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::client::Client;
use super::request::{Ask, Mode, RequestError, Response};

/// Why the agent did not do as asked. The text never holds the token.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AgentError(#[from] RequestError);

impl AgentError {
    /// The agent looked at this one request and would not do it: it is no trouble of the agent's
    /// that concerns all others too.
    pub fn is_refusal(&self) -> bool {
        // Before 1.14 an agent says 500 to much that is the request's own fault.
        matches!(&self.0, RequestError::Status { .. })
    }

    /// What was to be taken away is not there. Before 1.14 that is an internal error.
    fn is_unknown(&self) -> bool {
        match &self.0 {
            RequestError::Status { status, body } => {
                status.as_u16() == 404 || body.contains("Unknown service")
            }
            _ => false,
        }
    }

    /// A short name, for a metric.
    pub fn kind(&self) -> &'static str {
        self.0.kind()
    }
}

/// A service as its agent shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentService {
    /// Its name.
    #[serde(rename = "Service")]
    pub name: String,
    /// Its metadata.
    #[serde(deserialize_with = "null_as_empty")]
    pub meta: BTreeMap<String, String>,
    /// Its own address; empty for the node's.
    pub address: String,
    /// Its port. Others register what they like, and Consul takes it: -1 or 70000.
    pub port: i64,
}

/// A check as its agent shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentCheck {
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// What it last said.
    pub output: String,
    /// The service that it belongs to; empty for the node.
    #[serde(rename = "ServiceID")]
    pub service: String,
}

/// Consul writes `null` for a map that has nothing in it.
fn null_as_empty<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The agent that services are registered with. It has to be the same one always: another agent
/// would enter them on another node.
#[derive(Debug, Clone)]
pub struct LocalAgent {
    client: Client,
}

impl LocalAgent {
    /// The agent that the client speaks to, which must be one.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// All its services by ID, those of others too.
    ///
    /// # Errors
    /// [`AgentError`]: then nothing is known, least of all that there are none.
    pub async fn services(&self) -> Result<BTreeMap<String, AgentService>, AgentError> {
        self.read(&["agent", "services"]).await
    }

    /// All its checks by ID.
    ///
    /// # Errors
    /// As [`LocalAgent::services`].
    pub async fn checks(&self) -> Result<BTreeMap<String, AgentCheck>, AgentError> {
        self.read(&["agent", "checks"]).await
    }

    /// The address that the agent's node is known by.
    ///
    /// # Errors
    /// [`AgentError`]; also where the token may not read the agent.
    pub async fn address(&self) -> Result<IpAddr, AgentError> {
        #[derive(Deserialize)]
        struct Itself {
            #[serde(rename = "Member")]
            member: Member,
        }
        #[derive(Deserialize)]
        struct Member {
            #[serde(rename = "Addr")]
            address: IpAddr,
        }
        let itself: Itself = self.read(&["agent", "self"]).await?;
        Ok(itself.member.address)
    }

    /// Registers a service, or replaces the one with the same ID, checks and all. `body` is JSON
    /// as `PUT /v1/agent/service/register` takes it.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn register(&self, body: Vec<u8>) -> Result<(), AgentError> {
        let mut ask = Ask::new(&["agent", "service", "register"]);
        // Otherwise a check that the definition no longer has would stay.
        ask.params
            .push(("replace-existing-checks", "true".to_owned()));
        self.client.put(&ask, body).await?;
        Ok(())
    }

    /// Takes a service off. That it is gone already is as good.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn deregister(&self, id: &str) -> Result<(), AgentError> {
        let ask = Ask::new(&["agent", "service", "deregister", id]);
        match self.client.put(&ask, Vec::new()).await.map_err(AgentError) {
            Err(error) if !error.is_unknown() => Err(error),
            _ => Ok(()),
        }
    }

    /// Sets a TTL check, which starts its time anew. With the same status and output the agent
    /// keeps it to itself: the servers hear nothing of it.
    ///
    /// # Errors
    /// [`AgentError`]; of an unknown check too.
    pub async fn update_check(
        &self,
        id: &str,
        status: &str,
        output: &str,
    ) -> Result<(), AgentError> {
        let ask = Ask::new(&["agent", "check", "update", id]);
        let body = serde_json::json!({ "Status": status, "Output": output });
        self.client.put(&ask, body.to_string().into_bytes()).await?;
        Ok(())
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &[&str]) -> Result<T, AgentError> {
        let Response { body, .. } = self.client.get(&Ask::new(path), Mode::Leader).await?;
        Ok(serde_json::from_slice(&body).map_err(RequestError::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_service_of_somebody_else_hides_no_other() {
        let json = r#"{
            "a": { "Service": "a", "Meta": null, "Port": -1 },
            "b": { "Service": "b", "Meta": {}, "Port": 70000 },
            "c": { "Service": "c", "Meta": { "k": "v" }, "Port": 80 }
        }"#;
        let services: BTreeMap<String, AgentService> = serde_json::from_str(json).expect("JSON");
        let ports: Vec<i64> = services.values().map(|service| service.port).collect();
        assert_eq!(ports, [-1, 70_000, 80]);
    }
}
