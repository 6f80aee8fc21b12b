//! Single values from text.
//!
//! Each function says in its error what was expected and shows an example. None of them touches
//! the system.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::duration;
use crate::secret::Token;
use crate::upstream::Address;

/// A number within the range.
pub(super) fn number<T: TryFrom<i64>>(
    number: i64,
    range: RangeInclusive<i64>,
) -> Result<T, String> {
    let inside = Some(number).filter(|number| range.contains(number));
    let inside = inside.and_then(|number| T::try_from(number).ok());
    inside.ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        format!("expected {least} to {most}, got {number}")
    })
}

/// A number of bytes: `65536`, `512KiB`, `64MiB`, `1GiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let units = UNITS.iter();
    let mut bare = units.filter_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let found = bare.next().and_then(|(number, shift)| {
        let number: u64 = number.trim_end().parse().ok()?;
        number
            .checked_mul(1 << shift)
            .filter(|bytes| *bytes <= i64::MAX.cast_unsigned())
    });
    found.ok_or_else(|| format!("expected a size such as \"64MiB\", got {text:?}"))
}

/// One of the choices, by its name.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let chosen = choices.iter().find(|(name, _)| *name == text);
    chosen.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        format!("expected {}, got {text:?}", names.join(" or "))
    })
}

/// Reads an address to listen on: `IP:PORT`.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("expected IP:PORT, such as 127.0.0.1:53 or [::1]:53, got {text:?}"))
}

/// Reads a resolver for HAProxy: `IP` or `IP:PORT`, the port being 53 when it is left out.
pub(super) fn resolver(text: &str) -> Result<SocketAddr, String> {
    let address: Option<Address> = text.parse().ok();
    let plain = address.filter(|address| !address.is_encrypted());
    plain
        .and_then(|address| address.socket().ok())
        .ok_or_else(|| {
            format!("expected IP or IP:PORT, such as 192.0.2.53 or [2001:db8::53]:53, got {text:?}")
        })
}

/// Reads a DNS domain, and returns it in lower case without the final dot.
pub(crate) fn domain(text: &str) -> Result<String, String> {
    // Every name under it must still fit into 255 bytes, and the longest prefix that Consul
    // knows is a 63-byte label or two: a limit far below DNS's own loses nobody anything.
    const MAX_LENGTH: usize = 200;
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > MAX_LENGTH {
        return Err(format!("a domain has at most {MAX_LENGTH} characters"));
    }
    for part in name.split('.') {
        label(part)
            .map_err(|error| format!("{text:?} is not a domain such as \"consul\": {error}"))?;
    }
    Ok(name.to_ascii_lowercase())
}

/// Reads a datacenter's name, and returns it in lower case.
pub(super) fn datacenter(text: &str) -> Result<String, String> {
    label(text)
        .map_err(|error| format!("{text:?} is not a datacenter such as \"dc1\": {error}"))?;
    Ok(text.to_ascii_lowercase())
}

fn label(text: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match text.len() {
        0 => Err("a label is empty".to_owned()),
        1..=63 if text.bytes().all(allowed) => Ok(()),
        1..=63 => Err("use only letters, digits, `-` and `_` between the dots".to_owned()),
        _ => Err("a label has at most 63 characters".to_owned()),
    }
}

/// Reads a network: `10.0.0.0/8`, `fd00::/8`, or one address.
///
/// A network of v4-mapped v6 addresses becomes the v4 network it stands for, so that whoever
/// compares canonical addresses (`IpAddr::to_canonical`) with it gets the right result.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpAddr>() {
        Ok(ip) => IpNet::from(ip),
        Err(_) => text.parse().map_err(|_| {
            format!("expected a network such as 10.0.0.0/8 or fd00::/8, got {text:?}")
        })?,
    };
    if network.trunc() != network {
        return Err(format!(
            "{network} has bits set beyond its prefix, did you mean {} ?",
            network.trunc()
        ));
    }
    Ok(unmapped(network))
}

