//! Counts what a Portolan and Consul say to each other.

use socket2::{Domain, Socket, Type};
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    /// That Consul sent.
    pub(super) bytes: u64,
    pub(super) requests: u64,
}

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    requests: AtomicU64,
}

/// Stands before Consul for as long as the program runs.
pub(super) struct Relay {
    address: SocketAddr,
    counters: Arc<Counters>,
}

impl Relay {
    /// Of the host of that number: Consul counts and limits the connections of each.
    pub(super) fn before(consul: SocketAddr, host: usize) -> io::Result<Self> {
        let [.., high, low] = host.to_be_bytes();
        let host = Ipv4Addr::new(127, 3, high, low);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let counting = Arc::clone(&counters);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Either side may go at any time: that ends its connection and no more.
                drop(join(client, host, consul, &counting));
            }
        });
        Ok(Self { address, counters })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn counted(&self) -> Counted {
        Counted {
            bytes: self.counters.bytes.load(Ordering::Relaxed),
            requests: self.counters.requests.load(Ordering::Relaxed),
        }
    }
}

/// Passes on what comes on one connection, in two threads.
fn join(
    client: TcpStream,
    host: Ipv4Addr,
    consul: SocketAddr,
    counters: &Arc<Counters>,
) -> io::Result<()> {
    let server = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    server.bind(&SocketAddr::from((host, 0)).into())?;
    server.connect(&consul.into())?;
    let server = TcpStream::from(server);
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (client_again, server_again) = (client.try_clone()?, server.try_clone()?);
    let (up, down) = (Arc::clone(counters), Arc::clone(counters));
    // A request is one piece, since it has no body.
    thread::spawn(move || {
        pass(client, server, |piece| {
            let requests = u64::from(piece.starts_with(b"GET "));
            up.requests.fetch_add(requests, Ordering::Relaxed);
        })
    });
    thread::spawn(move || {
        pass(server_again, client_again, |piece| {
            down.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        })
    });
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer)
        && length > 0
    {
        count(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
