//! Addresses -> the services that have them. Consul offers no such index (D19).

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// The addresses of all services whose instances have been seen.
#[derive(Debug, Default)]
pub(super) struct Reverse {
    by_service: HashMap<Arc<str>, Vec<IpAddr>>,
    by_address: HashMap<IpAddr, BTreeSet<Arc<str>>>,
}

impl Reverse {
    /// The service has these addresses, and no others. False if that was known.
    pub(super) fn set(&mut self, service: &str, mut addresses: Vec<IpAddr>) -> bool {
        addresses.sort_unstable();
        addresses.dedup();
        if self.by_service.get(service) == Some(&addresses) {
            return false;
        }
        self.remove(service);
        let service: Arc<str> = service.into();
        for address in &addresses {
            self.by_address
                .entry(*address)
                .or_default()
                .insert(Arc::clone(&service));
        }
        self.by_service.insert(service, addresses);
        true
    }

    /// The service has gone.
    pub(super) fn remove(&mut self, service: &str) {
        for address in self.by_service.remove(service).unwrap_or_default() {
            if let Some(services) = self.by_address.get_mut(&address) {
                services.remove(service);
                if services.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    /// Keeps only services that `exists` knows.
    pub(super) fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        let gone: Vec<Arc<str>> = self
            .by_service
            .keys()
            .filter(|service| !exists(service))
            .cloned()
            .collect();
        for service in gone {
            self.remove(&service);
        }
    }

    /// The first service, by name, with an instance at that address.
    pub(super) fn service_at(&self, address: IpAddr) -> Option<Arc<str>> {
        self.by_address.get(&address)?.first().cloned()
    }

    /// Have its addresses been seen?
    pub(super) fn knows(&self, service: &str) -> bool {
        self.by_service.contains_key(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_anew_replaces_what_was() {
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        let mut reverse = Reverse::default();
        reverse.set("web", vec![ip(1), ip(2), ip(1)]);
        reverse.set("api", vec![ip(1)]);
        assert_eq!(reverse.service_at(ip(1)).as_deref(), Some("api"));
        reverse.set("api", Vec::new());
        assert_eq!(reverse.service_at(ip(1)).as_deref(), Some("web"));
        reverse.set("web", vec![ip(3)]);
        assert_eq!(reverse.service_at(ip(1)), None);
        assert_eq!(reverse.service_at(ip(3)).as_deref(), Some("web"));
        reverse.retain(|service| service != "web");
        assert_eq!(reverse.service_at(ip(3)), None);
        assert!(reverse.by_address.is_empty());
    }
}
