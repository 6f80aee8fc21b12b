//! A Consul that lies on demand: for what a real one cannot be made to say. Left alone it is honest,
//! as far as Portolan reads it: it lists services and nodes, blocks until the index moves, and for each service
//! has a prepared query of the same name.

mod lie;

use super::{door::Door, request::Request};
pub(crate) use lie::Lie;
use lie::message;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufReader, ErrorKind, Write},
    net::TcpStream,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// `/v1/...`, without parameters.
    pub(crate) path: String,
    /// `?peer`.
    pub(crate) peer: Option<String>,
    /// `?stale`, so that any server may answer.
    pub(crate) stale: bool,
    /// The index that it waits beyond.
    pub(crate) index: Option<u64>,
    pub(crate) at: Instant,
}

/// A running fake.
pub(crate) struct FakeConsul {
    core: Arc<Core>,
    door: Door,
}

#[derive(Default)]
struct Core {
    state: Mutex<State>,
    changed: Condvar,
    stopped: AtomicBool,
    /// Connections that are open, and the most that ever were.
    open: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Default)]
struct State {
    index: u64,
    /// How often an older state was restored.
    restored: u64,
    names_index: u64,
    nodes_index: u64,
    /// Addresses and index by name.
    services: BTreeMap<String, (Vec<String>, u64)>,
    nodes: BTreeMap<String, String>,
    /// By peer: the services that it exports, with their addresses, which are those of their nodes.
    peers: BTreeMap<String, BTreeMap<String, String>>,
    /// What the mesh gives names.
    virtual_addresses: BTreeMap<String, String>,
    script: Vec<Scripted>,
    limit: Option<Limit>,
    told: usize,
    seen: Vec<Seen>,
    /// Those of them that wait for news.
    waiting: Vec<Seen>,
}

/// `request_limits` of Consul 1.16: so many reads in a second, and who comes too often hears when to come
/// again.
struct Limit {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Limit {
    fn admits(&mut self) -> bool {
        let gained = self.filled.elapsed().as_secs_f64() * self.rate;
        self.filled = Instant::now();
        self.tokens = (self.tokens + gained).min(self.rate.max(1.0));
        let admitted = self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }
}

struct Scripted {
    path: String,
    times: usize,
    lie: Lie,
}

impl FakeConsul {
    /// Starts it with one node, `n1` at 10.0.0.1, and no services.
    pub(crate) fn start() -> Self {
        let core = Arc::<Core>::default();
        let serving = Arc::clone(&core);
        let door = Door::open(move |stream| {
            let core = Arc::clone(&serving);
            let open = core.open.fetch_add(1, Ordering::Relaxed) + 1;
            core.most.fetch_max(open, Ordering::Relaxed);
            // The client may go in the middle of anything: that ends its thread and no more.
            thread::spawn(move || {
                drop(serve(&stream, &core));
                core.open.fetch_sub(1, Ordering::Relaxed);
            });
        });
        let fake = Self { core, door };
        fake.set_node("n1", "10.0.0.1");
        fake
    }

    /// Its address, for `--consul`.
    pub(crate) fn url(&self) -> String {
        self.door.url()
    }

    /// The instances of a service are at these addresses; all on port 80 of node `n1`.
    pub(crate) fn set(&self, service: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|ip| (*ip).to_owned()).collect();
        self.change(|state, index| {
            state
                .services
                .insert(service.to_owned(), (addresses, index));
            state.names_index = index;
        });
    }

    /// A service is gone, with its instances and its name.
    pub(crate) fn remove(&self, service: &str) {
        self.change(|state, index| {
            state.services.remove(service);
            state.names_index = index;
        });
    }

