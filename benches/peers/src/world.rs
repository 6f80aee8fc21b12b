//! The data that every server is given: services and where their instances are.

use std::{fmt::Write as _, net::Ipv4Addr};

/// Services by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) services: Vec<(String, Vec<Instance>)>,
}

/// One instance, at an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
}

impl Instance {
    /// The name that Consul gives the address, below `consul.`; an SRV record leads to it.
    pub(crate) fn target(&self) -> String {
        format!("{:08x}.addr.dc1", u32::from(self.address))
    }
}

impl World {
    /// So many services, each with so many instances: `web` if there is one, else `web0`, `web1`, …
    pub(crate) fn new(services: u32, instances: u32) -> Self {
        let instance = |number: u32| Instance {
            address: Ipv4Addr::from(0x0a00_0001 + number),
            port: 8000 + (number % 1000) as u16,
        };
        let service = |number: u32| {
            let name = match services {
                1 => "web".to_owned(),
                _ => format!("web{number}"),
            };
            let first = number * instances;
            (name, (first..first + instances).map(instance).collect())
        };
        Self {
            services: (0..services).map(service).collect(),
        }
    }

    /// As Consul's service definitions.
    pub(crate) fn definitions(&self) -> String {
        let mut services = Vec::new();
        for (name, instances) in &self.services {
            for (number, instance) in instances.iter().enumerate() {
                services.push(
                    serde_json::json!({ "id": format!("{name}-{number}"), "name": name,
                    "address": instance.address.to_string(), "port": instance.port }),
                );
            }
        }
        serde_json::json!({ "services": services }).to_string()
    }

    /// As a master file of the zone `consul.`, with Portolan's TTLs.
    pub(crate) fn zone(&self) -> String {
        let mut zone = "$ORIGIN consul.\n$TTL 1\n\
            @ SOA ns.consul. hostmaster.consul. 1 3600 600 86400 1\n\
            @ NS ns.consul.\n\
            ns A 127.0.0.1\n"
            .to_owned();
        for (name, instances) in &self.services {
            for instance in instances {
                let (address, port, target) = (instance.address, instance.port, instance.target());
                let _ = writeln!(
                    zone,
                    "{name}.service A {address}\n\
                     {name}.service SRV 1 1 {port} {target}\n\
                     {target} 5 A {address}"
                );
            }
        }
        zone
    }
}
