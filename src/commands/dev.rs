//! `portolan dev`: the server on its embedded catalog and zones, with no Consul, no root and no
//! file to write.

use std::path::Path;

use tracing::info;

use crate::config::{Config, Flags, Process, Switch};
use crate::files::Origin;
use crate::zones::Zones;

use super::serve::{Inputs, run, runtime};
use super::{Failure, logging, parts};

/// Where the services are in a clone of the repository, and in a folder made like it.
const SERVICES: &str = "zones/consul";
/// Where the zones are.
const ZONES: &str = "zones";

/// `portolan dev`: runs the development server until it is told to stop.
///
/// # Errors
/// [`Failure`]: what kept it from starting.
pub fn dev(mut flags: Flags) -> Result<(), Failure> {
    flags.consul = Some(Switch::Off);
    let config = Config::load(&flags, &Process, None)?;
    logging::start(config.log);
    let inputs = move |config: &Config| {
        // What is in front of the person goes before what is in the binary, so that an edit in
        // the clone is seen.
        let origins = if !config.services.is_empty() {
            parts::service_origins(config)
        } else if Path::new(SERVICES).is_dir() {
            vec![Origin::Directory(SERVICES.into())]
        } else {
            vec![Origin::Embedded]
        };
        let zones = if config.zones.is_some() {
            parts::zones(config)?
        } else if Path::new(ZONES).is_dir() {
            Zones::load(Path::new(ZONES))?
        } else {
            Zones::embedded()?
        };
        info!(?origins, "services come from here");
        Ok(Inputs { origins, zones })
    };
    run(&runtime()?, &config, Vec::new(), &inputs, &|| {
        Config::load(&flags, &Process, None)
    })
}
