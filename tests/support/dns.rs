//! The one DNS client of the tests: one question, one try, three seconds.

use super::wire::{Reply, rtype};
use socket2::{Domain, Socket, Type};
use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// A question and how to ask it: by default over UDP, without EDNS, with RD set, class IN.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) rtype: u16,
    class: u16,
    id: u16,
    opcode: u8,
    recursion_desired: bool,
    tcp: bool,
    edns: Option<(u16, u8)>,
    dnssec_ok: bool,
    options: Vec<u8>,
    source: Option<Ipv4Addr>,
    patience: Duration,
}

impl Query {
    pub(crate) fn new(name: &str, rtype: u16) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0x5a00);
        Self {
            name: name.to_owned(),
            rtype,
            class: 1,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            opcode: 0,
            recursion_desired: true,
            tcp: false,
            edns: None,
            dnssec_ok: false,
            options: Vec::new(),
            source: None,
            patience: PATIENCE,
        }
    }

    /// Asks over TCP.
    pub(crate) fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Sends an OPT record with this payload size.
    pub(crate) fn edns(mut self, size: u16) -> Self {
        self.edns = Some((size, 0));
        self
    }

    /// Sends an OPT record with DO.
    pub(crate) fn dnssec_ok(mut self) -> Self {
        self.dnssec_ok = true;
        self.edns(1232)
    }

    /// Sends an OPT record of this EDNS version.
    pub(crate) fn edns_version(mut self, version: u8) -> Self {
        self.edns = Some((1232, version));
        self
    }

    /// Asks for this client (RFC 7871, all of its address), with an OPT record of 4096 bytes.
    pub(crate) fn on_behalf_of(mut self, client: Ipv4Addr) -> Self {
        self.options = [0, 8, 0, 8, 0, 1, 32, 0].to_vec();
        self.options.extend(client.octets());
        self.edns(4096)
    }

    /// Asks for whom is in this network (RFC 7871), with an OPT record of 4096 bytes.
    pub(crate) fn on_behalf_of_network(mut self, network: IpAddr, prefix: u8) -> Self {
        let (family, octets) = match network {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let sent = usize::from(prefix).div_ceil(8);
        let length = u8::try_from(4 + sent).expect("an address is short");
        self.options = [0, 8, 0, length, 0, family, prefix, 0].to_vec();
        self.options.extend(&octets[..sent]);
        self.edns(4096)
    }

    /// Whether it is asked over TCP.
    pub(crate) fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// The EDNS options that it sends.
    pub(crate) fn options(&self) -> &[u8] {
        &self.options
    }

    /// The payload size that it sends, if it has an OPT record.
    pub(crate) fn payload_size(&self) -> Option<u16> {
        self.edns.map(|(size, _)| size)
    }

    /// Leaves RD off.
    pub(crate) fn no_recursion(mut self) -> Self {
        self.recursion_desired = false;
        self
    }

    /// Asks in another class.
    pub(crate) fn class(mut self, class: u16) -> Self {
        self.class = class;
        self
    }

    /// Uses another opcode.
    pub(crate) fn opcode(mut self, opcode: u8) -> Self {
        self.opcode = opcode;
        self
    }

    /// Asks from this address.
    pub(crate) fn from(mut self, source: Ipv4Addr) -> Self {
        self.source = Some(source);
        self
    }

    /// Waits this long instead of three seconds.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The question section as it is sent, and has to come back.
    pub(crate) fn question(&self) -> Vec<u8> {
        let mut bytes = encode_name(&self.name);
        bytes.extend(self.rtype.to_be_bytes());
        bytes.extend(self.class.to_be_bytes());
        bytes
    }

    /// The whole query.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let flags = u16::from(self.opcode) << 11 | u16::from(self.recursion_desired) << 8;
        let additional = u16::from(self.edns.is_some());
        let mut bytes = Vec::new();
        for field in [self.id, flags, 1, 0, 0, additional] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend(self.question());
        if let Some((size, version)) = self.edns {
            bytes.push(0);
            bytes.extend(rtype::OPT.to_be_bytes());
            bytes.extend(size.to_be_bytes());
            bytes.extend([0, version, u8::from(self.dnssec_ok) << 7, 0]);
            let length = u16::try_from(self.options.len()).expect("few options");
            bytes.extend(length.to_be_bytes());
            bytes.extend(&self.options);
        }
        bytes
    }

    /// Asks; an answer has to come, in time, well-formed, with our ID and question.
    pub(crate) fn ask(&self, server: SocketAddr) -> Reply {
        self.try_ask(server).unwrap_or_else(|error| {
            let kind = rtype::name(self.rtype);
            panic!("asking {server} for {} {kind}: {error}", self.name)
        })
    }

    /// Asks; says why there was no good answer.
    pub(crate) fn try_ask(&self, server: SocketAddr) -> Result<Reply, String> {
        let bytes = if self.tcp {
            exchange_tcp_from(server, self.source, &self.bytes(), self.patience)
        } else {
            exchange_udp(server, self.source, &self.bytes(), self.patience)
        };
        let reply = Reply::parse(&bytes.map_err(|error| error.to_string())?)?;
        if !reply.is_response() {
            return Err("QR is not set".to_owned());
        }
        if reply.question != self.question() && !reply.question.is_empty() {
            return Err(format!(
                "another question came back: {:02x?}",
                reply.question
            ));
        }
        Ok(reply)
    }
}

