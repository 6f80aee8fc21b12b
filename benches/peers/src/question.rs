//! What is asked, and what a right reply to it looks like.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    str::FromStr,
    time::Duration,
};

/// Where the rest of a message begins.
pub(crate) const HEADER: usize = 12;

/// Digits of a name that is never asked for twice, and where they stand in a query.
const FRESH: usize = 8;
const FRESH_AT: usize = HEADER + 1;

/// TC and the rcode of a message's flags.
const JUDGED: u16 = 0x020f;

/// How long the first reply to a question may take: the server may have to ask others for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tries to get that first reply.
const TRIES: usize = 3;

/// A name and type to ask for, and the size of reply that the client takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) name: Name,
    pub(crate) rtype: RecordType,
    /// Of EDNS; 0 asks without.
    pub(crate) size: u16,
    /// The first [`FRESH`] bytes of the name are others each time, so that nobody was asked before.
    pub(crate) is_fresh: bool,
}

impl Question {
    pub(crate) fn new(name: &str, rtype: RecordType, size: u16) -> Self {
        let mut name = Name::from_ascii(name).expect("a valid name");
        name.set_fqdn(true);
        Self {
            name,
            rtype,
            size,
            is_fresh: false,
        }
    }

    /// An address of a name below this one that was never asked for before.
    pub(crate) fn fresh(below: &str, size: u16) -> Self {
        Self {
            is_fresh: true,
            ..Self::new(&format!("00000000.{below}"), RecordType::A, size)
        }
    }

    /// The query, with the ID 0.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.rtype));
        if self.size > 0 {
            let mut edns = Edns::new();
            edns.set_max_payload(self.size).set_version(0);
            message.set_edns(edns);
        }
        message.to_vec().expect("a query can be encoded")
    }
}

impl FromStr for Question {
    type Err = String;

    /// `NAME:TYPE[:SIZE]`
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (Some(name), Some(rtype)) = (parts.next(), parts.next()) else {
            return Err("a question is NAME:TYPE or NAME:TYPE:SIZE".to_owned());
        };
        let size = parts.next().map_or(Ok(0), str::parse);
        Ok(Self {
            name: Name::from_ascii(format!("{}.", name.trim_end_matches('.')))
                .map_err(|error| format!("{name}: {error}"))?,
            rtype: RecordType::from_str(rtype).map_err(|error| format!("{rtype}: {error}"))?,
            size: size.map_err(|error| format!("{text}: size: {error}"))?,
            is_fresh: false,
        })
    }
}

/// A query as it is sent, and what every reply to it has to be.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) query: Vec<u8>,
    question: Vec<u8>,
    flags: u16,
    answers: u16,
    /// Bytes of the first reply.
    pub(crate) size: usize,
    /// For the echo, whose replies have exactly this size.
    exact: bool,
    /// Its name is another each time.
    pub(crate) is_fresh: bool,
}

impl Asked {
    /// Asks once, to learn what right replies are; gives the first one too.
    pub(crate) fn probe(question: &Question, server: SocketAddr) -> io::Result<(Self, Message)> {
        let query = question.bytes();
        let reply = ask(server, &query)?;
        let message = Message::from_vec(&reply).map_err(io::Error::other)?;
        let name_length = question.name.len();
        let asked = Self {
            question: query[HEADER..HEADER + name_length + 4].to_vec(),
            query,
            flags: u16::from_be_bytes([reply[2], reply[3]]) & JUDGED,
            answers: u16::from_be_bytes([reply[6], reply[7]]),
            size: reply.len(),
            exact: false,
            is_fresh: question.is_fresh,
        };
        Ok((asked, message))
    }

    /// The same for the echo: it is told how long the reply is to be.
    pub(crate) fn for_echo(&self) -> Self {
        let mut echo = self.clone();
        let size = u16::try_from(self.size).expect("no datagram is longer");
        echo.query[8..10].copy_from_slice(&size.to_be_bytes());
        (echo.flags, echo.answers, echo.exact) = (0, 0, true);
        echo
    }

    /// Makes of its query one for the name of this number.
    pub(crate) fn renew(query: &mut [u8], number: u32) {
        let digits = format!("{number:0FRESH$x}");
        query[FRESH_AT..FRESH_AT + FRESH].copy_from_slice(digits.as_bytes());
    }

    /// Whether it is a right reply; the ID is not looked at.
    pub(crate) fn is_answered_by(&self, reply: &[u8]) -> bool {
        if reply.len() < HEADER + self.question.len() || self.exact && reply.len() != self.size {
            return false;
        }
        let skipped = if self.is_fresh { 1 + FRESH } else { 0 };
        let field = |at: usize| u16::from_be_bytes([reply[at], reply[at + 1]]);
        field(2) & 0x8000 != 0
            && field(2) & JUDGED == self.flags
            && field(6) == self.answers
            && reply[HEADER + skipped..].starts_with(&self.question[skipped..])
    }
}

fn ask(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE / TRIES as u32))?;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    let mut buffer = vec![0; 65536];
    for _ in 0..TRIES {
        socket.send(query)?;
        match socket.recv(&mut buffer) {
            Ok(length) if length >= HEADER => return Ok(buffer[..length].to_vec()),
            Ok(length) => last = io::Error::other(format!("a reply of {length} bytes")),
            Err(error) => last = error,
        }
    }
    Err(last)
}
