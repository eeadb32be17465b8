//! The agent's side: starts the supervisor, collects the output within its bound, reads the report.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::cgroup::Place;
use super::protection::{Namespaces, Plan, Protection, Required};
use super::{Limits, Over, Report, SHELL, Spec, Whole, supervisor};

/// Output that is kept: its beginning, and its end, where errors stand. Bytes.
const KEEP_HEAD: usize = 48 << 10;
const KEEP_TAIL: usize = 16 << 10;
/// How much longer than the command's own time the supervisor may take to clean up.
const CLEAN_UP: Duration = Duration::from_secs(10);
/// How long after the report the last output may take: only a process that escaped could hold the pipe.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// Largest report, bytes.
const MAX_REPORT: u64 = 16 << 10;

/// What all commands together may use.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Of one command.
    pub limits: Limits,
    /// Commands at once; more wait for their turn.
    pub at_once: usize,
    /// What there is for them and the agent.
    pub whole: Whole,
}

/// How commands are confined on this machine, and their bounds.
#[derive(Debug)]
pub struct Sandbox {
    plan: Plan,
    bounds: Bounds,
    place: Option<Place>,
    turns: Semaphore,
    refused: Vec<(Plan, String)>,
    no_cgroup: Option<String>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit status, when it ended by itself.
    pub exit: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether its time was up.
    pub timed_out: bool,
    /// Which bound it was killed for, in words.
    pub killed: Option<String>,
    /// Wall time.
    pub time: Duration,
    /// CPU time of all its processes that were waited for.
    pub cpu: Duration,
    /// Resident memory of its largest process at the peak, bytes.
    pub peak_memory: u64,
    /// Both outputs in the order in which they came; a middle that was too much is left out, and says so.
    pub output: String,
}

impl Sandbox {
    /// Tries the protections that there are, the strongest first, in `dir`, which the sandbox's users can reach.
    ///
    /// # Errors
    /// When not even an unprotected command can be run: says why.
    pub async fn probe(dir: &Path, user: u32, bounds: Bounds) -> Result<Self, String> {
        let (place, no_cgroup) = match Place::find() {
            Ok(place) => (Some(place), None),
            Err(why) => (None, Some(why)),
        };
        let limits = bounds.limits;
        let plans = Plan::candidates(place.is_some());
        let turns = Semaphore::new(bounds.at_once);
        let mut found = Self { plan: plans[0], bounds, place, turns, refused: vec![], no_cgroup };
        found.bounds.limits.time = Limits::TRIAL.time;
        for plan in plans {
            found.plan = plan;
            match found.try_out(dir, user).await {
                Ok(()) => {
                    found.bounds.limits = limits;
                    return Ok(found);
                }
                Err(why) => found.refused.push((plan, why)),
            }
        }
        Err(found.refused.pop().map_or_else(String::new, |(_, why)| why))
    }

    async fn try_out(&self, dir: &Path, user: u32) -> Result<(), String> {
        if self.plan.own_user {
            let change = std::os::unix::fs::chown(dir, Some(user), Some(user));
            change.map_err(|error| error.to_string())?;
        }
        let command = [SHELL, "-c", "echo > probe && rm probe"].map(str::to_owned);
        let outcome = self.run(dir, user, command.to_vec()).await.map_err(|e| e.to_string())?;
        if outcome.exit == Some(0) { Ok(()) } else { Err(outcome.output) }
    }

    /// The protections in force, as they stand in the log and the metadata.
    pub fn describe(&self) -> Value {
        self.plan.describe()
    }

    /// Whether a command runs as the user of its session.
    pub fn has_own_user(&self) -> bool {
        self.plan.own_user
    }

    /// What a command may use.
    pub fn limits(&self) -> &Limits {
        &self.bounds.limits
    }

    /// Says in the log what holds commands, and what doesn't.
    pub fn tell(&self) {
        let protection = self.describe();
        let memory_mib = self.bounds.limits.memory >> 20;
        let no_cgroup = self.no_cgroup.as_deref();
        tracing::info!(%protection, memory_mib, no_cgroup, "sandbox");
        if !self.plan.has(Protection::Network) {
            tracing::warn!(
                "commands have network access: this machine allows neither namespaces nor seccomp"
            );
        }
        if let Some(why) = self.overbooked() {
            tracing::warn!(why, "commands may take the agent's memory");
        }
    }

    /// Why memory could run out for the agent, too, if it could.
    fn overbooked(&self) -> Option<String> {
        self.bounds.whole.overbooked(self.bounds.at_once, self.bounds.limits.memory)
    }

