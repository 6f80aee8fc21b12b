//! A real Consul, from the binary that `tests/run` unpacks.

use super::{directory, eventually, free_ports, http, own_loopback, process::Process};
use serde_json::{Value, json};
use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// What a Consul is started with. The default is a datacenter of one server.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// A server; otherwise a client agent, which forwards to the servers that it joins.
    pub(crate) server: bool,
    /// The datacenter's name.
    pub(crate) datacenter: String,
    /// How many servers elect the first leader.
    pub(crate) bootstrap_expect: usize,
    /// The LAN gossip addresses (`Consul::lan`) of servers to join.
    pub(crate) join: Vec<SocketAddr>,
    /// The WAN gossip addresses (`Consul::wan`) of servers of other datacenters to join.
    pub(crate) join_wan: Vec<SocketAddr>,
    /// Speak HTTPS as well, with the certificate and key that `extra` names.
    pub(crate) https: bool,
    /// Anything else of Consul's configuration; its keys win over ours.
    pub(crate) extra: Value,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            server: true,
            datacenter: "dc1".to_owned(),
            bootstrap_expect: 1,
            join: Vec::new(),
            join_wan: Vec::new(),
            https: false,
            extra: json!({}),
        }
    }
}

/// A Consul, most often a server, on a loopback address of its own.
pub(crate) struct Consul {
    // Declared before the directory: the process has to end before its files go.
    process: Process,
    directory: TempDir,
    ip: Ipv4Addr,
    http: u16,
    https: u16,
    dns: u16,
    raft: u16,
    serf_lan: u16,
    serf_wan: u16,
    node: String,
}

impl Consul {
    /// One server, ready: it has a leader and knows itself.
    pub(crate) fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// One server with these options, ready.
    pub(crate) fn start_with(options: Options) -> Self {
        let consul = Self::launch(options);
        consul.wait_until_ready();
        consul
    }

    /// Starts a server and waits for nothing: a member of a cluster has no leader until enough of
    /// them run.
    pub(crate) fn launch(options: Options) -> Self {
        let directory = directory();
        let ip = own_loopback();
        let [http, https, dns, server, serf_lan, serf_wan] = free_ports(ip);
        let node = format!("consul-{}", ip.octets()[3]);
        // Gossip timings of Consul's `-dev` mode, so that tests need not wait for failures.
        let gossip = json!({ "gossip_interval": "100ms", "probe_interval": "100ms",
            "probe_timeout": "100ms", "suspicion_mult": 3 });
        let texts = |addresses: &[SocketAddr]| -> Vec<String> {
            addresses.iter().map(SocketAddr::to_string).collect()
        };
        let mut config = json!({
            "datacenter": options.datacenter,
            "node_name": node,
            "server": options.server,
            "retry_join": texts(&options.join),
            "retry_interval": "200ms",
            "retry_join_wan": texts(&options.join_wan),
            "retry_interval_wan": "200ms",
            "data_dir": directory.path().join("data"),
            "bind_addr": ip,
            "client_addr": ip.to_string(),
            "ports": { "http": http, "dns": dns, "server": server, "serf_lan": serf_lan,
                "serf_wan": serf_wan, "grpc": -1 },
            "performance": { "raft_multiplier": 1 },
            "gossip_lan": gossip,
            "gossip_wan": gossip,
            "disable_update_check": true,
            "log_level": "INFO",
        });
        if options.server {
            config["bootstrap_expect"] = options.bootstrap_expect.into();
        }
        if options.https {
            config["ports"]["https"] = https.into();
        }
        merge(&mut config, &options.extra);
        let file = directory.path().join("consul.json");
        std::fs::write(&file, config.to_string()).expect("writing Consul's configuration");
        let process = spawn(&node, directory.path());
        Self {
            process,
            directory,
            ip,
            http,
            https,
            dns,
            raft: server,
            serf_lan,
            serf_wan,
            node,
        }
    }

    /// Waits for a leader that has entered this server in the catalog.
    pub(crate) fn wait_until_ready(&self) {
        let path = format!("/v1/health/node/{}", self.node);
        eventually(Duration::from_secs(30), "Consul is ready", || {
            let leader = http::get(self.http(), "/v1/status/leader")?;
            if leader.status != 200 || leader.body.trim() == "\"\"" {
                return Err(format!("no leader: {leader:?}"));
            }
            let checks = http::get(self.http(), &path)?;
            match checks.status {
                200 if checks.body.contains("\"passing\"") => Ok(()),
                _ => Err(format!("not in the catalog: {checks:?}")),
            }
        });
    }

    /// Whether it is a 1.8, whose every deviation is listed; newer ones have mended some.
    pub(crate) fn is_old(&self) -> bool {
        let itself = http::get(self.http(), "/v1/agent/self").expect("an agent tells its version");
        itself.body.contains("\"Version\":\"1.8.") || itself.body.contains("\"Version\": \"1.8.")
    }

