//! A client that asks a steady number of times a second, and counts who answered and what failed.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Requests a second that the tests put on HAProxy.
pub(crate) const RATE: u32 = 500;

/// Threads that ask; half of them keep their connections.
const CLIENTS: u32 = 10;

/// The load while it goes on.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    clients: Vec<JoinHandle<()>>,
    started: Instant,
}

/// What came back.
#[derive(Debug, Default, Clone)]
struct Seen {
    /// By the first word of the body, which is who answered.
    good: BTreeMap<String, u64>,
    failures: Vec<String>,
}

impl Load {
    /// Asks for `path` until it is stopped.
    pub(crate) fn start(server: SocketAddr, path: &str) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let started = Instant::now();
        let clients = (0..CLIENTS)
            .map(|number| {
                let client = Client {
                    server,
                    path: path.to_owned(),
                    keeps: number % 2 == 0,
                    connection: None,
                };
                let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
                thread::spawn(move || client.run(started, &stop, &seen))
            })
            .collect();
        Self {
            stop,
            seen,
            clients,
            started,
        }
    }

    /// Who has answered since the last time this was asked, and how often.
    pub(crate) fn take_seen(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.seen.lock().expect("no client panics").good)
    }

    /// Ends it: there must have been enough requests, and none that failed.
    pub(crate) fn stop_without_failure(mut self, mut counted: u64) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().expect("a client does not panic");
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let seen = self.seen.lock().expect("no client panics").clone();
        counted += seen.good.values().sum::<u64>();
        eprintln!(
            "{counted} good requests in {seconds:.1} s, {} failed",
            seen.failures.len()
        );
        assert!(
            seen.failures.is_empty(),
            "{} of {} requests failed: {:?}",
            seen.failures.len(),
            counted,
            &seen.failures[..seen.failures.len().min(10)]
        );
        // A machine that others use as well may not manage all of them.
        let rate = counted as f64 / seconds;
        assert!(rate > f64::from(RATE) / 2.0, "only {rate:.0} a second");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    server: SocketAddr,
    path: String,
    keeps: bool,
    connection: Option<TcpStream>,
}

impl Client {
    fn run(mut self, started: Instant, stop: &AtomicBool, seen: &Mutex<Seen>) {
        let every = Duration::from_secs(1) * CLIENTS / RATE;
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let result = self.ask();
            {
                let mut seen = seen.lock().expect("no client panics");
                match result {
                    Ok(body) => {
                        let who = body.split(' ').next().unwrap_or_default().to_owned();
                        *seen.good.entry(who).or_default() += 1;
                    }
                    Err(error) => {
                        let at = started.elapsed();
                        seen.failures.push(format!("after {at:.2?}: {error}"));
                    }
                }
            }
            next += every;
            // Never more than a second behind: a machine that stood still is not to be flooded.
            next = next.max(Instant::now() - Duration::from_secs(1));
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// One request, over the connection that was kept if there is one.
    fn ask(&mut self) -> Result<String, String> {
        let stream = match self.connection.take() {
            Some(stream) => stream,
            None => connect(self.server)?,
        };
        let (body, stays_open) = exchange(&stream, &self.path, self.keeps)?;
        self.connection = (self.keeps && stays_open).then_some(stream);
        Ok(body)
    }
}

fn connect(server: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))
        .map_err(|error| format!("connecting: {error}"))?;
    let patience = Some(Duration::from_secs(10));
    stream
        .set_read_timeout(patience)
        .and_then(|()| stream.set_nodelay(true))
        .map_err(|error| format!("setting timeouts: {error}"))?;
    Ok(stream)
}

/// A request, whose answer has to be a 200 with a body; and whether the connection goes on.
fn exchange(mut stream: &TcpStream, path: &str, keeps: bool) -> Result<(String, bool), String> {
    let connection = if keeps { "keep-alive" } else { "close" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: {connection}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(|error| format!("sending: {error}"))?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            if !head.starts_with("http/1.1 200 ") {
                return Err(text.lines().next().unwrap_or_default().to_owned());
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .and_then(|length| length.trim().parse::<usize>().ok())
                .ok_or("no Content-Length")?;
            if body.len() >= length {
                return Ok((body.to_owned(), !head.contains("connection: close")));
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Err(format!("closed after {} bytes", answer.len())),
            Ok(read) => answer.extend_from_slice(&chunk[..read]),
            Err(error) => return Err(format!("reading: {error}")),
        }
    }
}
