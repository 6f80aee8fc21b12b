//! One host: its containers, its Consul agent, and what passes between them.

use crate::support::{
    consul::Consul,
    docker::{Container, Docker},
    docker_proxy::DockerProxy,
    ensure, eventually,
    recorder::Recorder,
    registrar::Registrar,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

/// How soon a change has to be in Consul.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// Whatever takes several looks has happened by then, on the slowest machine.
pub(crate) const LATE: Duration = Duration::from_secs(120);

/// A host of a test.
pub(crate) struct Host {
    pub(crate) docker: Docker,
    pub(crate) proxy: DockerProxy,
    pub(crate) consul: Consul,
    pub(crate) recorder: Recorder,
}

impl Host {
    pub(crate) fn start() -> Self {
        Self::with(Consul::start())
    }

    /// The same with this Consul.
    pub(crate) fn with(consul: Consul) -> Self {
        let docker = Docker::new();
        Self {
            proxy: DockerProxy::showing(&docker.label()),
            recorder: Recorder::before(consul.http()),
            docker,
            consul,
        }
    }

    /// Flags that tell a registrar where things are.
    pub(crate) fn flags(&self) -> Vec<String> {
        let (docker, consul) = (self.proxy.url(), self.recorder.url());
        ["--docker", &docker, "--consul", &consul]
            .map(str::to_owned)
            .to_vec()
    }

    /// A registrar with these flags more; waits for nothing.
    pub(crate) fn launch(&self, more: &[&str]) -> Registrar {
        let flags = self.flags();
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.extend(more);
        Registrar::start(&flags)
    }

    /// A registrar with these flags more, that has done its first comparison.
    pub(crate) fn registrar(&self, more: &[&str]) -> Registrar {
        let registrar = self.launch(more);
        registrar.wait_until_ready();
        registrar
    }

    /// A container that publishes its port 80, as the service `service`.
    pub(crate) fn service(&self, name: &str, service: &str) -> Container {
        let variable = format!("SERVICE_NAME={service}");
        self.docker.sleeper(name, &["-e", &variable, "-p", ":80"])
    }

    /// The ID that a port of a container has in Consul.
    pub(crate) fn id(&self, container: &Container) -> String {
        format!("{}:{}:80", host_name(), container.name)
    }

    /// What the agent has registered, by ID, apart from Consul itself.
    pub(crate) fn services(&self) -> BTreeMap<String, Value> {
        let services = self.consul.get("/v1/agent/services");
        let services = services.as_object().expect("services by ID");
        services.clone().into_iter().collect()
    }

    /// The IDs of what the agent has registered.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.services().into_keys().collect()
    }

    /// Waits until exactly these IDs are registered.
    pub(crate) fn wait_for_ids(&self, within: Duration, expected: &BTreeSet<String>) {
        eventually(within, "exactly what runs is registered", || {
            let ids = self.ids();
            let (extra, missing): (Vec<_>, Vec<_>) = (
                ids.difference(expected).collect(),
                expected.difference(&ids).collect(),
            );
            match extra.is_empty() && missing.is_empty() {
                true => Ok(()),
                false => Err(format!("too many: {extra:?}, missing: {missing:?}")),
            }
        });
    }

    /// Waits until exactly these containers are registered.
    pub(crate) fn wait_for(&self, within: Duration, containers: &[&Container]) {
        let ids = containers.iter().map(|container| self.id(container));
        self.wait_for_ids(within, &ids.collect());
    }
}

/// The name of this host.
pub(crate) fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("this host has a name");
    name.trim().to_owned()
}

/// How often a registrar has compared what runs with what is registered.
pub(crate) fn passes(registrar: &Registrar) -> f64 {
    registrar.metric("portolan_register_passes_total{outcome=\"ok\"}")
}

/// Waits until a registrar has compared so many times more.
pub(crate) fn wait_for_passes(registrar: &Registrar, more: f64) {
    let before = passes(registrar);
    eventually(LATE, "it has looked again", || {
        let now = passes(registrar);
        ensure(now >= before + more, || now.to_string())
    });
}
