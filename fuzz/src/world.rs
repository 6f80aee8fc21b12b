//! A small world made from the fuzzer's bytes: domains, settings, a catalog with its sources.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan::answers::{
    Asked, Domains, Lookup, Maker, Moment, Settings, Soa, SrvTarget, TtlTable, reverse_address,
};
use portolan::catalog::{
    Catalog, Edition, Health, Interest, Interests, Kind, Layer, Miss, Patience, Prepared, Realm,
    Scope, Service, ServiceKey,
};
use portolan::dns::{Answer, Name, Rcode};

use crate::contents::{Contents, Order};
use crate::input::Input;
use crate::words::{DATACENTER, DOMAINS};

/// When everything is asked.
const MOMENT: Moment = Moment {
    serial: 7,
    serial_ends: u64::MAX,
};

/// How often a question is asked again after its source has loaded what it waits for.
const PATIENCE: usize = 64;

/// What can be asked, and who knows it.
pub struct World {
    pub settings: Settings,
    pub domains: Domains,
    /// The domains as they were set.
    pub domain_names: Vec<Name>,
    pub catalog: Catalog,
    /// What the first layer has.
    pub first: Contents,
    /// No other layer can add to the first.
    pub is_whole: bool,
    source: Option<RefCell<Source>>,
}

/// A source that loads what is asked for, such as Consul.
struct Source {
    layer: Arc<Layer>,
    interests: Interests,
    contents: Contents,
}

impl World {
    /// Reads a world.
    pub fn read(input: &mut Input<'_>, order: Order) -> Self {
        let settings = settings(input);
        let (primary, alternative) = input.one_of(DOMAINS);
        let domain_names: Vec<Name> = std::iter::once(primary)
            .chain(alternative)
            .map(|text| Name::from_text(text).expect("a valid name"))
            .collect();
        let kind_of_world = input.below(8);
        let first = Contents::read(input, order);
        let mut source = None;
        let mut catalog = Catalog::new();
        if kind_of_world != 3 {
            complete(&mut catalog, "first", &first);
        }
        match kind_of_world {
            // A source without data yet.
            1 => {
                let (layer, interests) = catalog.add_lazy("second");
                let contents = first.clone();
                source = Some(RefCell::new(Source {
                    layer,
                    interests,
                    contents,
                }));
            }
            // A source that has loaded no service yet, behind the first layer or in its place.
            2 | 3 => {
                let new_source = lazy(&mut catalog, Contents::read(input, order), input.byte());
                source = Some(RefCell::new(new_source));
            }
            4 => complete(&mut catalog, "second", &Contents::read(input, order)),
            _ => {}
        }
        Self {
            settings,
            domains: Domains::new(&domain_names[0], domain_names.get(1)),
            domain_names,
            is_whole: source.is_none() && catalog.layers().len() == 1,
            catalog,
            first,
            source,
        }
    }

    /// Answers a question as the router does, and loads what has to be loaded for it; `None` if
    /// the name is none of ours.
    pub fn answer(&self, name: &Name, qtype: u16, client: IpAddr) -> Option<Answer> {
        let reader = self.catalog.read();
        let maker = Maker {
            catalog: &reader,
            settings: &self.settings,
        };
        for _ in 0..PATIENCE {
            let parsed = self.domains.parse(name.as_wire(), qtype);
            let asked = Asked {
                domain: parsed
                    .as_ref()
                    .map_or(self.domains.primary(), |(domain, _)| domain),
                name,
                qtype,
                moment: MOMENT,
                patience: Patience::Some,
                client,
                by_alias: false,
            };
            let found = match &parsed {
                Some((_, lookup)) => maker.answer(lookup, &asked),
                None => maker.reverse(reverse_address(name.as_wire())?, &asked),
            };
            match found {
                Ok(answer) => return Some(answer),
                Err(Miss::Absent) => return Some(maker.nobody(&asked)),
                Err(Miss::Unready) => return Some(Answer::empty(Rcode::SERVFAIL, false)),
                Err(Miss::Loading(_)) => {}
            }
            let source = self.source.as_ref().expect("only a lazy source lets wait");
            source.borrow_mut().load();
        }
        panic!("{name} {qtype}: waits although everything is loaded");
    }

    /// The meaning of a name, if it is below a domain.
    pub fn lookup(&self, name: &Name, qtype: u16) -> Option<Lookup> {
        let found = self.domains.parse(name.as_wire(), qtype);
        found.map(|(_, lookup)| lookup)
    }

