//! The IDs that Registrator gives: `<host>:<container>:<port>` with `:udp` after it for UDP.

/// One of Registrator's IDs, taken apart. What `SERVICE_ID` sets is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LegacyId<'a> {
    /// The name of the host, or in a container of its own the ID of Registrator's container.
    pub(super) host: &'a str,
    /// The container's name.
    pub(super) container: &'a str,
}

impl<'a> LegacyId<'a> {
    /// Takes an ID apart, as Registrator's own cleanup does:
    /// `^(.+?):([a-zA-Z0-9][a-zA-Z0-9_.-]+):[0-9]+(?::udp)?$`.
    pub(super) fn parse(id: &'a str) -> Option<Self> {
        let rest = id.strip_suffix(":udp").unwrap_or(id);
        let (rest, port) = rest.rsplit_once(':')?;
        let (host, container) = rest.split_once(':')?;
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let mut letters = container.bytes();
        let is_container = container.len() > 1
            && letters
                .next()
                .is_some_and(|byte| byte.is_ascii_alphanumeric())
            && letters.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        (is_port && is_container && !host.is_empty()).then_some(Self { host, container })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrators_ids_are_known() {
        for (id, host) in [
            ("node1:hello1:80", Some("node1")),
            ("node1:hello1:53:udp", Some("node1")),
            ("node-1.example:my_app.1-a:8080", Some("node-1.example")),
            ("node1:hello1", None),
            ("node1:hello1:http", None),
            ("node1:h:80", None),
            ("node1:-hello:80", None),
            ("node1:hel/lo:80", None),
            ("node1:a1:b1:80", None),
            (":hello1:80", None),
            ("hello1", None),
            ("", None),
        ] {
            assert_eq!(LegacyId::parse(id).map(|id| id.host), host, "{id}");
        }
        let id = LegacyId::parse("node1:my_app.1-a:53:udp");
        assert_eq!(id.map(|id| id.container), Some("my_app.1-a"));
    }
}
