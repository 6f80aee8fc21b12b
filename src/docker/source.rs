//! Running containers as a catalog, without Consul.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::catalog::{
    Catalog, Health, Instance, Kind, Layer, Node, Service, ServiceKey, TaggedAddress, Weights,
};

use super::client::Client;
use super::follower::{Follow, Follower, View};
use super::health::Healthcheck;
use super::labels::{Desired, Problem, Registration, Settings, desired, tell};

/// The host that the containers run on.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name: that of the catalog's one node.
    pub name: String,
    /// The datacenter.
    pub datacenter: String,
}

/// The address that this host is reached at by others: the one that it would send to the outside
/// from. Nothing is sent to find it out. `None` if it has no way to the outside.
pub fn host_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address for documentation (RFC 5737): only the route to it counts.
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Running containers as a source of the catalog.
#[derive(Debug)]
pub struct Source {
    follower: Follower,
    views: watch::Receiver<View>,
    settings: Settings,
    node: Arc<Node>,
    layer: Arc<Layer>,
    /// What was published last.
    published: Option<Vec<Registration>>,
    /// What was told of: each thing once.
    told: BTreeSet<Problem>,
}

impl Source {
    /// A source, which will publish in a layer of the catalog.
    pub fn new(
        client: Client,
        follow: Follow,
        settings: Settings,
        host: &Host,
        catalog: &mut Catalog,
    ) -> Self {
        let (follower, views) = Follower::new(client, follow);
        Self {
            follower,
            views,
            node: Arc::new(Node {
                name: host.name.clone(),
                datacenter: host.datacenter.clone(),
                address: settings.ip.unwrap_or(settings.host).to_string(),
                tagged_addresses: BTreeMap::new(),
                meta: BTreeMap::new(),
            }),
            settings,
            layer: catalog.add_complete("docker", &host.datacenter),
            published: None,
            told: BTreeSet::new(),
        }
    }

    /// Follows the containers until the stop.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            follower,
            mut views,
            settings,
            node,
            layer,
            mut published,
            mut told,
        } = self;
        let following = tokio::spawn(follower.run(stop.clone()));
        while let Some(Ok(())) = stop.run_until_cancelled(views.changed()).await {
            let view = views.borrow_and_update().clone();
            if let Some(snapshot) = &view.snapshot {
                let Desired {
                    registrations,
                    problems,
                    reasons: _,
                } = desired(&snapshot.containers, &settings);
                tell(&mut told, &problems);
                if published.as_ref() != Some(&registrations) {
                    publish(&layer, &node, &registrations);
                    published = Some(registrations);
                }
            }
            match view.trouble {
                Some(_) => layer.local().mark_stale(layer.versions().millis()),
                None => layer.local().mark_fresh(),
            }
        }
        if let Err(error) = following.await {
            // What ran stays answered; that it grows old is to be seen.
            error!(%error, "no longer watching the containers; restart Portolan");
            layer.local().mark_stale(layer.versions().millis());
        }
    }
}

fn publish(layer: &Layer, node: &Arc<Node>, registrations: &[Registration]) {
    let mut services: HashMap<ServiceKey, Vec<Instance>> = HashMap::new();
    for registration in registrations {
        let key = ServiceKey::new(Kind::Service, &registration.name);
        let instance = instance(registration, node);
        services.entry(key).or_default().push(instance);
    }
    info!(
        services = services.len(),
        instances = registrations.len(),
        "containers published"
    );
    let services = services
        .into_iter()
        .map(|(key, instances)| (key, Service::new(instances)))
        .collect();
    layer.local().publish_all(services, vec![Arc::clone(node)]);
}

fn instance(registration: &Registration, node: &Arc<Node>) -> Instance {
    Instance {
        id: registration.id.clone(),
        address: registration.address.to_string(),
        tagged_addresses: registration
            .tagged_addresses
            .iter()
            .map(|(tag, (address, port))| {
                let address = address.to_string();
                (
                    tag.clone(),
                    TaggedAddress {
                        address,
                        port: *port,
                    },
                )
            })
            .collect(),
        port: registration.port,
        ports: Vec::new(),
        tags: registration.tags.clone(),
        weights: registration
            .weights
            .map_or_else(Weights::default, |weights| Weights {
                passing: weights.passing,
                warning: weights.warning,
            }),
        health: health(registration),
        node: Arc::clone(node),
    }
}

/// What the HEALTHCHECK says, as Consul would take it from a TTL check: critical until it is known,
/// unless `SERVICE_CHECK_INITIAL_STATUS` says otherwise. Other checks nobody runs without Consul,
/// so they count as passed.
fn health(registration: &Registration) -> Health {
    let check = registration.check.as_ref();
    let initial = check.and_then(|check| check.initial_status.as_deref());
    match (registration.health, initial) {
        (None | Some(Healthcheck::Healthy), _) => Health::Passing,
        (Some(Healthcheck::Starting), Some("passing")) => Health::Passing,
        (Some(Healthcheck::Starting), Some("warning")) => Health::Warning,
        (Some(_), _) => Health::Critical,
    }
}
