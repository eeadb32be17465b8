//! What follows from the answer: the sizes to write into the table, or why not.

use config::Agent;
use serde::Serialize;

use super::answer::Answer;
use super::fit::Fit;
use super::measure::Measured;
use super::quantiles::P99_WINDOWS;
use crate::cli::units;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// More failed requests than this part, and what was measured isn't the agent at work.
const FAILED_MAX: f64 = 0.05;
/// A closed loop that has fewer under way than this part of what it means to hasn't reached it.
const REACHED_MIN: f64 = 0.75;
/// Sizes are rounded up to the largest power of two that is no more than this part of them.
const NEAT: u64 = 32;
/// CPU requests and limits are whole multiples of these, in thousandths.
const CPU_REQUEST_STEP: u64 = 10;
const CPU_LIMIT_STEP: u64 = 100;
/// How much further than what was seen a fit is believed.
const BEYOND: u32 = 2;
/// Drawings of how large the bodies under way are together, and their seed.
const DRAWINGS: usize = 500;
const SEED: u64 = 99;

/// What the table should say. `None`: the samples don't say.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Sizes {
    pub(super) request_memory: Option<u64>,
    pub(super) limit_memory: Option<u64>,
    pub(super) request_cpu_millis: Option<u64>,
    pub(super) limit_cpu_millis: Option<u64>,
    pub(super) max_in_flight: Option<u32>,
    pub(super) memory_base: Option<u64>,
    pub(super) memory_per_body_byte: Option<f64>,
}

/// Why an answer isn't one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Refusal {
    /// For programs.
    pub(super) code: &'static str,
    /// For people: what is missing, and what to do.
    pub(super) text: String,
}

/// What is recommended, and what speaks against it.
pub(super) struct Verdict {
    pub(super) sizes: Sizes,
    pub(super) refusals: Vec<Refusal>,
    pub(super) headroom: f64,
}

impl Verdict {
    /// `limit`: one that is given, instead of one that is found.
    pub(super) fn of(
        measured: &Measured,
        answer: &Answer,
        headroom: f64,
        limit: Option<u64>,
    ) -> Verdict {
        let mut refusals = Vec::new();
        let mut refuse = |code, text: Option<String>| {
            refusals.extend(text.map(|text| Refusal { code, text }));
        };
        refuse("no-windows", no_windows(measured, answer));
        refuse("failed", failed(measured));
        refuse("killed", killed(measured, answer));
        refuse("grows", answer.growth.map(grows));
        refuse("not-reached", not_reached(measured, answer));
        refuse("too-few", too_few(measured, answer));
        let mut sizes = sizes(measured, answer, headroom, limit);
        if sizes.limit_memory.is_some()
            && limit.is_some()
            && sizes.max_in_flight.is_none()
            && measured.driven
        {
            refuse("too-small", Some(too_small(limit)));
        }
        if answer.windows == 0 {
            sizes = Sizes::default();
        }
        Verdict { sizes, refusals, headroom }
    }

    pub(super) fn is_yes(&self) -> bool {
        self.refusals.is_empty()
    }
}

fn no_windows(measured: &Measured, answer: &Answer) -> Option<String> {
    let early = measured.early.as_ref().map_or(String::new(), |why| format!(" ({why})"));
    (answer.windows == 0).then(|| {
        format!("there is no window to measure{early}: give it more time with --time, or shorter ones with --window")
    })
}

fn failed(measured: &Measured) -> Option<String> {
    let failures = &measured.failures;
    if !measured.driven {
        return None;
    }
    if measured.done == 0 {
        return Some(
            "no request was answered: is --url the agent, and does it take what the mix sends?"
                .to_owned(),
        );
    }
    let part = failures.count as f64 / measured.done.max(failures.count) as f64;
    let first = failures.first.as_deref().unwrap_or_default();
    let refused = match failures.refused {
        0 => String::new(),
        refused => format!(
            "; {refused} were refused unbegun, as over the agent's own limit: a lower --concurrency"
        ),
    };
    (part > FAILED_MAX).then(|| {
        format!(
            "{} of {} requests failed, more than {:.0} %, the first with: {first}{refused}",
            failures.count,
            measured.done,
            FAILED_MAX * 100.0
        )
    })
}