    /// An older state is restored: a service is as it was then, every index is a low one, and who
    /// waits anywhere hears of it.
    pub(crate) fn restore(&self, service: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|ip| (*ip).to_owned()).collect();
        self.change(|state, _| {
            state.services.insert(service.to_owned(), (addresses, 0));
            state.restored += 1;
            state.index = 10 + state.restored;
            (state.names_index, state.nodes_index) = (state.index, state.index);
            for (_, index) in state.services.values_mut() {
                *index = state.index;
            }
        });
    }

    /// A node is at this address.
    pub(crate) fn set_node(&self, node: &str, address: &str) {
        self.change(|state, index| {
            state.nodes.insert(node.to_owned(), address.to_owned());
            state.nodes_index = index;
        });
    }

    /// A peer exports a service, which is on a node `SERVICE-n` at this address.
    pub(crate) fn export(&self, peer: &str, service: &str, address: &str) {
        self.change(|state, _| {
            let exports = state.peers.entry(peer.to_owned()).or_default();
            exports.insert(service.to_owned(), address.to_owned());
        });
    }

    /// A peer no longer exports a service.
    pub(crate) fn withdraw(&self, peer: &str, service: &str) {
        self.change(|state, _| {
            if let Some(exports) = state.peers.get_mut(peer) {
                exports.remove(service);
            }
        });
    }

    /// The mesh gives a name an address.
    pub(crate) fn set_virtual(&self, name: &str, address: &str) {
        self.change(|state, _| {
            let given = &mut state.virtual_addresses;
            given.insert(name.to_owned(), address.to_owned());
        });
    }

    /// The next `times` requests for `path` hear this; a `path` that ends in `*` is a prefix. Who
    /// waits there now hears it at once.
    pub(crate) fn tell(&self, path: &str, times: usize, lie: Lie) {
        self.change(|state, _| {
            let path = path.to_owned();
            state.script.push(Scripted { path, times, lie });
        });
    }

    /// From now on so many reads in a second, and 429 beyond.
    pub(crate) fn limit(&self, rate: f64) {
        let filled = Instant::now();
        self.core.lock().limit = Some(Limit {
            rate,
            tokens: rate,
            filled,
        });
    }

    /// From now on the truth and nothing else, for everybody.
    pub(crate) fn repent(&self) {
        let mut state = self.core.lock();
        state.script.clear();
        state.limit = None;
    }

    /// How many lies have been told.
    pub(crate) fn told(&self) -> usize {
        self.core.lock().told
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.core.lock().seen.clone()
    }

    /// The most connections that were ever open at a time.
    pub(crate) fn most_connections(&self) -> usize {
        self.core.most.load(Ordering::Relaxed)
    }

    /// The requests for one path so far.
    pub(crate) fn seen_at(&self, path: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|request| request.path == path);
        seen
    }

    /// Whether somebody who came there after `since` waits there for news.
    pub(crate) fn is_waited_at(&self, path: &str, since: Instant) -> bool {
        let state = self.core.lock();
        let mut waiting = state.waiting.iter();
        waiting.any(|request| request.path == path && request.at > since)
    }

    fn change(&self, change: impl FnOnce(&mut State, u64)) {
        let mut state = self.core.lock();
        let index = state.next_index();
        change(&mut state, index);
        self.core.changed.notify_all();
    }
}

