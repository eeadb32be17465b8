//! Watching without driving: the replicas that a gateway knows of, or one by its address, for as long as asked,
//! in bounded memory.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Client, Url};
use serde::Deserialize;
use tokio::time::{self, MissedTickBehavior, interval};

use super::flight::{Failures, Now};
use super::measure::Measured;
use super::meter::Meter;
use super::meter::pods::{self, Listed, Place};
use super::progress::Progress;
use super::target;
use super::track::Track;
use super::windows::Phase;
use crate::cli::signals::Endings;
use crate::cli::{http, units};

/// Between two looks, and the window when nobody says: what runs for hours needs no finer one.
pub(super) const EVERY: Duration = Duration::from_secs(1);
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// For one answer of the gateway.
const ANSWER: Duration = Duration::from_secs(5);
/// Replicas that are kept apart. What is known of more, that have gone, is put together.
const TRACKS: usize = 64;

/// Whom to watch.
pub(super) enum Whom {
    /// All that this gateway's admin port lists.
    Gateway { admin: Url, client: Client, agent: String },
    /// One, at this address or of this process.
    One { url: Option<Url>, pid: Option<u32> },
    /// All pods of a cluster's Service; where a gateway is named, with what is under way at each.
    Pods { place: Place, gateway: Option<Box<Whom>> },
}

#[derive(Deserialize)]
struct State {
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    address: String,
    in_flight: u32,
}

impl Whom {
    /// Between two looks.
    fn every(&self) -> Duration {
        if matches!(self, Whom::Pods { .. }) { pods::EVERY } else { EVERY }
    }

    /// Every replica there is, by its address or pod, with what is under way there; `None` where nobody
    /// lists any.
    async fn list(&self) -> Result<Option<Vec<(String, u32)>>, String> {
        match self {
            Whom::One { .. } => Ok(None),
            Whom::Gateway { admin, client, agent } => {
                of_gateway(admin, client, agent).await.map(Some)
            }
            Whom::Pods { place, gateway } => {
                let loads = match gateway.as_deref() {
                    Some(Whom::Gateway { admin, client, agent }) => {
                        of_gateway(admin, client, agent).await?
                    }
                    _ => Vec::new(),
                };
                let loads = pods::by_ip(&loads);
                let load = |pod: Listed| {
                    let under_way = loads.get(&pod.ip).copied().unwrap_or(0);
                    (pod.name, under_way)
                };
                Ok(Some(place.list().await?.into_iter().map(load).collect()))
            }
        }
    }

    async fn first(&self, window: Duration) -> Result<HashMap<String, Track>, String> {
        if let Whom::One { url, pid } = self {
            let nowhere = || http::base_url("http://127.0.0.1:0");
            let named = url.clone().map_or_else(nowhere, Ok)?;
            let (meter, port) = target::meter(&named, *pid).await?;
            let name = url
                .as_ref()
                .map_or_else(|| format!("process {}", pid.unwrap_or(0)), Url::to_string);
            return Ok(HashMap::from([(name.clone(), Track::new(name, meter, port, window))]));
        }
        let (mut tracks, mut why) = (HashMap::new(), "it has no replica now".to_owned());
        for (address, _) in self.list().await?.unwrap_or_default() {
            match self.open(&address, window).await {
                Ok(track) => drop(tracks.insert(address, track)),
                Err(error) => why = error,
            }
        }
        if tracks.is_empty() { Err(why) } else { Ok(tracks) }
    }
}

impl Whom {
    async fn open(&self, name: &str, window: Duration) -> Result<Track, String> {
        if let Whom::Pods { place, .. } = self {
            let pod = place.list().await?.into_iter().find(|pod| pod.name == name);
            let pod = pod.ok_or_else(|| format!("pod {name} is gone"))?;
            return Ok(Track::new(name.to_owned(), Meter::Pod(place.meter(pod)), None, window));
        }
        let url = http::base_url(&format!("http://{name}"))?;
        let (meter, port) = target::meter(&url, None).await?;
        Ok(Track::new(name.to_owned(), meter, port, window))
    }
}

