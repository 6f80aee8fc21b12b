//! What the tests know of names by themselves: which stand above others (RFC 8020).

/// The words that make a form of name.
const KEYWORDS: [&str; 8] = [
    "service",
    "connect",
    "virtual",
    "ingress",
    "api-gateway",
    "node",
    "query",
    "addr",
];

/// Tags, nodes and queries of the world that have dots in them.
const DOTTED: [(&str, &[&str]); 3] = [
    ("service", &["ver.1.2.api"]),
    ("node", &["dotted.node.name", "a.service"]),
    ("query", &["pq.dotted"]),
];

/// The form of name: the rightmost keyword.
pub(crate) fn keyword(labels: &[String]) -> Option<&str> {
    let keyword = |label: &&String| KEYWORDS.contains(&label.as_str());
    labels.iter().rfind(keyword).map(String::as_str)
}

/// Whether a name has none of its own and other names below it, in one of the worlds' datacenters or peers.
pub(crate) fn is_above_others(labels: &[String]) -> bool {
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let labels = match labels[..] {
        [.., "dc1", "dc"] => &labels[..labels.len() - 2],
        // Another datacenter and a port may be told together; names are below what has a port.
        [.., _, "port"] | [.., "dc2", "dc"] | [.., "far", "peer"] => &labels[..labels.len() - 2],
        [.., "dc1" | "dc2"] => &labels[..labels.len() - 1],
        _ => &labels[..],
    };
    match labels {
        // The domain, a datacenter, a keyword; what stands above every datacenter in the long form.
        [] | ["dc" | "peer" | "port" | "ns" | "ap"] => true,
        [keyword] if KEYWORDS.contains(keyword) => true,
        // What stands above `_web._tcp`.
        [tag] | [tag, "service"] if tag.starts_with('_') => true,
        [left @ .., keyword] => DOTTED
            .iter()
            .filter(|(of, _)| of == keyword)
            .flat_map(|(_, names)| *names)
            .any(|name| name.ends_with(&format!(".{}", left.join(".")))),
    }
}
