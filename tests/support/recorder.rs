//! A TCP proxy that notes the requests which pass it: what a real Consul was asked, exactly.

use super::door::{Door, join};
use std::{
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
};

/// What has passed.
#[derive(Default)]
struct Noted {
    /// `METHOD /path`, without parameters.
    requests: Vec<String>,
    /// All that clients sent.
    bytes: Vec<u8>,
    /// How many requests there were.
    count: usize,
}

/// A proxy before one server.
pub(crate) struct Recorder {
    door: Door,
    noted: Arc<Mutex<Noted>>,
}

impl Recorder {
    /// Starts one before `server`.
    pub(crate) fn before(server: SocketAddr) -> Self {
        let noted = Arc::<Mutex<Noted>>::default();
        let noting = Arc::clone(&noted);
        let door = Door::open(move |client| {
            // A server that is away closes the connection of who came for it.
            if let Ok(server) = TcpStream::connect(server) {
                let noting = Arc::clone(&noting);
                join(&client, &server, move |bytes| note(bytes, &noting));
            }
        });
        Self { door, noted }
    }

    /// As a URL, for `--consul`.
    pub(crate) fn url(&self) -> String {
        self.door.url()
    }

    /// The paths that were read so far, without parameters.
    pub(crate) fn paths(&self) -> Vec<String> {
        let noted = self.noted.lock().expect("no thread panics");
        let requests = noted.requests.iter();
        let paths = requests.filter_map(|request| request.strip_prefix("GET "));
        paths.map(str::to_owned).collect()
    }

    /// How many requests have passed so far.
    pub(crate) fn requests(&self) -> usize {
        self.noted.lock().expect("no thread panics").count
    }

    /// What was written since the last call: `PUT /path`, without parameters.
    pub(crate) fn take_writes(&self) -> Vec<String> {
        let mut noted = self.noted.lock().expect("no thread panics");
        let requests = std::mem::take(&mut noted.requests).into_iter();
        requests
            .filter(|request| !request.starts_with("GET "))
            .collect()
    }

    /// Everything that clients sent so far, as text.
    pub(crate) fn sent(&self) -> String {
        let noted = self.noted.lock().expect("no thread panics");
        String::from_utf8_lossy(&noted.bytes).into_owned()
    }
}

/// A request of a client that waits for each answer begins where a read does.
fn note(bytes: &[u8], noted: &Mutex<Noted>) {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split([' ', '?']);
    let mut noted = noted.lock().expect("no thread panics");
    noted.bytes.extend(bytes);
    if let (Some(method @ ("GET" | "PUT" | "POST" | "DELETE")), Some(path)) =
        (words.next(), words.next())
    {
        noted.count += 1;
        noted.requests.push(format!("{method} {path}"));
    }
}
