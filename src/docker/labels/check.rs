//! `SERVICE_CHECK_*`: how Consul is to check an instance. As in Registrator an instance has one
//! check, the first of http, https, cmd, script, docker, ttl, tcp, grpc that is asked for; without
//! any, the container's own HEALTHCHECK is its check.

use std::net::SocketAddr;

use crate::docker::container::Container;
use crate::docker::health::Healthcheck;
use crate::duration;

use super::registration::{Check, Probe};
use super::values::{Trouble, Values};

/// How often Consul checks if nothing else is said, as in Registrator.
const INTERVAL: &str = "10s";

/// Every key there is; others that begin with `check_` are slips.
const KEYS: [&str; 21] = [
    "check_http",
    "check_http_method",
    "check_https",
    "check_https_method",
    "check_cmd",
    "check_script",
    "check_docker",
    "check_docker_shell",
    "check_ttl",
    "check_tcp",
    "check_grpc",
    "check_grpc_use_tls",
    "check_tls_skip_verify",
    "check_healthcheck",
    "check_interval",
    "check_timeout",
    "check_initial_status",
    "check_deregister_after",
    // Of forks of Registrator, with the same meaning as above.
    "check_docker_script",
    "check_shell",
    "check_method",
];

/// The check of one instance.
pub(super) fn check(
    values: &Values<'_>,
    container: &Container,
    port: u16,
    place: SocketAddr,
    trouble: &mut Trouble<'_>,
) -> Option<Check> {
    for (key, _) in values.iter().filter(|(key, _)| key.starts_with("check_")) {
        if !KEYS.contains(&key) {
            let key = key.to_ascii_uppercase();
            trouble.warn(format!("SERVICE_{key} is not a key of checks"));
        }
    }
    let probe = probe(values, container, port, place, trouble)?;
    let runs = !matches!(probe, Probe::Ttl { .. } | Probe::Health);
    let over_tls = match &probe {
        Probe::Http { url, .. } => url.starts_with("https:"),
        Probe::Grpc { tls, .. } => *tls,
        _ => false,
    };
    let interval = duration(values, "check_interval", trouble);
    let timeout = duration(values, "check_timeout", trouble);
    Some(Check {
        interval: runs.then(|| interval.unwrap_or_else(|| INTERVAL.to_owned())),
        timeout: timeout.filter(|_| runs),
        initial_status: initial_status(values, trouble),
        deregister_after: duration(values, "check_deregister_after", trouble),
        tls_skip_verify: over_tls && values.flag("check_tls_skip_verify") == Some(true),
        probe,
    })
}

/// What the container's HEALTHCHECK says, unless it is not to be listened to.
pub(super) fn health(values: &Values<'_>, container: &Container) -> Option<Healthcheck> {
    let health = container.health?;
    (values.flag("check_healthcheck") != Some(false)).then_some(health)
}

fn probe(
    values: &Values<'_>,
    container: &Container,
    port: u16,
    place: SocketAddr,
    trouble: &mut Trouble<'_>,
) -> Option<Probe> {
    let http = |scheme: &str, path: &str, method: &str| Probe::Http {
        // SocketAddr puts brackets around IPv6.
        url: match path.starts_with('/') {
            true => format!("{scheme}://{place}{path}"),
            false => format!("{scheme}://{place}/{path}"),
        },
        method: values
            .get(method)
            .or_else(|| values.get("check_method"))
            .map(str::to_owned),
    };
    if let Some(path) = values.get("check_http") {
        Some(http("http", path, "check_http_method"))
    } else if let Some(path) = values.get("check_https") {
        Some(http("https", path, "check_https_method"))
    } else if let Some(command) = values.get("check_cmd") {
        let id = container.id.get(..12).unwrap_or(&container.id);
        let args = ["check-cmd", id, &port.to_string(), command];
        Some(Probe::Script {
            args: args.map(str::to_owned).to_vec(),
        })
    } else if let Some(script) = values.get("check_script") {
        let args = words(script, "SERVICE_CHECK_SCRIPT", place, trouble)?;
        Some(Probe::Script { args })
    } else if let Some(script) = values
        .get("check_docker")
        .or_else(|| values.get("check_docker_script"))
    {
        let shell = values
            .get("check_docker_shell")
            .or_else(|| values.get("check_shell"));
        Some(Probe::Docker {
            container_id: container.id.clone(),
            shell: shell.map(str::to_owned),
            args: words(script, "SERVICE_CHECK_DOCKER", place, trouble)?,
        })
    } else if values.get("check_ttl").is_some() {
        let ttl = duration(values, "check_ttl", trouble)?;
        Some(Probe::Ttl { ttl })
    } else if values.flag("check_tcp") == Some(true) {
        let target = place.to_string();
        Some(Probe::Tcp { target })
    } else if values.flag("check_grpc") == Some(true) {
        Some(Probe::Grpc {
            target: place.to_string(),
            tls: values.flag("check_grpc_use_tls") == Some(true),
        })
    } else if health(values, container).is_some() {
        Some(Probe::Health)
    } else {
        None
    }
}

