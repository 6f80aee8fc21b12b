//! Real HTTP servers, each on a loopback address of its own, which say who they are and what they were
//! asked for.

use crate::support::own_loopback;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// An HTTP server. `GET /x` answers `NAME /x`; `GET /slow/800` does so after 800 ms. Whoever asks for a WebSocket gets
/// a connection that says what it is told.
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    stopped: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    /// One on an address of its own.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_at(name, own_loopback())
    }

    /// One on this address, and a port that the system picks.
    pub(crate) fn start_at(name: &str, ip: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let stopped = Arc::new(AtomicBool::new(false));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (own, ends) = (name.to_owned(), Arc::clone(&stopped));
        let noted = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (name, asked) = (own.clone(), Arc::clone(&noted));
                thread::spawn(move || serve(stream, &name, &asked));
            }
        });
        Self {
            name: name.to_owned(),
            address,
            stopped,
            asked,
        }
    }

    /// The paths that it was asked for, answered or not.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics").clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the listener so that it sees that; if nobody listens any more, so much the better.
        drop(TcpStream::connect(self.address));
    }
}

fn echo(mut stream: TcpStream) {
    // The answer to the key of RFC 6455 section 1.2.
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    if stream.write_all(switch.as_bytes()).is_ok()
        && let Ok(mut reader) = stream.try_clone()
    {
        drop(std::io::copy(&mut reader, &mut stream));
    }
}

fn serve(mut stream: TcpStream, name: &str, asked: &Mutex<Vec<String>>) {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&received[..end]).into_owned();
            received.drain(..end + 4);
            let path = head.split(' ').nth(1).unwrap_or_default();
            asked.lock().expect("nobody panics").push(path.to_owned());
            if head.to_ascii_lowercase().contains("\r\nupgrade: websocket") {
                return echo(stream);
            }
            let slow = path.strip_prefix("/slow/").and_then(|ms| ms.parse().ok());
            thread::sleep(Duration::from_millis(slow.unwrap_or(0)));
            let body = format!("{name} {path}");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(read @ 1..) => received.extend_from_slice(&chunk[..read]),
            _ => return,
        }
    }
}
