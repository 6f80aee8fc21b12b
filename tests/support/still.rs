//! Did the machine stand still while something was measured?

use std::{
    num::NonZero,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A thread that only sleeps for a millisecond is held up for longer than this when the machine itself
/// stands still: a virtual one does for tens of milliseconds now and then, whoever runs on it.
const STILL: Duration = Duration::from_millis(5);

/// Runs one measurement.
///
/// # Errors
/// What was measured, if the machine stood still in the meantime.
pub(crate) fn undisturbed<T>(measure: impl FnOnce() -> T) -> Result<T, T> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(2, NonZero::get);
        let meters: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| {
                    let mut longest = Duration::ZERO;
                    while !over.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        thread::sleep(Duration::from_millis(1));
                        longest = longest.max(start.elapsed());
                    }
                    longest
                })
            })
            .collect();
        let measured = measure();
        over.store(true, Ordering::Relaxed);
        let gaps = meters
            .into_iter()
            .map(|meter| meter.join().expect("it sleeps"));
        if gaps.max().is_some_and(|gap| gap > STILL) {
            Err(measured)
        } else {
            Ok(measured)
        }
    })
}
