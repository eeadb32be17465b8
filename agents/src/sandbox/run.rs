//! The agent's side: starts the supervisor, collects the output within its bound, reads the report.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Limits, Namespaces, Plan, Report, SHELL, Spec, confine, supervisor};

/// Output that is kept: its beginning, and its end, where errors stand. Bytes.
const KEEP_HEAD: usize = 48 << 10;
const KEEP_TAIL: usize = 16 << 10;
/// How much longer than the command's own time the supervisor may take to clean up.
const CLEAN_UP: Duration = Duration::from_secs(10);
/// How long after the report the last output may take: only a process that escaped could hold the pipe.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// Largest report, bytes.
const MAX_REPORT: u64 = 16 << 10;

/// How commands are confined on this machine, and their limits.
#[derive(Debug, Clone, Copy)]
pub struct Sandbox {
    /// What is in force.
    pub plan: Plan,
    limits: Limits,
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
    pub async fn probe(dir: &Path, user: u32, limits: Limits) -> Result<Self, String> {
        let mut last = "no command could be run".to_owned();
        let short = Limits { time: Duration::from_secs(10), ..limits };
        for plan in Plan::candidates(confine::landlock_works()) {
            let sandbox = Self { plan, limits: short };
            match sandbox.try_out(dir, user).await {
                Ok(()) => return Ok(Self { plan, limits }),
                Err(why) => last = why,
            }
        }
        Err(last)
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

    /// Runs `command` in `dir`, as `user` where the plan says so. Dropping the future kills it with all its processes.
    ///
    /// # Errors
    /// When it could not be started. A command that fails is an outcome.
    pub async fn run(
        &self,
        dir: &Path,
        user: u32,
        command: Vec<String>,
    ) -> std::io::Result<Outcome> {
        let spec = Spec {
            dir: dir.to_owned(),
            command,
            plan: self.plan,
            user: self.plan.own_user.then_some(user),
            limits: self.limits,
        };
        let (mut child, mut control, mut pipe) = start(self.plan.namespaces)?;
        let mut line = serde_json::to_vec(&spec)?;
        line.push(b'\n');
        let mut kept = Kept::default();
        let whole = timeout(self.limits.time + CLEAN_UP, async {
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
        outcome(&report, &kept)
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

fn outcome(report: &[u8], kept: &Kept) -> std::io::Result<Outcome> {
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
        time: report.time,
        cpu: report.cpu,
        peak_memory: report.peak_memory,
        output: kept.text(),
    })
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
