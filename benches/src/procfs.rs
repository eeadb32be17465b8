//! What a process and those that it has started have used, from `/proc`.

use std::fs;
use std::io;
use std::path::Path;

/// Processor time of all threads of a process so far, in microseconds (`schedstat`, which counts
/// nanoseconds; a thread that has ended no longer counts, and a gateway's don't end).
///
/// # Errors
/// When the process has ended.
pub fn cpu_us(pid: u32) -> io::Result<f64> {
    fs::read_dir(format!("/proc/{pid}/task"))?.map(|task| thread_cpu_us(&task?.path())).sum()
}

/// Processor time so far of each thread of a process whose name begins so, in microseconds; in the
/// order of their ids.
///
/// # Errors
/// When the process has ended.
pub fn threads_cpu_us(pid: u32, name: &str) -> io::Result<Vec<f64>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.starts_with(name) {
            threads.push((task.clone(), thread_cpu_us(&task)?));
        }
    }
    threads.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(threads.into_iter().map(|(_, used)| used).collect())
}

fn thread_cpu_us(task: &Path) -> io::Result<f64> {
    let stat = fs::read_to_string(task.join("schedstat"))?;
    Ok(stat.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0)
}

/// Resident memory of a process, in KiB.
///
/// # Errors
/// When the process has ended.
pub fn resident_kib(pid: u32) -> io::Result<f64> {
    status_kib(pid, "VmRSS:")
}

/// The most that it was since the process began, in KiB.
///
/// # Errors
/// When the process has ended.
pub fn peak_kib(pid: u32) -> io::Result<f64> {
    status_kib(pid, "VmHWM:")
}

fn status_kib(pid: u32, name: &str) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("no {name}")))
}

/// A process, its children, and theirs.
///
/// # Errors
/// When the process has ended.
pub fn tree(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = vec![pid];
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            // One that has just ended has none.
            found.extend(tree(child).unwrap_or_default());
        }
    }
    Ok(found)
}

/// [`cpu_us`] over a process and all below it.
///
/// # Errors
/// When one has ended.
pub fn tree_cpu_us(pid: u32) -> io::Result<f64> {
    tree(pid)?.into_iter().map(cpu_us).sum()
}

/// [`resident_kib`] over a process and all below it. Pages that several share count for each.
///
/// # Errors
/// When one has ended.
pub fn tree_resident_kib(pid: u32) -> io::Result<f64> {
    tree(pid)?.into_iter().map(resident_kib).sum()
}
