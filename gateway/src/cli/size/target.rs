//! What is measured: an agent that is started for it, or one that runs.

use std::time::Duration;

use config::{Agent, Protocol, Table};
use reqwest::Url;

use super::meter::metrics::Metrics;
use super::meter::pods::Place;
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
    #[arg(long, value_name = "URL", env = "SWITCHYARD_ADMIN_URL", value_parser = http::base_url)]
    pub(super) admin: Option<Url>,
    /// In a cluster: measure the pods of the agent's Service, by the credentials that kubectl uses. With
    /// --watch, or driven at --url, a gateway's or a forwarded port.
    #[arg(long, conflicts_with_all = ["pid", "limited"])]
    pub(super) cluster: bool,
    /// The pods' namespace, when it is not the table's.
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub(super) namespace: Option<String>,
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
            Some(url) if args.cluster => pod(url, &place(args, table, agent)?, window).await,
            None if args.cluster => {
                Err("pods are driven at --url: a gateway's http://HOST/agents/TYPE, or a port that kubectl port-forward opened".to_owned())
            }
            Some(url) => running(url, args.pid, window).await,
            None => started(args, table, agent, window).await,
        }
    }
}

/// Whom to watch, without driving.
pub(super) fn whom(args: &Args, table: &Table, agent: &Agent) -> Result<Whom, String> {
    if args.cluster {
        let place = place(args, table, agent)?;
        let gateway = match &args.admin {
            Some(admin) => Some(Box::new(gateway(admin, agent)?)),
            None => None,
        };
        return Ok(Whom::Pods { place, gateway });
    }
    if args.url.is_some() || args.pid.is_some() {
        return Ok(Whom::One { url: args.url.clone(), pid: args.pid });
    }
    let mut listens = table.gateway.admin;
    if listens.ip().is_unspecified() {
        listens.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let admin =
        args.admin.clone().map_or_else(|| http::base_url(&format!("http://{listens}")), Ok)?;
    gateway(&admin, agent)
}

fn gateway(admin: &Url, agent: &Agent) -> Result<Whom, String> {
    let client = http::client(admin)?;
    Ok(Whom::Gateway { admin: admin.clone(), client, agent: agent.name.clone() })
}

/// Where the agent's pods are.
pub(super) fn place(args: &Args, table: &Table, agent: &Agent) -> Result<Place, String> {
    let service = agent.service.as_ref().ok_or_else(|| {
        format!("{} has no `service` in the table, by which its pods are found", agent.name)
    })?;
    Place::new(service, args.namespace.as_ref().unwrap_or(&table.kubernetes.namespace))
}

/// The one pod that is driven: what is under way can't be told apart over several.
async fn pod(url: &Url, place: &Place, window: Duration) -> Result<Target, String> {
    let mut pods = place.list().await?;
    let (Some(pod), true) = (pods.pop(), pods.is_empty()) else {
        let (count, service) = (pods.len(), &place.service);
        let count = if count == 0 { 0 } else { count + 1 };
        return Err(format!(
            "{service} has {count} running pods, and one is driven: scale it to 1 meanwhile, or use --watch"
        ));
    };
    let track = Track::new(pod.name.clone(), Meter::Pod(place.meter(pod)), None, window);
    Ok(Target { base: url.clone(), track, single: None, limit: None })
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
    let start = process.start;
    let mut track = Track::new(base.to_string(), Meter::Process(process), None, window);
    track.start = start;
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
