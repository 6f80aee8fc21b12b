//! Go's durations (`time.ParseDuration`), as Consul and its users write them: `1h30m`, `500ms`, `1.5s`.

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A number stands without a unit.
    NoUnit,
    /// A unit is none of Go's, or there is no number before it.
    Unknown,
}

/// The numbers of a duration as they are written, each with its unit in nanoseconds.
///
/// # Errors
/// [`Fault`], where the text is no duration.
pub fn parts(text: &str) -> Result<Vec<(&str, u64)>, Fault> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let end = after.find(is_number).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let nanos = match unit {
            _ if number.is_empty() => return Err(Fault::Unknown),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(Fault::NoUnit),
            _ => return Err(Fault::Unknown),
        };
        parts.push((number, nanos));
        rest = after;
    }
    Ok(parts)
}

/// A duration without a sign, in seconds; `None` if the text is none.
pub fn seconds(text: &str) -> Option<f64> {
    let parts = parts(text).ok().filter(|parts| !parts.is_empty())?;
    let seconds =
        |(number, nanos): (&str, u64)| Some(number.parse::<f64>().ok()? * nanos as f64 / 1e9);
    parts.into_iter().map(seconds).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go() {
        for (text, wanted) in [
            ("10s", Some(10.0)),
            ("1h30m", Some(5400.0)),
            ("500ms", Some(0.5)),
            ("1.5s", Some(1.5)),
            (".5s", Some(0.5)),
            ("1s.5m", Some(31.0)),
            ("2\u{b5}s", Some(2e-6)),
            ("2\u{3bc}s", Some(2e-6)),
            ("", None),
            ("5", None),
            ("s", None),
            ("1d", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("1 s", None),
        ] {
            assert_eq!(seconds(text), wanted, "{text:?}");
        }
        assert_eq!(parts("1h5"), Err(Fault::NoUnit));
        assert_eq!(parts("h"), Err(Fault::Unknown));
    }
}
