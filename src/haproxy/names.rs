//! What DNS says to the names that server lines ask for, where Consul has not said it already: by tag, of another
//! datacenter, a prepared query.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::{Name, RData, Record};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::account::{Asked, Endpoints, Server};

/// How long an answer of the DNS server may take, and all of them together.
const PATIENCE: Duration = Duration::from_secs(1);
const ASKING: Duration = Duration::from_secs(2);

/// Names that are asked for at a time, and at a look. Those that are left come first the next time.
const AT_A_TIME: usize = 16;
const MOST: usize = 256;

/// The DNS server that HAProxy asks.
#[derive(Clone)]
pub(super) struct Names {
    dns: TokioResolver,
    /// The last name that was asked for, where not all were.
    last: Option<Asked>,
}

impl Names {
    /// Names for which this DNS server is asked.
    ///
    /// # Errors
    /// If the DNS library cannot be set up.
    pub(super) fn new(resolver: SocketAddr) -> Result<Self, NetError> {
        // Over TCP an answer is whole, however large it is.
        let mut tcp = ConnectionConfig::tcp();
        tcp.port = resolver.port();
        let server = NameServerConfig::new(resolver.ip(), true, vec![tcp]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = PATIENCE;
        options.attempts = 1;
        options.cache_size = 0;
        Ok(Self {
            dns: builder.build()?,
            last: None,
        })
    }

    /// Adds to what is known what DNS says of the other names of HAProxy's servers; nothing where it does not answer.
    pub(super) async fn complete(&mut self, servers: &[Server<'_>], known: &mut Endpoints) {
        let asked = servers.iter().filter_map(|server| server.asked.as_ref());
        let asked = asked.filter(|asked| !known.contains_key(asked));
        let asked: BTreeSet<Asked> = asked.cloned().collect();
        let (before, after): (Vec<_>, Vec<_>) = match &self.last {
            Some(last) => asked.into_iter().partition(|asked| asked <= last),
            None => (Vec::new(), asked.into_iter().collect()),
        };
        let all = before.len() + after.len();
        let mut waiting = after.into_iter().chain(before).take(MOST);
        let mut number = 0;
        let until = Instant::now() + ASKING;
        let mut asking = JoinSet::new();
        loop {
            if asking.len() < AT_A_TIME
                && let Some(asked) = waiting.next()
            {
                number += 1;
                self.last = (number < all).then(|| asked.clone());
                let dns = self.dns.clone();
                asking.spawn(async move {
                    let said = ask(&dns, &asked).await;
                    (asked, said)
                });
                continue;
            }
            match timeout_at(until, asking.join_next()).await {
                Ok(Some(Ok((asked, Ok(endpoints))))) => {
                    known.insert(asked, endpoints);
                }
                Ok(Some(Ok((asked, Err(error))))) => {
                    debug!(name = asked.name, error, "no answer of DNS")
                }
                Ok(Some(Err(_))) => {}
                // All have been asked, or the time is up.
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// The endpoints behind a name.
    ///
    /// # Errors
    /// In words, if there is no answer. That there is no such name is one.
    pub(super) async fn ask(&self, asked: &Asked) -> Result<HashSet<SocketAddr>, String> {
        ask(&self.dns, asked).await
    }
}

async fn ask(dns: &TokioResolver, asked: &Asked) -> Result<HashSet<SocketAddr>, String> {
    let name = format!("{}.", asked.name);
    if !asked.is_srv {
        let ips = addresses(dns, &name).await?;
        return Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect());
    }
    let Some(said) = answer(dns.srv_lookup(name).await)? else {
        return Ok(HashSet::new());
    };
    let mut known: HashMap<&Name, HashSet<IpAddr>> = HashMap::new();
    for record in said.additionals() {
        known.entry(&record.name).or_default().extend(ip(record));
    }
    let mut endpoints = HashSet::new();
    for record in said.answers() {
        let RData::SRV(srv) = &record.data else {
            continue;
        };
        let ips = match known.get(&srv.target) {
            Some(ips) => ips.clone(),
            None => addresses(dns, &srv.target.to_string()).await?,
        };
        endpoints.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, srv.port)));
    }
    Ok(endpoints)
}

async fn addresses(dns: &TokioResolver, name: &str) -> Result<HashSet<IpAddr>, String> {
    let mut ips = HashSet::new();
    for said in [dns.ipv4_lookup(name).await, dns.ipv6_lookup(name).await] {
        if let Some(said) = answer(said)? {
            ips.extend(said.answers().iter().filter_map(ip));
        }
    }
    Ok(ips)
}

/// `None` for an answer that there is nothing.
fn answer(said: Result<Lookup, NetError>) -> Result<Option<Lookup>, String> {
    match said {
        Ok(lookup) => Ok(Some(lookup)),
        Err(error) if error.is_no_records_found() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn ip(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}
