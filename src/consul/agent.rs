//! The agent beside us: its services, read and written, which is what a registrar needs of it, and what it says
//! of itself.
//!
//! Nothing that is registered here reaches the servers by itself: the agent keeps it, and brings the catalog
//! in line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use crate::catalog::Edition;

use super::client::{Ask, Client, Mode, RequestError, Response};
use super::json::go_duration;

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

    /// The token may not do it.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(&self.0, RequestError::Status { status, .. } if [401, 403].contains(&status.as_u16()))
    }

    /// What was to be taken away is not there. Before 1.14 that is an internal error.
    fn is_unknown(&self) -> bool {
        match &self.0 {
            RequestError::Status { status, body } => {
                status.as_u16() == 404
                    || body.contains("Unknown service")
                    || body.contains("Unknown check")
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

/// The node of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AgentNode {
    /// Its name.
    #[serde(rename = "Name")]
    pub name: String,
    /// The address that it is known by.
    #[serde(rename = "Addr")]
    pub address: IpAddr,
}

/// What the servers have of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entered {
    /// Its services by ID.
    pub services: BTreeMap<String, AgentService>,
    /// Its checks by ID.
    pub checks: BTreeMap<String, AgentCheck>,
}

#[derive(Debug, Deserialize)]
struct CatalogNodeJson {
    #[serde(rename = "Services")]
    services: Option<BTreeMap<String, AgentService>>,
}

#[derive(Debug, Deserialize)]
struct CatalogCheckJson {
    #[serde(rename = "CheckID")]
    id: String,
    #[serde(flatten)]
    check: AgentCheck,
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
pub struct Agent {
    client: Client,
}

/// A token, as far as it can be told from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMark(Option<Arc<HeaderValue>>);

#[cfg(test)]
impl TokenMark {
    /// Of this text.
    pub(crate) fn of(text: &'static str) -> Self {
        Self(Some(Arc::new(HeaderValue::from_static(text))))
    }
}

impl Agent {
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
    /// As [`Agent::services`].
    pub async fn checks(&self) -> Result<BTreeMap<String, AgentCheck>, AgentError> {
        self.read(&["agent", "checks"]).await
    }

    /// Does it have a service of this ID that the token may not read? Lists leave those out.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn hides(&self, id: &str) -> Result<bool, AgentError> {
        let ask = Ask {
            may_be_refused: true,
            ..Ask::new(&["agent", "service", id])
        };
        match self.client.get(&ask, Mode::Leader).await {
            Ok(_) => Ok(false),
            Err(error) => match AgentError(error) {
                error if error.is_forbidden() => Ok(true),
                error if error.is_refusal() => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Its node.
    ///
    /// # Errors
    /// [`AgentError`]; also where the token may not read the agent.
    pub async fn node(&self) -> Result<AgentNode, AgentError> {
        let member = itself(&self.client).await?.member;
        let no_member = || serde_json::Error::missing_field("Member");
        Ok(member.ok_or_else(no_member).map_err(RequestError::from)?)
    }

    /// What the servers have of a node: its services and their checks. `None` where the token may not read the node, or
    /// there is none of that name.
    ///
    /// # Errors
    /// [`AgentError`]; also while there is no leader.
    pub async fn catalog(&self, node: &str) -> Result<Option<Entered>, AgentError> {
        let services: Option<CatalogNodeJson> = self.read(&["catalog", "node", node]).await?;
        let Some(CatalogNodeJson { services }) = services else {
            return Ok(None);
        };
        let checks: Vec<CatalogCheckJson> = self.read(&["health", "node", node]).await?;
        let checks = checks.into_iter().map(|check| (check.id, check.check));
        Ok(Some(Entered {
            services: services.unwrap_or_default(),
            checks: checks.collect(),
        }))
    }

    /// Registers a service, or replaces the one with the same ID; its other checks stay only if they are to be kept.
    /// `body` is JSON as `PUT /v1/agent/service/register` takes it.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn register(&self, body: Vec<u8>, keep_checks: bool) -> Result<(), AgentError> {
        let mut ask = Ask::new(&["agent", "service", "register"]);
        if !keep_checks {
            ask.params
                .push(("replace-existing-checks", "true".to_owned()));
        }
        self.client.put(&ask, body).await?;
        Ok(())
    }

    /// Takes a check off. That it is gone already is as good.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn deregister_check(&self, id: &str) -> Result<(), AgentError> {
        let ask = Ask::new(&["agent", "check", "deregister", id]);
        match self.client.put(&ask, Vec::new()).await.map_err(AgentError) {
            Err(error) if !error.is_unknown() => Err(error),
            _ => Ok(()),
        }
    }

    /// The token that it is asked with, to be told from another.
    pub fn token(&self) -> TokenMark {
        TokenMark(self.client.token())
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

/// `/v1/agent/self`. What the agent's release does not have, or the token may not see, is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Itself {
    config: ConfigJson,
    debug_config: Option<DnsConfig>,
    member: Option<AgentNode>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigJson {
    version: String,
}

/// From this version on, Consul without Enterprise takes `default` for a namespace and a partition in names.
const DEFAULT_TENANCY: [u32; 3] = [1, 19, 2];

/// The question of an agent about itself.
pub(super) fn ask_itself() -> Ask {
    Ask {
        may_be_refused: true,
        ..Ask::new(&["agent", "self"])
    }
}

impl Itself {
    /// Reads the answer.
    pub(super) fn read(body: &[u8]) -> Result<Self, RequestError> {
        Ok(serde_json::from_slice(body)?)
    }

    /// Which Consul it is. Enterprise's versions end in `+ent`; one without a version is an old one.
    pub(super) fn edition(&self) -> Edition {
        let version = &self.config.version;
        let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse().ok());
        let mut number = || numbers.next().flatten().unwrap_or(0);
        let number: [u32; 3] = [number(), number(), number()];
        match version.contains("+ent") {
            true => Edition::Enterprise,
            false if number >= DEFAULT_TENANCY => Edition::DefaultTenancy,
            false => Edition::Community,
        }
    }
}

/// Asks an agent about itself.
///
/// # Errors
/// No connection, or a token that may not read the agent.
async fn itself(client: &Client) -> Result<Itself, RequestError> {
    let response = client.get(&ask_itself(), Mode::Leader).await?;
    Itself::read(&response.body)
}

/// What the agent's `dns_config` says, as `/v1/agent/self` shows it (`DebugConfig`). What the
/// agent's release does not have is left at Consul's default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DnsConfig {
    /// `domain`.
    #[serde(rename = "DNSDomain")]
    pub domain: String,
    /// `alt_domain`; empty for none.
    #[serde(rename = "DNSAltDomain")]
    pub alt_domain: String,
    /// `recursors`.
    #[serde(rename = "DNSRecursors")]
    pub recursors: Option<Vec<String>>,
    /// `recursor_strategy`.
    #[serde(rename = "DNSRecursorStrategy")]
    pub recursor_strategy: String,
    /// `only_passing`.
    #[serde(rename = "DNSOnlyPassing")]
    pub only_passing: bool,
    /// `enable_truncate`.
    #[serde(rename = "DNSEnableTruncate")]
    pub enable_truncate: bool,
    /// `a_record_limit`.
    #[serde(rename = "DNSARecordLimit")]
    pub a_record_limit: u32,
    /// `udp_answer_limit`.
    #[serde(rename = "DNSUDPAnswerLimit")]
    pub udp_answer_limit: u32,
    #[serde(rename = "DNSNodeTTL")]
    node_ttl: String,
    #[serde(rename = "DNSRecursorTimeout")]
    recursor_timeout: String,
    #[serde(rename = "DNSServiceTTL")]
    service_ttl: Option<BTreeMap<String, String>>,
    #[serde(rename = "DNSSOA")]
    soa: SoaJson,
    /// `translate_wan_addrs`.
    #[serde(rename = "TranslateWANAddrs")]
    pub translate_wan_addrs: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SoaJson {
    minttl: u32,
    refresh: u32,
    retry: u32,
    expire: u32,
}

impl Default for SoaJson {
    fn default() -> Self {
        Self {
            minttl: 0,
            refresh: 3600,
            retry: 600,
            expire: 86_400,
        }
    }
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            domain: "consul.".to_owned(),
            alt_domain: String::new(),
            recursors: None,
            recursor_strategy: String::new(),
            only_passing: false,
            enable_truncate: false,
            a_record_limit: 0,
            udp_answer_limit: 3,
            node_ttl: String::new(),
            recursor_timeout: String::new(),
            service_ttl: None,
            soa: SoaJson::default(),
            translate_wan_addrs: false,
        }
    }
}

impl DnsConfig {
    /// Asks the agent.
    ///
    /// # Errors
    /// Why it does not say: no connection, or a token that may not read the agent.
    pub async fn read(client: &Client) -> Result<Self, AgentError> {
        Ok(itself(client).await?.debug_config.unwrap_or_default())
    }

    /// `node_ttl`; `None` where it is 0, which is Consul's default.
    pub fn node_ttl(&self) -> Option<Duration> {
        positive(&self.node_ttl)
    }

    /// `recursor_timeout`.
    pub fn recursor_timeout(&self) -> Option<Duration> {
        positive(&self.recursor_timeout)
    }

    /// `service_ttl`, by name or pattern.
    pub fn service_ttl(&self) -> BTreeMap<String, Duration> {
        let entries = self.service_ttl.iter().flatten();
        entries
            .filter_map(|(name, ttl)| Some((name.clone(), go_duration(ttl)?)))
            .collect()
    }

    /// `soa.min_ttl`, in seconds; `None` where it is 0, which is Consul's default.
    pub fn min_ttl(&self) -> Option<u32> {
        Some(self.soa.minttl).filter(|seconds| *seconds > 0)
    }

    /// `soa`: refresh, retry and expire, in seconds. A 0 there is somebody's will.
    pub fn soa_timers(&self) -> [u32; 3] {
        [self.soa.refresh, self.soa.retry, self.soa.expire]
    }
}

fn positive(text: &str) -> Option<Duration> {
    go_duration(text).filter(|duration| !duration.is_zero())
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

    #[test]
    fn editions_by_version() {
        for (version, edition) in [
            ("", Edition::Community),
            ("1.8.7", Edition::Community),
            ("1.16.4", Edition::Community),
            ("1.19.1", Edition::Community),
            ("1.19.2", Edition::DefaultTenancy),
            ("1.20.0-rc1", Edition::DefaultTenancy),
            ("2.1.0", Edition::DefaultTenancy),
            ("1.16.4+ent", Edition::Enterprise),
            ("2.0.0+ent.fips1402", Edition::Enterprise),
        ] {
            let body = format!(r#"{{"Config":{{"Version":"{version}"}}}}"#);
            let itself = Itself::read(body.as_bytes()).expect("Consul's form");
            assert_eq!(itself.edition(), edition, "{version}");
        }
    }

    #[test]
    fn an_agent_of_1_8_7() {
        let body = br#"{"Config":{"Version":"1.8.7"},"DebugConfig":{"DNSDomain":"example.",
            "DNSRecursors":["192.0.2.1:53"],"DNSNodeTTL":"10s","DNSServiceTTL":{"web*":"1m30s"},
            "DNSSOA":{"Minttl":0,"Refresh":7200,"Retry":0,"Expire":86400},
            "DNSUDPAnswerLimit":5,"TranslateWANAddrs":true,"DNSRecursorTimeout":"2s"}}"#;
        let json: Itself = serde_json::from_slice(body).expect("Consul's form");
        assert_eq!(json.edition(), Edition::Community);
        let agent = json.debug_config.expect("it is there");
        assert_eq!(agent.domain, "example.");
        assert_eq!(agent.node_ttl(), Some(Duration::from_secs(10)));
        let ttls = agent.service_ttl();
        assert_eq!(ttls.get("web*"), Some(&Duration::from_secs(90)));
        assert_eq!(agent.min_ttl(), None);
        assert_eq!(agent.soa_timers(), [7200, 0, 86_400]);
        assert_eq!(DnsConfig::default().soa_timers(), [3600, 600, 86_400]);
        assert!(agent.translate_wan_addrs && !agent.only_passing);
        assert_eq!(agent.udp_answer_limit, 5);
    }
}