/// The replicas that a gateway's admin port lists.
async fn of_gateway(
    admin: &Url,
    client: &Client,
    agent: &str,
) -> Result<Vec<(String, u32)>, String> {
    let url = http::join(admin, &["api", "agents", agent]);
    let failed = |error: reqwest::Error| {
        let why = http::causes(&error.without_url());
        format!(
            "{url} doesn't say who runs: {why} (--admin names a gateway's admin port, --url one replica)"
        )
    };
    let asked = client.get(url.clone()).timeout(ANSWER).send().await;
    let answer = asked.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    let state: State = answer.json().await.map_err(failed)?;
    let all = state.endpoints.into_iter();
    Ok(all.map(|endpoint| (endpoint.address, endpoint.in_flight)).collect())
}

/// All replicas while it is watched.
struct Watched {
    now: HashMap<String, Track>,
    gone: Vec<Track>,
    loads: HashMap<String, u32>,
    window: Duration,
}

impl Watched {
    /// Takes up who is new, and puts aside who isn't listed any more.
    async fn follow(&mut self, whom: &Whom, listed: &[(String, u32)]) {
        let known: Vec<String> = self.now.keys().cloned().collect();
        for address in
            known.iter().filter(|known| listed.iter().all(|(address, _)| address != *known))
        {
            self.gone.extend(self.now.remove(address));
        }
        while self.gone.len() > TRACKS {
            let oldest = self.gone.remove(0);
            self.gone[0].fold(&oldest);
        }
        for (address, _) in listed {
            if !self.now.contains_key(address)
                && self.now.len() < TRACKS
                && let Ok(track) = whom.open(address, self.window).await
            {
                self.now.insert(address.clone(), track);
            }
        }
    }

    /// Looks at all of them at once. How many could be read.
    async fn look(&mut self, listed: &[(String, u32)]) -> usize {
        let before = std::mem::replace(&mut self.loads, listed.iter().cloned().collect());
        let loads = &self.loads;
        let looks = self.now.iter_mut().map(|(address, track)| {
            let in_flight = loads.get(address).copied().unwrap_or(0);
            let most = in_flight.max(before.get(address).copied().unwrap_or(0));
            let now = Now { in_flight, most: (most, 0), phase: Phase::Hold, ..Now::default() };
            track.look(move || now)
        });
        join_all(looks).await.into_iter().filter(|read| *read).count()
    }
}

/// Watches until the time is over or somebody ends it.
pub(super) async fn watch(
    whom: &Whom,
    total: Duration,
    window: Duration,
    endings: &mut Endings,
    mut progress: Progress,
) -> Result<Measured, String> {
    let mut watched =
        Watched { now: whom.first(window).await?, gone: Vec::new(), loads: HashMap::new(), window };
    let began = Instant::now();
    let looked = async {
        let mut ticks = interval(whom.every().min(window));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // While the gateway is away, those that are known are looked at without their load.
            let listed = whom.list().await.ok().flatten();
            if let Some(listed) = &listed {
                watched.follow(whom, listed).await;
            }
            let read = watched.look(&listed.unwrap_or_default()).await;
            progress.show(began.elapsed(), || line(&watched, read));
        }
    };
    let signal = tokio::select! {
        _ = endings.next() => true,
        () = time::sleep(total) => false,
        () = looked => false,
    };
    progress.clear();
    Ok(measured(watched, began.elapsed(), signal))
}

fn line(watched: &Watched, read: usize) -> String {
    let memory = watched.now.values().map(Track::memory).max().unwrap_or(0);
    let under_way: u32 = watched.loads.values().sum();
    let read = units::counted(read, "replica");
    format!("{read}, {under_way} under way, memory of the largest {}", units::bytes(memory))
}

fn measured(watched: Watched, lasted: Duration, signal: bool) -> Measured {
    let mut tracks: Vec<Track> = watched.now.into_values().chain(watched.gone).collect();
    tracks.sort_by(|one, other| one.name.cmp(&other.name));
    Measured {
        lasted,
        window: watched.window,
        done: 0,
        failures: Failures::default(),
        sizes: Vec::new(),
        early: signal.then(|| "it was interrupted".to_owned()),
        limit: tracks.iter().find_map(|track| track.meter.limit()),
        top: None,
        hold_part: 1.0,
        driven: false,
        by: tracks.first().map_or_else(String::new, |track| track.meter.describe()),
        tracks,
    }
}
