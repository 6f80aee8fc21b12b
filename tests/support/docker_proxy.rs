//! A proxy before the Docker Engine's socket. It shows one test's containers alone, takes nothing but
//! `GET`, notes what is asked, can be cut off, and can show more containers than there are.

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use tempfile::TempDir;

/// The socket of the engine that the tests use.
const ENGINE: &str = "/var/run/docker.sock";

/// What may be said of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Info {
    /// Nothing: a proxy does not let it pass.
    Refused,
    /// Another ID each time, as Podman does.
    Changing,
    /// What it says, on a host of this name.
    OnHost(&'static str),
}

/// A proxy before the Docker Engine.
pub(crate) struct DockerProxy {
    directory: TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    socket: PathBuf,
    /// The label that a container has to bear, as `key=value`.
    label: String,
    is_cut: AtomicBool,
    is_over: AtomicBool,
    /// Open connections, of both sides.
    open: Mutex<Vec<UnixStream>>,
    asked: Mutex<Vec<String>>,
    /// Containers whose inspection never ends.
    hanging: Mutex<Vec<String>>,
    /// What to say of the engine itself, if not what it says.
    info: Mutex<Option<Info>>,
    /// Containers that do not exist: what to say in a list, and when inspected, by ID.
    invented: Mutex<BTreeMap<String, (Value, Value)>>,
}

impl DockerProxy {
    /// A proxy that shows the containers and networks with this label.
    pub(crate) fn showing(label: &str) -> Self {
        let directory = super::directory();
        let shared = Arc::new(Shared {
            socket: directory.path().join("docker.sock"),
            label: label.to_owned(),
            is_cut: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            open: Mutex::default(),
            asked: Mutex::default(),
            hanging: Mutex::default(),
            info: Mutex::default(),
            invented: Mutex::default(),
        });
        let listener = UnixListener::bind(&shared.socket).expect("a socket in an own directory");
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { directory, shared }
    }

    /// For `--docker`.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.shared.socket.display())
    }

    /// A directory that lives as long as the proxy.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends all connections and takes no other.
    pub(crate) fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::Relaxed);
        for stream in lock(&self.shared.open).drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Works again.
    pub(crate) fn heal(&self) {
        self.shared.is_cut.store(false, Ordering::Relaxed);
    }

    /// From now on no inspection of this container ends, as it is with one that Docker is stuck on.
    pub(crate) fn hang(&self, id: &str) {
        lock(&self.shared.hanging).push(format!("/containers/{id}/json"));
    }

    /// Says this of the engine from now on; `None` for what it says itself.
    pub(crate) fn set_info(&self, info: Option<Info>) {
        *lock(&self.shared.info) = info;
    }

    /// What was asked since the last call: paths, without version and parameters.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.asked))
    }

    /// Shows `number` copies of a container that exists, each with a name and a port of its own.
    pub(crate) fn multiply(&self, id: &str, number: u16) {
        let filters = json!({ "id": [id] }).to_string();
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("filters", &filters)
            .finish();
        let listed = engine_json(&format!("/containers/json?{query}"));
        let inspected = engine_json(&format!("/containers/{id}/json"));
        let mut invented = lock(&self.shared.invented);
        for copy in 0..number {
            let new_id = format!("{copy:064x}");
            let name = format!("/copy-{copy}");
            let port = 20_000 + copy;
            let (mut list, mut inspect) = (listed[0].clone(), inspected.clone());
            list["Id"] = json!(new_id);
            list["Names"] = json!([name]);
            inspect["Id"] = json!(new_id);
            inspect["Name"] = json!(name);
            let ports = inspect["NetworkSettings"]["Ports"].as_object_mut();
            for bindings in ports.expect("an object").values_mut() {
                for binding in bindings.as_array_mut().into_iter().flatten() {
                    binding["HostPort"] = json!(port.to_string());
                }
            }
            invented.insert(new_id, (list, inspect));
        }
    }
}

impl Drop for DockerProxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the thread that accepts, so that it ends.
        let _ = UnixStream::connect(&self.shared.socket);
    }
}

