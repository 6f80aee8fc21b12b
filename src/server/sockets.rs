//! Listening sockets: bound by us, or opened by the service manager (sd_listen_fds(3)). It may bind
//! port 53, so that we need no right to; and it holds the sockets while we restart, so that what is
//! asked meanwhile waits instead of being refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

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
                holder: who_holds(address),
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

/// The program that holds `address`, as `name (pid N)`, where `/proc` tells. Sockets of other
/// users can only be seen by root.
fn who_holds(address: SocketAddr) -> Option<String> {
    let tables = ["tcp", "tcp6", "udp", "udp6"];
    let inode = tables.iter().find_map(|table| {
        inode_of(
            &fs::read_to_string(format!("/proc/net/{table}")).ok()?,
            address,
        )
    })?;
    let link = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == link.as_str())
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// The inode of the first socket in a table of `/proc/net` that is bound to `address`, or to its
/// port on all addresses, and has no peer.
fn inode_of(table: &str, address: SocketAddr) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let local = parse_address(fields.nth(1)?)?;
        let peer = parse_address(fields.next()?)?;
        let clashes = local.ip().to_canonical() == address.ip().to_canonical()
            || local.ip().is_unspecified()
            || address.ip().is_unspecified();
        if peer.port() != 0 || local.port() != address.port() || !clashes {
            return None;
        }
        fields.nth(6)?.parse().ok()
    })
}

/// `0100007F:0035` is 127.0.0.1:53: groups of four bytes, each in the machine's byte order.
fn parse_address(field: &str) -> Option<SocketAddr> {
    let (ip, port) = field.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok();
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?.to_ne_bytes()).into(),
        32 => {
            let mut octets = [0; 16];
            for part in 0..4 {
                octets[part * 4..part * 4 + 4].copy_from_slice(&word(part * 8)?.to_ne_bytes());
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:0035 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 111 1\n   1: 00000000:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn a_listener_is_found_and_a_connection_is_not() {
        let at = |text: &str| inode_of(TABLE, text.parse().expect("an address"));
        assert_eq!(at("127.0.0.1:53"), Some(222));
        assert_eq!(at("127.0.0.1:54"), None);
        assert_eq!(
            inode_of("", "127.0.0.1:53".parse().expect("an address")),
            None
        );
    }

    #[test]
    fn our_own_listener_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let pid = format!("(pid {})", std::process::id());
        assert!(who_holds(address).is_some_and(|holder| holder.ends_with(&pid)));
    }
}
