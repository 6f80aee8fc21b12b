//! What the tests' own TCP servers and proxies have in common: a port on loopback, and two streams that are joined.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// A port that takes connections until this is dropped.
pub(crate) struct Door {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Door {
    /// Opens one on a free port. `take` is given each connection, one after the other.
    pub(crate) fn open(mut take: impl FnMut(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket's address");
        let stopped = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stopped);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_stopped.load(Ordering::Relaxed) {
                    return;
                }
                take(client);
            }
        });
        Self { address, stopped }
    }

    /// As a URL, for `--consul`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts, so that it ends.
        let _ = TcpStream::connect(self.address);
    }
}

/// Passes on what either side says until one of them ends; `note` sees what the client says.
pub(crate) fn join(
    client: &TcpStream,
    server: &TcpStream,
    note: impl FnMut(&[u8]) + Send + 'static,
) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle on a socket");
    let (from, to) = (clone(client), clone(server));
    thread::spawn(move || pass(from, to, note));
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
