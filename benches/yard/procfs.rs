//! What a process has used, from `/proc`.

use std::fs;
use std::io;

/// Processor time of all threads of a process so far, in microseconds (`schedstat`, which counts
/// nanoseconds; a thread that has ended no longer counts, and the gateway's don't end).
pub(crate) fn cpu_us(pid: u32) -> io::Result<f64> {
    let mut nanoseconds = 0_u64;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += stat.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanoseconds as f64 / 1000.0)
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other("no VmRSS"))
}
