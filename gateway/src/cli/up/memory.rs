//! A process's descendants, and how much memory all have resident, from `/proc`.

use std::fs;

/// How many processes are counted for one replica.
const MAX_PROCESSES: usize = 256;

/// Resident bytes of `pid` and its descendants; pages that they share count in each. `None` when
/// there is no such process.
pub(crate) fn of_tree(pid: u32) -> Option<u64> {
    let total = resident(pid)?;
    Some(total + tree(pid)[1..].iter().filter_map(|child| resident(*child)).sum::<u64>())
}

/// A process, first, and its descendants.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut found = children(pid);
    while let Some(child) = found.pop() {
        if all.len() >= MAX_PROCESSES {
            break;
        }
        all.push(child);
        found.extend(children(child));
    }
    all
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}

/// Children of all of a process's threads. Empty where the kernel doesn't tell.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_its_children_are_counted() {
        let alone = resident(std::process::id()).unwrap();
        assert!(alone > 64 << 10);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let both = of_tree(std::process::id());
        let listed = children(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(both.is_some_and(|both| both > 0));
        assert!(listed.contains(&child.id()));
        assert_eq!(of_tree(child.id()), None);
    }
}
