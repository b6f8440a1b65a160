//! Each worker on a core of its own.
//!
//! Left to the scheduler, workers wander after the processes that wake them, two of them share a core while another
//! rests, and a session's data is in the wrong cache. Measured with clients and server on the same machine: see
//! docs/performance.md.
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tracing::debug;

/// The cores for this many workers: those that the process may use, where there is exactly one for each worker, else
/// none. A process that was given fewer cores, or is to run fewer workers, shares them with others whom the scheduler
/// knows better.
pub(super) fn cores(workers: usize) -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else { return Vec::new() };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    if workers > 1 && cores.len() == workers { cores } else { Vec::new() }
}

/// Keeps the calling thread on a core.
pub(super) fn stay_on(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = sched_setaffinity(None, &set) {
        debug!(%error, core, "a worker is not bound to its core");
    }
}
