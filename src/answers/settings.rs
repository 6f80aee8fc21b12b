//! What an operator may set about answers, under Consul's names where Consul has them.

/// How long service answers may be cached: exact names, prefixes, and all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TtlTable {
    exact: Vec<(String, u32)>,
    /// Longest first.
    prefixes: Vec<(String, u32)>,
    others: u32,
}

impl TtlTable {
    /// From Consul's `service_ttl` map: `NAME`, `PREFIX*` and `*`, each with seconds; `otherwise`
    /// is for names that no entry matches.
    pub fn new(entries: impl IntoIterator<Item = (String, u32)>, otherwise: u32) -> Self {
        let mut table = Self {
            exact: Vec::new(),
            prefixes: Vec::new(),
            others: otherwise,
        };
        for (pattern, seconds) in entries {
            table.set(&pattern, seconds);
        }
        table
    }

    /// One more entry, or another TTL for one that is there.
    pub fn set(&mut self, pattern: &str, seconds: u32) {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_suffix('*') {
            Some("") => self.others = seconds,
            Some(prefix) => {
                self.prefixes.retain(|(other, _)| other != prefix);
                self.prefixes.push((prefix.to_owned(), seconds));
                self.prefixes
                    .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
            }
            None => match self.exact.binary_search_by(|(name, _)| name.cmp(&pattern)) {
                Ok(at) => self.exact[at].1 = seconds,
                Err(at) => self.exact.insert(at, (pattern, seconds)),
            },
        }
    }

    /// The TTL of a service, by its name in lower case, in seconds.
    pub fn of(&self, service: &str) -> u32 {
        if let Ok(at) = self
            .exact
            .binary_search_by(|(name, _)| name.as_str().cmp(service))
        {
            return self.exact[at].1;
        }
        self.prefixes
            .iter()
            .find(|(prefix, _)| service.starts_with(prefix))
            .map_or(self.others, |(_, seconds)| *seconds)
    }
}

/// Which name an SRV record points at (D16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrvTarget {
    /// As Consul: the node's name, or the address spelt out when the service has its own.
    Consul,
    /// Always the address spelt out, so that a moved instance has a new name.
    Address,
}

/// The SOA record's numbers, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soa {
    /// TTL of negative answers (`soa.min_ttl`).
    pub min_ttl: u32,
    /// Refresh interval.
    pub refresh: u32,
    /// Retry interval.
    pub retry: u32,
    /// Expiry.
    pub expire: u32,
}

/// What an operator may set about answers: the keys of `[answers]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The largest UDP answer about Consul's names in bytes, whatever the client takes (D7).
    pub max_udp_size: u16,
    /// TTL of service answers.
    pub service_ttl: TtlTable,
    /// TTL of nodes, `.addr` and NS, in seconds.
    pub node_ttl: u32,
    /// The SOA record's numbers.
    pub soa: Soa,
    /// Leave out instances with warnings, too.
    pub only_passing: bool,
    /// TC on A and AAAA of services when they are cut (`answers.truncate_addresses = "tc"`).
    pub truncate_addresses: bool,
    /// Which name SRV records point at.
    pub srv_target: SrvTarget,
    /// What SRV weights are multiplied by; 256 keeps their ratio in HAProxy.
    pub srv_weight_scale: u16,
    /// At most this many A or AAAA records of a service; 0 for no limit.
    pub a_record_limit: usize,
    /// At most this many records of a service for clients that take no more than 512 bytes over
    /// UDP; 0 for no limit.
    pub udp_answer_limit: usize,
    /// Instances and nodes of other datacenters answer with their `wan` addresses.
    pub translate_wan_addrs: bool,
}

impl Default for Settings {
    /// Consul's defaults, apart from the TTLs (D17).
    fn default() -> Self {
        Self {
            max_udp_size: 65_507,
            service_ttl: TtlTable::new([], 1),
            node_ttl: 5,
            soa: Soa {
                min_ttl: 1,
                refresh: 3600,
                retry: 600,
                expire: 86400,
            },
            only_passing: false,
            truncate_addresses: false,
            srv_target: SrvTarget::Consul,
            srv_weight_scale: 1,
            a_record_limit: 0,
            udp_answer_limit: 0,
            translate_wan_addrs: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_beats_longest_prefix_beats_star() {
        let entries = [("Web", 7), ("we*", 5), ("w*", 3), ("*", 2)];
        let table = TtlTable::new(entries.map(|(name, ttl)| (name.to_owned(), ttl)), 1);
        for (service, ttl) in [("web", 7), ("webx", 5), ("wx", 3), ("db", 2)] {
            assert_eq!(table.of(service), ttl, "{service}");
        }
        assert_eq!(TtlTable::new([], 1).of("web"), 1);
    }
}
