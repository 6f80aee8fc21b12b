//! The shape of `portolan.toml`. Every value keeps its place in the text, and what it means is
//! found out later, so that an error can point at it.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::document::{Number, Span, Text, Texts};
use super::duration::Time;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Schema {
    pub(super) domain: Text,
    pub(super) alt_domain: Text,
    pub(super) datacenter: Text,
    pub(super) state_dir: Text,
    pub(super) server: ServerTable,
    pub(super) consul: ConsulTable,
    pub(super) docker: DockerTable,
    pub(super) register: RegisterTable,
    pub(super) services: ServicesTable,
    pub(super) zones: ZonesTable,
    pub(super) recursion: RecursionTable,
    pub(super) answers: AnswersTable,
    pub(super) admin: AdminTable,
    pub(super) log: LogTable,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ServerTable {
    pub(super) listen: Texts,
    pub(super) workers: Number,
    pub(super) max_tcp_connections: Number,
    pub(super) max_tcp_connections_per_client: Number,
    pub(super) tcp_idle_timeout: Span,
    pub(super) queue_size: Number,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConsulTable {
    pub(super) address: Text,
    pub(super) token: Text,
    pub(super) token_file: Text,
    pub(super) datacenter: Text,
    pub(super) fallback_addresses: Texts,
    pub(super) max_watches: Number,
    pub(super) max_stale: Span,
    pub(super) translate_wan_addrs: Option<bool>,
    pub(super) ca_file: Text,
    pub(super) ca_path: Text,
    pub(super) client_cert: Text,
    pub(super) client_key: Text,
    pub(super) tls_server_name: Text,
    pub(super) verify: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DockerTable {
    pub(super) address: Text,
    pub(super) cert_path: Text,
    pub(super) serve: Option<bool>,
    pub(super) ip: Text,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RegisterTable {
    pub(super) owner: Text,
    pub(super) ip: Text,
    pub(super) tags: Texts,
    pub(super) internal: Option<bool>,
    pub(super) explicit: Option<bool>,
    pub(super) deregister: Text,
    pub(super) on_exit: Text,
    pub(super) resync: Span,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ServicesTable {
    pub(super) directories: Texts,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ZonesTable {
    pub(super) directory: Text,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RecursionTable {
    pub(super) upstreams: Texts,
    pub(super) allow: Texts,
    pub(super) recursor_strategy: Text,
    pub(super) recursor_timeout: Span,
    pub(super) cache_size: Number,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AnswersTable {
    pub(super) max_udp_size: Number,
    pub(super) truncate_addresses: Text,
    pub(super) srv_target: Text,
    pub(super) srv_weight_scale: Number,
    pub(super) only_passing: Option<bool>,
    pub(super) service_ttl: BTreeMap<Spanned<String>, Spanned<Time>>,
    pub(super) node_ttl: Span,
    pub(super) a_record_limit: Number,
    pub(super) udp_answer_limit: Number,
    pub(super) soa: SoaTable,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SoaTable {
    pub(super) min_ttl: Span,
    pub(super) refresh: Span,
    pub(super) retry: Span,
    pub(super) expire: Span,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AdminTable {
    pub(super) listen: Text,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogTable {
    pub(super) format: Text,
}
