//! What HAProxy holds, by its own account (`management.txt`, "show servers state"), and what of it a new process is to
//! start with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::catalog::Service;

use super::template::{address, healthy};

/// The name that a server line asks DNS for: `_web._tcp.service.consul`, or `web.service.consul`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Asked {
    /// In lower case, without the final dot.
    pub(super) name: String,
    /// For SRV records; or else for addresses.
    pub(super) is_srv: bool,
}

impl Asked {
    /// What the template in the program asks for a service.
    pub(super) fn of_service(service: &str, domain: &str) -> Self {
        let domain = domain.trim_end_matches('.');
        let name = format!("_{service}._tcp.service.{domain}").to_ascii_lowercase();
        Self { name, is_srv: true }
    }
}

/// Where the healthy instances behind each name are, as far as they are known and have addresses rather than names.
/// The port of an address that is asked for alone is 0.
pub(super) type Endpoints = HashMap<Asked, HashSet<SocketAddr>>;

/// The endpoints that DNS has for each of the services.
pub(super) fn endpoints(instances: &BTreeMap<String, Arc<Service>>, domain: &str) -> Endpoints {
    let known = instances.iter().filter_map(|(name, service)| {
        let all: Option<HashSet<SocketAddr>> = healthy(service)
            .map(|instance| {
                let ip = address(instance).parse().ok()?;
                let port = instance.served_port();
                (port != 0).then_some(SocketAddr::new(ip, port))
            })
            .collect();
        Some((Asked::of_service(name, domain), all?))
    });
    known.collect()
}

/// One server of a backend.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Server<'a> {
    pub(super) backend: &'a str,
    /// `None` while the slot is free.
    pub(super) endpoint: Option<SocketAddr>,
    /// Whose records fill the slot, if they are of a name in this domain.
    pub(super) asked: Option<Asked>,
    line: &'a str,
}

impl Server<'_> {
    /// Its endpoint, as those of its name are known.
    pub(super) fn known_as(&self) -> Option<SocketAddr> {
        let mut endpoint = self.endpoint?;
        if self.asked.as_ref().is_some_and(|asked| !asked.is_srv) {
            endpoint.set_port(0);
        }
        Some(endpoint)
    }
}

/// The servers in the account, with their names in this domain.
pub(super) fn servers<'a>(account: &'a str, domain: &str) -> Vec<Server<'a>> {
    let end = format!(".{}", domain.trim_end_matches('.').to_ascii_lowercase());
    let mut columns: Vec<&str> = Vec::new();
    let mut servers = Vec::new();
    for line in account.lines() {
        if let Some(header) = line.strip_prefix("# ") {
            columns = header.split_whitespace().collect();
            continue;
        }
        let row: Vec<&str> = line.split_whitespace().collect();
        let field = |name| {
            let place = columns.iter().position(|column| *column == name)?;
            row.get(place).copied()
        };
        let ip = || field("srv_addr")?.parse::<IpAddr>().ok();
        let port = || field("srv_port")?.parse().ok();
        let (Some(backend), Some(srv)) = (field("be_name"), field("srvrecord")) else {
            continue;
        };
        // Where there is an SRV record, the other name is its target.
        let is_srv = srv != "-";
        let name = if is_srv { Some(srv) } else { field("srv_fqdn") };
        let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        servers.push(Server {
            backend,
            endpoint: ip().zip(port()).map(SocketAddr::from),
            asked: name
                .filter(|name| name.ends_with(&end))
                .map(|name| Asked { name, is_srv }),
            line,
        });
    }
    servers
}

