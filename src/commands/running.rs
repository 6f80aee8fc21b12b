//! `portolan check --running`: asks the Portolan that runs here whether it is ready. It is what a
//! container's HEALTHCHECK runs, where there is no other program to ask with.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{ClientBuilder, Method};
use url::Url;

use crate::config::Config;
use crate::http::{self, Endpoint, Tls};

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
    let refused = |error: &dyn Display| not_ready(format!("{url}: {error}"));
    let parsed = Url::parse(&url).map_err(|error| refused(&error))?;
    let tune = |builder: ClientBuilder| builder.timeout(PATIENCE);
    let client = http::Client::new(&Endpoint::Http(parsed.clone()), &Tls::default(), tune);
    let client = client.map_err(|error| refused(&error))?;
    let answer = serve::runtime()?.block_on(async {
        let response = client.request(Method::GET, parsed).send().await?;
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
