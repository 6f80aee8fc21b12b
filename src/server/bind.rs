//! Listening sockets.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::holder::holder_of;

/// Receive and send buffers to ask for: a burst of large answers must not be lost while a worker
/// is busy. The system may grant less.
pub(super) const SOCKET_BUFFER: usize = 4 << 20;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How often a port is sought that is free for both UDP and TCP, when any will do.
const PORT_ATTEMPTS: usize = 32;

/// Sockets of one address, not yet served.
#[derive(Debug)]
pub struct Bound {
    /// The address, with the port that the system chose if 0 was asked for.
    pub address: SocketAddr,
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: TcpListener,
}

/// Why an address could not be bound, and what to do about it, in one line.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("cannot listen on {address}: it is taken{}; stop that program or choose another address with --listen", .holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default())]
    Taken {
        /// What was asked for.
        address: SocketAddr,
        /// The program, where the system tells.
        holder: Option<String>,
    },
    /// A port below the unprivileged ones.
    #[error(
        "cannot listen on {address}: this needs the capability CAP_NET_BIND_SERVICE; grant it with `setcap cap_net_bind_service=+ep` on the program, run it as root, or choose a port from 1024 on with --listen"
    )]
    Forbidden {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Not an address of this host.
    #[error(
        "cannot listen on {address}: this host has no such address; choose one that `ip address` shows, or 0.0.0.0, with --listen"
    )]
    NotOurs {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::AddrInUse => Self::Taken {
                address,
                holder: holder_of(address),
            },
            ErrorKind::PermissionDenied => Self::Forbidden { address },
            ErrorKind::AddrNotAvailable => Self::NotOurs { address },
            _ => Self::Other { address, source },
        }
    }
}

/// Binds TCP and as many UDP sockets as there are workers to one address.
///
/// # Errors
/// [`BindError`], one line that says what to do.
pub fn bind(address: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    let attempts = if address.port() == 0 {
        PORT_ATTEMPTS
    } else {
        1
    };
    let mut result = try_bind(address, workers);
    for _ in 1..attempts {
        match &result {
            // The port that is free for TCP was taken for UDP: any other will do as well.
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            _ => break,
        }
        result = try_bind(address, workers);
    }
    result.map_err(|source| BindError::new(address, source))
}

fn try_bind(asked: SocketAddr, workers: usize) -> io::Result<Bound> {
    // TCP first and without SO_REUSEPORT: it is what notices a second Portolan on the same port.
    let tcp = socket(asked, Type::STREAM, Protocol::TCP)?;
    tcp.set_reuse_address(true)?;
    tcp.bind(&asked.into())?;
    tcp.listen(BACKLOG)?;
    let tcp: TcpListener = tcp.into();
    let address = tcp.local_addr()?;
    // A socket without SO_REUSEPORT finds out whether somebody else has the UDP port.
    drop(bind_udp(address, false)?);
    let udp = (0..workers.max(1))
        .map(|_| bind_udp(address, true))
        .collect::<io::Result<_>>()?;
    Ok(Bound { address, udp, tcp })
}

fn bind_udp(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
    udp.set_reuse_port(shared)?;
    udp.set_recv_buffer_size(SOCKET_BUFFER)?;
    udp.set_send_buffer_size(SOCKET_BUFFER)?;
    udp.bind(&address.into())?;
    Ok(udp.into())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // `[::]:53` beside `0.0.0.0:53` must not clash.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(kind == Type::STREAM)?;
    Ok(socket)
}
