//! Where an upstream is, and how it is spoken to, as an operator writes it:
//! `9.9.9.9`, `[2001:db8::53]:5353`, `fe80::1%eth0`, `tls://9.9.9.9#dns.quad9.net`,
//! `https://dns.quad9.net/dns-query#9.9.9.9`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use nix::net::if_::if_nametoindex;
use url::{Host, Url};

/// The ports of DNS (RFC 1035 section 4.2), DNS over TLS (RFC 7858 section 3.1) and DNS over HTTPS (RFC 8484).
const DNS_PORT: u16 = 53;
const TLS_PORT: u16 = 853;
const HTTPS_PORT: u16 = 443;

/// How an upstream is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Way {
    /// Over UDP, and over TCP what does not fit.
    Plain,
    /// Over TLS, to one whose certificate is for this name; if there is none, for its address (RFC 7858, RFC 8310
    /// section 8.1).
    Tls(Option<String>),
    /// Over HTTPS, at this URL (RFC 8484).
    Https(Url),
}

/// An upstream's address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    place: Place,
    way: Way,
}

/// Where packets go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Socket(SocketAddr),
    /// A link-local address, and the interface that it is on (RFC 4007 section 11). An interface may come later, or
    /// come again with another number.
    Scoped(Ipv6Addr, String, u16),
}

impl Address {
    /// How it is spoken to.
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Is what is said to it kept from others?
    pub fn is_encrypted(&self) -> bool {
        self.way != Way::Plain
    }

    /// Where packets to it go now.
    ///
    /// # Errors
    /// It is on an interface that is not there.
    pub fn socket(&self) -> io::Result<SocketAddr> {
        match &self.place {
            Place::Socket(socket) => Ok(*socket),
            Place::Scoped(ip, interface, port) => {
                let scope = match interface.parse() {
                    Ok(number) => number,
                    Err(_) => if_nametoindex(interface.as_str())?,
                };
                Ok(SocketAddrV6::new(*ip, *port, 0, scope).into())
            }
        }
    }

    /// Its IP address.
    pub fn ip(&self) -> IpAddr {
        match &self.place {
            Place::Socket(socket) => socket.ip(),
            Place::Scoped(ip, ..) => (*ip).into(),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.place.port()
    }
}

impl From<IpAddr> for Address {
    /// An upstream that is spoken to without encryption, on the port of DNS.
    fn from(ip: IpAddr) -> Self {
        SocketAddr::new(ip, DNS_PORT).into()
    }
}

impl From<SocketAddr> for Address {
    /// An upstream that is spoken to without encryption.
    fn from(socket: SocketAddr) -> Self {
        Self {
            place: Place::Socket(socket),
            way: Way::Plain,
        }
    }
}

impl FromStr for Address {
    type Err = String;

    /// Reads an address. The error says what was expected.
    fn from_str(text: &str) -> Result<Self, String> {
        let address = match text.split_once("://") {
            None => {
                let place = place(text, DNS_PORT).ok_or_else(|| {
                    format!(
                        "expected IP or IP:PORT, such as 192.0.2.53 or [2001:db8::53]:53, or \
                         tls://IP#NAME or https://NAME/PATH#IP, got {text:?}"
                    )
                })?;
                let way = Way::Plain;
                Self { place, way }
            }
            Some(("tls", rest)) => tls(rest).ok_or_else(|| {
                format!("expected tls://IP#NAME, such as tls://9.9.9.9#dns.quad9.net, got {text:?}")
            })?,
            Some(("https", _)) => https(text)?,
            Some((scheme, _)) => {
                return Err(format!("expected tls:// or https://, got {scheme}://"));
            }
        };
        let ip = address.ip();
        if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(format!(
                "{text} is not an address that queries can be sent to"
            ));
        }
        Ok(address)
    }
}

impl Place {
    fn port(&self) -> u16 {
        match self {
            Self::Socket(socket) => socket.port(),
            Self::Scoped(.., port) => *port,
        }
    }
}

/// `IP[%INTERFACE][:PORT]`, an IPv6 address in brackets if there is a port.
fn place(text: &str, port: u16) -> Option<Place> {
    let (bare, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((bare, "")) => (bare, port),
        Some((bare, rest)) => (bare, rest.strip_prefix(':')?.parse().ok()?),
        // An IPv6 address without brackets has no port.
        None => match text.split_once(':') {
            Some((bare, rest)) if !rest.contains(':') => (bare, rest.parse().ok()?),
            _ => (text, port),
        },
    };
    match bare.split_once('%') {
        None => Some(Place::Socket(SocketAddr::new(bare.parse().ok()?, port))),
        Some((_, "")) => None,
        Some((ip, interface)) => Some(Place::Scoped(ip.parse().ok()?, interface.to_owned(), port)),
    }
}

/// `IP[:PORT][#NAME]`
fn tls(text: &str) -> Option<Address> {
    let (at, name) = match text.split_once('#') {
        Some((at, name)) => (at, Some(host_name(name)?)),
        None => (text, None),
    };
    Some(Address {
        place: place(at, TLS_PORT)?,
        way: Way::Tls(name),
    })
}

/// A name that a certificate can be for.
fn host_name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    match Host::parse(text) {
        Ok(Host::Domain(name)) if !name.is_empty() => Some(name),
        _ => None,
    }
}

