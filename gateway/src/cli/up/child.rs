//! One process of a replica: started under its limit, watched, ended.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;

use super::console::Stream;
use super::limits::{Entry, Limit};
use super::ports::Port;
use super::spec::{Spec, find_program};
use super::{Phase, Yard, lines, memory};

/// How long a dead process's last lines are waited for; a descendant that keeps its pipes open
/// doesn't hold up the restart.
const LAST_LINES: Duration = Duration::from_millis(500);

/// A running process.
pub(super) struct Running {
    child: Child,
    pid: Pid,
    port: Port,
    limit: Option<Limit>,
    lines: JoinSet<()>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit {
    status: ExitStatus,
    /// Whether the kernel killed something under its limit, itself or what it ran.
    out_of_memory: bool,
}

/// Why a process didn't begin, for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotStarted(String);

impl Running {
    /// Starts one. The process dies when the calling **thread** ends, so that a killed `up` leaves
    /// nothing behind: call it on the thread that supervises to the end.
    pub(super) fn start(
        yard: &Yard,
        spec: &Spec,
        name: &str,
        to: &Stream,
    ) -> Result<Running, NotStarted> {
        let program = spec.command.first().map_or("", String::as_str);
        let file = find_program(program).ok_or_else(|| {
            NotStarted(format!("there is no program {program:?}, beside switchyard or in PATH"))
        })?;
        let cannot = |error: io::Error| NotStarted(format!("{}: {error}", file.display()));
        let port = yard.ports.take().map_err(cannot)?;
        let limit = yard.limit(name, spec.memory);
        let entry = limit.as_ref().map(Limit::entry).transpose().map_err(cannot)?;
        let mut command = command(yard, spec, &file, &port);
        before_exec(&mut command, entry);
        let mut child = command.spawn().map_err(cannot)?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.expect("a child that wasn't waited for has an id");
        let lines = follow_lines(&mut child, to);
        Ok(Running { child, pid, port, limit, lines })
    }

    /// The port that it was told to listen on.
    pub(super) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// What it and its descendants use now, bytes.
    pub(super) fn memory(&self) -> Option<u64> {
        let counted = self.limit.as_ref().and_then(Limit::usage);
        counted.or_else(|| memory::of_tree(self.pid()))
    }

    /// Waits for its end. Cancelling the wait changes nothing.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// After its end: takes down what it left running, passes its last lines on, and says how it
    /// ended.
    pub(super) async fn bury(mut self, ended: io::Result<ExitStatus>) -> io::Result<Exit> {
        // Whoever is left in its group; mostly nobody.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let out_of_memory = self.limit.as_ref().is_some_and(Limit::exceeded);
        if let Some(limit) = self.limit.take() {
            limit.remove().await;
        }
        let lines = std::mem::take(&mut self.lines);
        let _ = time::timeout(LAST_LINES, lines.join_all()).await;
        ended.map(|status| Exit { status, out_of_memory })
    }

    /// Asks it to end, and ends it when `grace` has passed or the yard is to end at once. Gives
    /// its exit and whether it had to be killed.
    pub(super) async fn stop(
        mut self,
        grace: Duration,
        mut phase: watch::Receiver<Phase>,
    ) -> (io::Result<Exit>, bool) {
        // An error means that it has ended by itself.
        let _ = kill_process(self.pid, Signal::TERM);
        let by_itself = tokio::select! {
            ended = self.child.wait() => Some(ended),
            () = time::sleep(grace) => None,
            _ = phase.wait_for(|phase| *phase == Phase::Kill) => None,
        };
        let killed = by_itself.is_none();
        let ended = match by_itself {
            Some(ended) => ended,
            None => {
                let _ = kill_process_group(self.pid, Signal::KILL);
                self.child.wait().await
            }
        };
        (self.bury(ended).await, killed)
    }
}

/// The caller's environment without other agents' secrets, then the table's, then where to listen.
fn command(yard: &Yard, spec: &Spec, file: &Path, port: &Port) -> Command {
    let mut command = Command::new(file);
    command.args(&spec.command[1..]);
    for variable in yard.foreign_secrets(spec) {
        command.env_remove(variable);
    }
    command.envs(&spec.env);
    command.env("PORT", port.number().to_string()).env("HOST", Ipv4Addr::LOCALHOST.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C reaches a terminal's foreground group: not the replicas, which end after the gateway.
    command.process_group(0).kill_on_drop(true);
    command
}

fn follow_lines(child: &mut Child, to: &Stream) -> JoinSet<()> {
    let mut lines = JoinSet::new();
    if let Some(out) = child.stdout.take() {
        lines.spawn(lines::forward(out, to.clone()));
    }
    if let Some(err) = child.stderr.take() {
        lines.spawn(lines::forward(err, to.clone()));
    }
    lines
}

/// What happens in the new process before it becomes the program: it is to die with this thread,
/// and comes under its limit.
#[expect(unsafe_code, reason = "only the new process itself can do this, before exec")]
fn before_exec(command: &mut Command, entry: Option<Entry>) {
    let parent = rustix::process::getpid();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            // The parent died before it could be tied to.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        entry.as_ref().map_or(Ok(()), Entry::enter)
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes
    // system calls (prctl, getppid, write, setrlimit) on values made before the fork; it takes no
    // lock, and neither it nor its errors (bare OS codes) allocate.
    unsafe { command.pre_exec(prepare) };
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't be started: {}", self.0)
    }
}

impl fmt::Display for Exit {
    /// `exited with status 3`, `was killed by SIGKILL: out of memory`. One that ended well outlived
    /// whatever was killed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "exited with status {code}")?,
            (None, Some(signal)) => write!(f, "was killed by {}", signal_name(signal))?,
            (None, None) => f.write_str("ended")?,
        }
        if self.out_of_memory && !self.status.success() {
            f.write_str(": out of memory")?;
        }
        Ok(())
    }
}

/// The names of the signals that end programs; the number for others.
fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGSYS => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_told_by_status_or_signal() {
        let exit = |raw, out_of_memory| {
            Exit { status: ExitStatus::from_raw(raw), out_of_memory }.to_string()
        };
        assert_eq!(exit(3 << 8, false), "exited with status 3");
        assert_eq!(exit(9, true), "was killed by SIGKILL: out of memory");
        assert_eq!(exit(0, true), "exited with status 0");
        assert_eq!(exit(11, false), "was killed by SIGSEGV");
        assert_eq!(exit(34, false), "was killed by signal 34");
    }
}
