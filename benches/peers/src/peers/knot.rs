//! Knot DNS: with the services as a zone, and as the upstream that knows every name below one.

use super::Setup;
use crate::server::{Server, free_port, write};
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

/// The zone in which every name has an address.
pub(crate) const WILDCARD: &str = "wildcard.example.com.";

/// Starts one that knows all names below [`WILDCARD`].
pub(crate) fn start_wildcard(cores: &[usize], directory: &Path) -> io::Result<Server> {
    let directory = directory.join("wildcard");
    fs::create_dir_all(&directory)?;
    let zone = format!(
        "$ORIGIN {WILDCARD}\n$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\n\
         ns A 127.0.0.1\n* A 192.0.2.1\n* A 192.0.2.2\n"
    );
    let address = (Ipv4Addr::LOCALHOST, free_port()?).into();
    let command = on_zone(WILDCARD, &zone, &directory, address, 1)?;
    Server::start(&command, cores, address, directory.join("log"))
}

pub(super) fn command(setup: &Setup<'_>) -> io::Result<Command> {
    on_zone(
        "consul.",
        &setup.world.zone(),
        &setup.directory,
        setup.address,
        setup.workers,
    )
}

fn on_zone(
    domain: &str,
    zone: &str,
    directory: &Path,
    address: SocketAddr,
    workers: usize,
) -> io::Result<Command> {
    let zone = write(directory, "served.zone", zone)?;
    let (ip, port) = (address.ip(), address.port());
    let (folder, zone) = (directory.display(), zone.display());
    // Without the larger payload it would cut at 1232 bytes what Portolan sends whole.
    let text = format!(
        "server:\n    rundir: \"{folder}\"\n    listen: {ip}@{port}\n    \
         udp-workers: {workers}\n    tcp-workers: 1\n    background-workers: 1\n    \
         udp-max-payload: 4096\n\
         log:\n  - target: stderr\n    any: warning\n\
         database:\n    storage: \"{folder}\"\n\
         zone:\n  - domain: {domain}\n    file: \"{zone}\"\n    \
         zonefile-sync: -1\n    journal-content: none\n"
    );
    let file = write(directory, "knot.conf", &text)?;
    let mut command = Command::new("knotd");
    command.arg("--config").arg(file);
    Ok(command)
}
