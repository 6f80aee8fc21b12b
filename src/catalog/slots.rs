//! The services of a realm that are loaded, or are asked for: where each is published.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Kind, Service, ServiceKey, Slot, Versions};

/// Where a service is published.
pub(super) type ServiceSlot = Arc<Slot<Service>>;

/// Slots by service.
#[derive(Debug, Default)]
pub(super) struct Slots(RwLock<HashMap<ServiceKey, ServiceSlot>>);

impl Slots {
    pub(super) fn get(&self, key: &ServiceKey) -> Option<ServiceSlot> {
        self.read().get(key).cloned()
    }

    pub(super) fn get_or_make(&self, key: &ServiceKey, versions: &Arc<Versions>) -> ServiceSlot {
        if let Some(slot) = self.get(key) {
            return slot;
        }
        let mut slots = self.write();
        let slot = slots.entry(key.clone());
        Arc::clone(slot.or_insert_with(|| Arc::new(Slot::new(versions))))
    }

    /// Those that something is published in.
    pub(super) fn loaded(&self) -> Vec<(ServiceKey, ServiceSlot)> {
        let slots = self.read();
        let loaded = slots.iter().filter(|(_, slot)| slot.get().is_some());
        loaded
            .map(|(key, slot)| (key.clone(), Arc::clone(slot)))
            .collect()
    }

    /// Lets one go; the next question for it makes it anew.
    pub(super) fn remove(&self, key: &ServiceKey) {
        if let Some(slot) = self.write().remove(key) {
            slot.retire();
        }
    }

    /// Lets go of what is not listed, and of nothing that is there all the same.
    pub(super) fn retain(&self, is_listed: impl Fn(&str) -> bool) {
        self.write().retain(|key, slot| {
            let stays = is_listed(key.name()) || is_beyond(key, slot);
            if !stays {
                slot.retire();
            }
            stays
        });
    }

    /// Is it there whether a service has that name or not, as far as is known?
    pub(super) fn is_in_mesh(&self, key: &ServiceKey) -> bool {
        let slots = self.read();
        slots.get(key).is_some_and(|slot| is_beyond(key, slot))
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ServiceKey, ServiceSlot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ServiceKey, ServiceSlot>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the mesh there are proxies of services that are not registered, and names that only routes and gateways know.
fn is_beyond(key: &ServiceKey, slot: &Slot<Service>) -> bool {
    let has_some = |(_, service): (u64, Arc<Service>)| !service.instances().is_empty();
    key.kind() != Kind::Service && slot.get().is_some_and(has_some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Health, Instance, Node, Weights};

    fn somewhere() -> Service {
        Service::new(vec![Instance {
            id: "i".to_owned(),
            address: "240.0.0.1".to_owned(),
            tagged_addresses: Default::default(),
            port: 0,
            ports: Vec::new(),
            tags: Vec::new(),
            weights: Weights::default(),
            health: Health::Passing,
            node: Arc::new(Node {
                name: "n".to_owned(),
                datacenter: "dc1".to_owned(),
                address: "10.0.0.1".to_owned(),
                tagged_addresses: Default::default(),
                meta: Default::default(),
            }),
        }])
    }

    /// What the list no longer has goes, but for what the mesh has without it.
    #[test]
    fn what_stays_when_a_name_goes() {
        let versions = Arc::new(Versions::new());
        for (kind, has_some, stays) in [
            (Kind::Service, true, false),
            (Kind::Service, false, false),
            (Kind::Connect, true, true),
            (Kind::Connect, false, false),
            (Kind::Ingress, true, true),
            (Kind::Virtual, true, true),
            (Kind::Virtual, false, false),
        ] {
            let slots = Slots::default();
            let key = ServiceKey::new(kind, "ghost");
            let slot = slots.get_or_make(&key, &versions);
            let instances = if has_some {
                somewhere()
            } else {
                Service::new(Vec::new())
            };
            slot.publish(instances);
            assert_eq!(slots.is_in_mesh(&key), stays, "{kind:?} {has_some}");
            slots.retain(|name| name != "ghost");
            assert_eq!(slots.get(&key).is_some(), stays, "{kind:?} {has_some}");
        }
    }
}
