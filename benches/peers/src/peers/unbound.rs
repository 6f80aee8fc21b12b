//! Unbound: the services as a zone that it answers for, everything else forwarded and cached.
//!
//! The zone is an `auth-zone` without minimal responses, not `local-data`: only that adds the addresses
//! to an SRV answer.

use super::Setup;
use crate::server::write;
use std::{fmt::Write as _, io, process::Command};

pub(super) fn command(setup: &Setup<'_>) -> io::Result<Command> {
    let zone = write(&setup.directory, "consul.zone", &setup.world.zone())?;
    let (directory, zone) = (setup.directory.display(), zone.display());
    let (ip, port, workers) = (setup.address.ip(), setup.address.port(), setup.workers);
    let minimal = if setup.upstream.is_some() {
        "yes"
    } else {
        "no"
    };
    let mut text = format!(
        "server:\n  interface: {ip}\n  port: {port}\n  num-threads: {workers}\n  so-reuseport: yes\n  \
         do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  directory: \"{directory}\"\n  \
         pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  verbosity: 0\n  \
         module-config: \"iterator\"\n  do-not-query-localhost: no\n  max-udp-size: 4096\n  \
         minimal-responses: {minimal}\n  \
         so-rcvbuf: 4m\n  so-sndbuf: 4m\n  msg-cache-size: 64m\n  rrset-cache-size: 128m\n\
         remote-control:\n  control-enable: no\n\
         auth-zone:\n  name: \"consul.\"\n  zonefile: \"{zone}\"\n  for-downstream: yes\n  \
         for-upstream: no\n  fallback-enabled: no\n"
    );
    if let Some(upstream) = setup.upstream {
        let (ip, port) = (upstream.ip(), upstream.port());
        let _ = write!(
            text,
            "forward-zone:\n  name: \".\"\n  forward-addr: {ip}@{port}\n"
        );
    }
    let file = write(&setup.directory, "unbound.conf", &text)?;
    let mut command = Command::new("unbound");
    command.args(["-d", "-c"]).arg(file);
    Ok(command)
}
