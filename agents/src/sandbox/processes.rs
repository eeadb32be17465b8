//! The processes below this one, out of `/proc`: their memory, and their end.

use std::fs;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

/// Most processes that are looked at in one round; a command has far fewer (`--run-processes`).
const MAX_PROCESSES: usize = 10_000;

/// Attempts to end a namespace's processes, a millisecond apart.
const ROUNDS: u32 = 1000;

/// Everything below this process, by the numbers that `/proc` has for them: in a namespace of its own those are not
/// the ones that `kill` takes.
pub(super) fn below() -> Vec<i32> {
    children_of_children().unwrap_or_else(by_parents)
}

/// By the lists of children, where the kernel has them: looks at the command's processes only.
fn children_of_children() -> Option<Vec<i32>> {
    fs::read_to_string("/proc/thread-self/children").ok()?;
    let mut below = children("self");
    let mut at = 0;
    while at < below.len() && below.len() < MAX_PROCESSES {
        let new = children(&below[at].to_string());
        below.extend(new.into_iter().filter(|pid| !below.contains(pid)).collect::<Vec<_>>());
        at += 1;
    }
    Some(below)
}

fn children(pid: &str) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
        })
        .collect()
}

/// By the parent that each process of the machine names.
fn by_parents() -> Vec<i32> {
    let me = fs::read_link("/proc/self").ok().and_then(|me| me.to_str()?.parse().ok());
    let Some(me) = me else { return Vec::new() };
    let parents: Vec<(i32, i32)> = statuses().filter_map(|text| parent(&text)).collect();
    let mut below: Vec<i32> = vec![me];
    let mut at = 0;
    while at < below.len() {
        let pid = below[at];
        let new = parents.iter().filter(|(child, up)| *up == pid && !below.contains(child));
        let new: Vec<i32> = new.map(|(child, _)| *child).collect();
        below.extend(new);
        at += 1;
    }
    below.split_off(1)
}

/// Resident memory of all of these, bytes; pages that several have count for each.
pub(super) fn resident(pids: &[i32]) -> u64 {
    pids.iter().filter_map(|pid| resident_of(*pid)).sum()
}

/// Memory of all of these, bytes; each page counts once. Where its own part may not be read, a process counts whole.
pub(super) fn proportional(pids: &[i32]) -> u64 {
    pids.iter().filter_map(|pid| proportional_of(*pid).or_else(|| resident_of(*pid))).sum()
}

fn resident_of(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn proportional_of(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    number::<u64>(&text, "Pss:").map(|kib| kib * 1024)
}

/// Kills every process below this one, until there is none: orphans come up here and are seen in the next round. In a
/// namespace of its own (`apart`), everything but this first process of it.
pub(super) fn end_all(apart: bool, also: impl Fn()) {
    for round in 0.. {
        // The kernel ends a namespace with its first process, where that may not kill the others itself.
        if apart && round >= ROUNDS {
            return;
        }
        kill_all(apart);
        also();
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        pause();
    }
}

/// Kills everything below this process, once.
pub(super) fn kill_all(apart: bool) {
    if apart {
        // Minus one: every process of the namespace but the caller.
        let _ = rustix::process::kill_process_group(Pid::INIT, Signal::KILL);
        return;
    }
    for pid in below().into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Lets the dying get on with it.
pub(super) fn pause() {
    #[expect(clippy::disallowed_methods, reason = "a process without a runtime")]
    std::thread::sleep(std::time::Duration::from_millis(1));
}

/// Processes and threads of this process's user.
pub(super) fn of_this_user() -> u64 {
    let me = rustix::process::getuid().as_raw();
    statuses()
        .filter(|status| number(status, "Uid:") == Some(me))
        .filter_map(|status| number::<u64>(&status, "Threads:"))
        .sum()
}

fn parent(status: &str) -> Option<(i32, i32)> {
    Some((number(status, "Pid:")?, number(status, "PPid:")?))
}

fn number<T: std::str::FromStr>(text: &str, field: &str) -> Option<T> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// `/proc/PID/status` of every process.
fn statuses() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_theirs_are_found_either_way_and_their_memory_counted() {
        let mut shell = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 100 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut line).unwrap();
        let shell_pid = shell.id().cast_signed();
        let grandchild = children(&shell_pid.to_string());
        assert_eq!(grandchild.len(), 1);
        for below in [children_of_children().unwrap(), by_parents()] {
            assert!(below.contains(&shell_pid) && below.contains(&grandchild[0]), "{below:?}");
        }
        let both = [shell_pid, grandchild[0]];
        assert!(resident(&both) > resident(&both[..1]));
        assert!((1..resident(&both)).contains(&proportional(&both)));
        kill_process(Pid::from_raw(grandchild[0]).unwrap(), Signal::KILL).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
}
