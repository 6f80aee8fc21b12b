//! One measurement: a load on a server, and what the server used for it.

use crate::cpu::Used;
use crate::load::{Load, Outcome};
use std::{
    io, thread,
    time::{Duration, Instant},
};

/// Time for the last reply's work to end before processor time is read.
const SETTLE: Duration = Duration::from_millis(10);

/// A load before the one that counts, so that the server's memory is in the core's caches.
const WARM: Duration = Duration::from_millis(50);

/// How often it is looked whether a server is idle, and for how long at most.
const LOOK: Duration = Duration::from_millis(50);
const LONGEST_WORK: Duration = Duration::from_secs(20);

/// What a load found, and what it cost the server.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    pub(crate) used: Used,
}

impl Measured {
    /// Runs a load on the process that serves it.
    pub(crate) fn of(load: &Load<'_>, pid: u32, lasting: Duration) -> io::Result<Self> {
        load.run(WARM.min(lasting))?;
        Self::during(pid, || load.run(lasting))
    }

    /// Counts what the process uses while something asks it.
    pub(crate) fn during(pid: u32, ask: impl FnOnce() -> io::Result<Outcome>) -> io::Result<Self> {
        thread::sleep(SETTLE);
        let before = Used::by(pid)?;
        let outcome = ask()?;
        thread::sleep(SETTLE);
        let used = Used::by(pid)?.since(&before);
        Ok(Self { outcome, used })
    }

    /// Microseconds of processor time per answer, of the whole process.
    pub(crate) fn cost(&self) -> f64 {
        self.used.total().as_secs_f64() * 1e6 / self.outcome.answered as f64
    }

    /// The same, of the thread that used most.
    pub(crate) fn cost_of_busiest(&self) -> f64 {
        self.used.busiest().as_secs_f64() * 1e6 / self.outcome.answered as f64
    }
}

/// Waits until a process has done what it was asked before.
pub(crate) fn until_idle(pid: u32) -> io::Result<()> {
    let end = Instant::now() + LONGEST_WORK;
    let mut before = Used::by(pid)?;
    while Instant::now() < end {
        thread::sleep(LOOK);
        let now = Used::by(pid)?;
        if now.since(&before).total() < LOOK / 10 {
            return Ok(());
        }
        before = now;
    }
    Err(io::Error::other("it is busy while nobody asks it"))
}

/// The one in the middle; of an even number the upper of the two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
