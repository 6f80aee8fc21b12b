//! Portolan, on service-definition files, or beside the Consul that it is compared with.

use super::{Setup, built};
use crate::server::write;
use std::{fs, io, path::PathBuf, process::Command};

pub(super) fn program() -> PathBuf {
    built("release/portolan")
}

pub(super) fn command(setup: &Setup<'_>) -> io::Result<Command> {
    let mut command = Command::new(program());
    command
        .args(["serve", "--admin", "none"])
        .args(["--listen", &setup.address.to_string()])
        .args(["--workers", &setup.workers.to_string()]);
    match setup.upstream {
        Some(upstream) => command.args(["--upstream", &upstream.to_string()]),
        None => command.args(["--upstream", "none"]),
    };
    match setup.consul {
        Some(consul) => command.args(["--consul", &format!("http://{consul}")]),
        None => {
            let services = setup.directory.join("services");
            fs::create_dir_all(&services)?;
            write(&services, "services.json", &setup.world.definitions())?;
            command
                .args(["--consul", "none", "--services"])
                .arg(services)
        }
    };
    Ok(command)
}
