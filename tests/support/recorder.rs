//! A TCP proxy that notes the requests which pass it: what a real Consul was asked, exactly.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// What has passed.
#[derive(Default)]
struct Noted {
    /// `METHOD /path`, without parameters.
    requests: Vec<String>,
    /// All that clients sent.
    bytes: Vec<u8>,
}

/// A proxy before one server.
pub(crate) struct Recorder {
    address: SocketAddr,
    noted: Arc<Mutex<Noted>>,
    stopped: Arc<AtomicBool>,
}

impl Recorder {
    /// Starts one before `server`.
    pub(crate) fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let recorder = Self {
            address: listener.local_addr().expect("a bound socket's address"),
            noted: Arc::default(),
            stopped: Arc::default(),
        };
        let (noted, stopped) = (Arc::clone(&recorder.noted), Arc::clone(&recorder.stopped));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A server that is away closes the connection of who came for it.
                if let Ok(server) = TcpStream::connect(server) {
                    join(&client, &server, &noted);
                }
            }
        });
        recorder
    }

    /// As a URL, for `--consul`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The paths that were read so far, without parameters.
    pub(crate) fn paths(&self) -> Vec<String> {
        let noted = self.noted.lock().expect("no thread panics");
        let requests = noted.requests.iter();
        let paths = requests.filter_map(|request| request.strip_prefix("GET "));
        paths.map(str::to_owned).collect()
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

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts, so that it ends.
        let _ = TcpStream::connect(self.address);
    }
}

fn join(client: &TcpStream, server: &TcpStream, noted: &Arc<Mutex<Noted>>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle on a socket");
    let (from, to, noted) = (clone(client), clone(server), Arc::clone(noted));
    thread::spawn(move || {
        pass(from, to, |bytes| {
            // A request of a client that waits for each answer begins where a read does.
            let text = String::from_utf8_lossy(bytes);
            let mut words = text.split([' ', '?']);
            let mut noted = noted.lock().expect("no thread panics");
            noted.bytes.extend(bytes);
            if let (Some(method @ ("GET" | "PUT" | "POST" | "DELETE")), Some(path)) =
                (words.next(), words.next())
            {
                noted.requests.push(format!("{method} {path}"));
            }
        });
    });
    let (from, to) = (clone(server), clone(client));
    thread::spawn(move || pass(from, to, |_| ()));
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        note(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // Either may have gone already, which is what this is for.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
