//! At which ports a container's services are, and where those are reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::docker::container::{Attachment, Binding, Container, Port};

use super::registration::{Reach, Settings};
use super::values::{Metadata, Trouble, Values};

/// Where one port is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// The addresses by family, if there are both.
    pub(super) tagged: BTreeMap<String, (IpAddr, u16)>,
}

impl Place {
    fn new(address: IpAddr, port: u16) -> Self {
        Self {
            address,
            port,
            tagged: BTreeMap::new(),
        }
    }
}

/// The ports of a container: those that its image or command line expose, and those that are
/// published. If there are none, those that `SERVICE_PORT` names.
pub(super) fn ports(
    container: &Container,
    metadata: &Metadata<'_>,
    trouble: &mut Trouble<'_>,
) -> BTreeSet<Port> {
    let published = container.published.keys();
    let ports: BTreeSet<Port> = container.exposed.iter().chain(published).copied().collect();
    if !ports.is_empty() {
        return ports;
    }
    let named = metadata.for_all("port").unwrap_or_default().split(',');
    named
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .filter_map(|text| {
            let port = Port::parse(text);
            if port.is_none() {
                trouble.warn(format!(
                    "SERVICE_PORT: {text:?} is no port, such as 8080 or 53/udp"
                ));
            }
            port
        })
        .collect()
}

/// Finds the place of each port of one container.
pub(super) struct Places<'a> {
    container: &'a Container,
    /// The container whose network it uses: itself, or the one of `container:<id>`.
    network: &'a Container,
    settings: &'a Settings,
}

impl<'a> Places<'a> {
    /// `None` if the container uses the network of one that does not run.
    pub(super) fn new(
        container: &'a Container,
        all: &'a [std::sync::Arc<Container>],
        settings: &'a Settings,
        trouble: &mut Trouble<'_>,
    ) -> Option<Self> {
        let network = match container.network_container() {
            None => container,
            Some(other) => {
                let found = all
                    .iter()
                    .find(|candidate| Container::is_called(other, &candidate.id, &candidate.name));
                match found {
                    Some(found) => found,
                    None => {
                        trouble.warn(
                            "it uses the network of a container that does not run: left out"
                                .to_owned(),
                        );
                        return None;
                    }
                }
            }
        };
        Some(Self {
            container,
            network,
            settings,
        })
    }

    /// Where a port is reached; `None` if it is not published and should be.
    pub(super) fn of(
        &self,
        port: Port,
        values: &Values<'_>,
        trouble: &mut Trouble<'_>,
    ) -> Option<Place> {
        let given = values.get("ip").and_then(|text| {
            // Who is used to write a network's length behind it means the address.
            let bare = text.trim().parse::<IpNet>().map(|network| network.addr());
            let address = bare.ok().or_else(|| text.trim().parse().ok());
            // Consul refuses 0.0.0.0 and ::, which are nowhere.
            let address = address.filter(|address| !address.is_unspecified());
            if address.is_none() {
                trouble.warn("SERVICE_IP is no IP address to be reached at: left out".to_owned());
            }
            address
        });
        let place = if self.network.network_mode == "host" {
            let address = self.settings.ip.unwrap_or(self.settings.host);
            Place::new(address, port.number)
        } else if self.is_internal(port, values) {
            self.internal(port, values, given.is_some(), trouble)?
        } else {
            let published = self.published(port);
            if published.is_none() {
                trouble.reason(format!(
                    "port {port}: it is not published: publish it (-p), or set SERVICE_INTERNAL=true"
                ));
            }
            published?
        };
        Some(match given {
            Some(address) => Place::new(address, place.port),
            None => place,
        })
    }

    fn is_internal(&self, port: Port, values: &Values<'_>) -> bool {
        match values.flag("internal") {
            Some(internal) => internal,
            // Whoever names a network wants to be reached there.
            None if values.get("network").is_some() => true,
            None => match self.settings.reach {
                Reach::Published => false,
                Reach::Internal => true,
                Reach::Either if self.shares_network() => {
                    !self.network.published.contains_key(&port)
                }
                Reach::Either => {
                    let bindings = self.network.published.get(&port);
                    // On the host's loopback nobody else would reach it.
                    let binding = bindings.and_then(|bindings| best(bindings));
                    self.network.published.is_empty()
                        || binding.is_some_and(|binding| binding.ip.is_loopback())
                }
            },
        }
    }

    fn shares_network(&self) -> bool {
        !std::ptr::eq(self.container, self.network)
    }