/// A command line as its words, by the shell's rules of quoting, with the instance's place in it.
fn words(
    script: &str,
    key: &str,
    place: SocketAddr,
    trouble: &mut Trouble<'_>,
) -> Option<Vec<String>> {
    let ip = place.ip().to_string();
    let port = place.port().to_string();
    let words = shlex::split(script).filter(|words| !words.is_empty());
    let Some(words) = words else {
        trouble.warn(format!(
            "{key} has a quote that is not closed, or nothing in it: no check"
        ));
        return None;
    };
    if needs_shell(script, &words) {
        trouble.warn(format!(
            "{key} has shell syntax, and Consul runs it without a shell: write sh -c '…' around it"
        ));
    }
    let put_in = |word: String| {
        word.replace("${SERVICE_IP}", &ip)
            .replace("${SERVICE_PORT}", &port)
            .replace("$SERVICE_IP", &ip)
            .replace("$SERVICE_PORT", &port)
    };
    Some(words.into_iter().map(put_in).collect())
}

/// Is there anything in a command line that only a shell would do? A shell that is called by name does it with what is
/// in quotes.
fn needs_shell(script: &str, words: &[String]) -> bool {
    const SHELLS: [&str; 6] = ["sh", "ash", "bash", "dash", "ksh", "zsh"];
    let program = words.first().map(String::as_str).unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    let has_shell = SHELLS.contains(&program);
    let mut script = script.to_owned();
    for ours in [
        "${SERVICE_IP}",
        "${SERVICE_PORT}",
        "$SERVICE_IP",
        "$SERVICE_PORT",
    ] {
        script = script.replace(ours, "");
    }
    let (mut quote, mut is_escaped) = (None, false);
    for character in script.chars() {
        let was_escaped = std::mem::take(&mut is_escaped);
        match (character, quote) {
            _ if was_escaped => {}
            ('\\', None | Some('"')) => is_escaped = true,
            ('\'' | '"', None) => quote = Some(character),
            (end, Some(begin)) if end == begin => quote = None,
            ('|' | '&' | ';' | '<' | '>' | '(' | ')', None) => return true,
            ('$' | '`', None | Some('"')) if !(has_shell && quote.is_some()) => return true,
            _ => {}
        }
    }
    false
}

fn initial_status(values: &Values<'_>, trouble: &mut Trouble<'_>) -> Option<String> {
    let status = values.get("check_initial_status")?.trim();
    let known = ["passing", "warning", "critical"];
    match known.iter().find(|word| status.eq_ignore_ascii_case(word)) {
        Some(word) => Some((*word).to_owned()),
        None => {
            trouble.warn(
                "SERVICE_CHECK_INITIAL_STATUS is none of passing, warning, critical: left out"
                    .to_owned(),
            );
            None
        }
    }
}

/// A duration that Consul takes, above zero.
fn duration(values: &Values<'_>, key: &str, trouble: &mut Trouble<'_>) -> Option<String> {
    let text = values.get(key)?.trim();
    if is_duration(text) {
        return Some(text.to_owned());
    }
    let key = key.to_ascii_uppercase();
    trouble.warn(format!(
        "SERVICE_{key} is no duration above zero, such as \"10s\": left out"
    ));
    None
}

/// Is it a duration of Go that is above zero and within its range?
fn is_duration(text: &str) -> bool {
    let text = text.strip_prefix('+').unwrap_or(text);
    // Go counts nanoseconds in 64 bits.
    duration::seconds(text).is_some_and(|seconds| (1e-9..9.2e9).contains(&seconds))
}
