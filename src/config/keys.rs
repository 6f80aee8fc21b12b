//! The keys that `portolan.toml` may have, and what to say about one that it may not.
//!
//! The list repeats the schema in `file.rs` because serde's own message knows only one table:
//! most unknown keys are known ones in the wrong place. Tests hold the two together.

/// The one key that is a table itself, whose keys are names of services.
pub(super) const SERVICE_TTL: &str = "answers.service_ttl";

/// Every key, with its table.
pub(super) const KEYS: &[&str] = &[
    "domain",
    "alt_domain",
    "datacenter",
    "state_dir",
    "server.listen",
    "server.workers",
    "server.max_tcp_connections",
    "server.max_tcp_connections_per_client",
    "server.tcp_idle_timeout",
    "server.queue_size",
    "consul.address",
    "consul.token",
    "consul.token_file",
    "consul.datacenter",
    "consul.fallback_addresses",
    "consul.max_watches",
    "consul.max_stale",
    "consul.translate_wan_addrs",
    "consul.ca_file",
    "consul.ca_path",
    "consul.client_cert",
    "consul.client_key",
    "consul.tls_server_name",
    "consul.verify",
    "docker.address",
    "docker.cert_path",
    "docker.serve",
    "docker.ip",
    "register.owner",
    "register.ip",
    "register.tags",
    "register.internal",
    "register.explicit",
    "register.deregister",
    "register.on_exit",
    "register.resync",
    "services.directories",
    "zones.directory",
    "recursion.upstreams",
    "recursion.allow",
    "recursion.recursor_strategy",
    "recursion.recursor_timeout",
    "recursion.cache_size",
    "answers.max_udp_size",
    "answers.truncate_addresses",
    "answers.srv_target",
    "answers.srv_weight_scale",
    "answers.only_passing",
    SERVICE_TTL,
    "answers.node_ttl",
    "answers.a_record_limit",
    "answers.udp_answer_limit",
    "answers.soa.min_ttl",
    "answers.soa.refresh",
    "answers.soa.retry",
    "answers.soa.expire",
    "admin.listen",
    "log.format",
];

/// Keys of Consul's own configuration that have another name here.
const CONSUL_NAMES: &[(&str, &str)] = &[
    ("recursors", "recursion.upstreams"),
    ("enable_truncate", "answers.truncate_addresses"),
    ("dns_config", "answers"),
    ("client_addr", "server.listen"),
];

/// Whether the path is a key.
pub(super) fn is_key(path: &str) -> bool {
    KEYS.contains(&path)
}

/// Whether the path is a table that holds keys.
pub(super) fn is_table(path: &str) -> bool {
    KEYS.iter().any(|key| is_inside(key, path))
}

/// What to say about a path that is neither a key nor a table.
pub(super) fn unknown(path: &str) -> String {
    match nearest(path) {
        Some(key) if key.contains('.') || !path.contains('.') => {
            format!("unknown key, did you mean `{key}`?")
        }
        Some(key) => {
            format!("unknown key, did you mean `{key}`, which stands before the first [table]?")
        }
        None => format!("unknown key, known here: {}", siblings(path).join(", ")),
    }
}

/// The key that was most likely meant: one that is spelled nearly so in the same table, or one
/// of the same name in another table, or one that is spelled nearly so anywhere.
fn nearest(path: &str) -> Option<&'static str> {
    let (table, name) = split(path);
    let close = |candidate: &str| {
        let distance = distance(name, split(candidate).1);
        // Two slips in a long word, one in a short one: more is another word.
        (distance <= if name.len() > 4 { 2 } else { 1 }).then_some(distance)
    };
    let closest = |inside: Option<&str>| {
        places()
            .filter(|candidate| inside.is_none_or(|table| split(candidate).0 == table))
            .filter_map(|candidate| close(candidate).map(|distance| (distance, candidate)))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, candidate)| candidate)
    };
    let consul_name = CONSUL_NAMES
        .iter()
        .find(|(theirs, _)| *theirs == name)
        .map(|(_, ours)| *ours);
    closest(Some(table))
        .or(consul_name)
        .or_else(|| closest(None))
}

/// Every key, and every table by its name.
fn places() -> impl Iterator<Item = &'static str> {
    let tables = KEYS
        .iter()
        .filter_map(|key| key.rsplit_once('.'))
        .map(|(table, _)| table);
    KEYS.iter().copied().chain(tables)
}

/// The names that may stand beside the given one.
fn siblings(path: &str) -> Vec<&'static str> {
    let (table, _) = split(path);
    let mut names: Vec<&str> = places()
        .filter(|candidate| split(candidate).0 == table)
        .map(|candidate| split(candidate).1)
        .collect();
    // Places are listed by table, so the same table comes in one run.
    names.dedup();
    names
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

fn is_inside(key: &str, table: &str) -> bool {
    key.strip_prefix(table)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// How many letters must be put in, left out, exchanged or swapped with their neighbour to make
/// one word from the other (restricted Damerau-Levenshtein distance).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let changed = last[column] + usize::from(a != b);
            let mut best = changed.min(last[column + 1] + 1).min(line[column] + 1);
            let swapped = row > 0 && column > 0 && *a == to[column - 1] && from[row - 1] == *b;
            if swapped {
                best = best.min(before_last[column - 1] + 1);
            }
            line.push(best);
        }
        before_last = std::mem::replace(&mut last, line);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_counted() {
        for (from, to, expected) in [
            ("address", "address", 0),
            ("adress", "address", 1),
            ("adderss", "address", 1),
            ("addr", "address", 3),
            ("tokne", "token", 1),
            ("", "abc", 3),
            ("abc", "", 3),
        ] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn unknown_keys_get_the_likely_one_suggested() {
        for (path, suggestion) in [
            ("consul.adress", "did you mean `consul.address`?"),
            ("consul.tokne", "did you mean `consul.token`?"),
            ("listen", "did you mean `server.listen`?"),
            ("admin.lisen", "did you mean `admin.listen`?"),
            ("answers.min_ttl", "did you mean `answers.soa.min_ttl`?"),
            ("servr", "did you mean `server`?"),
            (
                "server.domain",
                "did you mean `domain`, which stands before the first [table]?",
            ),
            ("recursors", "did you mean `recursion.upstreams`?"),
            ("log.colour", "known here: format"),
        ] {
            let message = unknown(path);
            assert!(message.contains(suggestion), "{path}: {message}");
        }
    }

    #[test]
    fn what_may_stand_at_the_top_is_listed_once() {
        let message = unknown("something_else");
        assert_eq!(
            message,
            "unknown key, known here: domain, alt_domain, datacenter, state_dir, server, consul, \
             docker, register, services, zones, recursion, answers, admin, log"
        );
    }
}
