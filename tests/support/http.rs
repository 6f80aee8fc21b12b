//! HTTP, as much as the tests need: one request per connection, as HTTP/1.0, so that a body always
//! ends where the connection does.

use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// An HTTP answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    /// A header's value, whatever the case of its name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }
}

/// `GET path`, or why there was no answer.
pub(crate) fn get(server: SocketAddr, path: &str) -> Result<Response, String> {
    request(server, "GET", path, "")
}

/// `PUT path` with a body.
pub(crate) fn put(server: SocketAddr, path: &str, body: &str) -> Result<Response, String> {
    request(server, "PUT", path, body)
}

/// Any request.
pub(crate) fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Response, String> {
    let failed = |what: &str, error: std::io::Error| {
        format!("{method} http://{server}{path}: {what}: {error}")
    };
    let patience = Duration::from_secs(15);
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(3))
        .map_err(|error| failed("connecting", error))?;
    stream
        .set_read_timeout(Some(patience))
        .and_then(|()| stream.set_write_timeout(Some(patience)))
        .map_err(|error| failed("setting timeouts", error))?;
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {server}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .write_all(request.as_bytes())
        .map_err(|error| failed("sending", error))?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .map_err(|error| failed("reading", error))?;
    parse(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| format!("{method} http://{server}{path}: not an HTTP answer: {answer:?}"))
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Some(Response {
        status,
        headers,
        body: body.to_owned(),
    })
}
