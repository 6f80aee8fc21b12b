//! hickory-dns, the program of the crates that Portolan uses as libraries.

use super::{Setup, built};
use crate::server::write;
use std::{fmt::Write as _, io, path::PathBuf, process::Command};

pub(super) fn program() -> PathBuf {
    built("programs/hickory/bin/hickory-dns")
}

pub(super) fn command(setup: &Setup<'_>) -> io::Result<Command> {
    write(&setup.directory, "consul.zone", &setup.world.zone())?;
    let (directory, port) = (setup.directory.display(), setup.address.port());
    let (ip, workers) = (setup.address.ip(), setup.workers);
    // As root it would become `nobody`, who may not read these files.
    let mut text = format!(
        "listen_addrs_ipv4 = [\"{ip}\"]\nlisten_port = {port}\ndirectory = \"{directory}\"\n\
         user = \"root\"\ngroup = \"root\"\n\
         [udp_socket]\nrecv_buffer_size = 4194304\nsend_buffer_size = 4194304\nsockets = {workers}\n\
         [[zones]]\nzone = \"consul.\"\nzone_type = \"Primary\"\nfile = \"consul.zone\"\n"
    );
    if let Some(upstream) = setup.upstream {
        let (ip, port) = (upstream.ip(), upstream.port());
        let _ = write!(
            text,
            "[[zones]]\nzone = \".\"\nzone_type = \"External\"\n\
             [zones.stores]\ntype = \"forward\"\nname_servers = [{{ ip = \"{ip}\", \
             connections = [{{ port = {port}, protocol = {{ type = \"udp\" }} }}] }}]\n"
        );
    }
    let file = write(&setup.directory, "hickory.toml", &text)?;
    let mut command = Command::new(program());
    command
        .args(["--quiet", "--workers", &workers.to_string(), "--config"])
        .arg(file);
    Ok(command)
}
