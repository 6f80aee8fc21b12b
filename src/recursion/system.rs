//! What the host says: the resolvers in its `resolv.conf`, its own addresses, and whether an
//! upstream is ourselves.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::upstream::Address;

use super::Error;

/// Where a container finds Docker's own resolver. It looks like this host, but Docker turns the
/// packets aside before they could arrive at a listener on all addresses.
const DOCKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// What a `resolv.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The resolvers that it names, in its order, on port 53.
    pub servers: Vec<Address>,
    /// What it names instead of a server that can be asked, in its own words.
    pub passed_over: Vec<String>,
}

impl ResolvConf {
    /// Reads the file. Search domains and options are not ours: clients apply their own.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read(path).map_err(|source| Error::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Ok(name_servers(&String::from_utf8_lossy(&text)))
    }

    /// Leaves out what is one of our own listeners, as [`check_loops`] finds it.
    #[must_use]
    pub fn without_loops(mut self, listeners: &[SocketAddr], own: &[IpAddr]) -> Self {
        let is_loop = |server: &Address| check_loops([server], listeners, own).is_err();
        let loops = self.servers.iter().filter(|server| is_loop(server));
        let loops = loops.map(|server| format!("{}, which is Portolan itself", server.ip()));
        self.passed_over.extend(loops.collect::<Vec<_>>());
        self.servers.retain(|server| !is_loop(server));
        self
    }

    /// Tells of what is passed over.
    pub fn warn(&self) {
        for nameserver in &self.passed_over {
            tracing::warn!(
                nameserver,
                "resolv.conf names a server that cannot be asked; ignoring it"
            );
        }
    }
}

/// An address, or a link-local one with the interface that it is on, if that is there now; a port cannot be named
/// (resolv.conf(5)).
fn name_server(word: &str) -> Option<Address> {
    match word.split_once('%') {
        None => {
            let ip: IpAddr = word.parse().ok()?;
            (!ip.is_multicast()).then(|| ip.into())
        }
        Some((ip, _)) => {
            ip.parse::<IpAddr>().ok()?;
            let address: Address = word.parse().ok()?;
            address.socket().is_ok().then_some(address)
        }
    }
}

/// The `nameserver` lines. As glibc does, what cannot be read is passed over.
fn name_servers(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(word) = words.next() else { continue };
        match name_server(word) {
            Some(server) if conf.servers.contains(&server) => {}
            Some(server) => conf.servers.push(server),
            None => conf.passed_over.push(word.to_owned()),
        }
    }
    conf
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
pub fn check_loops<'a>(
    upstreams: impl IntoIterator<Item = &'a Address>,
    listeners: &[SocketAddr],
    own: &[IpAddr],
) -> Result<(), Error> {
    for upstream in upstreams {
        let hit = listeners
            .iter()
            .find(|listener| is_same(upstream, **listener, own));
        if let Some(&listener) = hit {
            let upstream = Box::new(upstream.clone());
            return Err(Error::Loop { upstream, listener });
        }
    }
    Ok(())
}

/// Would a packet to `upstream` arrive at `listener`?
fn is_same(upstream: &Address, listener: SocketAddr, own: &[IpAddr]) -> bool {
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

    fn servers(list: &[&str]) -> Vec<Address> {
        sockets(list).into_iter().map(Address::from).collect()
    }

    fn is_loop(upstream: &str, listener: &str) -> bool {
        let own: Vec<IpAddr> = ["127.0.0.1", "192.0.2.7", "::1", "2001:db8::7"]
            .iter()
            .map(|s| s.parse().expect("an address"))
            .collect();
        check_loops(&servers(&[upstream]), &sockets(&[listener]), &own).is_err()
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
        let list = servers(&["198.51.100.1:53", "127.0.0.1:53"]);
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
                    nameserver 192.0.2.1\nnameserver fe80::1%lo\nnameserver fe80::1%no-such-eth0\nnameserver 192.0.2.9:53\nnameserver\n\
                    nameserverx 1.1.1.1\n;nameserver 192.0.2.9\noptions ndots:5";
        let conf = name_servers(text);
        let servers = conf.servers.iter().map(Address::to_string);
        assert_eq!(
            servers.collect::<Vec<_>>(),
            ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%lo]:53"]
        );
        assert_eq!(conf.passed_over, ["fe80::1%no-such-eth0", "192.0.2.9:53"]);
    }

    #[test]
    fn what_is_no_text_names_nobody() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("resolv.conf");
        assert!(matches!(
            ResolvConf::read(&path),
            Err(Error::Unreadable { .. })
        ));
        fs::write(&path, "search example.test\n").expect("a file");
        assert_eq!(
            ResolvConf::read(&path).expect("a file"),
            ResolvConf::default()
        );
        fs::write(&path, b"\xff\nnameserver 192.0.2.1\nnameserver 127.0.0.1\n").expect("a file");
        let conf = ResolvConf::read(&path).expect("two upstreams");
        assert_eq!(conf.servers, servers(&["192.0.2.1:53", "127.0.0.1:53"]));
        let conf = conf.without_loops(&sockets(&["0.0.0.0:53"]), &[]);
        assert_eq!(conf.servers, servers(&["192.0.2.1:53"]));
        assert_eq!(conf.passed_over, ["127.0.0.1, which is Portolan itself"]);
    }

    #[test]
    fn this_host_has_addresses() {
        let own = own_addresses().expect("addresses");
        assert!(own.iter().any(IpAddr::is_loopback), "{own:?}");
    }
}
