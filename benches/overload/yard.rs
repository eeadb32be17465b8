//! One run: `switchyard up` with two replicas of a table, the arrivals, and what `up` said meanwhile.

use std::io;
use std::path::PathBuf;

use benches::gateway::Gateway;

use super::args::Effort;
use super::arrivals::{Arrival, Source};
use super::client::{self, Outcome};
use super::replica::{OVER, Settings};

/// How many there are.
pub(crate) const REPLICAS: usize = 2;

/// How the replica's C library allocates: each large piece is mapped by itself, and given back when it
/// is freed; in large pages, which take a third of the time to fill.
const MALLOC: &str =
    "glibc.malloc.mmap_threshold=65536:glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1";

/// What every measurement needs.
pub(crate) struct Bench {
    /// The gateway's.
    pub(crate) binary: PathBuf,
    /// This program, which is the replica, too.
    pub(crate) replica: PathBuf,
    pub(crate) effort: Effort,
}

/// A table, as far as runs differ.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) replica: Settings,
    /// Bytes; `None` is without.
    pub(crate) limit: Option<usize>,
    /// Keys of the agent.
    pub(crate) agent: &'a str,
    /// Sections beside it.
    pub(crate) sections: &'a str,
}

/// What came of a run.
pub(crate) struct Ran {
    pub(crate) outcomes: Vec<Outcome>,
    /// Requests that a replica had no place for.
    pub(crate) over_admitted: usize,
    /// Replicas that ended before they were told to.
    pub(crate) kills: usize,
    /// Bytes that one has resident before its first request.
    pub(crate) at_rest: f64,
    /// How `up` held replicas to their limit; empty where there is none.
    pub(crate) enforced: String,
}

impl Bench {
    /// Starts it all, asks, and ends it all.
    pub(crate) async fn run(
        &self,
        setup: &Setup<'_>,
        sources: &[Source],
        arrivals: &[Arrival],
    ) -> io::Result<Ran> {
        let mut gateway = Gateway::up(&self.binary, &self.table(setup), REPLICAS).await?;
        let at_rest = client::resident_bytes(gateway.address).await?;
        let outcomes = client::ask(gateway.address, sources, arrivals).await?;
        let log = gateway.log();
        gateway.terminate()?;
        gateway.ended().await?;
        let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
        let enforced = log.lines().find_map(|line| line.split_once("limits are enforced by "));
        // Where its cgroup lies is this machine's business.
        let enforced = enforced.and_then(|(_, how)| how.split([':', '(']).next()).unwrap_or("");
        let (over_admitted, kills) = (lines(OVER), lines(" was killed by SIG"));
        let enforced = enforced.trim().to_owned();
        Ok(Ran { outcomes, over_admitted, kills, at_rest, enforced })
    }

    fn table(&self, setup: &Setup<'_>) -> String {
        let command = [self.replica.to_string_lossy().into_owned()].into_iter();
        let command: Vec<_> = command.chain(setup.replica.arguments()).collect();
        let limit =
            setup.limit.map_or(String::new(), |bytes| format!("limits = {{ memory = {bytes} }}\n"));
        // A string in JSON is one in TOML, too.
        let command = serde_json::json!(command);
        format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\n\
             drain_delay = \"0s\"\ntrusted_proxies = [\"127.0.0.1/32\"]\n{}\n\
             [agents.work]\n{}\n\
             [agents.work.scale]\nmin = {REPLICAS}\nmax = {REPLICAS}\n\
             [agents.work.deployment]\ncommand = {command}\n{limit}\
             env = {{ GLIBC_TUNABLES = \"{MALLOC}\" }}\n",
            setup.sections, setup.agent
        )
    }
}