    /// At the host's address, on the port there.
    fn published(&self, port: Port) -> Option<Place> {
        let bindings = self.network.published.get(&port);
        if bindings.is_none() && self.shares_network() {
            // As in Registrator: what another container's network hides is reached inside it.
            let attachment = self.attachment(None, &mut Trouble::unheard(&mut BTreeSet::new()))?;
            return attachment
                .0
                .ipv4
                .or(attachment.0.ipv6)
                .map(|address| Place::new(address, port.number));
        }
        let binding = best(bindings?)?;
        let address = if binding.ip.is_loopback() {
            binding.ip
        } else if let Some(ip) = self.settings.ip {
            ip
        } else if binding.ip.is_unspecified() {
            self.settings.host
        } else {
            binding.ip
        };
        Some(Place::new(address, binding.port))
    }

    /// At the container's own address.
    fn internal(
        &self,
        port: Port,
        values: &Values<'_>,
        has_address: bool,
        trouble: &mut Trouble<'_>,
    ) -> Option<Place> {
        let wanted = values.get("network").map(str::trim);
        let Some((attachment, family)) = self.attachment(wanted, trouble) else {
            if has_address {
                // It will be replaced by the one that was given.
                return Some(Place::new(self.settings.host, port.number));
            }
            trouble.warn("it has no address in any network: left out".to_owned());
            return None;
        };
        let (first, second) = match family {
            Some(IpAddr::V6(_)) => (attachment.ipv6, None),
            Some(IpAddr::V4(_)) => (attachment.ipv4, None),
            None => (attachment.ipv4, attachment.ipv6),
        };
        let mut place = Place::new(first.or(second)?, port.number);
        if let (Some(ipv4), Some(ipv6)) = (first, second) {
            place.tagged = BTreeMap::from([
                ("lan_ipv4".to_owned(), (ipv4, port.number)),
                ("lan_ipv6".to_owned(), (ipv6, port.number)),
            ]);
        }
        Some(place)
    }

    /// The place in the network that is wanted, by name or subnet; else in the one that the
    /// container was started in; else in the first by name. With a subnet, also which address is
    /// meant.
    fn attachment(
        &self,
        wanted: Option<&str>,
        trouble: &mut Trouble<'_>,
    ) -> Option<(&'a Attachment, Option<IpAddr>)> {
        let networks: BTreeMap<&str, &Attachment> = self
            .network
            .networks
            .iter()
            .filter(|(_, attachment)| attachment.ipv4.or(attachment.ipv6).is_some())
            .map(|(name, attachment)| (name.as_str(), attachment))
            .collect();
        if let Some(wanted) = wanted {
            match named(&networks, wanted) {
                Some(found) => return Some(found),
                None => trouble.warn(format!(
                    "SERVICE_NETWORK: it has no address in {wanted:?}, only in: {}",
                    names(&networks)
                )),
            }
        }
        let started_in = match self.network.network_mode.as_str() {
            "" | "default" => "bridge",
            name => name,
        };
        let (name, attachment) = networks
            .get_key_value(started_in)
            .or_else(|| networks.first_key_value())?;
        if networks.len() > 1 && wanted.is_none() {
            trouble.note(format!(
                "it is in several networks ({}) and registered in {name}: SERVICE_NETWORK can name \
                 another",
                names(&networks)
            ));
        }
        Some((attachment, None))
    }
}

fn named<'a>(
    networks: &BTreeMap<&str, &'a Attachment>,
    wanted: &str,
) -> Option<(&'a Attachment, Option<IpAddr>)> {
    if let Ok(subnet) = wanted.parse::<IpNet>() {
        return networks.values().find_map(|attachment| {
            let addresses = [attachment.ipv4, attachment.ipv6].into_iter().flatten();
            let inside = addresses
                .into_iter()
                .find(|address| subnet.contains(address))?;
            Some((*attachment, Some(inside)))
        });
    }
    if let Some(attachment) = networks.get(wanted) {
        return Some((attachment, None));
    }
    // Compose puts the project before the network's name.
    let suffix = format!("_{wanted}");
    let mut found = networks.iter().filter(|(name, _)| name.ends_with(&suffix));
    match (found.next(), found.next()) {
        (Some((_, attachment)), None) => Some((attachment, None)),
        _ => None,
    }
}

fn names(networks: &BTreeMap<&str, &Attachment>) -> String {
    let names: Vec<&str> = networks.keys().copied().collect();
    names.join(", ")
}

/// The binding that most can reach: IPv4 before IPv6, and loopback last.
fn best(bindings: &[Binding]) -> Option<Binding> {
    bindings
        .iter()
        .copied()
        .min_by_key(|binding| (binding.ip.is_loopback(), binding.ip.is_ipv6()))
}
