//! Prepared queries, virtual addresses and reverse names.

use std::net::IpAddr;

use crate::catalog::{Executed, Kind, Pending, QueryKey, Scope, ServiceKey};
use crate::names::{Name, types};

use super::answer::Answer;
use super::make::{Asked, Maker, Miss, found};
use super::record::Data;
use super::service::Group;
use super::target::{address_data, node_target};

/// The tag of the address that the mesh gives a service.
const VIRTUAL: &str = "consul-virtual";

impl Maker<'_> {
    /// The result of a prepared query, in the order that Consul chose.
    pub(super) fn query(
        &self,
        name: &str,
        scope: &Scope,
        asked: &Asked<'_>,
    ) -> Result<Answer, Miss> {
        // Other names cannot be asked for in a URL, nor in Consul's own DNS, which escapes them.
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Miss::Absent);
        }
        let key = QueryKey {
            name: name.to_owned(),
            scope: scope.clone(),
            client: asked.client,
        };
        let executed = found(self.catalog.query(&key, asked.patience))?;
        let Executed::Found(result) = &*executed else {
            return Err(Miss::Absent);
        };
        if result.instances.is_empty() {
            return Err(Miss::Absent);
        }
        let service = result.service.to_ascii_lowercase();
        let group = Group {
            instances: result.instances.iter().collect(),
            ttl: result
                .ttl
                .unwrap_or_else(|| self.settings.service_ttl.of(&service)),
            scope,
            port: None,
            in_order: true,
        };
        let answer = self.group(&group, asked)?;
        Ok(Answer {
            for_client: true,
            ..answer
        })
    }

    /// The address that the mesh gives a service (Consul 1.11).
    pub(super) fn virtual_address(
        &self,
        name: &str,
        scope: &Scope,
        asked: &Asked<'_>,
    ) -> Result<Answer, Miss> {
        let key = ServiceKey::new(Kind::Connect, name);
        let service = found(
            self.catalog
                .service(scope, &key, asked.moment.now, asked.patience),
        )?;
        let address = service.instances().iter().find_map(|instance| {
            let tagged = instance.tagged_addresses.get(VIRTUAL)?;
            tagged.address.parse::<IpAddr>().ok()
        });
        let data = match (address, asked.qtype) {
            (Some(ip @ IpAddr::V4(_)), types::A | types::ANY)
            | (Some(ip @ IpAddr::V6(_)), types::AAAA | types::ANY) => vec![address_data(ip)],
            _ => Vec::new(),
        };
        Ok(self.data(asked, self.settings.node_ttl, data))
    }

    /// The name of what is at an address: a node, else a service; `None` if it is nothing of ours.
    /// `asked.domain` is the domain to name it in.
    ///
    /// # Errors
    /// What to wait for, while the addresses of services are being learned.
    pub fn reverse(&self, address: IpAddr, asked: &Asked<'_>) -> Result<Option<Answer>, Pending> {
        let target = match self.catalog.node_at(address) {
            Some(node) => node_target(&node, &Scope::default(), asked.domain).ok(),
            None => match found(self.catalog.service_at(address)) {
                Ok(service) => self.service_name(&service, asked.domain),
                Err(Miss::Wait(pending)) => return Err(pending),
                // Without data it may still be somebody else's.
                Err(Miss::Absent | Miss::Unready) => None,
            },
        };
        Ok(target.map(|target| match asked.qtype {
            types::PTR | types::ANY => {
                self.data(asked, self.settings.node_ttl, vec![Data::Ptr(target)])
            }
            // The name is ours, and has no other records.
            _ => self.nodata(asked),
        }))
    }

    fn service_name(&self, service: &str, domain: &Name) -> Option<Name> {
        let datacenter = self.catalog.local_datacenter();
        let name = domain.below(&format!("{service}.service.{datacenter}"));
        name.ok().map(|name| name.to_lowercase())
    }

    /// NXDOMAIN for a reverse name that is nobody's: with the SOA of our domain, as Consul's.
    pub fn nobody(&self, asked: &Asked<'_>) -> Answer {
        self.nxdomain(asked)
    }
}