/// Asks over UDP in the plainest way.
pub(crate) fn ask(server: SocketAddr, name: &str, rtype: u16) -> Reply {
    Query::new(name, rtype).ask(server)
}

/// Sends a datagram and waits for one with the same ID from the same place.
pub(crate) fn exchange_udp(
    server: SocketAddr,
    source: Option<Ipv4Addr>,
    query: &[u8],
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let source = match (source, server) {
        (Some(ip), _) => ip.into(),
        (None, SocketAddr::V4(_)) => IpAddr::from(Ipv4Addr::LOCALHOST),
        (None, SocketAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = UdpSocket::bind((source, 0))?;
    // Connected: an answer from any other address or port is never seen, as HAProxy has it.
    socket.connect(server)?;
    socket.send(query)?;
    let deadline = Instant::now() + patience;
    let mut buffer = vec![0; 65_535];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut buffer) {
            Ok(length) if buffer[..length].get(..2) == query.get(..2) => {
                return Ok(buffer[..length].to_vec());
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends one query on a connection of its own and reads one answer.
pub(crate) fn exchange_tcp(
    server: SocketAddr,
    query: &[u8],
    patience: Duration,
) -> io::Result<Vec<u8>> {
    exchange_tcp_from(server, None, query, patience)
}

/// The same, from this address.
fn exchange_tcp_from(
    server: SocketAddr,
    source: Option<Ipv4Addr>,
    query: &[u8],
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let mut stream = connect_tcp_from(server, source, patience)?;
    stream.write_all(&framed(query))?;
    read_framed(&mut stream)
}

/// A connection whose reads and writes give up after `patience`.
pub(crate) fn connect_tcp(server: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    connect_tcp_from(server, None, patience)
}

/// The same, from this address.
pub(crate) fn connect_tcp_from(
    server: SocketAddr,
    source: Option<Ipv4Addr>,
    patience: Duration,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    if let Some(ip) = source {
        socket.bind(&SocketAddr::from((ip, 0)).into())?;
    }
    socket.connect_timeout(&server.into(), patience)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// A message with its length before it, as TCP wants it.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a message of less than 64 KiB");
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(message);
    bytes
}

/// Reads one message that has its length before it.
pub(crate) fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// A name in wire form, uncompressed, in the case given. `\.` is a dot inside a label and `\DDD` is
/// any byte, as `Reply` prints them.
fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut label = Vec::new();
    let mut rest = name.bytes();
    loop {
        let next = rest.next();
        match next {
            None | Some(b'.') => {
                if !label.is_empty() {
                    bytes.push(u8::try_from(label.len()).expect("a label of less than 256 bytes"));
                    bytes.append(&mut label);
                }
                if next.is_none() {
                    break;
                }
            }
            Some(b'\\') => {
                let first = rest.next().expect("something after a backslash");
                label.push(if first.is_ascii_digit() {
                    let digits = [Some(first), rest.next(), rest.next()];
                    let value = digits
                        .iter()
                        .flatten()
                        .fold(0_u16, |value, digit| value * 10 + u16::from(digit - b'0'));
                    u8::try_from(value).expect("`\\DDD` is a byte")
                } else {
                    first
                });
            }
            Some(byte) => label.push(byte),
        }
    }
    bytes.push(0);
    bytes
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, rtype::name(self.rtype))?;
        if self.tcp {
            f.write_str(" over TCP")?;
        }
        if let Some((size, _)) = self.edns {
            write!(f, " with EDNS {size}")?;
        }
        Ok(())
    }
}
