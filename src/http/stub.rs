//! The addresses of the names in our own URLs, by hickory's stub resolver: `/etc/hosts`, then the servers
//! of `resolv.conf`, both as they are at that moment. The C library would do it in a thread that nobody
//! can stop, which holds up the end of the process for as long as DNS does not answer.

use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Whoever has no `resolv.conf` is asked here (resolv.conf(5)).
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Looks up the names of URLs.
#[derive(Debug, Default)]
pub(super) struct Stub {
    /// A name that is put into a URL for the sake of a certificate, and the host that it stands for.
    pub(super) renamed: Option<(String, String)>,
}

impl Resolve for Stub {
    fn resolve(&self, name: Name) -> Resolving {
        let renamed = self
            .renamed
            .as_ref()
            .filter(|(own, _)| own == name.as_str());
        let host = renamed.map_or(name.as_str(), |(_, host)| host).to_owned();
        Box::pin(async move { addresses(&host).await })
    }
}

async fn addresses(host: &str) -> Result<Addrs, Box<dyn StdError + Send + Sync>> {
    // A literal that stands behind a name never goes to a server.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(Box::new(std::iter::once(SocketAddr::new(address, 0))));
    }
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        let local = NameServerConfig::udp_and_tcp(LOCAL);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![local]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    });
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Another name is looked up by another resolver, so nothing would ever be found again.
    options.cache_size = 0;
    let found = builder.build()?.lookup_ip(host).await?;
    let found: Vec<SocketAddr> = found.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
    Ok(Box::new(found.into_iter()))
}
