//! A TCP proxy before an HTTP server that can refuse in its name, as a load balancer without agents does.

use super::door::{Door, join};
use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A proxy before one server, open at first.
pub(crate) struct Gate {
    door: Door,
    state: Arc<Mutex<State>>,
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
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let door = Door::open(move |client| take(client, server, &shared));
        Self { door, state }
    }

    /// As a URL, for `--consul`.
    pub(crate) fn url(&self) -> String {
        self.door.url()
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
        let mut state = self.state.lock().expect("no thread panics");
        state.refusal = refusal;
        for connection in state.connections.drain(..) {
            // Who has gone already is not there to be cut off.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.change(None);
    }
}

fn take(client: TcpStream, server: SocketAddr, state: &Mutex<State>) {
    let mut state = state.lock().expect("no thread panics");
    let again = client.try_clone().expect("a second handle on a socket");
    state.connections.push(again);
    if let Some((status, body)) = state.refusal {
        thread::spawn(move || refuse(&client, status, body));
        return;
    }
    drop(state);
    // A server that is away closes the connection of who came for it.
    if let Ok(server) = TcpStream::connect(server) {
        join(&client, &server, |_| ());
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
