//! What a running process says at its admin address.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{ClientBuilder, Method, StatusCode};
use url::Url;

use crate::http::{self, Endpoint, Tls};

/// How long an answer may take. It is made from memory.
const PATIENCE: Duration = Duration::from_secs(3);

/// What it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// How it went.
    pub(super) status: StatusCode,
    /// The body.
    pub(super) text: String,
}

/// Asks the process with this admin address for a page.
///
/// # Errors
/// Why it says nothing, for people.
pub(super) async fn ask(admin: Option<SocketAddr>, page: &str) -> Result<Said, String> {
    let Some(address) = admin else {
        return Err("the admin address is `none`: set admin.listen to be able to ask".to_owned());
    };
    let url = format!("http://{}/{page}", reachable(address));
    let refused = |error: &dyn Display| format!("{url}: {error}");
    let parsed = Url::parse(&url).map_err(|error| refused(&error))?;
    let tune = |builder: ClientBuilder| builder.timeout(PATIENCE);
    let client = http::Client::new(&Endpoint::Http(parsed.clone()), &Tls::default(), tune);
    let client = client.map_err(|error| refused(&error))?;
    let said = async {
        let response = client.request(Method::GET, parsed).send().await?;
        let status = response.status();
        let text = response.text().await?;
        Ok::<_, reqwest::Error>(Said { status, text })
    };
    said.await.map_err(|error| {
        if error.is_connect() {
            format!("nobody listens on {address}, the admin address")
        } else {
            refused(&error.without_url())
        }
    })
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
