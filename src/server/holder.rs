//! Who holds a port: for the one line that says why a listener could not be bound.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The program that holds `address`, as `name (pid N)`, where `/proc` tells. Sockets of other
/// users can only be seen by root.
pub(super) fn holder_of(address: SocketAddr) -> Option<String> {
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
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let pid = format!("(pid {})", std::process::id());
        assert!(holder_of(address).is_some_and(|holder| holder.ends_with(&pid)));
    }
}
