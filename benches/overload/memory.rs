//! Twice what two replicas can hold, of requests that need very different memory: with the number of
//! requests limited, as one does who knows what they need on average; as one does who is careful, by
//! what the largest needs; and by what each needs. A replica that goes over its limit is killed, by
//! what `up` holds it to.

use std::io;

use benches::packing::{Job, Packed, Room, Window, ideal};
use benches::stats::quantile;

use super::arrivals::{Arrival, Source, arrivals};
use super::client::Served;
use super::outcomes::{self, answers, done, due, middle_and_tail, short, waits_ms};
use super::replica::Settings;
use super::report::Report;
use super::yard::{Bench, REPLICAS, Ran, Setup};

const MIB: f64 = 1024.0 * 1024.0;
const KIB: usize = 1024;
/// What `up` holds a replica to.
const LIMIT: usize = 256 * 1024 * KIB;
/// What the table says of it: less by what the kernel counts beside what a process has resident.
const TOLD: usize = LIMIT - 6 * 1024 * KIB;
const BASE: usize = 4 * 1024 * KIB;
const PER_BODY_BYTE: usize = 40;
/// All together, of what the memory could hold if it were a fluid.
const OVERLOAD: f64 = 2.0;
/// How long one is held on average: long beside what it takes to fill the memory.
const SECONDS: f64 = 2.0;
const HOLD_MS: (u64, u64) = (1200, 2800);
const LINE: usize = 64;
/// Which part of the requests, and their bodies. A large one needs about half of a replica.
const SIZES: [(&str, f64, (usize, usize)); 3] = [
    ("small", 0.6, (16 * KIB, 128 * KIB)),
    ("medium", 0.3, (256 * KIB, 768 * KIB)),
    ("large", 0.1, (2560 * KIB, 3328 * KIB)),
];

/// All ways of limiting.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> io::Result<()> {
    let rate = OVERLOAD * (REPLICAS * LIMIT) as f64 / (mean_need() * SECONDS);
    let sources = SIZES.map(|(name, part, body)| Source {
        name,
        per_second: part * rate,
        hold_ms: HOLD_MS,
        body,
    });
    let arrivals = arrivals(&sources, bench.effort.time);
    let queue = format!("queue = {{ max = {LINE}, timeout = \"10s\" }}\n");
    let counted = |need: f64| {
        let places = (LIMIT as f64 / need) as usize;
        (format!("{places} at once"), format!("max_in_flight = {places}\n{queue}"))
    };
    let memory =
        format!("memory = {{ base = {BASE}, per_body_byte = {PER_BODY_BYTE}, limit = {TOLD} }}\n");
    let ways =
        [counted(mean_need()), counted(largest_need()), ("by memory".to_owned(), memory + &queue)];
    let replica = Settings { places: 0, base: BASE, per_body_byte: PER_BODY_BYTE };
    let mut runs = Vec::new();
    for (name, agent) in &ways {
        let setup = Setup { replica, limit: Some(LIMIT), agent, sections: "" };
        runs.push((name.as_str(), bench.run(&setup, &sources, &arrivals).await?));
    }
    let window = outcomes::window(bench.effort);
    let room = LIMIT as f64 - runs[0].1.at_rest;
    let jobs: Vec<_> = arrivals.iter().map(job).collect();
    let to_pack = Room { replicas: REPLICAS, bytes: room, line: LINE };
    let ideal = ideal(&jobs, to_pack, window);
    let told = Told { window, rate, room, ideal };
    told.say(report, &runs);
    told.sizes(report, &runs);
    told.judge(report, &runs[0].1, &runs[runs.len() - 1].1);
    Ok(())
}

fn largest_need() -> f64 {
    let largest = SIZES.iter().map(|(_, _, (_, high))| *high).fold(0, usize::max);
    (BASE + PER_BODY_BYTE * largest) as f64
}

fn mean_need() -> f64 {
    let body = |(low, high): (usize, usize)| (low + high) as f64 / 2.0;
    let bodies: f64 = SIZES.iter().map(|(_, part, bodies)| part * body(*bodies)).sum();
    BASE as f64 + PER_BODY_BYTE as f64 * bodies
}

fn job(arrival: &Arrival) -> Job {
    let need = (BASE + PER_BODY_BYTE * arrival.body) as f64;
    Job { due: arrival.due.as_secs_f64(), need, time: arrival.hold.as_secs_f64() }
}

/// What the runs are held against.
struct Told {
    window: Window,
    rate: f64,
    /// Bytes of a replica's limit beyond what it takes at rest, which nobody can pack.
    room: f64,
    ideal: Packed,
}

