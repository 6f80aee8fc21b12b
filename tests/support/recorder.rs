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

/// A proxy before one server.
pub(crate) struct Recorder {
    address: SocketAddr,
    paths: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
}

impl Recorder {
    /// Starts one before `server`.
    pub(crate) fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let recorder = Self {
            address: listener.local_addr().expect("a bound socket's address"),
            paths: Arc::default(),
            stopped: Arc::default(),
        };
        let (paths, stopped) = (Arc::clone(&recorder.paths), Arc::clone(&recorder.stopped));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A server that is away closes the connection of who came for it.
                if let Ok(server) = TcpStream::connect(server) {
                    join(&client, &server, &paths);
                }
            }
        });
        recorder
    }

    /// As a URL, for `--consul`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The paths that were requested so far, without parameters.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.paths.lock().expect("no thread panics").clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts, so that it ends.
        let _ = TcpStream::connect(self.address);
    }
}

fn join(client: &TcpStream, server: &TcpStream, paths: &Arc<Mutex<Vec<String>>>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle on a socket");
    let (from, to, paths) = (clone(client), clone(server), Arc::clone(paths));
    thread::spawn(move || {
        pass(from, to, |bytes| {
            // A request of a client that waits for each answer begins where a read does.
            let text = String::from_utf8_lossy(bytes);
            let target = text
                .strip_prefix("GET ")
                .and_then(|rest| rest.split([' ', '?']).next());
            if let Some(path) = target {
                paths
                    .lock()
                    .expect("no thread panics")
                    .push(path.to_owned());
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