    /// Its HTTP API.
    pub(crate) fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip.into(), self.http)
    }

    /// Its HTTP API as a URL, for `--consul`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.http())
    }

    /// Its HTTPS API as a URL, for `--consul`.
    pub(crate) fn https_url(&self) -> String {
        format!("https://{}:{}", self.ip, self.https)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its own DNS port: the oracle of the equality tests.
    pub(crate) fn dns(&self) -> SocketAddr {
        SocketAddr::new(self.ip.into(), self.dns)
    }

    /// Its address among the servers, by which `/v1/status/leader` calls it.
    pub(crate) fn raft(&self) -> SocketAddr {
        SocketAddr::new(self.ip.into(), self.raft)
    }

    /// Its gossip address, for another server's `Options::join`.
    pub(crate) fn lan(&self) -> SocketAddr {
        SocketAddr::new(self.ip.into(), self.serf_lan)
    }

    /// Its WAN gossip address, for `Options::join_wan` of a server of another datacenter.
    pub(crate) fn wan(&self) -> SocketAddr {
        SocketAddr::new(self.ip.into(), self.serf_wan)
    }

    /// Its node name.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// `GET path`, which has to succeed.
    pub(crate) fn get(&self, path: &str) -> Value {
        let response = http::get(self.http(), path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(response.status, 200, "GET {path}: {}", response.body);
        response.json()
    }

    /// `PUT path`, which has to succeed.
    pub(crate) fn put(&self, path: &str, body: &Value) {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        // At its limit of connections Consul resets one of ours as soon as anybody's.
        let response = eventually(Duration::from_secs(5), "Consul takes a PUT", || {
            http::put(self.http(), path, &body)
        });
        assert_eq!(response.status, 200, "PUT {path} {body}: {}", response.body);
    }

    /// `POST path`, which has to succeed: gives the answer.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let response = http::request(self.http(), "POST", path, &body.to_string())
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            response.status, 200,
            "POST {path} {body}: {}",
            response.body
        );
        response.json()
    }

    /// Defines a prepared query and gives its ID.
    pub(crate) fn define_query(&self, query: &Value) -> String {
        let answer = self.post("/v1/query", query);
        let id = answer["ID"].as_str();
        id.unwrap_or_else(|| panic!("no ID for {query}: {answer}"))
            .to_owned()
    }

    /// Enters a node, and a service or checks on it, in the catalog, past any agent.
    pub(crate) fn register(&self, entry: &Value) {
        self.put("/v1/catalog/register", entry);
    }

    /// Takes an instance off the catalog.
    pub(crate) fn deregister(&self, node: &str, service_id: &str) {
        let entry = json!({ "Node": node, "ServiceID": service_id });
        self.put("/v1/catalog/deregister", &entry);
    }

    /// Takes a node with all it has off the catalog.
    pub(crate) fn deregister_node(&self, node: &str) {
        self.put("/v1/catalog/deregister", &json!({ "Node": node }));
    }

    /// Registers a service at this server's own agent.
    pub(crate) fn agent_register(&self, service: &Value) {
        self.put("/v1/agent/service/register", service);
    }

    /// Deregisters a service of this server's own agent.
    pub(crate) fn agent_deregister(&self, id: &str) {
        let path = format!("/v1/agent/service/deregister/{id}");
        self.put(&path, &Value::Null);
    }

    /// Sets a TTL check of the agent to `passing`, `warning` or `critical`.
    pub(crate) fn set_check(&self, id: &str, status: &str) {
        let path = format!("/v1/agent/check/update/{id}");
        self.put(&path, &json!({ "Status": status }));
    }

    /// Stops it in its tracks: connections stay open and nothing answers.
    pub(crate) fn pause(&self) {
        self.process.signal("STOP");
    }

    /// Lets it go on after `pause`.
    pub(crate) fn resume(&self) {
        self.process.signal("CONT");
    }

    /// Ends it as a crash would. Its data stay for `restart`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same ports, with nothing of what it knew; waits for nothing.
    pub(crate) fn restart_empty(&mut self) {
        self.process.kill();
        std::fs::remove_dir_all(self.directory.path().join("data")).expect("Consul's data");
        self.process = spawn(&self.node, self.directory.path());
    }

    /// Sets a key of its KV store.
    pub(crate) fn set_key(&self, key: &str, value: &str) {
        let path = format!("/v1/kv/{key}");
        let response =
            http::put(self.http(), &path, value).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(response.status, 200, "PUT {path}: {}", response.body);
    }

    /// Removes a key of its KV store.
    pub(crate) fn delete_key(&self, key: &str) {
        let path = format!("/v1/kv/{key}");
        let response = http::request(self.http(), "DELETE", &path, "")
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(response.status, 200, "DELETE {path}: {}", response.body);
    }

    /// Starts it again, on the same ports and data; waits for nothing.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.node, self.directory.path());
    }
}

/// An entry for `Consul::register`: one instance, with the node it is on. `service` is Consul's JSON
/// (`Service`, `ID`, `Address`, `Port`, `Tags`, `Weights` ...).
pub(crate) fn instance(node: &str, node_address: &str, service: &Value) -> Value {
    json!({ "Node": node, "Address": node_address, "Service": service })
}

fn spawn(node: &str, directory: &Path) -> Process {
    let mut command = Command::new(binary());
    command
        .arg("agent")
        .arg("-config-file")
        .arg(directory.join("consul.json"));
    // A developer's own Consul settings are none of ours.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CONSUL_") {
            command.env_remove(name);
        }
    }
    let name = format!("Consul server {node}");
    Process::start(&name, command, &directory.join("consul.log"))
}

fn binary() -> PathBuf {
    if let Some(path) = env::var_os("PORTOLAN_CONSUL") {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "PORTOLAN_CONSUL={}: no such file",
            path.display()
        );
        return path;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/programs/consul/usr/bin/consul");
    assert!(
        path.is_file(),
        "there is no Consul: run tests/run, it downloads one, or set PORTOLAN_CONSUL=/path/to/consul"
    );
    path
}

/// Lays `extra` over `config`, object by object.
fn merge(config: &mut Value, extra: &Value) {
    match (config, extra) {
        (Value::Object(config), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(config.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (config, extra) => *config = extra.clone(),
    }
}
