//! Datagrams that the system dropped because a worker did not keep up: it counts them for each
//! socket, and nobody else sees them.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// The system's tables of UDP sockets (proc(5)).
const TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];
/// The columns of a socket's number and of its drops.
const INODE: usize = 9;
const DROPS: usize = 12;

/// The number that the system's tables have for a socket, if it tells.
pub(super) fn inode(socket: &UdpSocket) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    let inside = link.to_str()?.strip_prefix("socket:[")?;
    inside.strip_suffix(']')?.parse().ok()
}

/// How many datagrams the system has dropped for these sockets.
pub(super) fn count(inodes: &HashSet<u64>) -> u64 {
    TABLES
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .map(|table| in_table(&table, inodes))
        .sum()
}

fn in_table(table: &str, inodes: &HashSet<u64>) -> u64 {
    let number = |line: &str, column| line.split_ascii_whitespace().nth(column)?.parse().ok();
    table
        .lines()
        .skip(1)
        .filter(|line| number(line, INODE).is_some_and(|inode| inodes.contains(&inode)))
        .filter_map(|line| number(line, DROPS))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_sockets_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            10: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 111 2 00000000 5\n\
            11: 0100007F:0036 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 222 2 00000000 7\n";
        assert_eq!(in_table(table, &HashSet::from([222, 333])), 7);
        assert_eq!(in_table("", &HashSet::from([222])), 0);
    }

    #[test]
    fn a_socket_is_in_the_table() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let inode = inode(&socket).expect("the system tells");
        assert_eq!(count(&HashSet::from([inode])), 0);
    }
}
