//! The supervisor's wait: until the command ends, its time is up, the agent leaves, or it takes more than it may.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::cgroup::Group;
use super::disk::{Space, measure};
use super::{Over, Spec, memory, processes};

/// How often memory is looked at without a cgroup: a process takes some 100 MiB at most between two looks.
const MEMORY: Duration = Duration::from_millis(10);
/// And with one, where the kernel has killed by then.
const MEMORY_KILLED: Duration = Duration::from_millis(50);
/// How often the workspace is measured.
const DISK: Duration = Duration::from_millis(250);
/// How often a command is looked at where the kernel has no process descriptors.
const TICK: Duration = Duration::from_millis(20);
/// How many times as long as a look took it is until the next one. Memory grows meanwhile: half a CPU at most.
const MEMORY_REST: u32 = 1;
/// And here a tenth.
const DISK_REST: u32 = 9;

/// Why a command is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It ended.
    Itself,
    /// Its time was up.
    TimedOut,
    /// Nobody waits for it.
    Left,
    /// It took too much.
    Over(Over),
}

/// What is watched of one command.
pub(super) struct Watch<'a> {
    spec: &'a Spec,
    group: Option<&'a Group>,
    deadline: Instant,
    memory: Pace,
    /// Where the kernel doesn't count them: it does so by user, but never root's.
    processes: Option<Pace>,
    disk: Pace,
    /// The bound, or what there was at the start: a command that makes room must be able to run.
    disk_bound: Space,
}

impl<'a> Watch<'a> {
    pub(super) fn new(spec: &'a Spec, group: Option<&'a Group>, started: Instant) -> Self {
        let bound = spec.limits.disk;
        let uncounted = spec.user.is_none() && rustix::process::getuid().is_root();
        Self {
            spec,
            group,
            deadline: started + spec.limits.time,
            memory: Pace::new(if group.is_some() { MEMORY_KILLED } else { MEMORY }, MEMORY_REST),
            processes: uncounted.then(|| Pace::new(MEMORY, MEMORY_REST)),
            disk: Pace::new(DISK, DISK_REST),
            disk_bound: bound.max(measure(&spec.dir, bound, false)),
        }
    }

    /// Waits, and returns how the command ended and why. Of what it started, others may still be there.
    pub(super) fn until_end(
        &mut self,
        mut child: Child,
        agent: &UnixStream,
    ) -> io::Result<(ExitStatus, End)> {
        let pid = Pid::from_child(&child);
        let process = pidfd_open(pid, PidfdFlags::empty()).ok();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((status, End::Itself));
            }
            let Some(end) = self.end(agent, process.as_ref())? else { continue };
            // All at once: what is left of a bomb would go on.
            self.group.iter().for_each(|group| group.kill());
            processes::kill_all(self.spec.plan.apart());
            let _ = kill_process(pid, Signal::KILL);
            return Ok((child.wait()?, end));
        }
    }

    /// Sleeps until something happens or is due, and says whether that is the end.
    fn end(&mut self, agent: &UnixStream, process: Option<&OwnedFd>) -> io::Result<Option<End>> {
        let now = Instant::now();
        if now >= self.deadline {
            return Ok(Some(End::TimedOut));
        }
        if let Some(over) = self.over() {
            return Ok(Some(End::Over(over)));
        }
        let next = self.deadline.min(self.memory.next).min(self.disk.next);
        let next = self.processes.as_ref().map_or(next, |pace| next.min(pace.next));
        let left = agent_left(agent, process, next.saturating_duration_since(Instant::now()))?;
        Ok(left.then_some(End::Left))
    }

    fn over(&mut self) -> Option<Over> {
        let (spec, group, bound) = (self.spec, self.group, self.disk_bound);
        let memory = self.memory.look(|| match group {
            Some(group) => group.ran_out().then_some(Over::Memory),
            None => memory::over(spec.limits.memory, spec.container.as_ref()),
        });
        let many = self.processes.as_mut().and_then(|pace| {
            let most = spec.limits.processes;
            pace.look(|| (processes::below().len() as u64 > most).then_some(Over::Processes))
        });
        memory.or(many).or_else(|| {
            let exceeds = || measure(&spec.dir, bound, false).exceeds(bound);
            self.disk.look(|| exceeds().then_some(Over::Disk))
        })
    }
}

/// When something is looked at again.
struct Pace {
    every: Duration,
    rest: u32,
    next: Instant,
}

impl Pace {
    fn new(every: Duration, rest: u32) -> Self {
        Self { every, rest, next: Instant::now() + every }
    }

    fn look<T>(&mut self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let begun = Instant::now();
        if begun < self.next {
            return None;
        }
        let seen = look();
        let end = Instant::now();
        self.next = end + self.every.max((end - begun) * self.rest);
        seen
    }
}

/// Sleeps until something happens; whether that is the agent's end of the socket closing.
fn agent_left(agent: &UnixStream, process: Option<&OwnedFd>, left: Duration) -> io::Result<bool> {
    let left = if process.is_some() { left } else { left.min(TICK) };
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    let mut watched = vec![PollFd::new(agent, PollFlags::IN | PollFlags::HUP)];
    if let Some(process) = process {
        watched.push(PollFd::new(process, PollFlags::IN));
    }
    match poll(&mut watched, Some(&timeout)) {
        // After its order the agent says nothing more: whatever comes is the end.
        Ok(_) => Ok(!watched[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
