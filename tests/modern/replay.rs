//! The HTTP side of a recorded world: what was read is answered as it was, and a blocking query with the index that
//! was recorded hangs. What was not read is answered as Consul answers unknown names.

use crate::{recorded::Read, support::door::Door};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::Duration,
};

/// A running replay.
pub(crate) struct Replay {
    door: Door,
}

impl Replay {
    /// Serves these reads.
    pub(crate) fn of(reads: Vec<Read>) -> Self {
        let reads = Arc::new(reads);
        let door = Door::open(move |stream| {
            let reads = Arc::clone(&reads);
            // The client may go in the middle of anything: that ends its thread and no more.
            thread::spawn(move || drop(serve(&stream, &reads)));
        });
        Self { door }
    }

    /// Its address, for `--consul`.
    pub(crate) fn url(&self) -> String {
        self.door.url()
    }
}

/// What came.
struct Request {
    path: String,
    params: BTreeMap<String, String>,
    client: Option<String>,
    token: Option<String>,
}

fn serve(stream: &TcpStream, reads: &[Read]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let Some(target) = first.split(' ').nth(1) else {
            return Ok(());
        };
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let mut params: BTreeMap<String, String> = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        for consistency in ["stale", "consistent", "cached"] {
            params.remove(consistency);
        }
        let index = params.remove("index").and_then(|index| index.parse().ok());
        let wait = params.remove("wait").and_then(|wait| milliseconds(&wait));
        let request = Request {
            path: path.to_owned(),
            params,
            client: headers.remove("x-forwarded-for"),
            token: headers.remove("x-consul-token"),
        };
        let read = find(reads, &request).cloned();
        let read = read.unwrap_or_else(|| unknown(&request));
        let known = read.headers.get("X-Consul-Index");
        let known: u64 = known.and_then(|known| known.parse().ok()).unwrap_or(1);
        if index.is_some_and(|index: u64| index >= known) {
            thread::sleep(wait.unwrap_or(Duration::from_secs(300)));
        }
        let body = match &read.body {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut answer = format!("HTTP/1.1 {} Recorded\r\n", read.status);
        for (name, value) in &read.headers {
            answer.push_str(&format!("{name}: {value}\r\n"));
        }
        answer.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let mut stream = stream;
        stream.write_all(answer.as_bytes())?;
    }
}

fn milliseconds(wait: &str) -> Option<Duration> {
    let millis = match wait.strip_suffix("ms") {
        Some(millis) => millis.parse().ok()?,
        None => 1000 * wait.strip_suffix('s')?.parse::<u64>().ok()?,
    };
    Some(Duration::from_millis(millis))
}

/// The answer to the same client and token, or else to anybody.
fn find<'r>(reads: &'r [Read], request: &Request) -> Option<&'r Read> {
    let fits = |read: &&Read| {
        read.path == request.path
            && read.params == request.params
            && (read.token.is_none() || read.token == request.token)
    };
    let same_client = |read: &&Read| read.client == request.client;
    let mut fitting = reads.iter().filter(fits);
    fitting.clone().find(same_client).or_else(|| fitting.next())
}

fn unknown(request: &Request) -> Read {
    let (status, body) = match request.path.as_str() {
        path if path.starts_with("/v1/discovery-chain/") => {
            (200, json!({ "Chain": { "AutoVirtualIPs": null } }))
        }
        path if path.starts_with("/v1/query/") => (404, json!("Query not found")),
        path if path.starts_with("/v1/catalog/node/") => (200, Value::Null),
        _ => (200, json!([])),
    };
    let headers = [
        ("X-Consul-Index", "1"),
        ("X-Consul-Knownleader", "true"),
        ("Content-Type", "application/json"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Read {
        path: request.path.clone(),
        params: request.params.clone(),
        client: None,
        token: None,
        status,
        headers: headers.into(),
        body,
    }
}