    /// Checks that what is required is in force.
    ///
    /// # Errors
    /// One line with each protection that isn't, and why.
    pub fn require(&self, required: &Required) -> Result<(), String> {
        let why = |protection: &Protection| {
            self.lacks(*protection).map(|why| format!("{}: {why}", protection.name()))
        };
        let missing: Vec<String> = required.0.iter().filter_map(why).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("--require-sandbox: not in force here: {}", missing.join("; ")))
    }

    fn lacks(&self, protection: Protection) -> Option<String> {
        if protection == Protection::Memory {
            return self.overbooked();
        }
        if self.plan.has(protection) {
            return None;
        }
        if protection == Protection::Files {
            return Some(
                "the kernel's Landlock is missing or switched off (Linux has it since 5.13, with landlock in lsm=)"
                    .to_owned(),
            );
        }
        let refused = self.refused.iter().find(|(plan, _)| plan.has(protection));
        let why = refused.map_or("there is no way to it", |(_, why)| why.trim());
        // Programs' last words may be many.
        let why: String = why.lines().next_back().unwrap_or_default().chars().take(200).collect();
        Some(match protection {
            Protection::Processes => format!(
                "no namespaces ({why}), no user of its own, and no Landlock of Linux 6.12 or later"
            ),
            _ => format!("neither namespaces nor seccomp ({why})"),
        })
    }

    /// Runs `command` in `dir`, as `user` where the plan says so, when it is its turn. Dropping the future kills
    /// it with all its processes.
    ///
    /// # Errors
    /// When it could not be started. A command that fails is an outcome.
    pub async fn run(
        &self,
        dir: &Path,
        user: u32,
        command: Vec<String>,
    ) -> std::io::Result<Outcome> {
        let _turn = self.turns.acquire().await.map_err(std::io::Error::other)?;
        let spec = self.spec(dir, user, command);
        let (mut child, mut control, mut pipe) = start(self.plan.namespaces)?;
        let mut line = serde_json::to_vec(&spec)?;
        line.push(b'\n');
        let mut kept = Kept::default();
        let whole = timeout(spec.limits.time + CLEAN_UP, async {
            control.write_all(&line).await?;
            let mut report = Vec::new();
            {
                let mut limited = (&mut control).take(MAX_REPORT);
                let reporting = limited.read_to_end(&mut report);
                tokio::pin!(reporting);
                tokio::select! {
                    read = &mut reporting => drop(read?),
                    () = kept.read(&mut pipe) => drop(reporting.await?),
                }
            }
            let _ = timeout(LAST_OUTPUT, kept.read(&mut pipe)).await;
            child.wait().await?;
            Ok::<_, std::io::Error>(report)
        });
        let report =
            whole.await.map_err(|_| std::io::Error::other("the supervisor did not end"))??;
        outcome(&report, &kept, &spec.limits)
    }

    fn spec(&self, dir: &Path, user: u32, command: Vec<String>) -> Spec {
        let plan = self.plan;
        Spec {
            dir: dir.to_owned(),
            command,
            plan,
            user: plan.own_user.then_some(user),
            limits: self.bounds.limits,
            place: self.place.clone().filter(|_| plan.cgroup),
            container: self.bounds.whole.container().cloned().filter(|_| !plan.cgroup),
        }
    }
}

/// A supervisor, its socket, and the pipe with the command's output.
fn start(namespaces: Namespaces) -> std::io::Result<(Child, UnixStream, pipe::Receiver)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new("/proc/self/exe");
    command
        .args(supervisor::arguments(namespaces))
        .arg0("agent-sandbox")
        .env_clear()
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer));
    let child = command.spawn()?;
    Ok((child, UnixStream::from_std(ours)?, pipe::Receiver::from_owned_fd(reader.into())?))
}

fn outcome(report: &[u8], kept: &Kept, limits: &Limits) -> std::io::Result<Outcome> {
    let Ok(report) = serde_json::from_slice::<Report>(report) else {
        let why = format!("the supervisor failed: {}", kept.text().trim());
        return Err(std::io::Error::other(why));
    };
    if let Some(error) = report.error {
        return Err(std::io::Error::other(error));
    }
    Ok(Outcome {
        exit: report.exit,
        signal: report.signal,
        timed_out: report.timed_out,
        killed: report.over.map(|over| explain(over, limits)),
        time: report.time,
        cpu: report.cpu,
        peak_memory: report.peak_memory,
        output: kept.text(),
    })
}

fn explain(over: Over, limits: &Limits) -> String {
    match over {
        Over::Memory => format!("over its memory limit of {} MiB", limits.memory >> 20),
        Over::Container => "the agent and its commands together ran out of memory".to_owned(),
        Over::Processes => format!("over its limit of {} processes", limits.processes),
        Over::Disk => format!(
            "its workspace grew over its limit of {} MiB or {} files; remove what is not needed",
            limits.disk.bytes >> 20,
            limits.disk.files
        ),
    }
}

/// The beginning and the end of an output of any length.
#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Kept {
    async fn read(&mut self, pipe: &mut pipe::Receiver) {
        let mut piece = [0; 8192];
        while let Ok(length @ 1..) = pipe.read(&mut piece).await {
            self.add(&piece[..length]);
        }
    }

    fn add(&mut self, piece: &[u8]) {
        let (head, rest) = piece.split_at(piece.len().min(KEEP_HEAD - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(KEEP_TAIL);
        self.tail.drain(..excess);
        self.left_out += excess as u64;
    }

    fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.left_out == 0 {
            let whole = [self.head.as_slice(), &tail].concat();
            return String::from_utf8_lossy(&whole).into_owned();
        }
        let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&tail));
        format!("{head}\n… {} bytes left out …\n{tail}", self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_output_keeps_its_beginning_and_its_end() {
        let mut kept = Kept::default();
        for number in 0..100_000 {
            kept.add(format!("{number}\n").as_bytes());
        }
        let text = kept.text();
        assert!(text.starts_with("0\n1\n") && text.ends_with("99998\n99999\n"));
        assert!(text.contains("bytes left out") && text.len() < KEEP_HEAD + KEEP_TAIL + 100);
    }
}
