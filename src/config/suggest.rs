//! What to say about a key that `portolan.toml` may not have: most are known ones in the wrong place, or
//! slips of the pen.

use strsim::osa_distance;

use super::keys::KEYS;

/// Keys of Consul's own configuration that have another name here.
const CONSUL_NAMES: &[(&str, &str)] = &[
    ("recursors", "recursion.upstreams"),
    ("enable_truncate", "answers.truncate_addresses"),
    ("dns_config", "answers"),
    ("client_addr", "server.listen"),
];

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
        let distance = osa_distance(name, split(candidate).1);
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
        .filter_map(|key| key.path.rsplit_once('.'))
        .map(|(table, _)| table);
    KEYS.iter().map(|key| key.path).chain(tables)
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

#[cfg(test)]
mod tests {
    use super::*;

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
             docker, register, services, zones, recursion, answers, haproxy, admin, log"
        );
    }
}
