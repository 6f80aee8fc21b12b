//! `portolan check`: makes everything that `serve` would be made of, starts nothing, and says what would be
//! served, or everything that is wrong. With `--running` it asks the one that runs whether it is ready,
//! which is what a container's HEALTHCHECK runs, where there is no other program to ask with.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{ClientBuilder, Method};
use url::Url;

use crate::config::{Config, Flags};
use crate::docker;
use crate::http::{self, Endpoint, Tls};

use super::build::{Local, Unnamed};
use super::{Failure, process};

/// How long the answer of a running server may take. It is made from memory.
const PATIENCE: Duration = Duration::from_secs(3);

/// `portolan check`: checks, and prints a summary; or asks the `running` server, and prints what
/// it says.
///
/// # Errors
/// [`Failure`]: all that is wrong.
#[expect(clippy::print_stdout, reason = "the summary is the command's output")]
pub fn check(flags: &Flags, running: bool) -> Result<(), Failure> {
    let loaded = process::load(Config::of(flags.verb), flags);
    if running {
        return ask(&loaded.into_config()?);
    }
    let local = Local::new(loaded, Unnamed::Nothing)?;
    let config = &local.config;
    let file = list(config.file.iter().map(|path| path.display()));
    let consul = list(config.consul.address.iter());
    let admin = list(config.admin.listen.iter());
    let docker = list(local.docker.iter().map(docker::Client::address));
    let upstreams = match &local.upstreams {
        Some(upstreams) if upstreams.is_empty() => {
            "none yet, or none beside those of domains".to_owned()
        }
        Some(upstreams) => list(upstreams.iter()),
        None => "off".to_owned(),
    };
    println!("configuration  {file}");
    println!("listen         {}", list(config.server.listen.iter()));
    println!(
        "domain         {}",
        list(std::iter::once(&config.domain).chain(&config.alt_domain))
    );
    println!("consul         {consul}");
    println!("docker         {docker}");
    let defined = local.files.as_ref().map(|files| &files.definitions);
    let (services, instances) = defined.map_or((0, 0), |all| (all.services(), all.instances()));
    println!("service files  {services} services, {instances} instances");
    println!("zones          {}", list(local.zones.origins().iter()));
    println!("hosts          {} names", local.zones.hosts());
    println!("upstreams      {upstreams}");
    for forward in &config.recursion.forward {
        let (domain, to) = (&forward.domain, list(forward.upstreams.iter()));
        println!("forward        {domain} to {to}");
    }
    println!("admin          {admin}");
    println!("all is right");
    Ok(())
}

fn list<T: Display>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    if items.is_empty() {
        "none".to_owned()
    } else {
        items.join(", ")
    }
}

/// Asks `/ready` of the admin address in `config` and prints what it says.
///
/// # Errors
/// [`Failure::NotReady`] unless it is ready.
#[expect(clippy::print_stdout, reason = "the answer is the command's output")]
fn ask(config: &Config) -> Result<(), Failure> {
    let not_ready = |why: String| Failure::NotReady { why };
    let Some(address) = config.admin.listen else {
        let why = "the admin address is `none`: set admin.listen to use --running".to_owned();
        return Err(not_ready(why));
    };
    let url = format!("http://{}/ready", reachable(address));
    let refused = |error: &dyn Display| not_ready(format!("{url}: {error}"));
    let parsed = Url::parse(&url).map_err(|error| refused(&error))?;
    let tune = |builder: ClientBuilder| builder.timeout(PATIENCE);
    let client = http::Client::new(&Endpoint::Http(parsed.clone()), &Tls::default(), tune);
    let client = client.map_err(|error| refused(&error))?;
    let answer = process::runtime()?.block_on(async {
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
