//! What a process uses, as Linux counts it.

use super::AtEnd;
use std::{
    fs,
    net::{SocketAddr, SocketAddrV4},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

/// Processor time used so far, by all its threads that still run.
pub(crate) fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let nanoseconds = tasks.flatten().filter_map(|task| {
        // A thread may end between the list and this.
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Resident memory, in bytes.
pub(crate) fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.expect("VmRSS of a process") * 1024
}

/// How many connections `server` holds, from anybody: those that are established, and those that the
/// client has closed while the server is still at work for it, which it counts as well.
pub(crate) fn held(server: SocketAddr) -> usize {
    let SocketAddr::V4(server) = server else {
        panic!("{server} is not IPv4");
    };
    let table = fs::read_to_string("/proc/net/tcp").expect("the table of TCP sockets");
    let local = hex(server);
    table
        .lines()
        // Most lines are others', and there can be thousands.
        .filter(|line| line.contains(&local))
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns[1] == local && ["01", "08"].contains(&columns[3]))
        .count()
}

/// The most connections that `server` ever held while `work` went on.
pub(crate) fn most_held<T>(server: SocketAddr, work: impl FnOnce() -> T) -> (T, usize) {
    let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(held(server), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let _end = AtEnd(&done);
        work()
    });
    (result, most.into_inner())
}

/// As `/proc/net/tcp` has it: the address in the machine's order of bytes.
fn hex(address: SocketAddrV4) -> String {
    let ip = u32::from_ne_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}
