//! One replica by itself, as `up` would start it, for those who want to measure it: no gateway, no
//! second life.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::{Agent, Table};
use tokio::sync::watch;
use tokio::time;

use super::child::Running;
use super::console::Console;
use super::spec::{self, Spec};
use super::yard::{Phase, Yard};
use super::{START_TIMEOUT, probe};
use crate::cli::units;

/// Lines of the replica's that are kept, to be shown when something goes wrong.
const LINES: usize = 20;
/// How long it may take to end.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// A limit that limits nothing: all that a kernel can count, in whole pages.
const UNLIMITED: u64 = (i64::MAX as u64) & !0xffff;

/// A running replica.
pub(crate) struct Single {
    process: Running,
    phase: watch::Sender<Phase>,
    lines: Lines,
    limit: Option<u64>,
    // Its cgroup is removed with it: after the process.
    yard: Yard,
}

impl Single {
    /// Starts one and waits until it takes requests. With `limited` under the table's memory limit;
    /// otherwise in a cgroup of its own without one, where there can be. Must be called on a thread that
    /// lives as long as the replica shall. The error is for people.
    pub(crate) async fn start(
        table: &Table,
        agent: &Agent,
        limited: bool,
    ) -> Result<Single, String> {
        let mut spec = spec_of(agent)?;
        let limit = spec.memory.filter(|_| limited);
        spec.memory = Some(limit.unwrap_or(UNLIMITED));
        let lines = Lines::default();
        let (console, _) = Console::start(io::sink(), lines.clone(), false)
            .map_err(|error| format!("can't start: {error}"))?;
        let (phase, seen) = watch::channel(Phase::Run);
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (listing, _) = watch::channel(Arc::new(BTreeMap::new()));
        let yard = Yard::new(console, seen, listing, nowhere, START_TIMEOUT);
        yard.know_secrets(spec::secret_variables(table));
        let stream = yard.console.stream(&agent.name);
        let process = Running::start(&yard, &spec, &agent.name, &stream);
        let process = process.map_err(|error| format!("{} {error}", agent.name))?;
        Single { process, phase, lines, limit, yard }.ready(&spec).await
    }

    async fn ready(mut self, spec: &Spec) -> Result<Single, String> {
        let port = self.process.port();
        let ended = tokio::select! {
            () = probe::until_ready(spec, port) => return Ok(self),
            _ = self.process.ended() => true,
            () = time::sleep(START_TIMEOUT) => false,
        };
        let lines = self.lines.clone();
        let how = self.stop().await;
        let why = match ended {
            true => format!("{how} before it was ready"),
            false => {
                let (path, time) = (&spec.ready_path, units::time(START_TIMEOUT));
                format!("didn't answer GET {path} with 200 within {time}")
            }
        };
        Err(format!("{} {why}; its last lines:\n{lines}", spec.agent))
    }

    pub(crate) fn port(&self) -> u16 {
        self.process.port()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The memory limit that it was started under.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Waits until it ends by itself. Cancelling the wait changes nothing.
    pub(crate) async fn ended(&mut self) {
        // However: it is gone.
        let _ = self.process.ended().await;
    }

    /// What it and the yard said last.
    pub(crate) fn said(&self) -> String {
        self.lines.to_string()
    }

    /// Ends it, and says how it ended.
    pub(crate) async fn stop(self) -> String {
        let (exit, _) = self.process.stop(STOP_GRACE, self.phase.subscribe()).await;
        drop(self.yard);
        exit.map_or_else(|error| format!("was lost: {error}"), |exit| exit.to_string())
    }
}

fn spec_of(agent: &Agent) -> Result<Spec, String> {
    let name = &agent.name;
    if let Some(owner) = &agent.shares {
        return Err(format!("{name} runs in {owner}'s replicas: measure {owner}"));
    }
    let spec = spec::spec(agent, |variable| std::env::var_os(variable));
    let spec = spec.ok_or_else(|| {
        format!("{name} has no deployment.command, so it can't be started: name a running one with --url")
    })?;
    spec.map_err(|missing| format!("{name}: {missing}"))
}

/// The last lines of a log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<VecDeque<String>>>);

impl Write for Lines {
    /// The console writes whole lines.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(String::from_utf8_lossy(bytes).into_owned());
        let surplus = lines.len().saturating_sub(LINES);
        lines.drain(..surplus);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Display for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().try_for_each(|line| write!(f, "  {line}"))
    }
}
