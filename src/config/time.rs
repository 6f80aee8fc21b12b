//! Durations as people and Consul write them: `"1s"`, `"500ms"`, `"1h30m"`.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::duration;

const EXAMPLES: &str = "write a number and a unit, such as \"500ms\", \"1s\", \"5m\" or \"1h30m\"";

/// The largest TTL of RFC 2181, section 8.
const MAX_TTL: Duration = Duration::from_secs(i32::MAX as u64);

/// A duration within the range.
pub(super) fn within(time: Duration, range: RangeInclusive<Duration>) -> Result<Duration, String> {
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
pub(super) fn parse(text: &str) -> Result<Duration, String> {
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
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
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
            let error = parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_shown_in_their_largest_unit() {
        for text in ["0s", "250ms", "1500ms", "90s", "5m", "87600h"] {
            assert_eq!(parse(text).map(show).as_deref(), Ok(text));
        }
    }
}
