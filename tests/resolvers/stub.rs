//! The names in our own URLs, where DNS does not answer.

use crate::support::{directory, eventually, own_loopback, process::Process, program, write_file};
use std::{
    net::UdpSocket,
    process::Command,
    time::{Duration, Instant},
};

/// Where this machine says who its resolvers are. The test has one of its own there.
const RESOLV_CONF: &str = "/etc/resolv.conf";

#[test]
fn a_resolver_that_is_silent_does_not_hold_up_the_end() {
    let directory = directory();
    let ip = own_loopback();
    let silent =
        UdpSocket::bind((ip, 53)).expect("port 53 of an address of the test's own; be root");
    let resolv_conf = write_file(
        directory.path(),
        "resolv.conf",
        &format!("nameserver {ip}\n"),
    );
    let mut command = Command::new(program("unshare"));
    let script = format!(
        "mount --bind '{}' {RESOLV_CONF} && exec '{}' serve --consul http://consul.example.net:8500 \
         --upstream none --listen 127.0.0.1:0 --admin none",
        resolv_conf.display(),
        env!("CARGO_BIN_EXE_portolan")
    );
    command.args(["--mount", "sh", "-c", &script]);
    let mut portolan = Process::start("Portolan", command, &directory.path().join("log"));
    silent
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    let mut query = [0; 512];
    let (length, _) = silent
        .recv_from(&mut query)
        .expect("it asks for Consul's name");
    let asked = String::from_utf8_lossy(&query[..length]).into_owned();
    assert!(asked.contains("consul"), "{asked:?}");
    let start = Instant::now();
    portolan.signal("TERM");
    eventually(Duration::from_secs(20), "it ends", || {
        portolan.ended().ok_or_else(|| "it still runs".to_owned())
    });
    let took = start.elapsed();
    assert!(
        took < Duration::from_secs(1),
        "{took:?}: {}",
        portolan.log()
    );
}
