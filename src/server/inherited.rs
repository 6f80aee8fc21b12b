//! Listening sockets that the service manager opened for us (sd_listen_fds(3)). It may bind port
//! 53, so that we need no right to; and it holds the sockets while we restart, so that what is
//! asked meanwhile waits instead of being refused.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use listenfd::ListenFd;
use socket2::SockRef;

use super::bind::{Bound, SOCKET_BUFFER};

/// Why inherited sockets cannot be served, and what to do about it, in one line.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// Neither UDP nor TCP.
    #[error(
        "socket {number} from the service manager is neither UDP nor TCP over IP; a socket unit for Portolan has ListenDatagram=IP:PORT and ListenStream=IP:PORT"
    )]
    Kind {
        /// Counted from 1, in the order of the socket unit.
        number: usize,
    },
    /// DNS needs both.
    #[error(
        "the service manager has opened {address} for {has} alone; add {missing}={address} to the socket unit"
    )]
    Half {
        /// The address.
        address: SocketAddr,
        /// What there is.
        has: &'static str,
        /// What lacks, as in the socket unit.
        missing: &'static str,
    },
    /// Anything else.
    #[error("cannot use socket {number} from the service manager: {source}")]
    Other {
        /// Counted from 1, in the order of the socket unit.
        number: usize,
        /// What the system says.
        source: io::Error,
    },
}

/// The sockets of one address.
#[derive(Default)]
struct Half {
    udp: Vec<UdpSocket>,
    tcp: Option<TcpListener>,
}

/// The sockets that were passed to this process, by address; none if it was started without.
///
/// Each UDP socket gets a worker. A socket unit with `ReusePort=yes` may name an address several
/// times, for as many workers. Call it once: nothing is left for a second call.
///
/// # Errors
/// [`InheritError`], one line that says what to do.
pub fn inherited() -> Result<Vec<Bound>, InheritError> {
    let mut passed = ListenFd::from_env();
    let mut halves: BTreeMap<SocketAddr, Half> = BTreeMap::new();
    for index in 0..passed.len() {
        let number = index + 1;
        let other = |source| InheritError::Other { number, source };
        if let Ok(Some(udp)) = passed.take_udp_socket(index) {
            let address = prepare_udp(&udp).map_err(other)?;
            halves.entry(address).or_default().udp.push(udp);
        } else if let Ok(Some(tcp)) = passed.take_tcp_listener(index) {
            tcp.set_nonblocking(true).map_err(other)?;
            let address = tcp.local_addr().map_err(other)?;
            halves.entry(address).or_default().tcp = Some(tcp);
        } else {
            return Err(InheritError::Kind { number });
        }
    }
    halves
        .into_iter()
        .map(|(address, half)| whole(address, half))
        .collect()
}

/// As a socket that we bind ourselves would be.
fn prepare_udp(udp: &UdpSocket) -> io::Result<SocketAddr> {
    udp.set_nonblocking(false)?;
    let options = SockRef::from(udp);
    options.set_recv_buffer_size(SOCKET_BUFFER)?;
    options.set_send_buffer_size(SOCKET_BUFFER)?;
    udp.local_addr()
}

fn whole(address: SocketAddr, half: Half) -> Result<Bound, InheritError> {
    let lacks = |has, missing| InheritError::Half {
        address,
        has,
        missing,
    };
    let tcp = half.tcp.ok_or_else(|| lacks("UDP", "ListenStream"))?;
    if half.udp.is_empty() {
        return Err(lacks("TCP", "ListenDatagram"));
    }
    Ok(Bound {
        address,
        udp: half.udp,
        tcp,
    })
}
