//! Processor time and cores, as the kernel counts them.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::{fs, io, time::Duration};

/// Keeps the calling thread, and the threads and processes that it starts from now on, on these cores.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Processor time that each thread of a process has used so far. What a thread used since it was
/// last switched out may be missing, so ask while it has nothing to do.
pub(crate) fn used(pid: u32) -> io::Result<Vec<(u32, Duration)>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        // A thread may end between the list and this.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
            continue;
        };
        let id = task.file_name().to_str().and_then(|id| id.parse().ok());
        let nanoseconds = text.split(' ').next().and_then(|used| used.parse().ok());
        if let (Some(id), Some(nanoseconds)) = (id, nanoseconds) {
            threads.push((id, Duration::from_nanos(nanoseconds)));
        }
    }
    Ok(threads)
}

/// The sum over all threads.
pub(crate) fn total(threads: &[(u32, Duration)]) -> Duration {
    threads.iter().map(|(_, used)| *used).sum()
}