fn killed(measured: &Measured, answer: &Answer) -> Option<String> {
    let limit = measured.limit.map(units::bytes);
    let times =
        if answer.kills == 1 { "once".to_owned() } else { format!("{} times", answer.kills) };
    (answer.kills > 0).then(|| match limit {
        Some(limit) => format!("it was killed or ended {times} under a limit of {limit}: it needs at least that; measure without a limit, or with a higher one"),
        None => format!("it was killed or ended {times}: what it would have needed is more than was seen; see its log"),
    })
}

fn grows(a_minute: f64) -> String {
    let pace = units::bytes(a_minute as u64);
    format!(
        "memory still grows, by {pace} a minute under the same load: a leak, or a cache that isn't full; a longer --time tells which"
    )
}

fn not_reached(measured: &Measured, answer: &Answer) -> Option<String> {
    let top = measured.top.filter(|_| answer.windows > 0)?;
    let reached = answer.reached;
    (f64::from(reached) < f64::from(top) * REACHED_MIN).then(|| {
        format!("{top} requests were to be under way, and never more than {reached} were: requests end faster than new ones come")
    })
}

fn too_few(measured: &Measured, answer: &Answer) -> Option<String> {
    if answer.worth >= P99_WINDOWS || answer.windows == 0 {
        return None;
    }
    let needed = (P99_WINDOWS * answer.windows as f64 / answer.worth.max(1.0)).ceil();
    let more = needed - answer.windows as f64;
    let windows = needed / measured.tracks.len().max(1) as f64;
    // A little more: no run is worth quite the same as the last.
    let seconds =
        windows * measured.window.as_secs_f64() / measured.hold_part.max(0.01) * 1.1 + 2.0;
    let option = if measured.driven { "--time" } else { "--watch" };
    Some(format!(
        "a limit by the 99th percentile takes {P99_WINDOWS:.0} independent windows; these {} are worth {:.0}, so {more:.0} more are needed: {option} {}",
        answer.windows,
        answer.worth.floor(),
        as_option(seconds),
    ))
}

/// As the options read it, rounded up: `90s`, `25m`.
fn as_option(seconds: f64) -> String {
    match seconds {
        s if s <= 120.0 => format!("{:.0}s", (s / 10.0).ceil() * 10.0),
        s => format!("{:.0}m", (s / 60.0).ceil()),
    }
}

fn too_small(limit: Option<u64>) -> String {
    let limit = units::bytes(limit.unwrap_or(0));
    format!(
        "a limit of {limit} carries no request with the headroom: a larger --limit, or a smaller --headroom"
    )
}

fn sizes(measured: &Measured, answer: &Answer, headroom: f64, given: Option<u64>) -> Sizes {
    let memory = &answer.memory;
    let request = neat(memory.p50.value as u64);
    // A request for the 99th percentile must not be refused for want of a bound: the verdict says no then.
    let bound = memory.p99_upper.unwrap_or(memory.max);
    // A limit below what the start takes would be a crash loop.
    let bound = bound.max(answer.start.map_or(0.0, |start| start.peak as f64));
    let found = neat((bound * (1.0 + headroom)).max(memory.max) as u64);
    let limit = given.unwrap_or(found).max(MIB);
    let cpu = answer.cpu.as_ref();
    let request_cpu = cpu.map(|cpu| step(cpu.p50.value, CPU_REQUEST_STEP));
    // And below what the start used it would be a slow one, for which nobody may wait.
    let start_cpu = answer.start.map_or(0.0, |start| start.cpu_millis);
    let limit_cpu = cpu.map(|cpu| {
        let bound = cpu.p99_upper.unwrap_or(cpu.max) * (1.0 + headroom);
        step(bound.max(start_cpu), CPU_LIMIT_STEP)
    });
    let fit = answer.usable_fit();
    let (base, per_byte) = fit.map_or((None, None), per_unit);
    Sizes {
        request_memory: Some(request.min(limit)),
        limit_memory: Some(limit),
        request_cpu_millis: request_cpu,
        limit_cpu_millis: limit_cpu.map(|limit| limit.max(request_cpu.unwrap_or(0))),
        max_in_flight: carried(measured, answer, limit as f64 / (1.0 + headroom)),
        memory_base: base,
        memory_per_body_byte: per_byte,
    }
}

