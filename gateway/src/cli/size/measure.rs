//! The measuring itself: the load goes on, the replicas are looked at again and again, until the time is
//! over, somebody ends it, or the agent is gone.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use tokio::time;

use super::drive::Driver;
use super::flight::Failures;
use super::progress::Progress;
use super::track::Track;
use crate::cli::signals::Endings;
use crate::cli::up::single::Single;

/// How long an agent that can't be read may stay away: started anew, most are back within it.
const AWAY_MAX: Duration = Duration::from_secs(15);

/// And that many looks, where they are rarer.
const AWAY_LOOKS: u32 = 3;

/// What came of it.
pub(super) struct Measured {
    pub(super) tracks: Vec<Track>,
    pub(super) lasted: Duration,
    pub(super) window: Duration,
    pub(super) done: u64,
    pub(super) failures: Failures,
    /// Of a sample of requests, the bytes of their bodies.
    pub(super) sizes: Vec<u64>,
    /// Why it ended before its time.
    pub(super) early: Option<String>,
    pub(super) limit: Option<u64>,
    /// What was to be under way at the end, where that was set.
    pub(super) top: Option<u32>,
    /// The part of the time that the windows that count are from.
    pub(super) hold_part: f64,
    pub(super) driven: bool,
    /// By what memory was read.
    pub(super) by: String,
}

/// How it is looked at, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) window: Duration,
    pub(super) every: Duration,
    pub(super) total: Duration,
}

/// Why the looking ended.
enum End {
    Over,
    Signal,
    Gone,
}

/// Drives one replica, and looks at it. `single` is it, where we have started it.
pub(super) async fn drive(
    mut track: Track,
    driver: &Arc<Driver>,
    single: Option<&mut Single>,
    clocks: Clocks,
    endings: &mut Endings,
    mut progress: Progress,
) -> Measured {
    let began = Instant::now();
    let ended = async {
        match single {
            Some(single) => single.ended().await,
            None => std::future::pending().await,
        }
    };
    let end = tokio::select! {
        biased;
        _ = endings.next() => End::Signal,
        () = ended => End::Gone,
        () = driver.run(clocks.total) => End::Over,
        () = look_on(&mut track, driver, clocks, began, &mut progress) => End::Gone,
    };
    progress.clear();
    if matches!(end, End::Gone) {
        track.killed();
    }
    Measured {
        lasted: began.elapsed(),
        window: clocks.window,
        done: driver.flight.done.load(Relaxed),
        failures: driver.flight.failures(),
        sizes: driver.flight.sizes(),
        early: match end {
            End::Over => None,
            End::Signal => Some("it was interrupted".to_owned()),
            End::Gone => Some("the agent was gone".to_owned()),
        },
        limit: track.meter.limit(),
        top: driver.load.top(),
        hold_part: driver.load.hold_part(),
        driven: true,
        by: track.meter.describe(),
        tracks: vec![track],
    }
}

/// Looks until the agent has been away for too long.
async fn look_on(
    track: &mut Track,
    driver: &Arc<Driver>,
    clocks: Clocks,
    began: Instant,
    progress: &mut Progress,
) {
    let mut seen = Instant::now();
    while seen.elapsed() < AWAY_MAX.max(clocks.every * AWAY_LOOKS) {
        time::sleep(until_next(clocks.every)).await;
        if track.look(|| driver.flight.look()).await {
            seen = Instant::now();
        }
        progress.show(began.elapsed(), || {
            let now = driver.flight.now();
            let failed = driver.flight.failures().count;
            let done = driver.flight.done.load(Relaxed);
            super::progress::line(now, done, failed, track.memory(), track.most)
        });
    }
}

/// To the next whole multiple of a time since the epoch: looks fall on the borders of windows.
fn until_next(every: Duration) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let into = now.as_nanos() % every.as_nanos();
    every.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::meter::{Meter, process::Process};
    use super::super::windows::{Phase, Window};
    use super::*;

    const MIB: f64 = 1048576.0;

    /// What is measured of an agent that takes 100 MiB, 5 MiB a request and 20 bytes a byte, with some
    /// noise: a climb to 8, and a hold of 400 windows there.
    pub(in crate::cli::size) fn climbed() -> Measured {
        let own = Process::new(std::process::id(), false).unwrap();
        let window = Duration::from_secs(1);
        let mut track = Track::new("a".to_owned(), Meter::Process(own), None, window);
        let mut random = fastrand::Rng::with_seed(5);
        let levels = [1, 2, 4, 8].into_iter().flat_map(|level| [(Phase::Climb, level); 16]);
        for (number, (phase, level)) in levels.chain([(Phase::Hold, 8); 400]).enumerate() {
            let bytes = u64::from(level) * random.u64(10_000..100_000);
            let sum = 100.0 * MIB + f64::from(level) * 5.0 * MIB + bytes as f64 * 20.0;
            let peak = (sum + random.f64() * 2.0 * MIB) as u64;
            let cpu_millis = Some(100.0 * f64::from(level) + random.f64());
            let at = number as f64;
            track.keep(Window {
                at,
                peak,
                in_flight: level,
                bytes,
                phase,
                cpu_millis,
                censored: false,
            });
        }
        track.reached = 8;
        Measured {
            tracks: vec![track],
            lasted: Duration::from_secs(600),
            window,
            done: 2000,
            failures: Failures::default(),
            sizes: (0..100).map(|at| 10_000 + 808 * at).collect(),
            early: None,
            limit: None,
            top: Some(8),
            hold_part: 0.7,
            driven: true,
            by: "working set".to_owned(),
        }
    }
}