fn unmapped(network: IpNet) -> IpNet {
    // The first 96 bits of a v4-mapped address are its prefix.
    let v4 = match network {
        IpNet::V4(_) => None,
        IpNet::V6(v6) => v6
            .addr()
            .to_ipv4_mapped()
            .zip(v6.prefix_len().checked_sub(96)),
    };
    v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok())
        .map_or(network, IpNet::V4)
}

/// Reads which services a TTL is for: a name, `prefix*`, or `*` for all others. Lower case, as
/// names are compared.
pub(super) fn service_pattern(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('*').unwrap_or(text);
    if text.is_empty() || name.contains('*') || name.chars().any(char::is_whitespace) {
        return Err(format!(
            "expected a service name, \"prefix*\" or \"*\", got {text:?}"
        ));
    }
    Ok(text.to_lowercase())
}

/// Reads a prefix of Consul's KV store, and returns it without slashes at its ends.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    match text.trim_matches('/') {
        "" => Err("expected a prefix such as \"service/haproxy\", got nothing".to_owned()),
        prefix => Ok(prefix.to_owned()),
    }
}

/// Reads a path, which must not be empty.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("expected a path, got nothing".to_owned()),
        _ => Ok(PathBuf::from(text)),
    }
}

/// Reads a registrar's name in Consul: nothing that is too long for Consul's metadata, or not printable.
pub(super) fn owner(text: &str) -> Result<String, String> {
    let is_printable = |c: char| !c.is_control();
    match text.len() {
        1..=512 if text.chars().all(is_printable) => Ok(text.to_owned()),
        _ => Err(format!(
            "expected a name of 1 to 512 printable characters, got {text:?}"
        )),
    }
}

/// Reads a tag of a service.
pub(super) fn tag(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("expected a tag such as \"rest\", got nothing".to_owned()),
        tag => Ok(tag.to_owned()),
    }
}

/// Reads the address that services are registered with.
pub(super) fn service_address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse().ok();
    let address = address.filter(|address: &IpAddr| !address.is_unspecified());
    address.ok_or_else(|| format!("expected an IP address, such as 10.0.0.5, got {text:?}"))
}

/// Reads a user and a password. The error repeats neither the text nor the library's words about it.
pub(super) fn credentials(text: &str) -> Result<Token, String> {
    let token = Token::new(text).ok().filter(|token| {
        let user = token.expose().split_once(':').map(|(user, _)| user);
        user.is_some_and(|user| !user.is_empty())
    });
    token.ok_or_else(|| "expected USER:PASSWORD in printable ASCII without blanks".to_owned())
}

// Durations as people and Consul write them: `"1s"`, `"500ms"`, `"1h30m"`.

const EXAMPLES: &str = "write a number and a unit, such as \"500ms\", \"1s\", \"5m\" or \"1h30m\"";

/// The largest TTL of RFC 2181, section 8.
const MAX_TTL: Duration = Duration::from_secs(i32::MAX as u64);

/// A duration within the range.
pub(super) fn time_within(
    time: Duration,
    range: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    match range.contains(&time) {
        true => Ok(time),
        false => Err(format!(
            "expected {} to {}, got {}",
            show(*range.start()),
            show(*range.end()),
            show(time)
        )),
    }
}

/// A duration in seconds that a DNS record can hold.
pub(super) fn ttl(time: Duration) -> Result<u32, String> {
    if time.subsec_nanos() != 0 {
        return Err(format!("DNS counts whole seconds, got {}", show(time)));
    }
    let seconds = u32::try_from(time.as_secs()).ok();
    let seconds = seconds.filter(|_| time <= MAX_TTL);
    seconds.ok_or_else(|| format!("expected {} at most", show(MAX_TTL)))
}

