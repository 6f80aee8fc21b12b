//! The validated configuration and its defaults. Each field is the key of the same name in
//! `portolan.toml` unless it says otherwise.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::address::Address;
use super::containers::{Docker, Register};
use super::token::TokenSource;

/// Everything that can be set, after all layers and checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that was read, if one was.
    pub file: Option<PathBuf>,
    /// The domain that services are under, in lower case, without a final dot. Default `consul`.
    pub domain: String,
    /// A second domain with the same names. Default none.
    pub alt_domain: Option<String>,
    /// The datacenter that services from files belong to. Default `dc1`.
    pub datacenter: String,
    /// Where the last known catalog is kept across restarts. Default none: it is not kept.
    pub state_dir: Option<PathBuf>,
    /// `[server]`.
    pub server: Server,
    /// `[consul]`; `None` when its address is `none`.
    pub consul: Option<Consul>,
    /// `[docker]`.
    pub docker: Docker,
    /// `[register]`.
    pub register: Register,
    /// `services.directories`: Consul service-definition files as a catalog. Default none.
    pub services: Vec<PathBuf>,
    /// `zones.directory`: master files of static zones. Default none.
    pub zones: Option<PathBuf>,
    /// `[recursion]`.
    pub recursion: Recursion,
    /// `[answers]`.
    pub answers: Answers,
    /// `admin.listen`: where /healthz, /ready and /metrics are; `None` when it is `none`.
    /// Default `127.0.0.1:8054`.
    pub admin: Option<SocketAddr>,
    /// `log.format`. Default `text`.
    pub log: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            domain: "consul".to_owned(),
            alt_domain: None,
            datacenter: "dc1".to_owned(),
            state_dir: None,
            server: Server::default(),
            consul: Some(Consul::default()),
            docker: Docker::default(),
            register: Register::default(),
            services: Vec::new(),
            zones: None,
            recursion: Recursion::default(),
            answers: Answers::default(),
            admin: Some(loopback(8054)),
            log: LogFormat::Text,
        }
    }
}

/// Sockets and their limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Addresses for UDP and TCP, each once. Default `127.0.0.1:53`.
    pub listen: Vec<SocketAddr>,
    /// UDP workers per address. Default one per core.
    pub workers: usize,
    /// TCP connections open at once. The default of 512 fits under the usual limit of 1024 open
    /// files, with room for Consul and the sockets.
    pub max_tcp_connections: usize,
    /// The same from one client address; never above `max_tcp_connections`. Default 128.
    pub max_tcp_connections_per_client: usize,
    /// How long a TCP connection may be silent. Default 30 s: HAProxy keeps its connections open
    /// between one resolution and the next.
    pub tcp_idle_timeout: Duration,
    /// Queries that may wait for the full way of answering. Default 4096.
    pub queue_size: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![loopback(53)],
            workers: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            max_tcp_connections: 512,
            max_tcp_connections_per_client: 128,
            tcp_idle_timeout: Duration::from_secs(30),
            queue_size: 4096,
        }
    }
}

/// How to reach Consul and how much to ask of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consul {
    /// The HTTP API. Default `http://127.0.0.1:8500`.
    pub address: Address,
    /// Other agents of the same datacenter, asked in this order while the first is not well.
    /// Default none.
    pub fallback_addresses: Vec<Address>,
    /// `token` or `token_file`. Default: no token.
    pub token: TokenSource,
    /// The datacenter to ask for. Default: the agent's own.
    pub datacenter: Option<String>,
    /// Connections to Consul at most. Default 128; an agent resets the 201st of one client.
    pub max_watches: usize,
    /// For how long at most the last known good is served while Consul is away. Default: for as
    /// long as that lasts.
    pub max_stale: Duration,
    /// Instances and nodes of other datacenters answer with their `wan` addresses. Default false.
    pub translate_wan_addrs: bool,
    /// `ca_file`, `ca_path`, `client_cert`, `client_key`, `tls_server_name`, `verify`.
    pub tls: Tls,
}

impl Default for Consul {
    fn default() -> Self {
        Self {
            address: default_consul_address(),
            token: TokenSource::Anonymous,
            datacenter: None,
            fallback_addresses: Vec::new(),
            max_watches: 128,
            max_stale: Duration::MAX,
            translate_wan_addrs: false,
            tls: Tls::default(),
        }
    }
}

/// TLS to Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Who may vouch for Consul's certificate.
    pub authorities: Authorities,
    /// Our own certificate, where Consul asks for one. Default none.
    pub client: Option<ClientCertificate>,
    /// The name to expect in Consul's certificate. Default: the host of the address.
    pub server_name: Option<String>,
    /// Whether Consul's certificate is checked. Default true.
    pub verify: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            authorities: Authorities::System,
            client: None,
            server_name: None,
            verify: true,
        }
    }
}

