//! How much memory a command gets, and holding it to that where no cgroup can be made for it.

use super::cgroup::Container;
use super::{Over, processes};

/// What the agent itself needs beside its commands, bytes: some 30 MiB at rest, the rest for requests in flight with
/// their conversations.
pub(super) const AGENT_NEEDS: u64 = 256 << 20;
/// Most that a command gets unless a flag says more: enough for a compiler, and a machine of a developer stays usable.
const DEFAULT_MAX: u64 = 2 << 30;
/// Less than this is of no use to any interpreter.
const LEAST: u64 = 16 << 20;

/// What the agent and all its commands have together: the container's limit, else the machine's memory.
#[derive(Debug, Clone)]
pub struct Whole {
    bytes: u64,
    container: Option<Container>,
}

impl Whole {
    /// Of this process.
    pub fn find() -> Self {
        let container = Container::find();
        let machine = machine().unwrap_or(u64::MAX);
        let bytes = container.as_ref().map_or(machine, |found| found.limit.min(machine));
        Self { bytes, container }
    }

    /// What each of `at_once` commands gets, bytes.
    pub fn share(&self, at_once: usize) -> u64 {
        let each = self.bytes.saturating_sub(AGENT_NEEDS) / at_once.max(1) as u64;
        each.clamp(LEAST, DEFAULT_MAX)
    }

    /// Why the agent could run out of memory although no command is over its limit, if it could.
    pub fn overbooked(&self, at_once: usize, each: u64) -> Option<String> {
        let all = each.saturating_mul(at_once as u64);
        let mib = |bytes: u64| bytes >> 20;
        (all.saturating_add(AGENT_NEEDS) > self.bytes).then(|| {
            format!(
                "{at_once} commands of {} MiB and the agent's {} MiB don't fit {} MiB; raise the container's memory \
                 limit, or lower --run-memory-mib or --run-at-once",
                mib(each),
                mib(AGENT_NEEDS),
                mib(self.bytes)
            )
        })
    }

    pub(super) fn container(&self) -> Option<&Container> {
        self.container.as_ref()
    }
}

fn machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Whether the processes below this one have more than `limit` together, or the container so much that the agent is next.
/// The second is for memory that is no process's: files in memory, pipes.
pub(super) fn over(limit: u64, container: Option<&Container>) -> Option<Over> {
    let below = processes::below();
    if processes::resident(&below) > limit {
        // What forks share was counted for each. To know better takes time and locks of the command's, which is
        // not to be spent when the rest of the container is what the agent needs.
        let tight = container.is_some_and(|found| found.leaves_less_than(AGENT_NEEDS));
        if tight || processes::proportional(&below) > limit {
            return Some(Over::Memory);
        }
    }
    let full = container?.leaves_less_than(AGENT_NEEDS / 4);
    full.then_some(Over::Container)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn commands_share_what_the_agent_leaves() {
        let of = |mib: u64| Whole { bytes: mib * MIB, container: None };
        assert_eq!(of(4096).share(4), 960 * MIB);
        assert_eq!(of(1 << 20).share(4), DEFAULT_MAX);
        assert_eq!(of(128).share(4), LEAST);
        assert_eq!(of(4096).overbooked(4, 960 * MIB), None);
        let why = of(512).overbooked(4, 960 * MIB).unwrap();
        assert!(
            why.contains("4 commands of 960 MiB and the agent's 256 MiB don't fit 512 MiB"),
            "{why}"
        );
    }
}
