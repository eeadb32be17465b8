//! What is learned of one replica while it is looked at, in bounded memory: its windows, their quantiles,
//! and how often it was killed.

use std::time::{Duration, SystemTime};

use super::flight::Now;
use super::meter::{Meter, Reading, ports, process};
use super::quantiles::Sketch;
use super::windows::{Builder, Phase, Sample, Series, Window};

/// One replica's.
pub(super) struct Track {
    /// Its address, pod or process.
    pub(super) name: String,
    pub(super) meter: Meter,
    /// Where its process is found again after it was started anew.
    port: Option<u16>,
    builder: Builder,
    pub(super) series: Series,
    /// The peaks that count: without rest, first requests and climb.
    pub(super) peaks: Sketch,
    pub(super) cpu: Sketch,
    pub(super) kills: u64,
    last: Option<Reading>,
    /// What it took until it was ready, where that was seen.
    pub(super) start: Option<process::Start>,
    /// The highest memory and the most under way that was ever seen.
    pub(super) most: u64,
    pub(super) reached: u32,
}

impl Track {
    pub(super) fn new(name: String, meter: Meter, port: Option<u16>, window: Duration) -> Track {
        Track {
            name,
            meter,
            port,
            builder: Builder::new(window),
            series: Series::default(),
            peaks: Sketch::default(),
            cpu: Sketch::default(),
            kills: 0,
            last: None,
            start: None,
            most: 0,
            reached: 0,
        }
    }

    /// Looks once; `now` is asked what is under way as soon as memory is read. False when it can't be
    /// read.
    pub(super) async fn look(&mut self, now: impl FnOnce() -> Now) -> bool {
        let Some(reading) = self.meter.look().await else {
            self.find_again();
            return false;
        };
        self.take(reading, now());
        true
    }

    fn take(&mut self, reading: Reading, now: Now) {
        let before = self.last.replace(reading);
        let killed = before.is_some_and(|before| {
            before.life != reading.life || before.oom_kills < reading.oom_kills
        });
        if killed {
            self.killed();
        }
        let sample = Sample {
            at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            memory: reading.memory,
            peak: reading.peak,
            cpu: reading.cpu,
            in_flight: now.in_flight,
            bytes: now.bytes,
            most: now.most,
            phase: now.phase,
            step: now.step,
        };
        self.most = self.most.max(reading.peak);
        self.reached = self.reached.max(now.in_flight);
        if let Some(window) = self.builder.add(sample) {
            self.keep(window);
        }
    }

    /// It was killed, or something in it: what it needed at that moment is not known.
    pub(super) fn killed(&mut self) {
        self.kills += 1;
        if let Some(window) = self.builder.killed(self.meter.limit()) {
            self.keep(window);
        }
    }

    pub(super) fn keep(&mut self, window: Window) {
        self.series.add(window);
        if window.phase == Phase::Hold {
            self.peaks.add(window.peak as f64);
            window.cpu_millis.into_iter().for_each(|millis| self.cpu.add(millis));
        }
    }

    /// Takes in what is known of another replica.
    pub(super) fn fold(&mut self, other: &Track) {
        self.peaks.merge(&other.peaks);
        self.cpu.merge(&other.cpu);
        self.kills += other.kills;
        self.most = self.most.max(other.most);
        self.reached = self.reached.max(other.reached);
        other.series.windows().iter().for_each(|window| self.series.add(*window));
        self.name = format!("{}, {}", other.name, self.name);
    }

    /// A process that was started anew on the same port is the same replica.
    fn find_again(&mut self) {
        let found =
            self.port.and_then(ports::owner).and_then(|pid| process::Process::new(pid, false));
        if let (Meter::Process(_), Some(process)) = (&self.meter, found) {
            self.meter = Meter::Process(process);
        }
    }

    /// What it used at the last look, bytes.
    pub(super) fn memory(&self) -> u64 {
        self.last.map_or(0, |reading| reading.memory)
    }

    /// The windows of a phase.
    pub(super) fn windows(&self, phase: Phase) -> Vec<Window> {
        self.series.windows().iter().filter(|window| window.phase == phase).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track() -> Track {
        let own = process::Process::new(std::process::id(), false).unwrap();
        Track::new("a".into(), Meter::Process(own), None, Duration::from_nanos(1))
    }

    #[test]
    fn another_life_or_a_kill_in_it_leaves_a_window_that_is_known_in_part() {
        let mut track = track();
        let now = Now { phase: Phase::Hold, in_flight: 3, most: (3, 0), ..Now::default() };
        for (life, oom_kills) in [(1, 0), (1, 0), (1, 1), (1, 1), (2, 1)] {
            track
                .take(Reading { memory: 10, peak: 12, life, oom_kills, ..Reading::default() }, now);
        }
        assert_eq!((track.kills, track.most, track.reached, track.memory()), (2, 12, 3, 10));
        let windows = track.windows(Phase::Hold);
        assert_eq!(windows.iter().filter(|window| window.censored).count(), 2);
        assert_eq!(track.peaks.count(), windows.len());
    }
}
