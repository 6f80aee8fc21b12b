//! What should be registered, ready to be compared and sent: as the JSON that Consul's agent takes
//! (`PUT /v1/agent/service/register`, Consul 1.8 to current).

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_json::{Map, Value, json};

use crate::consul::AgentService;
use crate::docker::{Check, Healthcheck, Probe, Registration};

use super::due::TTL;
use super::identity::{CONTAINER, Identity, hash_of};

/// One service as it should be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its name.
    pub(super) name: String,
    /// `IP:PORT`.
    pub(super) endpoint: String,
    /// The name of its container.
    pub(super) container: String,
    /// What is sent, with our marks.
    pub(super) body: Value,
    /// The hash that stands in its marks.
    pub(super) hash: String,
    /// What its container's HEALTHCHECK says, if that is its check.
    pub(super) health: Option<Reported>,
}

/// A health that we report to a TTL check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reported {
    /// The check's ID at the agent.
    pub(super) check: String,
    /// `passing`, `warning` or `critical`.
    pub(super) status: String,
    /// It may be over in a moment.
    pub(super) is_paused: bool,
}

impl Wanted {
    /// The ID of its container.
    pub(super) fn container_id(&self) -> Option<&str> {
        self.body["Meta"][CONTAINER].as_str()
    }

    /// Its address.
    pub(super) fn address(&self) -> Option<&str> {
        self.body["Address"].as_str()
    }

    /// As the agent shows it once it is registered.
    pub(super) fn shown(&self) -> AgentService {
        let meta = self.body["Meta"].as_object().into_iter().flatten();
        let meta = meta.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        AgentService {
            name: self.name.clone(),
            meta: meta.collect(),
            address: self.address().unwrap_or_default().to_owned(),
            port: self.body["Port"].as_i64().unwrap_or_default(),
        }
    }

    /// Is it to have a check of its own?
    pub(super) fn has_check(&self) -> bool {
        self.body.get("Check").is_some()
    }

    /// What is sent, with a status that the check begins with, if it is another one than HEALTHCHECK's.
    pub(super) fn beginning_as(&self, status: Option<&str>) -> Value {
        let mut body = self.body.clone();
        if let (Some(status), true, None) = (status, self.has_check(), &self.health) {
            body["Check"]["Status"] = status.into();
        }
        body
    }

    fn new(registration: &Registration, identity: &Identity) -> Self {
        let mut body = body(registration, TTL);
        body["Meta"][CONTAINER] = registration.container_id.as_str().into();
        // What the HEALTHCHECK says changes while the service stays the same: not in the hash.
        let hash = hash_of(&body);
        let status = status(registration).map(str::to_owned);
        if let Some(status) = &status {
            body["Check"]["Status"] = status.as_str().into();
        }
        Self {
            name: registration.name.clone(),
            endpoint: endpoint(&registration.address.to_string(), registration.port),
            container: registration.container_name.clone(),
            body: identity.mark(body, &hash),
            hash,
            health: status.map(|status| Reported {
                check: registration.check_id(),
                status,
                is_paused: registration.health == Some(Healthcheck::Paused),
            }),
        }
    }
}

/// All that should be registered, by ID.
pub(super) fn wanted(
    registrations: &[Registration],
    identity: &Identity,
) -> BTreeMap<String, Wanted> {
    let entry = |registration: &Registration| {
        let wanted = Wanted::new(registration, identity);
        (registration.id.clone(), wanted)
    };
    registrations.iter().map(entry).collect()
}

/// The body by which a service that has gone is registered once more, so that the agent has a token to take it away
/// with. Nobody is to find it in between.
pub(super) fn going(id: &str, service: &AgentService) -> Value {
    json!({
        "ID": id,
        "Name": service.name,
        "Address": service.address,
        "Port": service.port,
        "Meta": service.meta,
        "Check": { "TTL": TTL, "Status": "critical" },
    })
}

/// An address and a port for people; an IPv6 address in brackets.
pub(super) fn endpoint(address: &str, port: impl Display) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// The body for a registration, without the owner's own keys in `Meta`. It depends on the
/// registration alone, and not on what a HEALTHCHECK says at the moment ([`status`]), so that it
/// can be compared with what was sent before. `health_ttl`, in Go's notation, is for how long
/// Consul believes what it was told about a HEALTHCHECK.
pub fn body(registration: &Registration, health_ttl: &str) -> Value {
    let mut body = json!({
        "ID": registration.id,
        "Name": registration.name,
        "Tags": registration.tags,
        "Address": registration.address,
        "Port": registration.port,
        "Meta": registration.meta,
        "EnableTagOverride": registration.enable_tag_override,
    });
    if !registration.tagged_addresses.is_empty() {
        let tagged = registration.tagged_addresses.iter();
        body["TaggedAddresses"] = tagged
            .map(|(tag, (address, port))| {
                (tag.clone(), json!({ "Address": address, "Port": port }))
            })
            .collect::<Map<String, Value>>()
            .into();
    }
    if let Some(weights) = &registration.weights {
        body["Weights"] = json!({ "Passing": weights.passing, "Warning": weights.warning });
    }
    if let Some(check) = &registration.check {
        body["Check"] = check_body(check, health_ttl);
    }
    body
}

/// The status that a HEALTHCHECK calls for now, where the registration has one: for the first
/// `Check.Status`, and for the updates of the TTL check [`Registration::check_id`]. A container
/// that is still starting is critical, as every TTL check is before its first report, unless
/// `SERVICE_CHECK_INITIAL_STATUS` says otherwise.
pub fn status(registration: &Registration) -> Option<&str> {
    let check = registration.check.as_ref()?;
    match (&check.probe, registration.health?) {
        (Probe::Health, Healthcheck::Healthy) => Some("passing"),
        (Probe::Health, Healthcheck::Unhealthy | Healthcheck::Paused) => Some("critical"),
        (Probe::Health, Healthcheck::Starting) => {
            Some(check.initial_status.as_deref().unwrap_or("critical"))
        }
        _ => None,
    }
}

fn check_body(check: &Check, health_ttl: &str) -> Value {
    let mut body = match &check.probe {
        Probe::Http { url, method } => match method {
            Some(method) => json!({ "HTTP": url, "Method": method }),
            None => json!({ "HTTP": url }),
        },
        Probe::Tcp { target } => json!({ "TCP": target }),
        Probe::Grpc { target, tls: true } => json!({ "GRPC": target, "GRPCUseTLS": true }),
        Probe::Grpc { target, tls: false } => json!({ "GRPC": target }),
        Probe::Script { args } => json!({ "Args": args }),
        Probe::Docker {
            container_id,
            shell,
            args,
        } => match shell {
            Some(shell) => json!({
                "DockerContainerID": container_id, "Shell": shell, "Args": args
            }),
            None => json!({ "DockerContainerID": container_id, "Args": args }),
        },
        Probe::Ttl { ttl } => json!({ "TTL": ttl }),
        Probe::Health => json!({ "TTL": health_ttl, "Name": "Docker HEALTHCHECK" }),
    };
    for (key, value) in [
        ("Interval", &check.interval),
        ("Timeout", &check.timeout),
        ("DeregisterCriticalServiceAfter", &check.deregister_after),
    ] {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    if let (Some(status), false) = (&check.initial_status, check.probe == Probe::Health) {
        body["Status"] = json!(status);
    }
    if check.tls_skip_verify {
        body["TLSSkipVerify"] = json!(true);
    }
    body
}