    /// Has the service an instance that may be answered? `None` if there is no telling from here.
    pub fn has_usable(&self, kind: Kind, service: &str, tag: Option<&str>) -> Option<bool> {
        let worst = if self.settings.only_passing {
            Health::Passing
        } else {
            Health::Warning
        };
        let key = ServiceKey::new(kind, service);
        let service = self.first.services.get(&key).filter(|_| self.is_whole)?;
        Some(service.instances().iter().any(|instance| {
            instance.health <= worst && tag.is_none_or(|tag| instance.has_tag(tag))
        }))
    }
}

impl Source {
    fn load(&mut self) {
        while let Ok(interest) = self.interests.try_recv() {
            match interest {
                Interest::Realm(realm) => publish(&realm, &self.contents),
                // It is as it was.
                Interest::Unlisted { absence, .. } => absence.absent(Duration::from_secs(1)),
                Interest::Datacenters => self.layer.places().excuse_datacenters(Duration::ZERO),
                Interest::Peers => self.layer.places().excuse_peers(Duration::ZERO),
                Interest::Service { realm, key, slot } => {
                    let service = self.contents.services.get(&key).cloned();
                    let service = service.unwrap_or_else(|| Service::new(Vec::new()));
                    realm.publish(&key, &slot, service);
                }
                Interest::Reverse(realm) => {
                    for (key, service) in &self.contents.services {
                        realm.learn_addresses(key.name(), service);
                    }
                    realm.reverse_complete();
                }
                Interest::Query { key, slot } => {
                    let service = ServiceKey::new(Kind::Service, &key.name);
                    let found = self.contents.services.get(&service);
                    let result = found.map(|service| Prepared {
                        service: key.name.clone(),
                        datacenter: DATACENTER.to_owned(),
                        peer: None,
                        ttl: (key.name.len() % 2 == 0).then_some(9),
                        instances: service.instances().to_vec(),
                    });
                    slot.executed(result, Duration::from_secs(3600));
                }
            }
        }
    }
}

fn publish(realm: &Realm, contents: &Contents) {
    let names: HashSet<Arc<str>> = contents
        .services
        .keys()
        .map(|key| key.name().into())
        .collect();
    realm.publish_names(names, None);
    realm.publish_nodes(contents.nodes.clone());
}

fn lazy(catalog: &mut Catalog, contents: Contents, switches: u8) -> Source {
    let (layer, interests) = catalog.add_lazy("lazy");
    layer.local().name_datacenter(DATACENTER);
    publish(layer.local(), &contents);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    layer.publish_datacenters(names(&["dc1", "dc2"]));
    if switches & 1 != 0 {
        let peers = ["peer", "db"].map(|name| (name.to_owned(), None));
        layer.publish_peers(peers.into());
    }
    if switches & 2 != 0 {
        layer.places().publish_edition(Edition::Enterprise);
    }
    if switches & 4 != 0 {
        layer.local().mark_stale(catalog.versions().millis());
    }
    Source {
        layer,
        interests,
        contents,
    }
}

fn complete(catalog: &mut Catalog, name: &'static str, contents: &Contents) {
    let layer = catalog.add_complete(name, DATACENTER);
    let services: HashMap<ServiceKey, Service> = contents.services.clone().into_iter().collect();
    layer.local().publish_all(services, contents.nodes.clone());
}

fn settings(input: &mut Input<'_>) -> Settings {
    let switches = input.byte();
    let on = |bit: u8| switches & (1 << bit) != 0;
    let mut settings = Settings {
        only_passing: on(0),
        truncate_addresses: on(1),
        srv_target: if on(2) {
            SrvTarget::Address
        } else {
            SrvTarget::Consul
        },
        srv_weight_scale: if on(3) { 256 } else { 1 },
        translate_wan_addrs: on(7),
        ..Settings::default()
    };
    if on(4) {
        settings.a_record_limit = input.below(8);
        settings.udp_answer_limit = input.below(8);
    }
    if on(5) {
        settings.node_ttl = input.u32();
        settings.soa = Soa {
            min_ttl: input.u32(),
            refresh: input.u32(),
            retry: input.u32(),
            expire: input.u32(),
        };
    }
    if on(6) {
        let entries = [("web", 7), ("w*", 5), ("*", 3)];
        let entries = entries.map(|(name, ttl)| (name.to_owned(), ttl));
        settings.service_ttl = TtlTable::new(entries, input.u32());
    }
    settings
}

/// Is the scope the local datacenter's?
pub fn is_local(scope: &Scope) -> bool {
    let datacenter = scope.datacenter.as_deref();
    let elsewhere = Scope {
        datacenter: None,
        ..scope.clone()
    };
    elsewhere == Scope::default() && datacenter.is_none_or(|name| name == DATACENTER)
}
