//! The HTTP side of a recorded world: what was read is answered as it was, and a blocking query with the index that
//! was recorded hangs. What was not read is answered as Consul answers unknown names.

use crate::{
    recorded::Read,
    support::{door::Door, request::Request},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufReader, Write},
    net::TcpStream,
    sync::Arc,
    thread,
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

fn serve(stream: &TcpStream, reads: &[Read]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        let read = find(reads, &request).cloned();
        let read = read.unwrap_or_else(|| unknown(&request));
        let known = read.headers.get("X-Consul-Index");
        let known: u64 = known.and_then(|known| known.parse().ok()).unwrap_or(1);
        if request.index().is_some_and(|index| index >= known) {
            thread::sleep(request.wait());
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
    Ok(())
}

/// The parameters that were recorded: not how fresh the answer has to be, and for how long it may be waited for.
fn recorded_params(request: &Request) -> BTreeMap<String, String> {
    let mut params = request.params.clone();
    params.retain(|key, _| !["stale", "consistent", "cached", "index", "wait"].contains(&&**key));
    params
}

/// The answer to the same client and token, or else to anybody.
fn find<'r>(reads: &'r [Read], request: &Request) -> Option<&'r Read> {
    let params = recorded_params(request);
    let token = request.headers.get("x-consul-token");
    let client = request.headers.get("x-forwarded-for");
    let fits = |read: &&Read| {
        read.path == request.path
            && read.params == params
            && (read.token.is_none() || read.token.as_ref() == token)
    };
    let same_client = |read: &&Read| read.client.as_ref() == client;
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
        params: recorded_params(request),
        client: None,
        token: None,
        status,
        headers: headers.into(),
        body,
    }
}
