//! Names of others that lead into the network here (DNS rebinding): addresses that only mean something inside, as
//! addresses or as hints of how to reach a service (RFC 9460).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::{Name, types};

use super::link::Link;

const SVCB: u16 = 64;
const HTTPS: u16 = 65;

/// SvcParamKeys with addresses (RFC 9460 section 14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

/// Does anything that it answers with lead inside?
pub(super) fn leads_inside(link: &Link) -> bool {
    link.answers().any(|(rtype, rdata)| match rtype {
        types::A => v4(rdata).any(|ip| is_inside(ip.into())),
        types::AAAA => v6(rdata).any(|ip| is_inside(ip.into())),
        SVCB | HTTPS => hints(rdata).any(is_inside),
        _ => false,
    })
}

fn v4(bytes: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    let (all, _) = bytes.as_chunks::<4>();
    all.iter().map(|octets| Ipv4Addr::from(*octets))
}

fn v6(bytes: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    let (all, _) = bytes.as_chunks::<16>();
    all.iter().map(|octets| Ipv6Addr::from(*octets))
}

/// The addresses in the data of an SVCB or HTTPS record: a priority, a name, and parameters.
fn hints(rdata: &[u8]) -> impl Iterator<Item = IpAddr> {
    let parameters = rdata.get(2..).and_then(Name::split_from);
    let mut rest = parameters.map_or(&[][..], |(_, rest)| rest);
    let parameters = std::iter::from_fn(move || {
        let (key, tail) = rest.split_first_chunk::<2>()?;
        let (length, tail) = tail.split_first_chunk::<2>()?;
        let (value, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
        rest = tail;
        Some((u16::from_be_bytes(*key), value))
    });
    parameters.flat_map(|(key, value)| -> Vec<IpAddr> {
        match key {
            IPV4_HINT => v4(value).map(IpAddr::from).collect(),
            IPV6_HINT => v6(value).map(IpAddr::from).collect(),
            _ => Vec::new(),
        }
    })
}

/// Addresses that nobody outside can be reached at: this host, private and link-local networks, and nobody.
fn is_inside(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            // Carrier-grade NAT (RFC 6598) is as private as the rest.
            let is_shared = first == 100 && second & 0xC0 == 64;
            first == 0 || ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => {
            ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || is_embedded(ip)
        }
    }
}

/// An IPv4 address inside in an IPv6 one: compatible (RFC 4291 section 2.5.5.1), or behind NAT64 (RFC 6052).
fn is_embedded(ip: Ipv6Addr) -> bool {
    let value = u128::from(ip);
    let prefix = value >> 32;
    let v4 = Ipv4Addr::from(value as u32);
    (prefix == 0 || prefix == 0x0064_ff9b << 64) && is_inside(v4.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_and_outside() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "::",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::10.0.0.1",
        ] {
            assert!(is_inside(inside.parse().expect(inside)), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.2.1",
            "2001:db8::1",
            "64:ff9b::1.1.1.1",
            "::ffff:1.1.1.1",
        ] {
            assert!(!is_inside(outside.parse().expect(outside)), "{outside}");
        }
    }

    #[test]
    fn hints_are_found_and_rubbish_is_not() {
        let target = [1, b'x', 0];
        let of = |parameters: &[u8]| {
            let rdata = [&[0, 1][..], &target, parameters].concat();
            hints(&rdata).map(|ip| ip.to_string()).collect::<Vec<_>>()
        };
        let alpn = [0, 1, 0, 3, 2, b'h', b'2'];
        let v4 = [0, 4, 0, 8, 192, 0, 2, 1, 10, 0, 0, 1];
        let v6 = [
            &[0, 6, 0, 16][..],
            &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        ]
        .concat();
        assert_eq!(
            of(&[&alpn[..], &v4, &v6].concat()),
            ["192.0.2.1", "10.0.0.1", "fd00::1"]
        );
        for rubbish in [
            &[][..],
            &[0],
            &[0, 4],
            &[0, 4, 0],
            &[0, 4, 0, 9, 1, 2],
            &[0, 4, 255, 255],
        ] {
            assert!(of(rubbish).is_empty(), "{rubbish:?}");
        }
        assert!(hints(&[0]).next().is_none() && hints(&[0, 1, 64]).next().is_none());
    }
}
