//! Our child processes, and those of others that end up with us: as the first process of a container
//! we are the parent of every orphan, and one that nobody waits for stays as a zombie.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tracing::debug;

/// How often is looked for orphans besides when a child ends: several may end at once.
const EVERY: Duration = Duration::from_secs(1);

/// The children that somebody here waits for.
#[derive(Debug, Clone, Default)]
pub(super) struct Children(Arc<Mutex<HashSet<i32>>>);

impl Children {
    /// Starts a child that is waited for. It must be told of with [`Children::ended`].
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        // Held over both: a child may end before the next line.
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        own.extend(child.id().and_then(|pid| i32::try_from(pid).ok()));
        Ok(child)
    }

    /// Somebody has waited for the child.
    pub(super) fn ended(&self, pid: u32) {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|known| u32::try_from(*known) != Ok(pid));
    }

    /// Waits for the children of others for as long as it is run. Only the first process has any.
    pub(super) async fn reap(self) {
        if std::process::id() != 1 {
            return std::future::pending().await;
        }
        let mut ended = signal(SignalKind::child()).ok();
        loop {
            let child_ended = async {
                match &mut ended {
                    Some(ended) => ended.recv().await,
                    None => std::future::pending().await,
                }
            };
            // Whichever comes first: both mean that it is time to look.
            drop(timeout(EVERY, child_ended).await);
            self.reap_ended();
        }
    }

    fn reap_ended(&self) {
        let own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) =
            waitid(Id::All, look)
        {
            if own.contains(&pid.as_raw()) {
                // The runtime waits for it, and then there may be another behind it.
                return;
            }
            if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
                return;
            }
            debug!(pid = pid.as_raw(), "an orphan has ended");
        }
    }
}

/// The process id as the system library has it.
pub(super) fn pid_of(child: &Child) -> Option<Pid> {
    let pid = i32::try_from(child.id()?).ok()?;
    Some(Pid::from_raw(pid))
}