impl Drop for FakeConsul {
    fn drop(&mut self) {
        self.core.stopped.store(true, Ordering::Relaxed);
        self.core.changed.notify_all();
    }
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the fake panics")
    }

    /// The bytes to send, and whether the connection stays. `None` if the client has gone: a lie is
    /// not wasted on who does not hear it.
    fn answer(
        &self,
        request: &Seen,
        wait: Duration,
        has_gone: impl Fn() -> bool,
    ) -> Option<(Vec<u8>, bool)> {
        let mut state = self.lock();
        state.seen.push(request.clone());
        if state.limit.as_mut().is_some_and(|limit| !limit.admits()) {
            let refusal = Lie::status(429, "rate limit reached").header("Retry-After", "1");
            return Some(message(&refusal, &Value::Null, 1));
        }
        let deadline = Instant::now() + wait;
        let restored = state.restored;
        let lie = loop {
            if has_gone() {
                return None;
            }
            if let Some(lie) = state.next_lie(request) {
                break Some(lie);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let is_news = |index| state.index_of(request) > index;
            let is_news = request.index.is_none_or(is_news) || state.restored > restored;
            if is_news || left.is_zero() || self.stopped.load(Ordering::Relaxed) {
                break None;
            }
            state.waiting.push(request.clone());
            let waited = self.changed.wait_timeout(state, left);
            state = waited.expect("no thread of the fake panics").0;
            state.waiting.retain(|waiting| waiting.at != request.at);
        };
        if let Some(lie) = lie.as_ref().filter(|lie| !lie.stall.is_zero()) {
            drop(state);
            thread::sleep(lie.stall);
            state = self.lock();
        }
        let (status, truth) = match &request.peer {
            Some(peer) => (200, state.exported(peer, &request.path)),
            None => state.truth(&request.path),
        };
        let honest = Lie::truth(status).index(state.index_of(request));
        let lied_index = state.index;
        drop(state);
        let told = lie.unwrap_or(honest);
        Some(message(&told, &truth, lied_index))
    }
}

impl State {
    /// Indexes move in large steps, so that no lie's index is beyond that of the next change.
    fn next_index(&mut self) -> u64 {
        self.index += 10;
        self.index
    }

    fn next_lie(&mut self, request: &Seen) -> Option<Lie> {
        let applies = |scripted: &Scripted| {
            let path_fits = match scripted.path.strip_suffix('*') {
                Some(prefix) => request.path.starts_with(prefix),
                None => request.path == scripted.path,
            };
            path_fits && (request.stale || !scripted.lie.only_stale)
        };
        let at = self.script.iter().position(applies)?;
        self.told += 1;
        self.index += 1;
        let scripted = &mut self.script[at];
        let lie = scripted.lie.clone();
        scripted.times -= 1;
        if scripted.times == 0 {
            self.script.remove(at);
        }
        Some(lie)
    }

    fn index_of(&self, request: &Seen) -> u64 {
        match request.path.as_str() {
            _ if request.peer.is_some() => self.index,
            "/v1/catalog/services" => self.names_index,
            "/v1/catalog/nodes" => self.nodes_index,
            path if path.starts_with("/v1/query/") => self.index,
            path => match self.services.get(service_of(path)) {
                Some((_, index)) => *index,
                None => self.index,
            },
        }
    }

    /// What a peer exports under this path.
    fn exported(&self, peer: &str, path: &str) -> Value {
        let service = service_of(path);
        let exports = self.peers.get(peer);
        let instance = exports.and_then(|exports| exports.get(service)).map(|ip| {
            json!({ "Node": { "ID": "", "Node": format!("{service}-n"), "Address": ip,
                "Datacenter": "far1", "PeerName": peer, "TaggedAddresses": null, "Meta": null },
                "Checks": [], "Service": { "ID": service, "Service": service, "Tags": [],
                "Address": "", "Port": 80, "Weights": { "Passing": 1, "Warning": 1 } } })
        });
        instance.into_iter().collect()
    }

