//! Where a datagram came to, and its reply goes out from; and addresses as the system has them.

use std::io::IoSlice;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use nix::sys::time::TimeSpec;

pub(super) fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddrV6::from(*v6).into())
}

/// The address of ours that a datagram was sent to, and the reply must come from: clients drop
/// replies from any other. Known where the socket is bound to all addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReplyFrom {
    Bound,
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl ReplyFrom {
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bound, Self::Bound) => true,
            (Self::V4(a), Self::V4(b)) => {
                a.ipi_ifindex == b.ipi_ifindex
                    && a.ipi_addr.s_addr == b.ipi_addr.s_addr
                    && a.ipi_spec_dst.s_addr == b.ipi_spec_dst.s_addr
            }
            (Self::V6(a), Self::V6(b)) => {
                a.ipi6_ifindex == b.ipi6_ifindex && a.ipi6_addr.s6_addr == b.ipi6_addr.s6_addr
            }
            _ => false,
        }
    }

    /// Calls `send` with the control message that names it.
    pub(super) fn with<T>(&self, send: impl FnOnce(&[ControlMessage<'_>]) -> T) -> T {
        match self {
            Self::Bound => send(&[]),
            Self::V4(info) => send(&[ControlMessage::Ipv4PacketInfo(info)]),
            Self::V6(info) => send(&[ControlMessage::Ipv6PacketInfo(info)]),
        }
    }

    /// Sends one datagram from it, without waiting for room.
    pub(super) fn send(&self, socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> nix::Result<()> {
        let (fd, to) = (socket.as_raw_fd(), SockaddrStorage::from(to));
        let (bytes, flags) = ([IoSlice::new(bytes)], MsgFlags::MSG_DONTWAIT);
        self.with(|from| sendmsg(fd, &bytes, from, flags, Some(&to)))
            .map(drop)
    }

    /// Room for the control messages of a datagram to `bound`: the one that names the address,
    /// and, if it is `timed`, the time it came at.
    pub(super) fn space(bound: SocketAddr, timed: bool) -> Option<Vec<u8>> {
        match (bound.ip().is_unspecified(), bound.is_ipv4(), timed) {
            (false, _, false) => None,
            (false, _, true) => Some(cmsg_space!(TimeSpec)),
            (true, true, false) => Some(cmsg_space!(in_pktinfo)),
            (true, true, true) => Some(cmsg_space!(in_pktinfo, TimeSpec)),
            (true, false, false) => Some(cmsg_space!(in6_pktinfo)),
            (true, false, true) => Some(cmsg_space!(in6_pktinfo, TimeSpec)),
        }
    }
}
