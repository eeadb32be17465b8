//! The other side: a process of its own per command, single-threaded. It makes the namespaces, confines and starts
//! the command, and stays until the command ends, its time is up, or the agent closes the socket; then it
//! kills whatever is left. Standard input is the socket.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::UnshareFlags;

use super::cgroup::Group;
use super::processes::end_all;
use super::watch::{End, Watch};
use super::{Namespaces, Over, PATH, Report, Spec, confine, filter, processes};

const ENTER: &str = "sandbox-enter";
const RUN: &str = "sandbox-run";
/// Largest order, bytes: a command and its paths.
const MAX_SPEC: usize = 1 << 20;
/// Attempts to remove a cgroup, a millisecond apart: the kernel takes a moment to let go of the dead.
const REMOVALS: u32 = 1000;

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
    hide()?;
    let status = Command::new("/proc/self/exe").arg(RUN).arg0("agent-sandbox").status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("the supervisor failed")) }
}

/// Keeps a command of the same user from this process's memory, by which it would get out.
fn hide() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn run() -> io::Result<()> {
    hide()?;
    let mut agent = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let spec = order(&mut agent)?;
    // Orphans of the command come to this process, so that they can be found and killed.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let started = Instant::now();
    let report = supervise(&spec, &agent, started).unwrap_or_else(|error| Report {
        time: started.elapsed(),
        error: Some(format!("cannot run {}: {error}", spec.command[0])),
        ..Report::default()
    });
    agent.write_all(&serde_json::to_vec(&report)?)
}

fn supervise(spec: &Spec, agent: &UnixStream, started: Instant) -> io::Result<Report> {
    let group = spec.place.as_ref().map(|place| place.make(&spec.limits)).transpose()?;
    let ended = start(spec, group.as_ref()).and_then(|child| {
        let mut watch = Watch::new(spec, group.as_ref(), started);
        let end = watch.until_end(child, agent);
        let time = started.elapsed();
        end_all(spec.plan.apart(), || group.iter().for_each(Group::kill));
        let (status, mut end) = end?;
        if group.as_ref().is_some_and(Group::ran_out) {
            end = End::Over(Over::Memory);
        }
        Ok(report(status, end, time))
    });
    group.iter().for_each(remove);
    ended
}

/// Removes a cgroup once the kernel is done with those who were in it.
fn remove(group: &Group) {
    for _ in 0..REMOVALS {
        if group.remove() {
            return;
        }
        group.kill();
        processes::pause();
    }
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

fn start(spec: &Spec, group: Option<&Group>) -> io::Result<Child> {
    let mut files = spec.plan.landlock.then(|| confine::files(&spec.dir)).transpose()?;
    let filter = spec.plan.seccomp.then(|| filter::programs(spec.plan)).transpose()?;
    let mut door = group.map(Group::door).transpose()?;
    // A user or a user namespace of its own starts at nothing; else the kernel counts what the user runs already.
    let fresh = spec.user.is_some() || spec.plan.namespaces == Namespaces::Unprivileged;
    let processes_now = if fresh { 0 } else { processes::of_this_user() };
    let (limits, user) = (spec.limits, spec.user);
    let mut command = Command::new(&spec.command[0]);
    command
        .args(&spec.command[1..])
        .current_dir(&spec.dir)
        .env_clear()
        .envs([("PATH", PATH), ("LANG", "C.UTF-8"), ("TERM", "dumb")])
        .env("HOME", &spec.dir)
        .env("TMPDIR", &spec.dir)
        .stdin(Stdio::null());
    let confine = move || {
        rustix::process::setsid()?;
        confine::stand_back();
        confine::no_descriptors()?;
        if let Some(door) = &mut door {
            door.write_all(b"0")?;
        }
        confine::limit(&limits, processes_now, door.is_some())?;
        if let Some(user) = user {
            confine::become_user(user)?;
        }
        // Ends the command, if not what it started, when somebody kills this supervisor.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if let Some(files) = files.take() {
            files.restrict_self().map_err(io::Error::other)?;
        }
        confine::no_privileges()?;
        for program in filter.iter().flatten() {
            seccompiler::apply_filter(program).map_err(io::Error::other)?;
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

fn report(status: ExitStatus, end: End, time: Duration) -> Report {
    let (cpu, peak_memory) = used();
    Report {
        exit: status.code(),
        signal: status.signal(),
        timed_out: end == End::TimedOut,
        over: if let End::Over(over) = end { Some(over) } else { None },
        time,
        cpu,
        peak_memory,
        error: None,
    }
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
