//! The access list: who may recurse (D11).

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks that may use recursion; everybody may ask for our own names.
#[derive(Debug, Clone, Default)]
pub(super) struct AccessList(Vec<IpNet>);

impl AccessList {
    pub(super) fn new(allowed: Vec<IpNet>) -> Self {
        Self(allowed)
    }

    /// May this client recurse? A client of a dual-stack socket is its IPv4 self.
    pub(super) fn allows(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.0.iter().any(|network| network.contains(&client))
    }
}