/// What a request needs for itself and for each byte: the upper ends of their intervals, as the gateway
/// lets in by them. Nothing where neither is known.
fn per_unit(fit: &Fit) -> (Option<u64>, Option<f64>) {
    let (request, byte) = (&fit.per_request, &fit.per_byte);
    if !request.is_known() && !byte.is_known() {
        return (None, None);
    }
    let base = request.high.max(0.0) as u64;
    let base = if base < MIB { base.div_ceil(4 * KIB) * 4 * KIB } else { neat_by(base, 4 * KIB) };
    let per_byte = if byte.is_known() { significant(byte.high) } else { 0.0 };
    (Some(base), Some(per_byte))
}

/// The most requests under way that stay under `room`: by the fit, with the errors that it makes and the
/// largest bodies that may come together; else by what was seen. Where a load was held, no more than that;
/// elsewhere only by a fit, and no more than [`BEYOND`] times what was seen.
fn carried(measured: &Measured, answer: &Answer, room: f64) -> Option<u32> {
    let fits = |requests: &u32| match answer.usable_fit() {
        Some(fit) => {
            let bytes = together(&measured.sizes, *requests);
            fit.at(f64::from(*requests), bytes) + fit.above <= room
        }
        None => {
            let upto = answer.levels.iter().filter(|level| level.from <= *requests);
            upto.map(|level| level.p99).fold(0.0, f64::max) <= room
        }
    };
    let Some(top) = measured.top else {
        answer.usable_fit()?;
        return (1..=answer.reached * BEYOND).rev().find(fits);
    };
    let reached = top.min(answer.reached);
    // The limit is the one of the hold, where all of them were under way.
    let highest = answer.memory.p99.value <= room;
    (1..=reached).rev().find(|requests| (highest && *requests == reached) || fits(requests))
}

