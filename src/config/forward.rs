//! Domains that upstreams of their own are asked for: `corp.example, 10.0.0.0/8` to some addresses, or to none.

use ipnet::IpNet;

use crate::dns::Name;
use crate::recursion::Forward;
use crate::upstream::Address;

use super::parse;

const EXPECTED: &str =
    "expected DOMAIN=IP, such as corp.example=10.1.0.53, 10.0.0.0/8=10.1.0.53 or lab.example=none";

/// Adds what a text of the form `DOMAIN,…=IP[:PORT],…|none` says.
pub(super) fn add(all: &mut Vec<Forward>, text: &str) -> Result<(), String> {
    let (domains, upstreams) = text
        .split_once('=')
        .ok_or_else(|| format!("{EXPECTED}, got {text:?}"))?;
    add_parts(all, domains.split(','), upstreams.split(','))
}

/// The same in parts. Nothing is added unless all of it is right.
pub(super) fn add_parts<'a>(
    all: &mut Vec<Forward>,
    domains: impl Iterator<Item = &'a str>,
    upstreams: impl Iterator<Item = &'a str>,
) -> Result<(), String> {
    let upstreams: Vec<&str> = upstreams.map(str::trim).collect();
    let upstreams: Vec<Address> = match upstreams[..] {
        ["none"] => Vec::new(),
        [] => return Err(format!("no upstream: {EXPECTED}")),
        _ => upstreams
            .into_iter()
            .map(str::parse)
            .collect::<Result<_, _>>()?,
    };
    let domains: Vec<Vec<Name>> = domains
        .map(|text| zones(text.trim()))
        .collect::<Result<_, _>>()?;
    if domains.is_empty() {
        return Err(format!("no domain: {EXPECTED}"));
    }
    let mut added = all.clone();
    for domain in domains.into_iter().flatten() {
        match added.iter_mut().find(|own| own.domain == domain) {
            None => added.push(Forward {
                domain,
                upstreams: upstreams.clone(),
            }),
            Some(own) if own.upstreams.is_empty() != upstreams.is_empty() => {
                return Err(format!(
                    "{domain} cannot be forwarded and `none` as well: remove one of the two"
                ));
            }
            Some(own) => {
                let is_new = |address: &&Address| !own.upstreams.contains(address);
                let more: Vec<_> = upstreams.iter().filter(is_new).cloned().collect();
                own.upstreams.extend(more);
            }
        }
    }
    *all = added;
    Ok(())
}

/// A domain, or the domains of a network's reverse names.
fn zones(text: &str) -> Result<Vec<Name>, String> {
    if text.contains('/') {
        return Ok(reverse(parse::network(text)?));
    }
    let domain = parse::domain(text)?;
    let name = Name::from_text(&domain).map_err(|error| error.to_string())?;
    Ok(vec![name])
}

/// The domains that the reverse names of a network are in: one where its prefix ends between two labels, else as
/// many as it takes (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse(network: IpNet) -> Vec<Name> {
    let (bits, suffix, octets) = match network {
        IpNet::V4(own) => (8, "in-addr.arpa", own.network().octets().to_vec()),
        IpNet::V6(own) => (4, "ip6.arpa", own.network().octets().to_vec()),
    };
    let prefix = usize::from(network.prefix_len());
    let labels = prefix.div_ceil(bits);
    // The labels that the prefix reaches into, from the left of the address.
    let label = |at: usize| match bits {
        8 => octets[at],
        _ => octets[at / 2] >> (4 * (1 - at % 2)) & 15,
    };
    let text = |number: u8| match bits {
        8 => number.to_string(),
        _ => format!("{number:x}"),
    };
    let open = labels * bits - prefix;
    (0..1_u16 << open)
        .filter_map(|number| {
            let mut name = String::new();
            for at in (0..labels).rev() {
                // Only the last label is open, and its open bits are zero in a network.
                let more = if at + 1 == labels { number as u8 } else { 0 };
                name += &format!("{}.", text(label(at) + more));
            }
            Name::from_text(&(name + suffix)).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_their_reverse_names() {
        for (network, count, first, last) in [
            ("10.0.0.0/8", 1, "10.in-addr.arpa.", "10.in-addr.arpa."),
            (
                "172.16.0.0/12",
                16,
                "16.172.in-addr.arpa.",
                "31.172.in-addr.arpa.",
            ),
            (
                "192.168.0.0/16",
                1,
                "168.192.in-addr.arpa.",
                "168.192.in-addr.arpa.",
            ),
            (
                "192.0.2.128/25",
                128,
                "128.2.0.192.in-addr.arpa.",
                "255.2.0.192.in-addr.arpa.",
            ),
            (
                "192.0.2.7/32",
                1,
                "7.2.0.192.in-addr.arpa.",
                "7.2.0.192.in-addr.arpa.",
            ),
            ("0.0.0.0/0", 1, "in-addr.arpa.", "in-addr.arpa."),
            ("fc00::/7", 2, "c.f.ip6.arpa.", "d.f.ip6.arpa."),
            (
                "2001:db8::/32",
                1,
                "8.b.d.0.1.0.0.2.ip6.arpa.",
                "8.b.d.0.1.0.0.2.ip6.arpa.",
            ),
        ] {
            let zones = zones(network).expect(network);
            assert_eq!(zones.len(), count, "{network}");
            assert_eq!(zones[0].to_string(), first, "{network}");
            assert_eq!(zones[count - 1].to_string(), last, "{network}");
        }
    }

    #[test]
    fn what_is_right_is_added_and_what_is_not_is_told() {
        let mut all = Vec::new();
        for text in [
            "corp.example=10.1.0.53",
            "corp.example, 10.0.0.0/8 = 10.1.0.54:5353",
            "Lab.Example.=none",
        ] {
            add(&mut all, text).expect(text);
        }
        let shown: Vec<String> = all
            .iter()
            .map(|own| format!("{} {:?}", own.domain, own.upstreams))
            .collect();
        assert_eq!(
            shown,
            [
                "corp.example. [10.1.0.53:53, 10.1.0.54:5353]",
                "10.in-addr.arpa. [10.1.0.54:5353]",
                "lab.example. []",
            ]
        );
        let before = all.clone();
        for (text, said) in [
            ("corp.example", "expected DOMAIN=IP"),
            ("=10.1.0.53", "a label is empty"),
            ("corp.example=", "expected IP or IP:PORT"),
            ("corp.example=none", "`none` as well"),
            ("new.example,lab.example=10.1.0.53", "`none` as well"),
            ("10.1.0.0/8=10.1.0.53", "did you mean 10.0.0.0/8"),
            ("a b.example=10.1.0.53", "not a domain"),
            ("corp.example=dns.corp.example", "expected IP or IP:PORT"),
        ] {
            let error = add(&mut all, text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
            assert_eq!(all, before, "{text}");
        }
    }
}
