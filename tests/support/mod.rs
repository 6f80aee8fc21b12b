//! The one way to start things in tests: Consul, HAProxy, Portolan, a scripted upstream, and the one
//! DNS client. Every program listens on loopback, on ports it was given by the system, keeps its log
//! in a file of its own, shows that log when the test fails, and is killed when its value is dropped.

// Each test target compiles all of this and uses a part of it.
#![allow(dead_code)]

pub(crate) mod certificates;
pub(crate) mod cluster;
pub(crate) mod compare;
pub(crate) mod consul;
pub(crate) mod dig;
pub(crate) mod dns;
pub(crate) mod docker;
pub(crate) mod docker_proxy;
pub(crate) mod door;
pub(crate) mod fake_consul;
pub(crate) mod gate;
pub(crate) mod haproxy;
pub(crate) mod http;
pub(crate) mod leash;
pub(crate) mod portolan;
pub(crate) mod process;
pub(crate) mod recorder;
pub(crate) mod registrar;
pub(crate) mod request;
pub(crate) mod resources;
pub(crate) mod still;
pub(crate) mod upstream;
pub(crate) mod wire;

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Waits until `condition` holds and gives back what it found. The condition says in its `Err` what
/// is still missing; that is what the failure shows.
pub(crate) fn eventually<T>(
    within: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(missing) if start.elapsed() > within => {
                panic!("not within {within:?}: {what}; at the end: {missing}")
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Turns a condition into what `eventually` and `throughout` want.
pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Checks again and again for `during` that a condition holds, and says when it first did not.
pub(crate) fn throughout(
    during: Duration,
    every: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<(), String>,
) {
    let start = Instant::now();
    while start.elapsed() < during {
        if let Err(broken) = condition() {
            panic!("{what}: broken after {:?}: {broken}", start.elapsed());
        }
        thread::sleep(every);
    }
}

/// How long a soak lasts, or how much it does: `short` in a plain run, `long` under `tests/run --full`.
pub(crate) fn soak<T>(short: T, long: T) -> T {
    if env::var_os("PORTOLAN_FULL").is_some() {
        long
    } else {
        short
    }
}

/// Ends what goes on beside the work, however that ends.
pub(crate) struct AtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A loopback address that nothing else uses: all of 127/8 is ours. Programs that cannot be given
/// port 0 (Consul) get an address of their own, where no other test, and no outgoing connection of
/// this machine, can take the port between our finding it free and their binding it.
pub(crate) fn own_loopback() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let [block, instance] = [number / 254, number % 254].map(|part| part as u8);
    assert!(block < 2, "more than 508 programs in one test process");
    let process = std::process::id();
    let [high, low] = ((process % (64 * 256)) as u16).to_be_bytes();
    Ipv4Addr::new(127, 64 * (1 + block) + high, low, 1 + instance)
}

/// `N` different ports that are free on `ip`, for UDP as well as TCP.
pub(crate) fn free_ports<const N: usize>(ip: Ipv4Addr) -> [u16; N] {
    // All are held until the last is found, so that no port is given twice.
    let held: [(TcpListener, UdpSocket); N] = std::array::from_fn(|_| bind_both(ip.into()));
    held.map(|(tcp, _)| port_of(&tcp))
}

/// A TCP listener and a UDP socket on the same port of `ip`.
pub(crate) fn bind_both(ip: IpAddr) -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind(SocketAddr::new(ip, 0)).expect("a free TCP port on loopback");
        if let Ok(udp) = UdpSocket::bind(SocketAddr::new(ip, port_of(&tcp))) {
            return (tcp, udp);
        }
    }
    panic!("no port of {ip} is free for both UDP and TCP");
}

fn port_of(listener: &TcpListener) -> u16 {
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

/// Where the program `name` is. A test that needs a missing program fails; it is never skipped.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        // HAProxy lives in sbin, which is not on everybody's PATH.
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("the program `{name}` is missing: run tests/run, it installs it"))
}

/// Writes `text` to `directory/name` in the way an editor does: complete, then renamed into place.
pub(crate) fn write_file(directory: &Path, name: &str, text: &str) -> PathBuf {
    let file = directory.join(name);
    let half = directory.join(format!(".{name}.part"));
    std::fs::write(&half, text).expect("writing a file of the test");
    std::fs::rename(&half, &file).expect("renaming a file of the test");
    file
}

/// A directory that vanishes with the value.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("portolan-test-")
        .tempdir()
        .expect("a temporary directory")
}