    fn truth(&self, path: &str) -> (u16, Value) {
        let node = |name: &str, address: &str| {
            json!({ "ID": "", "Node": name, "Address": address,
            "Datacenter": "dc1", "TaggedAddresses": null, "Meta": null })
        };
        let names = self.services.keys().map(|name| (name.clone(), json!([])));
        let body = match path {
            "/v1/catalog/services" => Value::Object(names.collect()),
            "/v1/catalog/nodes" => self.nodes.iter().map(|(n, a)| node(n, a)).collect(),
            "/v1/catalog/datacenters" => json!(["dc1"]),
            "/v1/peerings" => {
                let peers = self.peers.iter().map(|(name, exports)| {
                    let exported: Vec<&String> = exports.keys().collect();
                    json!({ "Name": name, "State": "ACTIVE",
                        "StreamStatus": { "ImportedServices": exported } })
                });
                peers.collect()
            }
            path if path.starts_with("/v1/discovery-chain/") => {
                let name = path.strip_prefix("/v1/discovery-chain/");
                let given = name.and_then(|name| self.virtual_addresses.get(name));
                let given = given.map(|address| vec![address.clone()]);
                json!({ "Chain": { "Datacenter": "dc1", "AutoVirtualIPs": given } })
            }
            "/v1/status/leader" => json!("10.0.0.1:8300"),
            "/v1/agent/self" => json!({ "Config": { "Datacenter": "dc1", "NodeName": "n1",
                "Version": "1.8.7" } }),
            path if path.starts_with("/v1/catalog/service/") => {
                let (addresses, _) = self
                    .services
                    .get(service_of(path))
                    .cloned()
                    .unwrap_or_default();
                let entry = |address: &String| json!({ "Node": "n1", "ServiceAddress": address });
                addresses.iter().map(entry).collect()
            }
            path if path.starts_with("/v1/catalog/node/") => {
                let name = path.strip_prefix("/v1/catalog/node/").unwrap_or_default();
                match self.nodes.get(name) {
                    Some(address) => json!({ "Node": node(name, address), "Services": {} }),
                    None => Value::Null,
                }
            }
            path if path.starts_with("/v1/query/") => {
                let service = service_of(path);
                let instances = self.truth(&format!("/v1/health/service/{service}")).1;
                if !self.services.contains_key(service) {
                    return (404, json!("Query not found"));
                }
                json!({ "Service": service, "Nodes": instances, "DNS": { "TTL": "" },
                    "Datacenter": "dc1", "Failovers": 0 })
            }
            path if path.starts_with("/v1/health/service/") => {
                let service = service_of(path);
                let (addresses, _) = self.services.get(service).cloned().unwrap_or_default();
                let entry = |address: &String| {
                    json!({ "Node": node("n1", "10.0.0.1"), "Checks": [], "Service": {
                        "ID": format!("{service}-{address}"), "Service": service, "Tags": [],
                        "Address": address, "Port": 80,
                        "Weights": { "Passing": 1, "Warning": 1 } } })
                };
                addresses.iter().map(entry).collect()
            }
            path if path.starts_with("/v1/health/") => json!([]),
            _ => return (404, json!("no such thing")),
        };
        (200, body)
    }
}

fn service_of(path: &str) -> &str {
    let name = path.strip_prefix("/v1/health/service/");
    let query = || path.strip_prefix("/v1/query/")?.strip_suffix("/execute");
    name.or_else(|| path.strip_prefix("/v1/catalog/service/"))
        .or_else(query)
        .unwrap_or_default()
}

fn serve(stream: &TcpStream, core: &Core) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut stays = true;
    while stays {
        let Some(heard) = Request::read(&mut reader)? else {
            return Ok(());
        };
        let request = Seen {
            peer: heard.params.get("peer").cloned(),
            stale: heard.params.contains_key("stale"),
            index: heard.index(),
            at: Instant::now(),
            path: heard.path.clone(),
        };
        let wait = heard.wait();
        let Some((answer, stay)) = core.answer(&request, wait, || has_gone(stream)) else {
            return Ok(());
        };
        (&*stream).write_all(&answer)?;
        stays = stay;
    }
    Ok(())
}

/// Whether the other side has closed the connection.
fn has_gone(stream: &TcpStream) -> bool {
    let looked = stream
        .set_nonblocking(true)
        .and_then(|()| stream.peek(&mut [0]));
    let blocks_again = stream.set_nonblocking(false).is_ok();
    let is_there = match looked {
        Ok(waiting) => waiting > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    !is_there || !blocks_again
}
