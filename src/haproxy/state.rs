//! HAProxy's own account of its servers, `show servers state`: what it holds, and what of it a new
//! process is to start with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::{Health, Service};

use super::template::address;

/// An address and a port.
pub(super) type Endpoint = (IpAddr, u16);

/// The healthy instances of each service, as far as they are known and have addresses rather than
/// names.
pub(super) type Endpoints = HashMap<String, HashSet<Endpoint>>;

/// The endpoints that DNS has for each of the services.
pub(super) fn endpoints(instances: &BTreeMap<String, Arc<Service>>) -> Endpoints {
    let known = instances.iter().filter_map(|(name, service)| {
        let healthy = service.instances().iter();
        let healthy = healthy.filter(|instance| instance.health != Health::Critical);
        let all: Option<HashSet<Endpoint>> = healthy
            .map(|instance| {
                let ip = address(instance).parse().ok()?;
                (instance.port != 0).then_some((ip, instance.port))
            })
            .collect();
        Some((name.clone(), all?))
    });
    known.collect()
}

/// One server of a backend.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Server<'a> {
    pub(super) backend: &'a str,
    /// `None` while the slot is free.
    pub(super) endpoint: Option<Endpoint>,
    /// The name whose SRV records fill the slot.
    pub(super) srv: &'a str,
    line: &'a str,
}

impl<'a> Server<'a> {
    /// The service that fills the slot: `web` of `_web._tcp.service.consul`. One of another datacenter
    /// of the same name is another.
    pub(super) fn service(&self, domain: &str) -> Option<&'a str> {
        let (name, rest) = self.srv.strip_prefix('_')?.split_once("._tcp.")?;
        let found = rest.strip_prefix("service.")?.trim_end_matches('.');
        found
            .eq_ignore_ascii_case(domain.trim_end_matches('.'))
            .then_some(name)
    }
}

/// The servers in the account.
pub(super) fn servers(account: &str) -> Vec<Server<'_>> {
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
        let ip = || field("srv_addr")?.parse().ok();
        let port = || field("srv_port")?.parse().ok();
        if let (Some(backend), Some(srv)) = (field("be_name"), field("srvrecord")) {
            servers.push(Server {
                backend,
                endpoint: ip().zip(port()),
                srv,
                line,
            });
        }
    }
    servers
}

/// What a new process is to start with: the servers that Consul still has. HAProxy keeps one that is
/// in this file and not in DNS for as long as it lives.
pub(super) fn to_keep(account: &str, known: &Endpoints, domain: &str) -> String {
    let mut kept: String = account
        .lines()
        .take_while(|line| *line == "1" || line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    for server in servers(account) {
        let Some(endpoint) = server.endpoint else {
            continue;
        };
        let is_gone = server
            .service(domain)
            .and_then(|name| known.get(name))
            .is_some_and(|known| !known.contains(&endpoint));
        if !is_gone {
            kept.push_str(server.line);
            kept.push('\n');
        }
    }
    kept
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

    fn account() -> String {
        let line = |server: &str, address: &str, port: u16| {
            format!(
                "3 web 1 {server} {address} 2 64 1 1 9 6 3 4 6 0 0 0 x.addr.dc1.consul {port} \
                 _web._tcp.service.consul 0 0 - - 0\n"
            )
        };
        let lines = [
            line("s1", "10.0.0.1", 80),
            line("s2", "10.0.0.2", 80),
            line("s3", "-", 0),
        ];
        EMPTY.to_owned()
            + &lines.concat()
            + "4 own 1 a 10.9.9.9 2 0 1 1 9 6 3 4 6 0 0 0 - 80 - 0 0 - - 0\n\n"
    }

    #[test]
    fn servers_are_read() {
        let account = account();
        let servers = servers(&account);
        assert_eq!(servers.len(), 4);
        let endpoint = Some((IpAddr::from([10, 0, 0, 1]), 80));
        assert_eq!((servers[0].backend, servers[0].endpoint), ("web", endpoint));
        assert_eq!(servers[0].service("consul"), Some("web"));
        assert_eq!(servers[0].service("dc2.consul"), None);
        assert_eq!(servers[2].endpoint, None);
        assert_eq!(servers[3].service("consul"), None);
    }

    #[test]
    fn what_consul_no_longer_has_is_left_out() {
        let account = account();
        let known = HashSet::from([(IpAddr::from([10, 0, 0, 2]), 80)]);
        let kept = to_keep(
            &account,
            &Endpoints::from([("web".to_owned(), known)]),
            "consul",
        );
        assert!(kept.starts_with(EMPTY), "{kept}");
        assert!(
            kept.contains("10.0.0.2") && !kept.contains("10.0.0.1"),
            "{kept}"
        );
        assert!(
            kept.contains("10.9.9.9") && !kept.contains(" s3 "),
            "{kept}"
        );
        let kept = to_keep(&account, &Endpoints::new(), "consul");
        assert!(kept.contains("10.0.0.1"), "nothing is known of it: {kept}");
    }
}
