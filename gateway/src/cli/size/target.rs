//! What is measured: an agent that is started for it, or one that runs.

use std::time::Duration;

use config::{Agent, Protocol, Table};
use reqwest::Url;

use super::meter::metrics::Metrics;
use super::meter::{Meter, ports, process::Process};
use super::track::Track;
use super::watch::Whom;
use crate::cli::http;
use crate::cli::up::single::Single;

#[derive(clap::Args)]
#[group(id = "target")]
pub(super) struct Args {
    /// A running agent, instead of one that is started as `up` does.
    #[arg(long, value_name = "URL", value_parser = http::base_url)]
    pub(super) url: Option<Url>,
    /// The process whose memory is measured, with all that it has started. By default who listens at --url.
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    /// With --watch: the admin port of the gateway whose replicas are watched. By default the table's.
    #[arg(long, value_name = "URL", env = "SWITCHYARD_ADMIN_URL", value_parser = http::base_url, conflicts_with = "url")]
    pub(super) admin: Option<Url>,
    /// Start the agent under the table's memory limit. By default it has none, so that it shows what it needs.
    #[arg(long, conflicts_with = "url")]
    pub(super) limited: bool,
}

/// Ready to be driven and looked at.
pub(super) struct Target {
    pub(super) base: Url,
    pub(super) track: Track,
    /// Where it was started for this.
    pub(super) single: Option<Single>,
    /// What it was limited to, where we have done that.
    pub(super) limit: Option<u64>,
}

impl Target {
    pub(super) async fn reach(
        args: &Args,
        table: &Table,
        agent: &Agent,
        window: Duration,
    ) -> Result<Target, String> {
        if args.url.is_none() && args.pid.is_some() {
            return Err("--pid is driven at its --url".to_owned());
        }
        match &args.url {
            Some(url) => running(url, args.pid, window).await,
            None => started(args, table, agent, window).await,
        }
    }
}

/// Whom to watch, without driving.
pub(super) fn whom(args: &Args, table: &Table, agent: &Agent) -> Result<Whom, String> {
    if args.url.is_some() || args.pid.is_some() {
        return Ok(Whom::One { url: args.url.clone(), pid: args.pid });
    }
    let mut listens = table.gateway.admin;
    if listens.ip().is_unspecified() {
        listens.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let admin =
        args.admin.clone().map_or_else(|| http::base_url(&format!("http://{listens}")), Ok)?;
    let (client, agent) = (http::client(&admin)?, agent.name.clone());
    Ok(Whom::Gateway { admin, client, agent })
}

async fn started(
    args: &Args,
    table: &Table,
    agent: &Agent,
    window: Duration,
) -> Result<Target, String> {
    if agent.protocol == Protocol::H2c {
        return Err(format!(
            "{} speaks h2c, which is not spoken here: run the yard, and measure through it with --url http://GATEWAY/agents/{0} --pid PID",
            agent.name
        ));
    }
    let single = Single::start(table, agent, args.limited).await?;
    let base = http::base_url(&format!("http://127.0.0.1:{}", single.port()))?;
    let gone = || format!("{} has ended:\n{}", agent.name, single.said());
    let process = Process::new(single.pid(), true).ok_or_else(gone)?;
    let track = Track::new(base.to_string(), Meter::Process(process), None, window);
    let limit = single.limit();
    Ok(Target { base, track, single: Some(single), limit })
}

async fn running(url: &Url, pid: Option<u32>, window: Duration) -> Result<Target, String> {
    let (meter, port) = meter(url, pid).await?;
    Ok(Target {
        base: url.clone(),
        track: Track::new(url.to_string(), meter, port, window),
        single: None,
        limit: None,
    })
}

/// The process that is named or listens there, if it is one of this machine; else what the agent says
/// itself.
pub(super) async fn meter(url: &Url, pid: Option<u32>) -> Result<(Meter, Option<u16>), String> {
    if let Some(pid) = pid {
        let process =
            Process::new(pid, false).ok_or_else(|| format!("there is no process {pid}"))?;
        return Ok((Meter::Process(process), None));
    }
    let port = url.port_or_known_default().filter(|_| http::is_local(url));
    let process = port.and_then(ports::owner).and_then(|pid| Process::new(pid, false));
    if let Some(process) = process {
        return Ok((Meter::Process(process), port));
    }
    let metrics = Metrics::new(url).await.map_err(|why| {
        format!("nobody says how much memory the agent at {url} takes: no process of this machine listens there that may be looked at (--pid names one), and its metrics don't say ({why})")
    })?;
    Ok((Meter::Metrics(metrics), None))
}
