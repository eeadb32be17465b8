//! Whether the gateway has room for more of what the machine gives it: memory and descriptors. What
//! it does without either is up to others.

pub mod cgroup;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use rustix::io::Errno;

/// New requests are taken again once memory is below its limit by this part of it, so that one
/// request more or less doesn't turn it.
const SLACK_PART: u64 = 16;
/// Of the cgroup's limit, which also holds what the kernel keeps for the gateway, so many tenths.
const TENTHS: u64 = 9;

/// What there is room for, as all threads see it.
#[derive(Debug)]
pub struct Headroom {
    /// There is too much in memory.
    shedding: AtomicBool,
    /// Resident, bytes.
    memory: AtomicU64,
    /// Most of it; `u64::MAX`: no limit.
    memory_max: AtomicU64,
    /// Clients' and agents' connections have descriptors below it. The kernel gives the lowest that
    /// is free, so that those beyond stay for operators, probes and files.
    descriptors: u64,
    /// How often a descriptor was missing.
    missed: AtomicU32,
}

impl Headroom {
    /// With descriptors below this number for connections, and no limit of memory.
    #[must_use]
    pub fn new(descriptors: u64) -> Self {
        Self {
            shedding: AtomicBool::new(false),
            memory: AtomicU64::new(0),
            memory_max: AtomicU64::new(u64::MAX),
            descriptors,
            missed: AtomicU32::new(0),
        }
    }

    /// Whether there is too much in memory for another request.
    #[must_use]
    pub fn is_shedding(&self) -> bool {
        self.shedding.load(Relaxed)
    }

    /// Resident memory as it was last looked at, bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory.load(Relaxed)
    }

    /// Most of it, bytes; `None`: no limit.
    #[must_use]
    pub fn memory_max(&self) -> Option<u64> {
        Some(self.memory_max.load(Relaxed)).filter(|max| *max != u64::MAX)
    }

    /// Whether a connection may have this descriptor.
    #[must_use]
    pub fn has(&self, socket: impl AsFd) -> bool {
        u64::try_from(socket.as_fd().as_raw_fd()).is_ok_and(|number| number < self.descriptors)
    }

    /// Counts that a descriptor was missing: whoever has idle ones lets them go.
    pub fn missed(&self) {
        self.missed.fetch_add(1, Relaxed);
    }

    /// How often a descriptor was missing so far.
    #[must_use]
    pub fn misses(&self) -> u32 {
        self.missed.load(Relaxed)
    }

    /// Takes note of how much is in memory. Says whether that turned [`Headroom::is_shedding`].
    fn holds(&self, memory: u64, max: u64) -> bool {
        self.memory.store(memory, Relaxed);
        self.memory_max.store(max, Relaxed);
        let before = self.is_shedding();
        let now = memory > if before { max - max / SLACK_PART } else { max };
        self.shedding.store(now, Relaxed);
        now != before
    }
}

/// What a socket that must not have a descriptor fails with.
#[must_use]
pub fn no_descriptor() -> io::Error {
    Errno::MFILE.into()
}

/// Whether something failed for want of a descriptor.
#[must_use]
pub fn is_descriptor(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code.is_some_and(|code| [Errno::MFILE, Errno::NFILE].iter().any(|e| e.raw_os_error() == code))
}

/// Looks at the memory of this process.
pub struct Meter {
    status: Option<File>,
    of_cgroup: Option<u64>,
    told: Option<u64>,
}

impl Meter {
    /// Where the kernel doesn't tell, nothing is ever too much.
    #[must_use]
    pub fn new() -> Self {
        let of_cgroup = cgroup::memory_limit().map(|limit| limit / 10 * TENTHS);
        Self { status: File::open("/proc/self/status").ok(), of_cgroup, told: None }
    }

    /// Looks, and tells `headroom`. `max` is what the table says. What changes is logged.
    pub fn look(&mut self, headroom: &Headroom, max: Option<u64>) {
        let Some(memory) = self.resident() else { return };
        let limit = max.or(self.of_cgroup).unwrap_or(u64::MAX);
        if self.told.replace(limit) != Some(limit) {
            tell_limit(limit, max.is_some());
        }
        if headroom.holds(memory, limit) {
            tell_turn(headroom.is_shedding(), memory, limit);
        }
    }

    fn resident(&self) -> Option<u64> {
        let mut buffer = [0; 4096];
        let read = self.status.as_ref()?.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(&buffer[..read]).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib = line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?;
        Some(kib * 1024)
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

fn tell_limit(limit: u64, of_table: bool) {
    if limit == u64::MAX {
        return tracing::info!("memory has no limit: neither gateway.max_memory nor a cgroup's");
    }
    let source = if of_table { "gateway.max_memory" } else { "nine tenths of the cgroup's limit" };
    tracing::info!(max_memory = limit, source, "new requests are refused beyond this much memory");
}

fn tell_turn(shedding: bool, memory: u64, max_memory: u64) {
    if shedding {
        tracing::warn!(memory, max_memory, "too much in memory: new requests are refused");
    } else {
        tracing::info!(memory, max_memory, "memory is free again: new requests are taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_turns_new_requests_away_until_there_is_clearly_less() {
        let headroom = Headroom::new(100);
        for (memory, turned, shedding) in [
            (1_600, false, false),
            (1_601, true, true),
            (1_501, false, true),
            (1_500, true, false),
            (1_600, false, false),
        ] {
            assert_eq!((headroom.holds(memory, 1_600), headroom.is_shedding()), (turned, shedding));
        }
        assert!(
            headroom.holds(1_601, 1_600) && headroom.holds(1_601, u64::MAX),
            "an edit lifts it"
        );
        assert_eq!(headroom.memory_max(), None);
    }

    #[test]
    fn this_process_has_memory() {
        let headroom = Headroom::new(100);
        Meter::new().look(&headroom, Some(u64::MAX - 1));
        assert!(headroom.memory() > 1 << 20, "{}", headroom.memory());
        Meter::new().look(&headroom, Some(1));
        assert!(headroom.is_shedding());
    }

    #[test]
    fn descriptors_beyond_a_number_are_not_for_connections() {
        let file = File::open("/proc/self/status").unwrap();
        let number = u64::try_from(file.as_raw_fd()).unwrap();
        assert!(Headroom::new(number + 1).has(&file) && !Headroom::new(number).has(&file));
        assert!(is_descriptor(&no_descriptor()) && !is_descriptor(&io::Error::other("x")));
    }
}