impl Shared {
    /// One connection of a client: requests until it has enough, each on a connection of its own
    /// to the engine.
    fn serve(&self, client: UnixStream) {
        if self.is_cut.load(Ordering::Relaxed) {
            return;
        }
        let clone = |stream: &UnixStream| stream.try_clone().expect("a second handle");
        lock(&self.open).push(clone(&client));
        let mut reader = BufReader::new(clone(&client));
        let mut writer = client;
        while let Some((method, target)) = head(&mut reader) {
            let path = without_version(target.split('?').next().unwrap_or_default());
            lock(&self.asked).push(path.clone());
            if method != "GET" {
                let refusal = format!("{method} is not allowed here");
                if answer(&mut writer, 403, refusal.as_bytes()).is_err() {
                    return;
                }
                continue;
            }
            if lock(&self.hanging).contains(&path) {
                // Until the client gives up.
                let _ = reader.read(&mut [0]);
                return;
            }
            let target = self.narrowed(&target);
            let Ok(mut engine) = ask_engine(&target) else {
                return;
            };
            if path == "/events" {
                lock(&self.open).push(clone(&engine));
                // Until either side ends it.
                let _ = std::io::copy(&mut engine, &mut writer);
                let _ = writer.shutdown(Shutdown::Both);
                return;
            }
            let (status, body) = self.with_inventions(&path, read_answer(engine));
            if answer(&mut writer, status, &body).is_err() {
                return;
            }
        }
    }

    /// The same request, about what bears the label.
    fn narrowed(&self, target: &str) -> String {
        let path = without_version(target.split('?').next().unwrap_or_default());
        if !["/containers/json", "/events"].contains(&path.as_str()) {
            return target.to_owned();
        }
        let url = url::Url::parse(&format!("http://docker{target}")).expect("a request target");
        let mut filters = json!({});
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "filters" => filters = serde_json::from_str(&value).expect("filters are JSON"),
                _ => drop(query.append_pair(&key, &value)),
            }
        }
        filters["label"] = json!([self.label]);
        query.append_pair("filters", &filters.to_string());
        format!("{}?{}", url.path(), query.finish())
    }

    fn with_inventions(&self, path: &str, (status, body): (u16, Vec<u8>)) -> (u16, Vec<u8>) {
        let info = lock(&self.info).filter(|_| path == "/info");
        match info {
            Some(Info::Refused) => return (403, b"Forbidden".to_vec()),
            Some(Info::Changing) => {
                let asked = lock(&self.asked).len();
                let body = json!({ "ID": asked.to_string() });
                return (200, body.to_string().into_bytes());
            }
            Some(Info::OnHost(name)) => {
                let mut info: Value = serde_json::from_slice(&body).expect("JSON");
                info["Name"] = json!(name);
                return (status, info.to_string().into_bytes());
            }
            None => {}
        }
        let invented = lock(&self.invented);
        let id = path
            .strip_prefix("/containers/")
            .and_then(|rest| rest.strip_suffix("/json"));
        if let Some((_, inspected)) = id.and_then(|id| invented.get(id)) {
            (200, inspected.to_string().into_bytes())
        } else if path == "/containers/json" && !invented.is_empty() {
            let mut list: Vec<Value> = serde_json::from_slice(&body).expect("a list");
            list.extend(invented.values().map(|(listed, _)| listed.clone()));
            (status, json!(list).to_string().into_bytes())
        } else {
            (status, body)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Method and target of the next request; the rest of its head is of no interest, and it has no body.
fn head(reader: &mut impl BufRead) -> Option<(String, String)> {
    let mut first = String::new();
    reader
        .read_line(&mut first)
        .ok()
        .filter(|length| *length > 0)?;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let mut words = first.split(' ').map(str::to_owned);
    Some((words.next()?, words.next()?))
}

/// `/v1.41/containers/json` without its version.
fn without_version(path: &str) -> String {
    let rest = path
        .strip_prefix("/v")
        .and_then(|rest| rest.split_once('/'));
    match rest {
        Some((version, rest)) if version.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("/{rest}")
        }
        _ => path.to_owned(),
    }
}

/// Asks the engine in HTTP/1.0: it answers in one piece, and the end of the connection ends it.
fn ask_engine(target: &str) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(ENGINE)?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    Ok(stream)
}

fn read_answer(mut stream: UnixStream) -> (u16, Vec<u8>) {
    let mut bytes = Vec::new();
    // What came is what counts.
    let _ = stream.read_to_end(&mut bytes);
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(split) = split else {
        return (502, b"no answer of the engine".to_vec());
    };
    let head = String::from_utf8_lossy(&bytes[..split]);
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    (status.unwrap_or(502), bytes[split + 4..].to_vec())
}

fn engine_json(target: &str) -> Value {
    let (status, body) = read_answer(ask_engine(target).expect("a Docker Engine"));
    let text = String::from_utf8_lossy(&body);
    assert_eq!(status, 200, "GET {target}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

fn answer(writer: &mut UnixStream, status: u16, body: &[u8]) -> std::io::Result<()> {
    write!(
        writer,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    writer.write_all(body)
}
