//! The gateway as it is run: the release binary, its table on disk, its log in a file.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(20);
/// How much of the log is shown when it does not start.
const LOG_SHOWN: usize = 2000;

/// A running `switchyard serve`, or `up` with its replicas; killed when dropped.
pub struct Gateway {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Its table, which may be edited.
    pub file: PathBuf,
    /// Just before the process was made.
    pub spawned: Instant,
    child: Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

/// A table of one worker with `types` agents at `agent`: `qa`, and `t1`, `t2`, …
pub fn table(agent: SocketAddr, types: usize, gateway: &str, settings: &str) -> String {
    let mut text = String::from(
        "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n\
         discovery = \"listed\"\ndrain_delay = \"0s\"\n",
    );
    text += gateway;
    text += &one(agent, "qa", settings);
    for n in 1..types {
        text += &one(agent, &format!("t{n}"), "");
    }
    text
}

/// One agent of a table.
pub fn one(agent: SocketAddr, name: &str, settings: &str) -> String {
    let mut text = String::new();
    // A string takes all.
    let _ = write!(text, "\n[agents.{name}]\nendpoints = [\"http://{agent}\"]\n{settings}\n");
    text
}

impl Gateway {
    /// Starts `serve` and waits until it says where it listens.
    pub async fn start(binary: &Path, table: &str) -> io::Result<Self> {
        Self::run(binary, "serve", table).await
    }

    /// Starts `up` and waits until this many replicas are ready.
    pub async fn up(binary: &Path, table: &str, replicas: usize) -> io::Result<Self> {
        let gateway = Self::run(binary, "up", table).await?;
        let due = Instant::now() + PATIENCE;
        while gateway.said(" is ready on ") < replicas {
            if Instant::now() > due {
                let log = tail(&gateway.log);
                return Err(io::Error::other(format!("its replicas don't get ready: {log}")));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(gateway)
    }

    async fn run(binary: &Path, verb: &str, table: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("switchyard.toml");
        std::fs::write(&file, table)?;
        let log = folder.path().join("log");
        let mut command = Command::new(binary);
        command.arg(verb).arg("--config").arg(&file);
        command.env_remove("SWITCHYARD_LISTEN").env_remove("SWITCHYARD_ADMIN");
        command.env("SWITCHYARD_LOG", "info").env("SWITCHYARD_LOG_FORMAT", "json");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let spawned = Instant::now();
        let mut child = command.kill_on_drop(true).spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
        let said = tokio::time::timeout(PATIENCE, listening(BufReader::new(stdout))).await;
        let address = match said {
            Ok(Ok(address)) => address,
            Ok(Err(error)) => return Err(io::Error::other(format!("{error}: {}", tail(&log)))),
            Err(_) => return Err(io::Error::other(format!("it does not start: {}", tail(&log)))),
        };
        Ok(Self { address, file, spawned, child, log, _folder: folder })
    }

    /// Its log so far, with what its replicas wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How many lines of its log so far hold this.
    pub fn said(&self, words: &str) -> usize {
        self.log().lines().filter(|line| line.contains(words)).count()
    }

    /// Its process, for `/proc`.
    pub fn pid(&self) -> io::Result<u32> {
        self.child.id().ok_or_else(|| io::Error::other("the gateway has ended"))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> io::Result<()> {
        let pid = i32::try_from(self.pid()?).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("no process"))?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        tokio::time::timeout(PATIENCE, self.child.wait()).await?
    }
}

async fn listening<R: tokio::io::AsyncBufRead + Unpin>(stdout: R) -> io::Result<SocketAddr> {
    let mut lines = stdout.lines();
    let line = lines.next_line().await?.unwrap_or_default();
    let address = line.strip_prefix("listening on http://").unwrap_or_default().parse();
    // The second line is read too, so that writing it can't fail.
    lines.next_line().await?;
    address.map_err(|_| io::Error::other(format!("it ended without listening ({line:?})")))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let from = text.len().saturating_sub(LOG_SHOWN);
    text.get(from..).unwrap_or(&text).to_owned()
}
