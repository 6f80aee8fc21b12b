//! A bound on the processor time of a process, so that a load that this machine can make is many
//! times what the process can bear.

use super::{ensure, eventually};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often the time is dealt out, in microseconds: in pieces too small to be seen as pauses.
const PERIOD: u64 = 10_000;

/// Where the system keeps its control groups for processor time: one tree for each controller
/// (version 1), or one for all (version 2).
const OWN_TREES: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"];
const ONE_TREE: &str = "/sys/fs/cgroup";

/// A control group with one process in it. The bound ends when this is dropped.
pub(crate) struct Leash {
    group: PathBuf,
    pid: u32,
}

impl Leash {
    /// Lets a process have so many percent of one processor, all its threads together.
    pub(crate) fn new(pid: u32, percent: u64) -> Self {
        let name = format!("portolan-test-{pid}");
        let quota = PERIOD * percent / 100;
        let own = OWN_TREES.map(Path::new).into_iter().find(|tree| {
            tree.join("cpu.cfs_quota_us").exists() || tree.join("cpu.shares").exists()
        });
        let group = match own {
            Some(tree) => {
                let group = make(&tree.join(name));
                write(&group.join("cpu.cfs_period_us"), PERIOD);
                write(&group.join("cpu.cfs_quota_us"), quota);
                group
            }
            None => {
                let tree = Path::new(ONE_TREE);
                write(&tree.join("cgroup.subtree_control"), "+cpu");
                let group = make(&tree.join(name));
                write(&group.join("cpu.max"), format!("{quota} {PERIOD}"));
                group
            }
        };
        let leash = Self { group, pid };
        write(&leash.group.join("cgroup.procs"), pid);
        leash
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if let Some(tree) = self.group.parent() {
            // A process that has ended has left already.
            let _ = fs::write(tree.join("cgroup.procs"), self.pid.to_string());
        }
        eventually(Duration::from_secs(10), "the control group is gone", || {
            let _ = fs::remove_dir(&self.group);
            ensure(!self.group.exists(), || self.group.display().to_string())
        });
    }
}

fn make(group: &Path) -> PathBuf {
    fs::create_dir(group).unwrap_or_else(|error| needs_root(group, &error));
    group.to_owned()
}

fn write(file: &Path, value: impl ToString) {
    fs::write(file, value.to_string()).unwrap_or_else(|error| needs_root(file, &error));
}

fn needs_root(path: &Path, error: &std::io::Error) -> ! {
    panic!(
        "{}: {error}; this test bounds a process with a control group for `cpu`, for which it must \
         be run as root on a system that has them",
        path.display()
    )
}
