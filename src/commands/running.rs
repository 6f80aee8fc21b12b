//! `portolan check --running`: asks the Portolan that runs here whether it is ready. It is what a
//! container's HEALTHCHECK runs, where there is no other program to ask with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::config::Config;

use super::{Failure, serve};

/// How long the answer may take. It is made from memory.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `/ready` of the admin address in `config` and prints what it says.
///
/// # Errors
/// [`Failure::NotReady`] unless it is ready.
#[expect(clippy::print_stdout, reason = "the answer is the command's output")]
pub(super) fn ask(config: &Config) -> Result<(), Failure> {
    let not_ready = |why: String| Failure::NotReady { why };
    let Some(address) = config.admin else {
        let why = "the admin server is switched off, so there is nobody to ask".to_owned();
        return Err(not_ready(why));
    };
    let url = format!("http://{}/ready", reachable(address));
    // Nothing here is for TLS. The library wants its cryptography all the same, and would look for
    // authorities, which fails where there are none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let answer = serve::runtime()?.block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(PATIENCE)
            .build()?;
        let response = client.get(&url).send().await?;
        let ready = response.status().is_success();
        Ok::<_, reqwest::Error>((ready, response.text().await?))
    });
    match answer {
        Ok((true, said)) => {
            print!("{said}");
            Ok(())
        }
        Ok((false, said)) => Err(not_ready(said.trim_end().replace('\n', ", "))),
        Err(error) => {
            let why = if error.is_connect() {
                format!("nobody listens on {address}, the admin address")
            } else {
                format!("{url}: {}", error.without_url())
            };
            Err(not_ready(why))
        }
    }
}

/// Where to ask a server that listens on `address`, which may be all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}
