//! dnsmasq: the services as a file of hosts and `srv-host` lines, everything else forwarded and cached.

use super::Setup;
use crate::server::write;
use std::{fmt::Write as _, io, process::Command};

pub(super) fn command(setup: &Setup<'_>) -> io::Result<Command> {
    let (mut hosts, mut records) = (String::new(), String::new());
    for (name, instances) in &setup.world.services {
        for instance in instances {
            let (address, port, target) = (instance.address, instance.port, instance.target());
            let _ = writeln!(hosts, "{address} {name}.service.consul {target}.consul");
            let _ = writeln!(
                records,
                "srv-host={name}.service.consul,{target}.consul,{port},1,1"
            );
        }
    }
    let hosts = write(&setup.directory, "hosts", &hosts)?;
    let (ip, port) = (setup.address.ip(), setup.address.port());
    // By default it refuses the 151st question that waits: a machine that halts for a moment is enough.
    let mut text = format!(
        "keep-in-foreground\nuser=root\npid-file=\nport={port}\nlisten-address={ip}\nbind-interfaces\n\
         no-resolv\nno-hosts\nno-poll\nlog-facility=-\naddn-hosts={}\nlocal=/consul/\nlocal-ttl=1\n\
         edns-packet-max=4096\ncache-size=10000\n\
         dns-forward-max=10000\n{records}",
        hosts.display()
    );
    if let Some(upstream) = setup.upstream {
        let (ip, port) = (upstream.ip(), upstream.port());
        let _ = writeln!(text, "server={ip}#{port}");
    }
    let file = write(&setup.directory, "dnsmasq.conf", &text)?;
    let mut command = Command::new("dnsmasq");
    command.arg(format!("--conf-file={}", file.display()));
    Ok(command)
}
