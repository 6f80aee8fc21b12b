//! What the host says: the resolvers in its `resolv.conf`, its own addresses, and whether an
//! upstream is ourselves.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::Error;

/// The port that `resolv.conf` means; it cannot name another (resolv.conf(5)).
const DNS_PORT: u16 = 53;

/// Where a container finds Docker's own resolver. It looks like this host, but Docker turns the
/// packets aside before they could arrive at a listener on all addresses.
const DOCKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// The resolvers that the `resolv.conf` at `path` names, in its order, on port 53.
///
/// Search domains and options are not ours: clients apply their own. A link-local address with an
/// interface (`fe80::1%eth0`) is left out with a warning, as hickory cannot connect to one.
///
/// # Errors
/// The file cannot be read, or names no resolver.
pub fn system_upstreams(path: &Path) -> Result<Vec<SocketAddr>, Error> {
    let text = fs::read(path).map_err(|source| Error::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let upstreams = name_servers(&String::from_utf8_lossy(&text));
    if upstreams.is_empty() {
        return Err(Error::NoneInFile {
            path: path.to_owned(),
        });
    }
    Ok(upstreams)
}

/// The `nameserver` lines. As glibc does, what cannot be read is passed over.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(word) = words.next() else { continue };
        match word.parse::<IpAddr>() {
            Ok(ip) => {
                let upstream = SocketAddr::new(ip, DNS_PORT);
                if !found.contains(&upstream) {
                    found.push(upstream);
                }
            }
            Err(_) => tracing::warn!(
                nameserver = word,
                "resolv.conf names a server that is not an IP address; ignoring it"
            ),
        }
    }
    found
}

/// The addresses of this host's interfaces, for [`check_loops`].
///
/// # Errors
/// The system does not tell.
pub fn own_addresses() -> Result<Vec<IpAddr>, Error> {
    let interfaces = if_addrs::get_if_addrs().map_err(Error::Interfaces)?;
    Ok(interfaces.iter().map(if_addrs::Interface::ip).collect())
}

/// Refuses upstreams that are one of our own listeners: each question would come back to us as a
/// new one, until something breaks.
///
/// `own` are the host's addresses: a listener on `0.0.0.0` is all IPv4 ones, a listener on `[::]`
/// all IPv6 ones. (The server binds `[::]` for IPv6 alone, so it is not an IPv4 listener.)
///
/// # Errors
/// The first upstream that is ourselves.
pub fn check_loops(
    upstreams: &[SocketAddr],
    listeners: &[SocketAddr],
    own: &[IpAddr],
) -> Result<(), Error> {
    for &upstream in upstreams {
        let hit = listeners
            .iter()
            .find(|listener| is_same(upstream, **listener, own));
        if let Some(&listener) = hit {
            return Err(Error::Loop { upstream, listener });
        }
    }
    Ok(())
}

/// Would a packet to `upstream` arrive at `listener`?
fn is_same(upstream: SocketAddr, listener: SocketAddr, own: &[IpAddr]) -> bool {
    if upstream.port() != listener.port() {
        return false;
    }
    let to = upstream.ip().to_canonical();
    let at = listener.ip().to_canonical();
    let same_family = to.is_ipv4() == at.is_ipv4();
    // Linux sends what is for "any address" to the loopback interface.
    let is_local = to.is_unspecified() || to.is_loopback() || own.contains(&to);
    if at.is_unspecified() {
        return same_family && is_local && to != DOCKER;
    }
    to == at || (to.is_unspecified() && same_family && at.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(list: &[&str]) -> Vec<SocketAddr> {
        list.iter()
            .map(|s| s.parse().expect("an address with a port"))
            .collect()
    }

    fn is_loop(upstream: &str, listener: &str) -> bool {
        let own: Vec<IpAddr> = ["127.0.0.1", "192.0.2.7", "::1", "2001:db8::7"]
            .iter()
            .map(|s| s.parse().expect("an address"))
            .collect();
        check_loops(&sockets(&[upstream]), &sockets(&[listener]), &own).is_err()
    }

    #[test]
    fn a_listener_of_ours_is_no_upstream() {
        for (upstream, listener) in [
            ("127.0.0.1:53", "127.0.0.1:53"),
            ("127.0.0.1:53", "0.0.0.0:53"),
            ("127.8.9.1:53", "0.0.0.0:53"),
            ("192.0.2.7:53", "0.0.0.0:53"),
            ("0.0.0.0:53", "127.0.0.1:53"),
            ("0.0.0.0:53", "0.0.0.0:53"),
            ("[::ffff:127.0.0.1]:53", "127.0.0.1:53"),
            ("127.0.0.11:53", "127.0.0.11:53"),
            ("[::1]:53", "[::]:53"),
            ("[2001:db8::7]:53", "[::]:53"),
            ("[::]:53", "[::1]:53"),
        ] {
            assert!(is_loop(upstream, listener), "{upstream} {listener}");
        }
    }

    #[test]
    fn everything_else_is() {
        for (upstream, listener) in [
            ("127.0.0.53:53", "127.0.0.1:53"),
            ("127.0.0.11:53", "0.0.0.0:53"),
            ("127.0.0.1:5353", "127.0.0.1:53"),
            ("192.0.2.8:53", "0.0.0.0:53"),
            ("192.0.2.7:53", "127.0.0.1:53"),
            ("127.0.0.1:53", "[::]:53"),
            ("[::1]:53", "0.0.0.0:53"),
            ("0.0.0.0:53", "192.0.2.7:53"),
            ("[2001:db8::8]:53", "[::]:53"),
        ] {
            assert!(!is_loop(upstream, listener), "{upstream} {listener}");
        }
    }

    #[test]
    fn the_message_says_which_and_what_to_do() {
        let list = sockets(&["198.51.100.1:53", "127.0.0.1:53"]);
        let error = check_loops(&list, &sockets(&["0.0.0.0:53"]), &[]).expect_err("a loop");
        let text = error.to_string();
        assert!(
            text.contains("127.0.0.1:53") && text.contains("0.0.0.0:53"),
            "{text}"
        );
        assert!(
            text.contains("--upstream") && !text.contains('\n'),
            "{text}"
        );
    }

    #[test]
    fn resolv_conf_gives_its_name_servers() {
        let text = "# x\nsearch a.b\nnameserver 192.0.2.1\r\n\tnameserver\t2001:db8::1 # y\n\
                    nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver\n\
                    nameserverx 1.1.1.1\n;nameserver 192.0.2.9\noptions ndots:5";
        assert_eq!(
            name_servers(text),
            sockets(&["192.0.2.1:53", "[2001:db8::1]:53"])
        );
    }

    #[test]
    fn a_resolv_conf_without_use_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("resolv.conf");
        assert!(matches!(
            system_upstreams(&path),
            Err(Error::Unreadable { .. })
        ));
        fs::write(&path, "search example.test\n").expect("a file");
        assert!(matches!(
            system_upstreams(&path),
            Err(Error::NoneInFile { .. })
        ));
        fs::write(&path, b"\xff\nnameserver 192.0.2.1\n").expect("a file");
        assert_eq!(
            system_upstreams(&path).expect("one upstream"),
            sockets(&["192.0.2.1:53"])
        );
    }

    #[test]
    fn this_host_has_addresses() {
        let own = own_addresses().expect("addresses");
        assert!(own.iter().any(IpAddr::is_loopback), "{own:?}");
    }
}
