//! Does HAProxy hold the servers that Consul has? Some releases cease to fill slots, or keep a server
//! that is gone, and only a reload helps them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::rr::RData;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::master::{Endpoints, servers};
use super::metrics::Metrics;

/// As many instances fit into an answer of the size that the template in the program takes. Of more,
/// HAProxy holds a part that cannot be foretold.
const FITTING: usize = 100;

/// How long an answer of the DNS server may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long all questions of one look may take, and how many there may be. Those that are left come first
/// the next time.
const ASKING: Duration = Duration::from_secs(2);
const ASKED: usize = 8;

/// The shortest and the longest time between two reloads that are to heal.
const FIRST_REST: Duration = Duration::from_secs(60);
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// What a look calls for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Well,
    /// A reload, for the sake of these backends.
    Heal(Vec<String>),
}

/// Compares, and remembers since when something is wrong.
pub(super) struct Watchdog {
    dns: TokioResolver,
    domain: String,
    after: Duration,
    metrics: Metrics,
    wrong: HashMap<String, Wrong>,
    rest: Duration,
    rest_until: Option<Instant>,
}

/// A backend that differs.
struct Wrong {
    since: Instant,
    /// When DNS was last asked for it.
    asked: Option<Instant>,
    is_told: bool,
}

impl Watchdog {
    /// A watchdog that asks this DNS server when in doubt.
    ///
    /// # Errors
    /// If the DNS library cannot be set up.
    pub(super) fn new(
        resolver: SocketAddr,
        domain: &str,
        after: Duration,
        metrics: Metrics,
    ) -> Result<Self, NetError> {
        let mut udp = ConnectionConfig::udp();
        udp.port = resolver.port();
        let mut tcp = ConnectionConfig::tcp();
        tcp.port = resolver.port();
        let server = NameServerConfig::new(resolver.ip(), true, vec![udp, tcp]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = PATIENCE;
        options.attempts = 1;
        options.cache_size = 0;
        Ok(Self {
            dns: builder.build()?,
            domain: domain.to_owned(),
            after,
            metrics,
            wrong: HashMap::new(),
            rest: FIRST_REST,
            rest_until: None,
        })
    }

    /// How long something must have been wrong.
    pub(super) fn after(&self) -> Duration {
        self.after
    }

    /// Compares HAProxy's account with Consul's instances.
    pub(super) async fn look(&mut self, account: &str, known: &Endpoints) -> Verdict {
        let differing = differing(account, known, &self.domain);
        self.wrong.retain(|name, _| differing.contains(name));
        let now = Instant::now();
        let mut sick = Vec::new();
        let mut due = Vec::new();
        for name in differing {
            let wrong = self.wrong.entry(name.clone()).or_insert(Wrong {
                since: now,
                asked: None,
                is_told: false,
            });
            if now.duration_since(wrong.since) >= self.after {
                due.push((wrong.asked, name));
            }
        }
        due.sort();
        for (_, name) in due.into_iter().take(ASKED) {
            let Some(wrong) = self.wrong.get_mut(&name) else {
                continue;
            };
            wrong.asked = Some(Instant::now());
            let expected = known.get(&name).map_or(0, HashSet::len);
            // Asked only now: most differences are over by the next answer of DNS.
            let said = said_by_dns(&self.dns, &name, &self.domain);
            let Ok(said) = timeout_at(now + ASKING, said).await else {
                break;
            };
            let side = match said {
                Ok(said) if said == expected => "haproxy",
                _ => "dns",
            };
            if !std::mem::replace(&mut wrong.is_told, true) {
                self.metrics.diverged(side);
                let dns = said.map_or_else(|error| error, |said| said.to_string());
                warn!(
                    service = name,
                    instances = expected,
                    dns,
                    side,
                    "HAProxy's servers differ from Consul's"
                );
            }
            if side == "haproxy" {
                sick.push(name);
            }
        }
        if self.wrong.is_empty() && self.rest_until.is_some_and(|until| until <= now) {
            (self.rest, self.rest_until) = (FIRST_REST, None);
        }
        let rests = self.rest_until.is_some_and(|until| until > now);
        if sick.is_empty() || rests {
            return Verdict::Well;
        }
        self.rest_until = Some(now + self.rest);
        self.rest = (self.rest * 2).min(LONGEST_REST);
        self.wrong.clear();
        Verdict::Heal(sick)
    }
}

/// How many instances DNS has.
async fn said_by_dns(dns: &TokioResolver, name: &str, domain: &str) -> Result<usize, String> {
    let question = format!("_{name}._tcp.service.{domain}.");
    match dns.srv_lookup(question).await {
        Ok(lookup) => {
            let records = lookup.answers().iter();
            let records = records.filter(|record| matches!(record.data, RData::SRV(_)));
            Ok(records.count())
        }
        Err(error) => {
            debug!(service = name, %error, "no answer of DNS");
            Err(error.to_string())
        }
    }
}

/// The services whose servers are not those that they should be.
fn differing(account: &str, known: &Endpoints, domain: &str) -> BTreeSet<String> {
    let mut held: HashMap<(&str, &str), (HashSet<SocketAddr>, usize)> = HashMap::new();
    let servers = servers(account);
    for server in &servers {
        if let Some(service) = server.service(domain) {
            let (endpoints, slots) = held.entry((server.backend, service)).or_default();
            endpoints.extend(server.endpoint);
            *slots += 1;
        }
    }
    let wrong = held.into_iter().filter(|((_, service), (held, slots))| {
        // Where there is no healthy instance, HAProxy keeps the last ones for a while.
        let Some(expected) = known.get(*service).filter(|known| !known.is_empty()) else {
            return false;
        };
        let enough = expected.len().min(*slots).min(FITTING);
        held.len() < enough || !held.is_subset(expected)
    });
    wrong.map(|((_, service), _)| service.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::haproxy::master::EMPTY;

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    /// An account of one backend with these servers and one free slot.
    fn account(lasts: &[u8]) -> String {
        let line = |address: &str, port: u16| {
            format!(
                "3 web 1 s1 {address} 2 64 1 1 9 6 3 4 6 0 0 0 x.addr.dc1.consul {port} \
                 _web._tcp.service.consul 0 0 - - 0\n"
            )
        };
        let lines: String = lasts
            .iter()
            .map(|last| line(&endpoint(*last).ip().to_string(), 80))
            .collect();
        format!("{EMPTY}{lines}{}", line("-", 0))
    }

    #[test]
    fn what_is_missing_and_what_is_too_much() {
        let known = |lasts: &[u8]| {
            let endpoints = lasts.iter().map(|last| endpoint(*last)).collect();
            Endpoints::from([("web".to_owned(), endpoints)])
        };
        let differs =
            |held: &[u8], is: &[u8]| !differing(&account(held), &known(is), "consul").is_empty();
        assert!(!differs(&[1, 2], &[1, 2]));
        assert!(differs(&[1], &[1, 2]), "one is missing");
        assert!(differs(&[1, 2], &[1]), "one is too much");
        assert!(!differs(&[1, 2], &[]), "the last ones are kept for a while");
        let two = account(&[1, 2]);
        let (full, _) = two.rsplit_once("3 web").expect("a free slot");
        assert!(
            differing(full, &known(&[1, 2, 3]), "consul").is_empty(),
            "no slot is free"
        );
    }
}
