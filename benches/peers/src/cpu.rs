//! Processor time and cores, as the kernel counts them.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::{collections::BTreeMap, fs, io, time::Duration};

/// Keeps the calling thread on these cores.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Processor time that each thread of a process has used so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Used(BTreeMap<u32, Duration>);

impl Used {
    /// What a thread used since it was last switched out may be missing, so ask while the process has
    /// nothing to do.
    pub(crate) fn by(pid: u32) -> io::Result<Self> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            // A thread may end between the list and this.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let id = task.file_name().to_str().and_then(|id| id.parse().ok());
            let nanoseconds = text.split(' ').next().and_then(|used| used.parse().ok());
            if let (Some(id), Some(nanoseconds)) = (id, nanoseconds) {
                threads.insert(id, Duration::from_nanos(nanoseconds));
            }
        }
        Ok(Self(threads))
    }

    /// What each thread used since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let since = |(id, now): (&u32, &Duration)| {
            let before = before.0.get(id).copied().unwrap_or_default();
            (*id, now.saturating_sub(before))
        };
        Self(self.0.iter().map(since).collect())
    }

    /// By all threads.
    pub(crate) fn total(&self) -> Duration {
        self.0.values().sum()
    }

    /// By the thread that used most.
    pub(crate) fn busiest(&self) -> Duration {
        self.0.values().max().copied().unwrap_or_default()
    }
}
