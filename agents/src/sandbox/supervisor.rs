//! The other side: a process of its own per command, single-threaded. It makes the namespaces, confines and starts
//! the command, and stays until the command ends, its time is up, or the agent closes the socket; then it
//! kills whatever is left. Standard input is the socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, wait};
use rustix::thread::UnshareFlags;

use super::{Namespaces, PATH, Report, Spec, confine};

const ENTER: &str = "sandbox-enter";
const RUN: &str = "sandbox-run";
/// Largest order, bytes: a command and its paths.
const MAX_SPEC: usize = 1 << 20;
/// How often a command is looked at where the kernel has no process descriptors.
const TICK: Duration = Duration::from_millis(20);

/// The arguments that make this program a supervisor.
pub(super) fn arguments(namespaces: Namespaces) -> &'static [&'static str] {
    match namespaces {
        Namespaces::None => &[RUN],
        Namespaces::Privileged => &[ENTER],
        Namespaces::Unprivileged => &[ENTER, "user"],
    }
}

/// Becomes a supervisor when the arguments say so; to be called before any thread is started.
pub fn supervise_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let done = match arguments.next()?.as_str() {
        ENTER => enter(arguments.next().is_some()),
        RUN => run(),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Read by the agent as the output of a command that sent no report.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

/// Makes the namespaces and starts the supervisor proper in them, as their first process: with it, all end.
fn enter(unprivileged: bool) -> io::Result<()> {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let mut flags = UnshareFlags::NEWPID | UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    if unprivileged {
        flags |= UnshareFlags::NEWUSER;
    }
    // SAFETY: unshare is unsafe for what it may take from other threads' descriptors (CLONE_FILES); that flag is
    // not among these, and this process has one thread.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(flags)?;
    }
    if unprivileged {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1", uid = uid.as_raw()))?;
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1", gid = gid.as_raw()))?;
    }
    let status = Command::new("/proc/self/exe").arg(RUN).arg0("agent-sandbox").status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("the supervisor failed")) }
}

fn run() -> io::Result<()> {
    let mut agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let spec = order(&mut agent)?;
    // Orphans of the command come to this process, so that they can be found and killed.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Where memory runs out, the kernel is to take the command and not the agent.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let started = Instant::now();
    let report = match start(&spec) {
        Ok(child) => {
            let ended = watch(child, &agent, started + spec.limits.time);
            let time = started.elapsed();
            // With a namespace of its own, this process is its first, and the kernel ends all others with it.
            if spec.plan.namespaces == Namespaces::None {
                end_all();
            }
            report(ended?, time)
        }
        Err(error) => Report {
            exit: None,
            signal: None,
            timed_out: false,
            time: started.elapsed(),
            cpu: Duration::ZERO,
            peak_memory: 0,
            error: Some(format!("cannot run {}: {error}", spec.command[0])),
        },
    };
    agent.write_all(&serde_json::to_vec(&report)?)
}

/// The order, one line. Read byte by byte: nothing after it belongs to this process.
fn order(agent: &mut UnixStream) -> io::Result<Spec> {
    let mut line = Vec::new();
    let mut piece = [0; 4096];
    while line.last() != Some(&b'\n') {
        match agent.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => line.extend_from_slice(&piece[..length]),
        }
        if line.len() > MAX_SPEC {
            return Err(io::Error::other("the order is too long"));
        }
    }
    let spec: Spec = serde_json::from_slice(&line)?;
    if spec.command.is_empty() { Err(io::Error::other("no command")) } else { Ok(spec) }
}