/// What a new process is to start with: the servers that there still are. HAProxy keeps one that is in this file and
/// not in DNS for as long as it lives. `servers` are those of the account.
pub(super) fn to_keep(account: &str, servers: &[Server<'_>], known: &Endpoints) -> String {
    let mut kept: String = account
        .lines()
        .take_while(|line| *line == "1" || line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    for server in servers {
        let Some(endpoint) = server.known_as() else {
            continue;
        };
        let known = server.asked.as_ref().and_then(|asked| known.get(asked));
        if known.is_none_or(|known| known.contains(&endpoint)) {
            kept.push_str(server.line);
            kept.push('\n');
        }
    }
    kept
}

/// The same without how long each server has been as it is, which is never the same.
pub(super) fn timeless(state: &str) -> String {
    const TIME: &str = "srv_time_since_last_change";
    let mut place = None;
    let lines = state.lines().map(|line| {
        if let Some(header) = line.strip_prefix("# ") {
            place = header.split_whitespace().position(|column| column == TIME);
            return line.to_owned();
        }
        let columns = line.split_whitespace().enumerate();
        let columns = columns.filter(|(number, _)| Some(*number) != place);
        let columns: Vec<&str> = columns.map(|(_, column)| column).collect();
        columns.join(" ")
    });
    lines.collect::<Vec<String>>().join("\n")
}

/// A state of no servers.
pub(super) const EMPTY: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state \
    srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status \
    srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id \
    srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr \
    srv_agent_addr srv_agent_port\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn line(server: &str, address: &str, port: u16, fqdn: &str, srv: &str) -> String {
        format!(
            "3 web 1 {server} {address} 2 64 1 1 9 6 3 4 6 0 0 0 {fqdn} {port} {srv} 0 0 - - 0\n"
        )
    }

    fn account() -> String {
        let target = "x.addr.dc1.consul";
        let web = "_web._tcp.service.consul";
        let lines = [
            line("s1", "10.0.0.1", 80, target, web),
            line("s2", "10.0.0.2", 80, target, web),
            line("s3", "-", 0, "-", web),
            line("own", "10.9.9.9", 80, "-", "-"),
            line("blue", "10.0.0.3", 81, target, "_Web._blue.service.consul."),
            line("plain", "10.0.0.4", 82, "web.service.consul", "-"),
            line("else", "10.0.0.5", 83, "www.example.net", "-"),
        ];
        EMPTY.to_owned() + &lines.concat() + "\n"
    }

    fn srv(name: &str) -> Asked {
        let name = name.to_owned();
        Asked { name, is_srv: true }
    }

    #[test]
    fn servers_are_read() {
        let account = account();
        let servers = servers(&account, "consul.");
        assert_eq!(servers.len(), 7);
        let endpoint = Some(SocketAddr::from(([10, 0, 0, 1], 80)));
        assert_eq!((servers[0].backend, servers[0].endpoint), ("web", endpoint));
        let web = Asked::of_service("Web", "consul.");
        assert_eq!(web, srv("_web._tcp.service.consul"));
        assert_eq!(servers[0].asked, Some(web));
        assert_eq!(servers[2].endpoint, None);
        assert_eq!(servers[3].asked, None);
        assert_eq!(servers[4].asked, Some(srv("_web._blue.service.consul")));
        let name = "web.service.consul".to_owned();
        let is_srv = false;
        assert_eq!(servers[5].asked, Some(Asked { name, is_srv }));
        let alone = SocketAddr::from(([10, 0, 0, 4], 0));
        assert_eq!(servers[5].known_as(), Some(alone));
        assert_eq!(servers[6].asked, None, "not ours to judge");
    }

    #[test]
    fn a_state_is_the_same_a_second_later() {
        let account = account();
        let later = account.replace(" 1 1 9 6 ", " 1 1 10 6 ");
        assert_ne!(account, later);
        assert_eq!(timeless(&account), timeless(&later));
        let other = account.replace("10.0.0.1", "10.0.0.7");
        assert_ne!(timeless(&account), timeless(&other));
    }

    #[test]
    fn what_dns_no_longer_has_is_left_out() {
        let account = account();
        let at = |last, port| SocketAddr::from(([10, 0, 0, last], port));
        let plain = Asked {
            name: "web.service.consul".to_owned(),
            is_srv: false,
        };
        // (What is known, the servers that stay)
        let cases: [(Endpoints, &[&str]); 5] = [
            (
                Endpoints::new(),
                &["s1", "s2", "own", "blue", "plain", "else"],
            ),
            (
                [(srv("_web._tcp.service.consul"), [at(2, 80)].into())].into(),
                &["s2", "own", "blue", "plain", "else"],
            ),
            (
                [(srv("_web._blue.service.consul"), [at(3, 80)].into())].into(),
                &["s1", "s2", "own", "plain", "else"],
            ),
            (
                [(plain.clone(), [at(4, 0)].into())].into(),
                &["s1", "s2", "own", "blue", "plain", "else"],
            ),
            (
                [(plain, HashSet::new())].into(),
                &["s1", "s2", "own", "blue", "else"],
            ),
        ];
        for (known, expected) in cases {
            let kept = to_keep(&account, &servers(&account, "consul"), &known);
            assert!(kept.starts_with(EMPTY), "{kept}");
            let kept: Vec<_> = kept
                .lines()
                .skip(2)
                .filter_map(|line| line.split(' ').nth(3))
                .collect();
            assert_eq!(kept, expected, "{known:?}");
        }
    }
}
