//! The values of `[register]` and of its flags.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::choice;
use crate::config::containers::{Deregister, OnExit};
use crate::config::duration::{self, show};

/// How often a registrar may compare.
pub(in crate::config) const RESYNC: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

/// Reads how often a registrar compares: a duration of Go's form.
///
/// # Errors
/// A sentence that says what was expected.
pub fn resync(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    match RESYNC.contains(&time) {
        true => Ok(time),
        false => Err(format!(
            "expected {} to {}, got {}",
            show(*RESYNC.start()),
            show(*RESYNC.end()),
            show(time)
        )),
    }
}

/// Reads a registrar's name in Consul.
///
/// # Errors
/// When it is empty, too long for Consul's metadata, or not printable.
pub fn owner(text: &str) -> Result<String, String> {
    let is_printable = |c: char| !c.is_control();
    match text.len() {
        1..=512 if text.chars().all(is_printable) => Ok(text.to_owned()),
        _ => Err(format!(
            "expected a name of 1 to 512 printable characters, got {text:?}"
        )),
    }
}

/// Reads a tag of a service.
///
/// # Errors
/// When it is empty.
pub fn tag(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("a tag is empty".to_owned()),
        tag => Ok(tag.to_owned()),
    }
}

/// Reads the address that services are registered with.
///
/// # Errors
/// A sentence that says what was expected.
pub fn service_address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse().ok();
    let address = address.filter(|address: &IpAddr| !address.is_unspecified());
    address.ok_or_else(|| format!("expected an IP address, such as 10.0.0.5, got {text:?}"))
}

/// Reads when a container that ended is deregistered: `always` or `on-success`.
///
/// # Errors
/// A sentence that lists the choices.
pub fn deregister(text: &str) -> Result<Deregister, String> {
    choice(
        text,
        &[
            ("always", Deregister::Always),
            ("on-success", Deregister::OnSuccess),
        ],
    )
}

/// Reads what becomes of services when the registrar ends: `keep` or `deregister`.
///
/// # Errors
/// A sentence that lists the choices.
pub fn on_exit(text: &str) -> Result<OnExit, String> {
    choice(
        text,
        &[("keep", OnExit::Keep), ("deregister", OnExit::Deregister)],
    )
}
