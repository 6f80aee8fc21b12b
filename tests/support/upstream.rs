//! A scripted DNS upstream: says to each query what the test wants said, and remembers who asked what.

use super::{bind_both, dns};
use hickory_proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA},
    },
};
use socket2::SockRef;
use std::{
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What to do with a query.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Send this.
    Answer(Message),
    /// Send these bytes.
    Raw(Vec<u8>),
    /// Send an empty answer with TC set.
    Truncated,
    /// Say nothing. Over TCP the connection is closed.
    Silence,
    /// Wait, then do something.
    Delay(Duration, Box<Self>),
}

/// A query that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Lower case, with a dot at the end: a resolver may play with the case.
    pub(crate) name: String,
    pub(crate) rtype: RecordType,
    pub(crate) transport: Transport,
}

type Script = dyn Fn(&Message, Transport) -> Action + Send + Sync;

/// A running upstream, on one port for UDP and TCP.
pub(crate) struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Upstream {
    /// Starts an upstream on loopback that follows `script`.
    pub(crate) fn start(
        script: impl Fn(&Message, Transport) -> Action + Send + Sync + 'static,
    ) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST, script)
    }

    /// The same on another address of this machine.
    pub(crate) fn start_on(
        ip: Ipv4Addr,
        script: impl Fn(&Message, Transport) -> Action + Send + Sync + 'static,
    ) -> Self {
        let (tcp, udp) = bind_both(ip.into());
        let address = udp.local_addr().expect("a bound socket has an address");
        let core = Core {
            script: Arc::new(script),
            seen: Arc::default(),
        };
        let seen = Arc::clone(&core.seen);
        let stop = Arc::new(AtomicBool::new(false));
        let own = (
            udp.try_clone().expect("a second handle on a socket"),
            tcp.try_clone().expect("a second handle on a socket"),
        );
        let (for_udp, udp_stop) = (core.clone(), Arc::clone(&stop));
        let (for_tcp, tcp_stop) = (core, Arc::clone(&stop));
        let threads = vec![
            thread::spawn(move || serve_udp(&udp, &for_udp, &udp_stop)),
            thread::spawn(move || {
                for stream in tcp.incoming() {
                    if tcp_stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // A connection that failed to arrive is the client's to miss.
                    let Ok(stream) = stream else { continue };
                    let core = for_tcp.clone();
                    thread::spawn(move || serve_tcp(stream, &core));
                }
            }),
        ];
        Self {
            address,
            seen,
            stop,
            threads,
            udp: own.0,
            tcp: own.1,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All queries so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no script has panicked").clone()
    }

    /// How many queries came for this name and type, over any transport.
    pub(crate) fn count(&self, name: &str, rtype: RecordType) -> usize {
        let matching = |seen: &&Seen| seen.name == name && seen.rtype == rtype;
        self.seen().iter().filter(matching).count()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Both threads sit in a blocking call, which this ends. A datagram would not do: the address
        // may be gone, with the network that it was on. A UDP socket says that it has no peer to be
        // shut down for, and its thread is woken all the same.
        let _ = SockRef::from(&self.udp).shutdown(Shutdown::Both);
        let _ = SockRef::from(&self.tcp).shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            // A panic of the script has been printed by its own thread.
            let _ = thread.join();
        }
    }
}

/// What each serving thread shares.
#[derive(Clone)]
struct Core {
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Core {
    /// The bytes to send, after any delay; `None` for silence.
    fn handle(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = Message::from_vec(bytes).ok()?;
        let question = query.queries.first()?;
        let seen = Seen {
            name: question.name.to_ascii().to_lowercase(),
            rtype: question.query_type,
            transport,
        };
        self.seen.lock().expect("no script has panicked").push(seen);
        let mut action = (self.script)(&query, transport);
        loop {
            let message = match action {
                Action::Answer(message) => message,
                Action::Raw(bytes) => return Some(bytes),
                Action::Silence => return None,
                Action::Truncated => {
                    let mut message = reply(&query, ResponseCode::NoError);
                    message.metadata.truncation = true;
                    message
                }
                Action::Delay(time, then) => {
                    thread::sleep(time);
                    action = *then;
                    continue;
                }
            };
            return Some(message.to_vec().expect("a message of the script"));
        }
    }
}

fn serve_udp(socket: &UdpSocket, core: &Core, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let query = buffer[..length].to_vec();
        let (core, socket) = (core.clone(), socket.try_clone());
        // A thread per query: a delayed answer must not hold up the next.
        thread::spawn(move || {
            if let (Some(bytes), Ok(socket)) = (core.handle(&query, Transport::Udp), socket) {
                // The client may have gone; that is its own affair.
                let _ = socket.send_to(&bytes, client);
            }
        });
    }
}

fn serve_tcp(mut stream: TcpStream, core: &Core) {
    use std::io::Write;
    while let Ok(query) = dns::read_framed(&mut stream) {
        let Some(bytes) = core.handle(&query, Transport::Tcp) else {
            return;
        };
        if stream.write_all(&dns::framed(&bytes)).is_err() {
            return;
        }
    }
}

/// An empty reply to `query`.
pub(crate) fn reply(query: &Message, rcode: ResponseCode) -> Message {
    let mut message = Message::new(
        query.metadata.id,
        MessageType::Response,
        query.metadata.op_code,
    );
    message.metadata.response_code = rcode;
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.queries.clone_from(&query.queries);
    message.edns.clone_from(&query.edns);
    message
}

/// An answer with these A records, under the name that was asked.
pub(crate) fn addresses(query: &Message, ttl: u32, addresses: &[Ipv4Addr]) -> Action {
    let mut message = reply(query, ResponseCode::NoError);
    let name = question(query).name.clone();
    let record = |ip: &Ipv4Addr| Record::from_rdata(name.clone(), ttl, RData::A(A(*ip)));
    message.answers.extend(addresses.iter().map(record));
    Action::Answer(message)
}

/// NXDOMAIN, or NODATA with `ResponseCode::NoError`, with the SOA that makes it cacheable.
pub(crate) fn negative(query: &Message, rcode: ResponseCode) -> Action {
    let mut message = reply(query, rcode);
    let name = |text| Name::from_ascii(text).expect("a name of the script");
    let soa = SOA::new(
        name("ns.test."),
        name("admin.test."),
        1,
        3600,
        600,
        86400,
        30,
    );
    let record = Record::from_rdata(name("test."), 30, RData::SOA(soa));
    message.authorities.push(record);
    Action::Answer(message)
}

/// A bare failure: SERVFAIL, REFUSED.
pub(crate) fn failure(query: &Message, rcode: ResponseCode) -> Action {
    Action::Answer(reply(query, rcode))
}

/// The question of a query.
pub(crate) fn question(query: &Message) -> &Query {
    query.queries.first().expect("a query has a question")
}
