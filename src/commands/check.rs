//! `portolan check`: reads everything that `serve` would read, starts nothing, and says what
//! would be served. With `--running` it asks the one that runs whether it is ready.

use std::fmt::Display;
use std::path::Path;

use crate::config::{Config, DEFAULT_FILE, Flags, Process};
use crate::files;

use super::{Failure, parts, running};

/// `portolan check`: checks, and prints a summary; or asks the `running` server, and prints what
/// it says.
///
/// # Errors
/// [`Failure`]: the first thing that is wrong.
#[expect(clippy::print_stdout, reason = "the summary is the command's output")]
pub fn check(flags: &Flags, running: bool) -> Result<(), Failure> {
    let config = Config::load(flags, &Process, Some(Path::new(DEFAULT_FILE)))?;
    if running {
        return running::ask(&config);
    }
    let origins = parts::service_origins(&config);
    let definitions = files::load(&origins, &parts::file_host(&config))?;
    let zones = parts::zones(&config)?;
    let origins = list(zones.origins().iter());
    let recursion = parts::recursion_settings(&config)?;
    let upstreams = recursion.as_ref().map_or_else(
        || "off".to_owned(),
        |settings| list(settings.upstreams.iter()),
    );
    if let Some(consul) = &config.consul {
        parts::consul_client(consul)?;
    }
    let docker = match config.docker.serve {
        true => parts::docker_client(&config.docker)?.address().to_owned(),
        false => "none".to_owned(),
    };
    parts::policy(&config, zones, None)?;

    let file = config
        .file
        .as_ref()
        .map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    let consul = config
        .consul
        .as_ref()
        .map_or_else(|| "none".to_owned(), |consul| consul.address.to_string());
    let admin = config
        .admin
        .map_or_else(|| "none".to_owned(), |address| address.to_string());
    println!("configuration  {file}");
    println!("listen         {}", list(config.server.listen.iter()));
    println!(
        "domain         {}",
        list(std::iter::once(&config.domain).chain(&config.alt_domain))
    );
    println!("consul         {consul}");
    println!("docker         {docker}");
    println!(
        "service files  {} services, {} instances",
        definitions.services(),
        definitions.instances()
    );
    println!("zones          {origins}");
    println!("upstreams      {upstreams}");
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
