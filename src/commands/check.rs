//! `portolan check`: makes everything that `serve` would be made of, starts nothing, and says what would be
//! served, or everything that is wrong. With `--running` it asks the one that runs whether it is ready,
//! which is what a container's HEALTHCHECK runs, where there is no other program to ask with.

use std::fmt::Display;

use crate::config::{Config, Flags};
use crate::docker;

use super::build::{Local, Unnamed};
use super::running::{self, Said};
use super::{Failure, process};

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
    let said = process::runtime()?.block_on(running::ask(config.admin.listen, "ready"));
    let Said { status, text } = said.map_err(not_ready)?;
    if status.is_success() {
        print!("{text}");
        Ok(())
    } else {
        Err(not_ready(text.trim_end().replace('\n', ", ")))
    }
}
