//! Which core a thread runs on, where that would decide what is measured.
//!
//! With two cores, the scheduler puts a server that is woken now beside its client and now on the other core, and a lookup takes
//! half as long in the first case; which one a server meets more often changes from minute to minute. So where one client is
//! compared, it has one core, and the servers, which take turns, the other.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Does `work` on one core while all threads of the processes `servers` have another, where there are two.
pub(super) fn apart<T>(servers: &[u32], work: impl FnOnce() -> Result<T>) -> Result<T> {
    let all = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core));
    let (Some(first), Some(second)) = (cores.next(), cores.next()) else { return work() };
    sched_setaffinity(None, &one(first))?;
    confine(servers, &one(second))?;
    let outcome = work();
    sched_setaffinity(None, &all)?;
    confine(servers, &all)?;
    outcome
}

fn one(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

fn confine(processes: &[u32], cores: &CpuSet) -> Result<()> {
    for process in processes {
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let id = thread?.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
            sched_setaffinity(Some(id.context("a thread without a number")?), cores)?;
        }
    }
    Ok(())
}
