//! A proxy as a process: started on its cores, asked until it answers, ended by being dropped.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use benches::client::Ask;
use benches::poll::transfer;
use benches::{machine, procfs};
use rustix::process::{Pid, Signal, kill_process};

use super::proxies::{Proxy, Setup};
use super::{LOAD_CORE, PROXY_CORE};

/// A start may take so long, with 10,000 types, too.
const START_MAX: Duration = Duration::from_secs(20);
/// Between two looks at whether it answers.
const LOOK: Duration = Duration::from_micros(500);
/// An end may take so long; then it is killed.
const END_MAX: Duration = Duration::from_secs(3);
/// How much of its log is shown when it does not start.
const LOG_SHOWN: usize = 2000;
/// Real-time priority, the least there is.
const PRIORITY: &str = "1";

/// A running proxy.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// From just before its process was made to its first answer from the agent.
    pub(crate) took: Duration,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Starts it, and waits until it passes a request on.
    pub(crate) fn start(proxy: &Proxy, setup: &Setup) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (address, log) = (free()?, folder.path().join("log"));
        let mut command = proxy.command(folder.path(), address, setup)?;
        command
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let begun = Instant::now();
        let child = on_its_cores(setup.workers, || command.spawn())?;
        let mut running = Self { address, took: Duration::ZERO, child, _folder: folder };
        let answered = running.answers(begun);
        answered.map_err(|error| {
            io::Error::other(format!("{} does not start: {error}: {}", proxy.name, tail(&log)))
        })?;
        running.took = begun.elapsed();
        Ok(running)
    }

    fn answers(&mut self, begun: Instant) -> io::Result<()> {
        let request = Ask::post("/agents/qa/json", "{}").bytes();
        loop {
            match transfer(self.address, &request, 1) {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > START_MAX => return Err(error),
                Err(_) => {}
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("it ended with {status}")));
            }
            pause(LOOK);
        }
    }

    /// Processor time that it and its children have used, in microseconds.
    pub(crate) fn cpu_us(&self) -> io::Result<f64> {
        procfs::tree_cpu_us(self.child.id())
    }

    /// Resident memory of it and its children, in KiB.
    pub(crate) fn resident_kib(&self) -> io::Result<f64> {
        procfs::tree_resident_kib(self.child.id())
    }

    /// Gives it, the agent and the load precedence over everything else on the machine, as long as
    /// that is held. For loads that leave the cores idle most of the time, and for those only.
    pub(crate) fn preferred(&self) -> io::Result<Preferred> {
        let mut processes = procfs::tree(self.child.id())?;
        processes.push(std::process::id());
        Ok(Preferred::new(processes))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let due = Instant::now() + END_MAX;
        while asked && Instant::now() < due {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            pause(LOOK);
        }
        // It has ended already, or does so now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes that run before all others until this is dropped.
pub(crate) struct Preferred {
    processes: Vec<u32>,
}

impl Preferred {
    fn new(processes: Vec<u32>) -> Self {
        for process in &processes {
            schedule(*process, &["--rr", "--pid", PRIORITY]);
        }
        Self { processes }
    }
}

impl Drop for Preferred {
    fn drop(&mut self) {
        for process in &self.processes {
            schedule(*process, &["--other", "--pid", "0"]);
        }
    }
}

/// Where it is not allowed, or `chrt` is not there, numbers are noisier, and nothing else.
fn schedule(process: u32, policy: &[&str]) {
    let mut command = Command::new("chrt");
    command.arg("--all-tasks").args(policy).arg(process.to_string());
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// What is started in here runs on the proxy's core; with two workers, on the load's, too.
fn on_its_cores<T>(workers: usize, start: impl FnOnce() -> T) -> T {
    machine::stay_on(if workers == 1 { &[PROXY_CORE] } else { &[PROXY_CORE, LOAD_CORE] });
    let started = start();
    machine::stay_on(&[LOAD_CORE]);
    started
}

/// A port that was free just now.
fn free() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let from = text.len().saturating_sub(LOG_SHOWN);
    text.get(from..).unwrap_or(&text).to_owned()
}

/// Waits. The bench's own thread has nothing else to do.
#[expect(clippy::disallowed_methods, reason = "nothing here is async")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
