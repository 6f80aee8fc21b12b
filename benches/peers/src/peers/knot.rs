//! Knot DNS, with the services as a zone.

use super::Setup;
use crate::server::write;
use std::{io, process::Command};

pub(super) fn command(setup: &Setup<'_>) -> io::Result<Command> {
    let zone = write(&setup.directory, "consul.zone", &setup.world.zone())?;
    let (directory, zone) = (setup.directory.display(), zone.display());
    let (ip, port, workers) = (setup.address.ip(), setup.address.port(), setup.workers);
    // Without the larger payload it would cut at 1232 bytes what Portolan sends whole.
    let text = format!(
        "server:\n    rundir: \"{directory}\"\n    listen: {ip}@{port}\n    \
         udp-workers: {workers}\n    tcp-workers: 1\n    background-workers: 1\n    \
         udp-max-payload: 4096\n\
         log:\n  - target: stderr\n    any: warning\n\
         database:\n    storage: \"{directory}\"\n\
         zone:\n  - domain: consul.\n    file: \"{zone}\"\n    \
         zonefile-sync: -1\n    journal-content: none\n"
    );
    let file = write(&setup.directory, "knot.conf", &text)?;
    let mut command = Command::new("knotd");
    command.arg("--config").arg(file);
    Ok(command)
}