fn start(spec: &Spec) -> io::Result<Child> {
    let mut files = spec.plan.landlock.then(|| confine::files(&spec.dir)).transpose()?;
    let filter = spec.plan.seccomp.then(confine::no_network).transpose()?;
    // A user or a user namespace of its own starts at nothing; else the kernel counts what the user runs already.
    let apart = spec.user.is_some() || spec.plan.namespaces == Namespaces::Unprivileged;
    let processes_now = if apart { 0 } else { processes_of_this_user() };
    let limits = spec.limits;
    let mut command = Command::new(&spec.command[0]);
    command
        .args(&spec.command[1..])
        .current_dir(&spec.dir)
        .env_clear()
        .envs([("PATH", PATH), ("LANG", "C.UTF-8"), ("TERM", "dumb")])
        .env("HOME", &spec.dir)
        .env("TMPDIR", &spec.dir)
        .stdin(Stdio::null());
    if let Some(user) = spec.user {
        command.uid(user).gid(user);
    }
    let confine = move || {
        rustix::process::setsid()?;
        confine::limit(&limits, processes_now)?;
        if let Some(files) = files.take() {
            files.restrict_self().map_err(io::Error::other)?;
        }
        confine::no_privileges()?;
        if let Some(filter) = &filter {
            seccompiler::apply_filter(filter).map_err(io::Error::other)?;
        }
        Ok(())
    };
    // SAFETY: what runs between fork and exec must not rely on other threads, which do not exist there. This process
    // has one thread, so that no lock (the allocator's included) can be held by another.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(confine);
    }
    command.spawn()
}

/// Waits for the first of: the command's end, the end of its time, the agent's leaving. Returns how the command ended,
/// and whether its time was up.
fn watch(
    mut child: Child,
    agent: &UnixStream,
    deadline: Instant,
) -> io::Result<(ExitStatus, bool)> {
    let pid = Pid::from_child(&child);
    let process = pidfd_open(pid, PidfdFlags::empty()).ok();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timed_out = left.is_zero();
        if timed_out || agent_left(agent, process.as_ref(), left)? {
            let _ = kill_process(pid, Signal::KILL);
            return Ok((child.wait()?, timed_out));
        }
    }
}

fn report((status, timed_out): (ExitStatus, bool), time: Duration) -> Report {
    let (cpu, peak_memory) = used();
    Report {
        exit: status.code(),
        signal: status.signal(),
        timed_out,
        time,
        cpu,
        peak_memory,
        error: None,
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

/// Kills every process below this one, until there is none: orphans come up here and are seen in the next round.
fn end_all() {
    loop {
        for pid in descendants() {
            let _ = kill_process(pid, Signal::KILL);
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        #[expect(clippy::disallowed_methods, reason = "a process without a runtime")]
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Everything below this process, by the parents that `/proc` names.
fn descendants() -> Vec<Pid> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let parents: Vec<(i32, i32)> = statuses().filter_map(|text| parent(&text)).collect();
    let mut below = vec![me];
    let mut at = 0;
    while at < below.len() {
        let pid = below[at];
        let new = parents.iter().filter(|(child, up)| *up == pid && !below.contains(child));
        let new: Vec<i32> = new.map(|(child, _)| *child).collect();
        below.extend(new);
        at += 1;
    }
    below.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}

fn parent(status: &str) -> Option<(i32, i32)> {
    Some((number(status, "Pid:")?, number(status, "PPid:")?))
}

fn number<T: std::str::FromStr>(status: &str, field: &str) -> Option<T> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// `/proc/PID/status` of every process.
fn statuses() -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok())
}

fn processes_of_this_user() -> u64 {
    let me = rustix::process::getuid().as_raw();
    statuses()
        .filter(|status| number(status, "Uid:") == Some(me))
        .filter_map(|status| number::<u64>(&status, "Threads:"))
        .sum()
}

/// CPU time, and the largest process's peak memory in bytes, of everything that was waited for.
fn used() -> (Duration, u64) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is a valid place for one rusage, and all zeroes is a valid rusage should the call fail.
    #[allow(unsafe_code)]
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec.unsigned_abs())
            + Duration::from_micros(t.tv_usec.unsigned_abs())
    };
    (time(usage.ru_utime) + time(usage.ru_stime), usage.ru_maxrss.unsigned_abs() * 1024)
}