/// Who may vouch for Consul's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authorities {
    /// Those the system trusts.
    #[default]
    System,
    /// Those in one PEM file.
    File(PathBuf),
    /// Those in the PEM files of a directory.
    Directory(PathBuf),
}

/// A PEM certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

/// What is done with names that are not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recursion {
    /// Who is asked. Default: the system's resolv.conf.
    pub upstreams: Upstreams,
    /// Clients that may recurse. Default: loopback, private and link-local networks. No network
    /// of v4-mapped addresses is in here: compare with a client's canonical address.
    pub allow: Vec<IpNet>,
    /// In which order upstreams are asked. Default `sequential`.
    pub recursor_strategy: RecursorStrategy,
    /// How long one upstream has to answer. Default 2 s, as in Consul.
    pub recursor_timeout: Duration,
    /// Answers kept in memory; 0 keeps none. Default 32768.
    pub cache_size: usize,
}

impl Default for Recursion {
    fn default() -> Self {
        Self {
            upstreams: Upstreams::System,
            allow: default_allow(),
            recursor_strategy: RecursorStrategy::Sequential,
            recursor_timeout: Duration::from_secs(2),
            cache_size: 32_768,
        }
    }
}

/// The resolvers that we recurse through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// Those in the system's resolv.conf.
    System,
    /// These, in this order; at least one.
    List(Vec<SocketAddr>),
    /// Recursion is off.
    None,
}

/// In which order upstreams are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecursorStrategy {
    /// As they are listed.
    Sequential,
    /// Shuffled for every query.
    Random,
}

/// How answers from the catalog are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The largest UDP answer in bytes, whatever the client takes. Default 65507.
    pub max_udp_size: u16,
    /// Whether an A or AAAA answer of a service that was cut says so. Default `silent`.
    pub truncate_addresses: TruncateAddresses,
    /// What SRV records point to. Default `consul`.
    pub srv_target: SrvTarget,
    /// What SRV weights are multiplied by, 1 or 256. Default 1.
    pub srv_weight_scale: u16,
    /// Whether instances with a warning are left out too. Default false.
    pub only_passing: bool,
    /// TTLs of services in whole seconds, by lower-case name, `prefix*` or `*`. There is always
    /// one for `*`; its default is 1 s.
    pub service_ttl: BTreeMap<String, Duration>,
    /// TTL of nodes and addresses in whole seconds. Default 5 s.
    pub node_ttl: Duration,
    /// A and AAAA records in one answer at most; 0 is no limit, and the default.
    pub a_record_limit: usize,
    /// Records in a UDP answer to a client without EDNS at most; 0 is no limit, and the default.
    pub udp_answer_limit: usize,
    /// `[answers.soa]`.
    pub soa: Soa,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            max_udp_size: 65_507,
            truncate_addresses: TruncateAddresses::Silent,
            srv_target: SrvTarget::Consul,
            srv_weight_scale: 1,
            only_passing: false,
            service_ttl: BTreeMap::from([("*".to_owned(), Duration::from_secs(1))]),
            node_ttl: Duration::from_secs(5),
            a_record_limit: 0,
            udp_answer_limit: 0,
            soa: Soa::default(),
        }
    }
}

/// Whether an A or AAAA answer of a service that was cut says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TruncateAddresses {
    /// No: the client gets a stable subset.
    Silent,
    /// Yes, with TC, so that the client comes back over TCP.
    Tc,
}

/// What SRV records point to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrvTarget {
    /// The node's name where the service has no address of its own, as in Consul.
    Consul,
    /// Always the name of the address, so that a moved instance gets a new target.
    Address,
}

/// The fields of the SOA record, in whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soa {
    /// TTL of negative answers. Default 1 s.
    pub min_ttl: Duration,
    /// Default 1 h.
    pub refresh: Duration,
    /// Default 10 min.
    pub retry: Duration,
    /// Default 24 h.
    pub expire: Duration,
}

impl Default for Soa {
    fn default() -> Self {
        Self {
            min_ttl: Duration::from_secs(1),
            refresh: Duration::from_secs(3_600),
            retry: Duration::from_secs(600),
            expire: Duration::from_secs(86_400),
        }
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn default_consul_address() -> Address {
    Address::parse("http://127.0.0.1:8500").expect("a constant that the tests read")
}

/// Loopback, private and link-local networks: whoever is in them is behind the same router.
fn default_allow() -> Vec<IpNet> {
    let networks = [
        (IpAddr::from([127, 0, 0, 0]), 8),
        (IpAddr::from([10, 0, 0, 0]), 8),
        (IpAddr::from([172, 16, 0, 0]), 12),
        (IpAddr::from([192, 168, 0, 0]), 16),
        (IpAddr::from([169, 254, 0, 0]), 16),
        (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128),
        (IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, 0]), 7),
        (IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10),
    ];
    networks
        .into_iter()
        .map(|(address, prefix)| IpNet::new_assert(address, prefix))
        .collect()
}
