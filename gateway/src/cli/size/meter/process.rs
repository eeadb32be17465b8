//! A process of this machine with all that it has started: by its cgroup where it has one to itself, else
//! by what is resident.

use std::fs;
use std::time::Duration;

use super::Reading;
use super::cgroup::Cgroup;
use crate::cli::up::memory;

/// The value of `/proc/PID/clear_refs` that sets the resident maximum back (proc(5)).
const RESET_PEAK: &str = "5";

/// What is measured.
#[derive(Debug)]
pub(in crate::cli::size) struct Process {
    pid: u32,
    /// When it began, in ticks since the machine did: tells it from another with its number.
    began: u64,
    own: bool,
    cgroup: Option<Cgroup>,
    peak: u64,
    /// What it took before the first look, where that was its start.
    pub(in crate::cli::size) start: Option<Start>,
}

/// What a start took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cli::size) struct Start {
    /// The most that was resident, bytes.
    pub(in crate::cli::size) peak: u64,
    /// Thousandths of a CPU, on average.
    pub(in crate::cli::size) cpu_millis: f64,
}

impl Process {
    /// `own`: we started it, and may set its maxima back. `None` when there is no such process.
    pub(in crate::cli::size) fn new(pid: u32, own: bool) -> Option<Process> {
        let stat = Stat::read(pid)?;
        let cgroup = Cgroup::of(pid, &memory::tree(pid), own);
        let mut process = Process { pid, began: stat.began, own, cgroup, peak: 0, start: None };
        // What it took at most before belongs to no window. Of one that we started it was the start.
        let started = |peak| Start { peak, cpu_millis: stat.average().unwrap_or(0.0) };
        process.start = process.peak_since().filter(|_| own).map(started);
        process.look();
        process.peak_since();
        Some(process)
    }

    /// `None` when it has ended.
    pub(super) fn look(&mut self) -> Option<Reading> {
        let stat = Stat::read(self.pid).filter(|stat| stat.began == self.began)?;
        let tree = memory::tree(self.pid);
        let (memory, peak) = match &mut self.cgroup {
            Some(cgroup) => cgroup.look()?,
            None => self.resident(tree.len() == 1)?,
        };
        let children = tree[1..].iter().filter_map(|pid| Stat::read(*pid));
        let ticks = stat.ticks + children.map(|child| child.ticks).sum::<u64>();
        let oom_kills = self.cgroup.as_ref().map_or(0, Cgroup::oom_kills);
        Some(Reading { memory, peak, cpu: Some(time(ticks)), oom_kills, life: self.began })
    }

    fn resident(&mut self, alone: bool) -> Option<(u64, u64)> {
        let now = memory::of_tree(self.pid)?;
        // With children, their maxima needn't have been at the same time.
        let peak = if alone { self.peak_since() } else { None };
        Some((now, peak.unwrap_or(0).max(now)))
    }

    fn peak_since(&mut self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let peak = line.split_whitespace().next()?.parse::<u64>().ok()? << 10;
        let before = std::mem::replace(&mut self.peak, peak);
        if self.own && fs::write(format!("/proc/{}/clear_refs", self.pid), RESET_PEAK).is_ok() {
            return Some(peak);
        }
        (peak > before).then_some(peak)
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.cgroup.as_ref().and_then(Cgroup::limit)
    }

    pub(super) fn describe(&self) -> String {
        let resident = || "resident memory of its processes".to_owned();
        self.cgroup.as_ref().map_or_else(resident, Cgroup::describe)
    }
}

/// What `/proc/PID/stat` says.
struct Stat {
    /// Processor time of it, and of those children that it has seen end.
    ticks: u64,
    began: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Stat::parse(&text)
    }

    /// Thousandths of a CPU since it began.
    fn average(&self) -> Option<f64> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        let lived = uptime - time(self.began).as_secs_f64();
        (lived > 0.0).then(|| time(self.ticks).as_secs_f64() / lived * 1000.0)
    }

    /// The name in parentheses may hold anything.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        // Zombies have no memory: they have ended.
        if matches!(*fields.first()?, "Z" | "X") {
            return None;
        }
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        // Fields 14 to 17 and 22 of proc_pid_stat(5); the third is the first here.
        let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
        Some(Stat { ticks, began: number(19)? })
    }
}

fn time(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 0 0 10 20 3 4 20 0 1 0 9876 1 2";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.ticks, stat.began), (37, 9876));
        assert!(Stat::parse(&line.replace(" S ", " Z ")).is_none());
    }

    #[test]
    fn this_process_is_seen_and_an_ended_one_is_not() {
        let own = std::process::id();
        let reading = Process::new(own, false).unwrap().look().unwrap();
        assert!(reading.memory > 1 << 20 && reading.peak >= reading.memory);
        assert_eq!(Process::new(own, false).unwrap().start, None, "its start was long ago");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut process = Process::new(child.id(), true).unwrap();
        assert!(process.start.is_some(), "we started it, and saw what that took");
        assert!(process.look().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process.look(), None);
        assert!(Process::new(child.id(), false).is_none());
    }
}