/// What the bodies of so many requests don't exceed together in 99 % of all cases, drawn from the sizes
/// that were sent.
fn together(sizes: &[u64], requests: u32) -> f64 {
    if sizes.is_empty() {
        return 0.0;
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut one = || (0..requests).map(|_| sizes[random.usize(..sizes.len())] as f64).sum::<f64>();
    let mut sums: Vec<f64> = (0..DRAWINGS).map(|_| one()).collect();
    sums.sort_by(f64::total_cmp);
    sums[(DRAWINGS - 1) * 99 / 100]
}

/// Rounded up to what people write: whole MiB, and few of them that differ.
fn neat(bytes: u64) -> u64 {
    neat_by(bytes, MIB)
}

fn neat_by(bytes: u64, least: u64) -> u64 {
    let largest = (bytes / NEAT).max(1);
    let step = (1u64 << largest.ilog2()).max(least);
    bytes.max(1).div_ceil(step) * step
}

fn step(millis: f64, step: u64) -> u64 {
    (millis.max(1.0).ceil() as u64).div_ceil(step) * step
}

/// Two significant digits, rounded up.
fn significant(value: f64) -> f64 {
    let unit = 10f64.powf(value.log10().floor() - 1.0);
    // Not 0.30000000000000004: numbers as they are written.
    format!("{:.3e}", (value / unit).ceil() * unit).parse().unwrap_or(value)
}

/// What stands in the table now, for comparison.
pub(super) fn in_table(agent: &Agent) -> Sizes {
    let deployment = agent.deployment.as_deref();
    let requests = deployment.map(|deployment| deployment.requests).unwrap_or_default();
    let limits = deployment.map(|deployment| deployment.limits).unwrap_or_default();
    Sizes {
        request_memory: requests.memory,
        limit_memory: limits.memory,
        request_cpu_millis: requests.cpu_millis,
        limit_cpu_millis: limits.cpu_millis,
        max_in_flight: agent.max_in_flight,
        memory_base: agent.memory.map(|memory| memory.base),
        memory_per_body_byte: agent.memory.map(|memory| memory.per_body_byte),
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::tests::climbed;
    use super::super::windows::{Phase, Window};
    use super::*;

    #[test]
    fn sizes_are_rounded_up_to_neat_ones() {
        assert_eq!(neat(1), MIB);
        assert_eq!(neat(20 * MIB + 1), 21 * MIB);
        assert_eq!(neat(199 * MIB), 200 * MIB);
        assert_eq!(neat(1001 * MIB), 1008 * MIB);
        assert_eq!((step(3.0, 10), step(101.0, 100)), (10, 200));
        assert_eq!((significant(41.2), significant(0.1), significant(1234.0)), (42.0, 0.1, 1300.0));
    }

    #[test]
    fn bodies_that_come_together_are_less_than_the_largest_each() {
        let sizes: Vec<u64> = (1..=100).collect();
        assert!((together(&sizes, 1) - 99.0).abs() <= 1.0);
        let ten = together(&sizes, 10);
        assert!((600.0..800.0).contains(&ten), "{ten}");
        assert_eq!(together(&[], 3), 0.0);
    }

    #[test]
    fn a_time_is_given_as_the_option_reads_it() {
        assert_eq!([as_option(31.0), as_option(121.0), as_option(3600.0)], ["40s", "3m", "60m"]);
    }

    fn judged(change: impl FnOnce(&mut Measured), limit: Option<u64>) -> (Verdict, Answer) {
        let mut measured = climbed();
        change(&mut measured);
        let answer = Answer::of(&measured);
        (Verdict::of(&measured, &answer, 0.15, limit), answer)
    }

    #[test]
    fn a_good_run_gives_all_sizes() {
        let (verdict, answer) = judged(|_| {}, None);
        assert_eq!(verdict.refusals, []);
        let sizes = verdict.sizes;
        let bound = answer.memory.p99_upper.unwrap() * 1.15;
        let limit = sizes.limit_memory.unwrap() as f64;
        assert!(limit >= bound && limit < bound * 1.05, "{limit} for {bound}");
        assert!(sizes.request_memory.unwrap() as f64 >= answer.memory.p50.value);
        assert_eq!((sizes.request_cpu_millis, sizes.max_in_flight), (Some(810), Some(8)));
        assert_eq!(sizes.limit_cpu_millis, Some(1000));
        let base = sizes.memory_base.unwrap() as f64 / MIB as f64;
        let per_byte = sizes.memory_per_body_byte.unwrap();
        assert!(
            (4.8..5.6).contains(&base) && (19.0..24.0).contains(&per_byte),
            "{base} {per_byte}"
        );
    }

    #[test]
    fn a_given_limit_says_how_many_it_carries() {
        // 100 MiB, and 5 MiB and about 1 MiB of body for each, and 15 % above that.
        let (verdict, _) = judged(|_| {}, Some(140 * MIB));
        assert_eq!(verdict.sizes.max_in_flight, Some(3));
        let (verdict, _) = judged(|_| {}, Some(100 * MIB));
        assert_eq!(verdict.refusals[0].code, "too-small");
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Measured), code: &str, says: &str) {
        let (verdict, _) = judged(change, None);
        let found = verdict.refusals.iter().find(|refusal| refusal.code == code);
        let found = found.unwrap_or_else(|| panic!("not {code}: {:?}", verdict.refusals));
        assert!(found.text.contains(says), "{}", found.text);
    }

    #[test]
    fn what_does_not_support_an_answer_is_refused_with_what_to_do() {
        refused(|measured| measured.failures.count = 200, "failed", "200 of 2000 requests failed");
        refused(|measured| measured.done = 0, "failed", "no request was answered");
        refused(|measured| measured.tracks[0].kills = 2, "killed", "2 times");
        refused(|measured| measured.tracks[0].reached = 3, "not-reached", "never more than 3");
        let leak = |measured: &mut Measured| {
            let track = &mut measured.tracks[0];
            for number in 0..600u64 {
                let peak = (150 + number / 4) * MIB;
                let (in_flight, phase) = (8, Phase::Hold);
                track.keep(Window {
                    at: 1e3 + number as f64,
                    peak,
                    in_flight,
                    phase,
                    ..Window::default()
                });
            }
        };
        refused(leak, "grows", "a minute under the same load");
        refused(leak, "too-few", "more are needed: --time ");
    }
}
