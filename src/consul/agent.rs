//! The agent's own DNS settings, for those who want Portolan to behave like the agent beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::client::Client;
use super::json::go_duration;
use super::request::{Ask, Mode};

/// What the agent's `dns_config` says, as `/v1/agent/self` shows it (`DebugConfig`). What the
/// agent's release does not have is left at Consul's default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentDns {
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

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SoaJson {
    minttl: u32,
    refresh: u32,
    retry: u32,
    expire: u32,
}

impl Default for AgentDns {
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

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SelfJson {
    debug_config: AgentDns,
}

impl AgentDns {
    /// Asks the agent.
    ///
    /// # Errors
    /// Why it does not say: no connection, or a token that may not read the agent.
    pub async fn read(client: &Client) -> Result<Self, String> {
        let ask = Ask::new(&["agent", "self"]);
        let response = client
            .get(&ask, Mode::Leader)
            .await
            .map_err(|error| error.to_string())?;
        serde_json::from_slice::<SelfJson>(&response.body)
            .map(|json| json.debug_config)
            .map_err(|error| error.to_string())
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

    /// `soa`: min_ttl, refresh, retry, expire; `None` where one is 0.
    pub fn soa(&self) -> [Option<Duration>; 4] {
        let soa = &self.soa;
        [soa.minttl, soa.refresh, soa.retry, soa.expire].map(|seconds| {
            Some(Duration::from_secs(seconds.into())).filter(|duration| !duration.is_zero())
        })
    }
}

fn positive(text: &str) -> Option<Duration> {
    go_duration(text).filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_1_8_7() {
        let body = br#"{"Config":{"Version":"1.8.7"},"DebugConfig":{"DNSDomain":"example.",
            "DNSRecursors":["192.0.2.1:53"],"DNSNodeTTL":"10s","DNSServiceTTL":{"web*":"1m30s"},
            "DNSSOA":{"Minttl":0,"Refresh":7200,"Retry":600,"Expire":86400},
            "DNSUDPAnswerLimit":5,"TranslateWANAddrs":true,"DNSRecursorTimeout":"2s"}}"#;
        let json: SelfJson = serde_json::from_slice(body).expect("Consul's form");
        let agent = json.debug_config;
        assert_eq!(agent.domain, "example.");
        assert_eq!(agent.node_ttl(), Some(Duration::from_secs(10)));
        let ttls = agent.service_ttl();
        assert_eq!(ttls.get("web*"), Some(&Duration::from_secs(90)));
        assert_eq!(agent.soa()[..2], [None, Some(Duration::from_secs(7200))]);
        assert!(agent.translate_wan_addrs && !agent.only_passing);
        assert_eq!(agent.udp_answer_limit, 5);
    }
}