/// `https://NAME[:PORT]/PATH#IP`, or with an address for a name.
fn https(text: &str) -> Result<Address, String> {
    let expected = || {
        format!(
            "expected https://NAME/PATH#IP, such as https://dns.quad9.net/dns-query#9.9.9.9, got {text:?}"
        )
    };
    let mut url = Url::parse(text).map_err(|_| expected())?;
    let ip = url.fragment().map(str::to_owned);
    url.set_fragment(None);
    let has_user = !url.username().is_empty() || url.password().is_some();
    if has_user || url.query().is_some() {
        return Err(expected());
    }
    let port = url.port().unwrap_or(HTTPS_PORT);
    let place = match (url.host(), ip) {
        (Some(Host::Ipv4(ip)), None) => Place::Socket(SocketAddr::new(ip.into(), port)),
        (Some(Host::Ipv6(ip)), None) => Place::Socket(SocketAddr::new(ip.into(), port)),
        (Some(Host::Domain(_)), Some(ip)) => place(&ip, port)
            .filter(|place| place.port() == port)
            .ok_or_else(expected)?,
        // Whoever is asked for names cannot ask for that of whom it asks.
        (Some(Host::Domain(name)), None) => {
            return Err(format!(
                "say at which address {name} is: {text}#IP, such as https://dns.quad9.net/dns-query#9.9.9.9"
            ));
        }
        // An address needs no other.
        (_, _) => return Err(expected()),
    };
    Ok(Address {
        place,
        way: Way::Https(url),
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::Plain => self.place.fmt(f),
            Way::Tls(None) => write!(f, "tls://{}", self.place),
            Way::Tls(Some(name)) => write!(f, "tls://{}#{name}", self.place),
            Way::Https(url) if matches!(url.host(), Some(Host::Domain(_))) => match &self.place {
                Place::Socket(socket) => write!(f, "{url}#{}", socket.ip()),
                Place::Scoped(ip, interface, _) => write!(f, "{url}#{ip}%{interface}"),
            },
            Way::Https(url) => url.fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    /// As an operator reads it in the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(f),
            Self::Scoped(ip, interface, port) => write!(f, "[{ip}%{interface}]:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_writes() {
        for (text, shown) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
            ("fe80::1%eth0", "[fe80::1%eth0]:53"),
            ("[fe80::1%eth0]:5353", "[fe80::1%eth0]:5353"),
            (
                "tls://9.9.9.9#dns.quad9.net",
                "tls://9.9.9.9:853#dns.quad9.net",
            ),
            ("tls://1.1.1.1", "tls://1.1.1.1:853"),
            (
                "tls://[2620:fe::fe]:8853#DNS.Quad9.net.",
                "tls://[2620:fe::fe]:8853#dns.quad9.net",
            ),
            (
                "https://dns.quad9.net/dns-query#9.9.9.9",
                "https://dns.quad9.net/dns-query#9.9.9.9",
            ),
            (
                "https://dns.quad9.net:8443/q#[2620:fe::fe]",
                "https://dns.quad9.net:8443/q#2620:fe::fe",
            ),
            (
                "https://dns.example/q#fe80::1%eth0",
                "https://dns.example/q#fe80::1%eth0",
            ),
            ("https://1.1.1.1/dns-query", "https://1.1.1.1/dns-query"),
            (
                "https://[2606:4700::1]:8443/",
                "https://[2606:4700::1]:8443/",
            ),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address), "{shown}");
        }
    }

    #[test]
    fn what_is_no_upstream_is_told() {
        for (text, said) in [
            ("", "expected IP or IP:PORT"),
            ("dns.example", "expected IP or IP:PORT"),
            ("192.0.2.1:", "expected IP or IP:PORT"),
            ("192.0.2.1:66000", "expected IP or IP:PORT"),
            ("[2001:db8::1", "expected IP or IP:PORT"),
            ("fe80::1%", "expected IP or IP:PORT"),
            ("192.0.2.1:0", "queries can be sent to"),
            ("0.0.0.0", "queries can be sent to"),
            ("224.0.0.251:5353", "queries can be sent to"),
            ("tls://dns.quad9.net", "expected tls://IP#NAME"),
            ("tls://9.9.9.9#", "expected tls://IP#NAME"),
            ("tls://9.9.9.9#1.1.1.1", "expected tls://IP#NAME"),
            ("tls://9.9.9.9/x", "expected tls://IP#NAME"),
            ("https://dns.quad9.net/dns-query", "say at which address"),
            (
                "https://dns.quad9.net/#dns",
                "expected https://NAME/PATH#IP",
            ),
            (
                "https://u:p@dns.example/q#192.0.2.1",
                "expected https://NAME/PATH#IP",
            ),
            (
                "https://dns.example/q?x#192.0.2.1",
                "expected https://NAME/PATH#IP",
            ),
            (
                "https://dns.example/q#192.0.2.1:8443",
                "expected https://NAME/PATH#IP",
            ),
            ("https://", "expected https://NAME/PATH#IP"),
            ("https://0.0.0.0/q#9.9.9.9", "expected https://NAME/PATH#IP"),
            ("quic://9.9.9.9", "expected tls:// or https://"),
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn an_interface_is_looked_for_when_it_is_needed() {
        let lo = if_nametoindex("lo").expect("there is a loopback interface");
        for (text, scope) in [("fe80::1%lo", lo), ("fe80::1%7", 7)] {
            let address: Address = text.parse().expect(text);
            let Ok(SocketAddr::V6(socket)) = address.socket() else {
                panic!("{address} has no socket");
            };
            assert_eq!(socket.scope_id(), scope);
        }
        let absent: Address = "fe80::1%no-such-eth0".parse().expect("an address");
        assert!(absent.socket().is_err());
    }
}
