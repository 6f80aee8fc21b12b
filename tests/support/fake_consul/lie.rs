//! What may be told instead of the truth, and how it goes on the wire.

use serde_json::Value;
use std::time::Duration;

/// What is told instead of the truth.
#[derive(Debug, Clone)]
pub(crate) struct Lie {
    pub(super) status: u16,
    index: Option<u64>,
    known_leader: bool,
    headers: Vec<(&'static str, String)>,
    body: Body,
    pub(super) only_stale: bool,
    pub(super) stall: Duration,
}

#[derive(Debug, Clone)]
enum Body {
    Truth,
    Text(String),
    /// Half of the truth, as if that were all.
    Cut,
    /// The length of the truth, half of it, and the end of the connection.
    Broken,
}

impl Lie {
    /// What is honest, but for `status`.
    pub(crate) fn truth(status: u16) -> Self {
        Self {
            status,
            ..Self::with(Body::Truth)
        }
    }

    fn with(body: Body) -> Self {
        Self {
            status: 200,
            index: None,
            known_leader: true,
            headers: Vec::new(),
            body,
            only_stale: false,
            stall: Duration::ZERO,
        }
    }

    /// Another body, under the headers of a good answer.
    pub(crate) fn body(text: &str) -> Self {
        Self::with(Body::Text(text.to_owned()))
    }

    /// An error, as Consul words it.
    pub(crate) fn status(status: u16, text: &str) -> Self {
        Self {
            status,
            index: Some(1),
            known_leader: false,
            ..Self::body(text)
        }
    }

    /// JSON that ends in the middle.
    pub(crate) fn cut() -> Self {
        Self::with(Body::Cut)
    }

    /// A connection that ends in the middle.
    pub(crate) fn broken() -> Self {
        Self::with(Body::Broken)
    }

    /// The truth, but not now.
    pub(crate) fn stall(time: Duration) -> Self {
        Self {
            stall: time,
            ..Self::with(Body::Truth)
        }
    }

    /// After so long.
    pub(crate) fn slowly(mut self, time: Duration) -> Self {
        self.stall = time;
        self
    }

    /// With this index instead of one that moved on.
    pub(crate) fn index(mut self, index: u64) -> Self {
        self.index = Some(index);
        self
    }

    /// From a server that has no leader.
    pub(crate) fn without_leader(mut self) -> Self {
        self.known_leader = false;
        self
    }

    /// From an agent that has it streamed by the servers (Consul 1.10): it never says that it knows a leader.
    pub(crate) fn streamed(self) -> Self {
        Self {
            known_leader: false,
            ..self.header("X-Consul-Query-Backend", "streaming")
        }
    }

    /// With one more header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Told by a lagging server: who insists on the leader hears the truth.
    pub(crate) fn only_stale(mut self) -> Self {
        self.only_stale = true;
        self
    }
}

/// The bytes of an answer, and whether the connection stays.
pub(super) fn message(told: &Lie, truth: &Value, lied_index: u64) -> (Vec<u8>, bool) {
    let truth = truth.to_string();
    let half = &truth[..truth.len() / 2];
    let (body, length) = match &told.body {
        Body::Truth => (truth.as_str(), truth.len()),
        Body::Text(text) => (text.as_str(), text.len()),
        Body::Cut => (half, half.len()),
        Body::Broken => (half, truth.len()),
    };
    let mut head = format!(
        "HTTP/1.1 {} told\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         X-Consul-Index: {}\r\nX-Consul-KnownLeader: {}\r\nX-Consul-LastContact: {}\r\n",
        told.status,
        told.index.unwrap_or(lied_index),
        told.known_leader,
        if told.known_leader { 0 } else { 60_000 },
    );
    for (name, value) in &told.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let bytes = format!("{head}\r\n{body}").into_bytes();
    (bytes, body.len() == length)
}