/// Reads one or more pairs of a whole number and a unit: `ns`, `us`, `ms`, `s`, `m`, `h`.
///
/// These are the units of Go's durations, which Consul's files use, so values can be copied over.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let not_a_duration = || format!("{text:?} is not a duration: {EXAMPLES}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.contains('.') {
        return Err(format!(
            "{text:?} has a fraction: use a smaller unit, such as \"1500ms\" for one and a half seconds"
        ));
    }
    let parts = duration::parts(text).map_err(|fault| match fault {
        duration::Fault::NoUnit => format!("{text:?} has no unit: {EXAMPLES}"),
        duration::Fault::Unknown => not_a_duration(),
    })?;
    if parts.is_empty() {
        return Err(not_a_duration());
    }
    let mut total = Duration::ZERO;
    for (number, nanos_per_unit) in parts {
        let number: u64 = number.parse().map_err(|_| not_a_duration())?;
        let nanos = number.checked_mul(nanos_per_unit);
        total = nanos
            .and_then(|nanos| total.checked_add(Duration::from_nanos(nanos)))
            .ok_or_else(|| format!("{text:?} is too long a duration"))?;
    }
    Ok(total)
}

/// Writes a duration in the largest unit that holds it whole, for messages.
pub(super) fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_needs_no_port() {
        for (text, shown) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[::1]:53", "[::1]:53"),
        ] {
            let address = resolver(text).expect(text);
            assert_eq!(address.to_string(), shown);
        }
        for text in [
            "",
            "dns.example",
            "192.0.2.1:",
            "192.0.2.1:0",
            "0.0.0.0",
            "[::]:53",
            "1.1",
            "tls://192.0.2.1",
        ] {
            assert!(resolver(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_to_listen_on_needs_a_port() {
        for text in ["127.0.0.1:53", "[::]:53", "0.0.0.0:0"] {
            assert_eq!(
                listen_address(text)
                    .map(|address| address.to_string())
                    .as_deref(),
                Ok(text)
            );
        }
        for text in ["127.0.0.1", ":53", "localhost:53", "::1:53:", ""] {
            let error = listen_address(text).expect_err(text);
            assert!(error.contains("such as 127.0.0.1:53"), "{error}");
        }
    }

    #[test]
    fn domains_are_kept_in_one_form() {
        for (text, kept) in [
            ("consul", "consul"),
            ("Consul.", "consul"),
            ("sd.Example.COM", "sd.example.com"),
        ] {
            assert_eq!(domain(text).as_deref(), Ok(kept));
        }
        let long_label = "a".repeat(64);
        let long_name = ["a"; 101].join(".");
        for text in ["", ".", "a..b", ".a", "a b", "ü", &long_label, &long_name] {
            assert!(domain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_are_read() {
        for (text, kept) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ] {
            assert_eq!(
                network(text).map(|network| network.to_string()).as_deref(),
                Ok(kept)
            );
        }
        for (text, reason) in [
            ("10.0.0.0/33", "expected a network"),
            ("10.0.0/8", "expected a network"),
            ("lan", "expected a network"),
            ("10.1.0.0/8", "did you mean 10.0.0.0/8"),
        ] {
            let error = network(text).expect_err(text);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn patterns_end_in_the_only_star() {
        for (text, kept) in [("web", "web"), ("Web*", "web*"), ("*", "*")] {
            assert_eq!(service_pattern(text).as_deref(), Ok(kept));
        }
        for text in ["", "*web", "w*b", "**", "a b"] {
            assert!(service_pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn choices_are_listed_when_none_fits() {
        let choices = [("text", 1), ("json", 2)];
        assert_eq!(choice("json", &choices), Ok(2));
        let error = choice("xml", &choices).expect_err("no such choice");
        assert_eq!(error, r#"expected "text" or "json", got "xml""#);
    }

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("1s", 1_000),
            ("1s500ms", 1_500),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("87600h", 315_360_000_000),
            ("2000us", 2),
            ("3000000ns", 3),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "not a duration"),
            ("s", "not a duration"),
            ("5", "no unit"),
            ("1s5", "no unit"),
            ("5 m", "not a duration"),
            ("5 minutes", "not a duration"),
            ("-1s", "not a duration"),
            ("1.5s", "fraction"),
            ("1d", "not a duration"),
            ("99999999999999999999s", "not a duration"),
            ("9999999999999999h", "too long"),
            ("5µ", "not a duration"),
        ] {
            let error = time(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_shown_in_their_largest_unit() {
        for text in ["0s", "250ms", "1500ms", "90s", "5m", "87600h"] {
            assert_eq!(time(text).map(show).as_deref(), Ok(text));
        }
    }
}
