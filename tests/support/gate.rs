//! A TCP proxy before an HTTP server that can refuse in its name, as a load balancer without agents does.

use std::{
    io::{BufRead, BufReader, Write, copy},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// A proxy before one server, open at first.
pub(crate) struct Gate {
    address: SocketAddr,
    core: Arc<Core>,
}

struct Core {
    server: SocketAddr,
    state: Mutex<State>,
    stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    /// What everybody is answered: status and body.
    refusal: Option<(u16, &'static str)>,
    connections: Vec<TcpStream>,
}

impl Gate {
    /// Starts one before `server`.
    pub(crate) fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let gate = Self {
            address: listener.local_addr().expect("a bound socket's address"),
            core: Arc::new(Core {
                server,
                state: Mutex::default(),
                stopped: AtomicBool::new(false),
            }),
        };
        let core = Arc::clone(&gate.core);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if core.stopped.load(Ordering::Relaxed) {
                    return;
                }
                core.take(client);
            }
        });
        gate
    }

    /// As a URL, for `--consul`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on everybody hears this, and whoever is connected has to come again.
    pub(crate) fn refuse(&self, status: u16, body: &'static str) {
        self.change(Some((status, body)));
    }

    /// From now on everybody is let through.
    pub(crate) fn open(&self) {
        self.change(None);
    }

    fn change(&self, refusal: Option<(u16, &'static str)>) {
        let mut state = self.core.state.lock().expect("no thread panics");
        state.refusal = refusal;
        for connection in state.connections.drain(..) {
            // Who has gone already is not there to be cut off.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.core.stopped.store(true, Ordering::Relaxed);
        self.change(None);
        // Wakes the thread that accepts, so that it ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl Core {
    fn take(&self, client: TcpStream) {
        let clone = |stream: &TcpStream| stream.try_clone().expect("a second handle on a socket");
        let mut state = self.state.lock().expect("no thread panics");
        state.connections.push(clone(&client));
        if let Some((status, body)) = state.refusal {
            thread::spawn(move || refuse(&client, status, body));
            return;
        }
        drop(state);
        // A server that is away closes the connection of who came for it.
        let Ok(server) = TcpStream::connect(self.server) else {
            return;
        };
        for (mut from, mut to) in [
            (clone(&client), clone(&server)),
            (clone(&server), clone(&client)),
        ] {
            thread::spawn(move || {
                // Whichever side ends it, the other is told.
                let _ = copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}

/// Answers every request of a client that sends no bodies, until it goes.
fn refuse(client: &TcpStream, status: u16, body: &str) {
    let answer = format!(
        "HTTP/1.1 {status} Refused\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut writer = client;
    for line in BufReader::new(client).lines() {
        match line {
            Ok(line) if !line.is_empty() => {}
            Ok(_) if writer.write_all(answer.as_bytes()).is_ok() => {}
            _ => return,
        }
    }
}