impl Told {
    fn say(&self, report: &mut Report, runs: &[(&str, Ran)]) {
        let Self { rate, room, ideal, .. } = self;
        report.paragraph(&format!(
            "Memory: {REPLICAS} replicas of {} MiB, of which one takes {} at rest (enforced by {}); \
             {rate:.1} requests/s that need {} MiB each on average for {SECONDS} s, {OVERLOAD} times \
             what fits",
            mib(LIMIT as f64),
            mib(LIMIT as f64 - room),
            runs[0].1.enforced,
            mib(mean_need()),
        ));
        report.head("", &[&names(runs)[..], &["ideal packing"]].concat());
        let mut row = |name: &str, value: &dyn Fn(&Ran) -> String, ideal: String| {
            let values = runs.iter().map(|(_, ran)| value(ran)).chain([ideal]);
            report.row(name, &values.collect::<Vec<_>>());
        };
        let none = String::new;
        row("replicas killed", &|ran| ran.kills.to_string(), none());
        row("requests lost", &|ran| lost(ran).to_string(), none());
        row("served, requests/s", &|ran| short(self.packed(ran).per_second), {
            short(ideal.per_second)
        });
        row("memory put to use, MiB on average", &|ran| mib(self.packed(ran).bytes), {
            mib(ideal.bytes)
        });
        row("of the ideal packing's, %", &|ran| short(self.of_ideal(ran)), "100".to_owned());
        row(
            "the same by how long it was really held, %",
            &|ran| short(100.0 * self.held(ran) / self.ideal.bytes),
            none(),
        );
        row("of the fluid bound, %", &|ran| short(self.of_fluid(self.packed(ran))), {
            short(self.of_fluid(*ideal))
        });
        row("a replica's peak, % of its limit", &|ran| short(peak_percent(ran)), none());
        row(
            "wait of who was served, p50 / p99 ms",
            &|ran| middle_and_tail(&waits_ms(due(self.window, &ran.outcomes))),
            none(),
        );
        for (name, ran) in runs {
            report.paragraph(&format!("answers, {name}: {}", answers(&ran.outcomes)));
        }
    }

    fn sizes(&self, report: &mut Report, runs: &[(&str, Ran)]) {
        report.head(
            "size: served of asked, and p99 wait in ms",
            &[&["MiB needed"], &names(runs)[..]].concat(),
        );
        for (source, (name, _, (low, high))) in SIZES.iter().enumerate() {
            let need = |body: usize| mib((BASE + PER_BODY_BYTE * body) as f64);
            let shown = |ran: &Ran| {
                let of = || {
                    let due = due(self.window, &ran.outcomes);
                    due.filter(|outcome| outcome.arrival.source == source)
                };
                let waits = waits_ms(of());
                let wait =
                    if waits.is_empty() { "-".into() } else { short(quantile(&waits, 0.99)) };
                format!("{}/{}  {wait}", waits.len(), of().count())
            };
            let needed = format!("{} to {}", need(*low), need(*high));
            let values = [needed].into_iter().chain(runs.iter().map(|(_, ran)| shown(ran)));
            report.row(name, &values.collect::<Vec<_>>());
        }
    }

    /// What a run came to, by what its requests were said to need and to take: slowness isn't use.
    fn packed(&self, ran: &Ran) -> Packed {
        let served = ran.outcomes.iter().filter_map(|outcome| {
            let (served, Job { need, time, .. }) = (outcome.served?, job(&outcome.arrival));
            Some(need * time * self.window.part(served.begun, served.ended))
        });
        let seconds = self.window.seconds();
        let per_second = done(self.window, &ran.outcomes, None) as f64 / seconds;
        Packed { bytes: served.sum::<f64>() / seconds, per_second }
    }

    /// As [`Self::packed`], with the time that a request's body took to come and its memory to fill.
    fn held(&self, ran: &Ran) -> f64 {
        let held = ran.outcomes.iter().filter_map(|outcome| {
            let Served { begun, ended, .. } = outcome.served?;
            Some(job(&outcome.arrival).need * (ended - begun) * self.window.part(begun, ended))
        });
        held.sum::<f64>() / self.window.seconds()
    }

    fn of_ideal(&self, ran: &Ran) -> f64 {
        100.0 * self.packed(ran).bytes / self.ideal.bytes
    }

    fn of_fluid(&self, packed: Packed) -> f64 {
        100.0 * packed.bytes / (REPLICAS as f64 * self.room)
    }

    fn judge(&self, report: &mut Report, plain: &Ran, aware: &Ran) {
        let (counted, kills) = (plain.kills, aware.kills);
        report.bar(
            "memory: a replica is killed by plain counting",
            counted.to_string(),
            counted > 0,
        );
        report.bar("memory: none is killed by what each needs", kills.to_string(), kills == 0);
        let lost = lost(aware);
        report.bar("memory: no request is lost", lost.to_string(), lost == 0);
        let part = self.of_ideal(aware);
        report.bar("memory: ≥ 90 % of the ideal packing's throughput", short(part), part >= 90.0);
    }
}

fn names<'a>(runs: &[(&'a str, Ran)]) -> Vec<&'a str> {
    runs.iter().map(|(name, _)| *name).collect()
}

fn lost(ran: &Ran) -> usize {
    ran.outcomes.iter().filter(|outcome| outcome.lost()).count()
}

/// The most that a replica had resident; at least its limit where one was killed, which then said
/// nothing any more.
fn peak_percent(ran: &Ran) -> f64 {
    let peaks = ran.outcomes.iter().filter_map(|outcome| Some(outcome.served?.peak_kib));
    let most = peaks.fold(0.0, f64::max) * 1024.0 * 100.0 / LIMIT as f64;
    if ran.kills > 0 { most.max(100.0) } else { most }
}

fn mib(bytes: f64) -> String {
    short(bytes / MIB)
}
