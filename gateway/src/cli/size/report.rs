//! The report: as text for people, as JSON for programs. The same figures in both.

use serde_json::{Value, json};

use super::answer::{Answer, Distribution};
use super::fit::Part;
use super::measure::Measured;
use super::plot::Plot;
use super::quantiles::{ERROR, Quantile};
use super::verdict::{Sizes, Verdict};
use crate::cli::{terminal, units};

/// What is shown for a number that isn't known.
const UNKNOWN: &str = "-";

/// All that is reported on.
pub(super) struct Report<'a> {
    pub(super) agent: &'a str,
    pub(super) measured: &'a Measured,
    pub(super) answer: &'a Answer,
    pub(super) verdict: &'a Verdict,
    pub(super) now: &'a Sizes,
}

impl Report<'_> {
    /// Ends in a newline.
    pub(super) fn text(&self) -> String {
        let blocks = [
            self.head(),
            self.quantiles(),
            self.levels(),
            self.fit(),
            self.sizes(),
            self.refusals(),
        ];
        let blocks = blocks.into_iter().filter(|block| !block.is_empty());
        blocks.collect::<Vec<_>>().join("\n")
    }

    fn head(&self) -> String {
        let (measured, answer) = (self.measured, self.answer);
        let time = units::time(measured.lasted);
        let window = units::time(measured.window);
        let windows = units::counted(answer.windows, "window");
        let worth = answer.worth.floor();
        let mut text = format!(
            "{}: {time}, {windows} of {window}, worth {worth} independent ones\n",
            self.agent
        );
        if measured.driven {
            let done = units::counted(measured.done as usize, "request");
            let rate = units::rate(measured.done as f64 / measured.lasted.as_secs_f64().max(0.001));
            text.push_str(&format!("{done} ({rate}), {} failed", measured.failures.count));
            if let Some(first) = &measured.failures.first {
                text.push_str(&format!(", the first with: {}", terminal::clean(first)));
            }
            text.push('\n');
        } else {
            text.push_str(&format!(
                "{} watched\n",
                units::counted(measured.tracks.len(), "replica")
            ));
        }
        let limit = measured
            .limit
            .map_or("no limit".to_owned(), |limit| format!("limit {}", units::bytes(limit)));
        let rest = answer.rest.map_or(String::new(), |rest| format!(", {} at rest", bytes(rest)));
        let most = answer.start.map_or(String::new(), |start| {
            let (peak, cpus) = (units::bytes(start.peak), cpu(start.cpu_millis));
            format!("; until it was ready at most {peak}, and {cpus} CPU on average")
        });
        text.push_str(&format!("{}, {limit}{rest}{most}\n", measured.by));
        if let Some(why) = &measured.early {
            text.push_str(&format!("ended early: {why}\n"));
        }
        text
    }

    fn quantiles(&self) -> String {
        let mut rows = vec![cells(["PEAKS", "P50", "P90", "P99", "MAX"])];
        let mut figure = |name: &str, of: &Distribution, show: fn(f64) -> String| {
            rows.push([
                name.to_owned(),
                show(of.p50.value),
                show(of.p90.value),
                show(of.p99.value),
                show(of.max),
            ]);
            let range = |quantile: &Quantile| {
                let end = |end: Option<f64>| end.map_or(UNKNOWN.to_owned(), show);
                format!("{} – {}", end(quantile.low), end(quantile.high))
            };
            rows.push([
                "  95 %".to_owned(),
                range(&of.p50),
                range(&of.p90),
                range(&of.p99),
                String::new(),
            ]);
        };
        if self.answer.windows > 0 {
            let least = if self.answer.kills > 0 { "memory, at least" } else { "memory" };
            figure(least, &self.answer.memory, bytes);
            if let Some(of) = &self.answer.cpu {
                figure("cpu", of, cpu);
            }
        }
        if rows.len() > 1 { aligned(&rows) } else { String::new() }
    }

    fn levels(&self) -> String {
        if self.answer.levels.len() < 2 {
            return String::new();
        }
        let mut rows = vec![cells(["UNDER WAY", "WINDOWS", "P50", "P99", "MAX"])];
        rows.extend(self.answer.levels.iter().map(|level| {
            let at = if level.from == level.to {
                level.to.to_string()
            } else {
                format!("{} – {}", level.from, level.to)
            };
            [at, level.windows.to_string(), bytes(level.p50), bytes(level.p99), bytes(level.max)]
        }));
        aligned(&rows)
    }

    fn fit(&self) -> String {
        let fit = match &self.answer.fit {
            Ok(fit) => fit,
            Err(why) => return format!("no fit of memory by requests: {why}\n"),
        };
        if let Some(why) = fit.objection() {
            return format!("no fit of memory by requests: {why}\n");
        }
        let part = |part: &Part, show: fn(f64) -> String| {
            let unsure = if part.is_known() { "" } else { ", not told from 0" };
            format!("{} ({} – {}{unsure})", show(part.value), show(part.low), show(part.high))
        };
        let base = format!(
            "{} ({} – {})",
            bytes(fit.base.value),
            bytes(fit.base.low),
            bytes(fit.base.high)
        );
        let mut text = format!(
            "memory = {base}\n       + {} for each request under way\n       + {} for each byte of their bodies\n",
            part(&fit.per_request, bytes),
            part(&fit.per_byte, number),
        );
        let (off, most) = (bytes(fit.off), bytes(fit.off_most));
        text.push_str(&format!(
            "  off by {off} ({:.1} %), at most {most}, over {} windows",
            fit.off_part * 100.0,
            fit.windows
        ));
        if let Some(off) = fit.off_elsewhere {
            text.push_str(&format!("; by {:.1} % over those of the hold", off * 100.0));
        }
        text.push('\n');
        text
    }

    fn sizes(&self) -> String {
        if self.answer.windows == 0 {
            return String::new();
        }
        let (found, now) = (&self.verdict.sizes, self.now);
        let heading = if self.verdict.is_yes() { "RECOMMENDED" } else { "AS FAR AS SEEN" };
        let mut rows = vec![["", heading, "NOW", "BECAUSE"].map(str::to_owned)];
        let mut row = |name: &str, found: Option<String>, now: Option<String>, why: String| {
            let text = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
            rows.push([name.to_owned(), text(found), text(now), why]);
        };
        let size = |bytes: Option<u64>| bytes.map(config::units::show_size);
        let cpu = |millis: Option<u64>| millis.map(config::units::show_cpu);
        let percent = self.verdict.headroom * 100.0;
        let headroom = format!("upper bound of p99 and {percent:.0} %, at least the maximum");
        row(
            "requests.memory",
            size(found.request_memory),
            size(now.request_memory),
            "p50".to_owned(),
        );
        row("limits.memory", size(found.limit_memory), size(now.limit_memory), headroom);
        row(
            "requests.cpu",
            cpu(found.request_cpu_millis),
            cpu(now.request_cpu_millis),
            "p50".to_owned(),
        );
        let why = format!("upper bound of p99 and {percent:.0} %");
        row("limits.cpu", cpu(found.limit_cpu_millis), cpu(now.limit_cpu_millis), why);
        let most = |n: Option<u32>| n.map(|n| n.to_string());
        let why = format!(
            "what the limit less {percent:.0} % carries; {} were reached",
            self.answer.reached
        );
        row("max_in_flight", most(found.max_in_flight), most(now.max_in_flight), why);
        let upper = || "upper end of the fit's part".to_owned();
        row("memory.base", size(found.memory_base), size(now.memory_base), upper());
        let per_byte = |value: Option<f64>| value.map(number);
        row(
            "memory.per_body_byte",
            per_byte(found.memory_per_body_byte),
            per_byte(now.memory_per_body_byte),
            upper(),
        );
        columns(&rows)
    }

    fn refusals(&self) -> String {
        let line =
            |refusal: &super::verdict::Refusal| format!("no: {}\n", terminal::clean(&refusal.text));
        self.verdict.refusals.iter().map(line).collect()
    }

    /// The run as a picture.
    pub(super) fn plot(&self) -> Plot<'_> {
        let windows = self.measured.tracks.iter().flat_map(|track| track.series.windows());
        let time = units::time(self.measured.lasted);
        let (agent, windows) = (self.agent, windows.copied().collect());
        Plot {
            title: format!("{agent}: memory over {time}"),
            windows,
            answer: self.answer,
            limit: self.verdict.sizes.limit_memory,
        }
    }

    /// The report for programs: bytes, thousandths of a CPU, seconds.
    pub(super) fn json(&self) -> Value {
        let (measured, answer, verdict) = (self.measured, self.answer, self.verdict);
        let fit = answer.fit.as_ref().map(|fit| {
            let part = |part: &Part| json!({ "value": part.value, "low": part.low, "high": part.high, "known": part.is_known() });
            json!({
                "usable": fit.objection().is_none(), "objection": fit.objection(), "windows": fit.windows,
                "base": part(&fit.base), "per_request": part(&fit.per_request), "per_byte": part(&fit.per_byte),
                "rmse": fit.off, "rmse_part": fit.off_part, "max_error": fit.off_most, "explains": fit.explains,
                "rmse_part_hold": fit.off_elsewhere,
            })
        });
        let fit = fit.unwrap_or_else(|why| json!({ "usable": false, "objection": why }));
        let levels = answer.levels.iter().map(|level| {
            json!({
                "from": level.from, "to": level.to, "windows": level.windows,
                "p50": level.p50, "p99": level.p99, "max": level.max,
            })
        });
        json!({
            "agent": self.agent,
            "answer": if verdict.is_yes() { "yes" } else { "no" },
            "refusals": verdict.refusals,
            "recommended": verdict.sizes,
            "table": self.now,
            "headroom": verdict.headroom,
            "seconds": measured.lasted.as_secs_f64(),
            "window_seconds": measured.window.as_secs_f64(),
            "windows": answer.windows,
            "independent_windows": answer.worth.floor(),
            "sketch_error": ERROR,
            "memory_by": measured.by,
            "replicas": measured.tracks.iter().map(|track| &track.name).collect::<Vec<_>>(),
            "limit": measured.limit,
            "ended_early": measured.early,
            "requests": { "done": measured.done, "failed": measured.failures.count, "refused": measured.failures.refused, "first_failure": measured.failures.first },
            "rest": answer.rest,
            "start": answer.start.map(|start| json!({"peak": start.peak, "cpu_millis": start.cpu_millis})),
            "memory": distribution(&answer.memory),
            "cpu_millis": answer.cpu.as_ref().map(distribution),
            "levels": levels.collect::<Vec<_>>(),
            "fit": fit,
            "grows_bytes_per_minute": answer.growth,
            "highest_memory": answer.most,
            "kills": answer.kills,
            "at_least": answer.kills > 0,
            "in_flight_reached": answer.reached,
        })
    }
}

fn distribution(of: &Distribution) -> Value {
    let quantile = |quantile: &Quantile| json!({ "value": quantile.value, "low": quantile.low, "high": quantile.high });
    json!({
        "p50": quantile(&of.p50), "p90": quantile(&of.p90), "p99": quantile(&of.p99),
        "p99_upper": of.p99_upper, "max": of.max,
    })
}

fn bytes(value: f64) -> String {
    units::bytes(value.max(0.0) as u64)
}

/// Of a CPU: `0.25`, `1.5`.
fn cpu(millis: f64) -> String {
    format!("{:.2}", millis / 1000.0)
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn cells(of: [&str; 5]) -> [String; 5] {
    of.map(str::to_owned)
}

/// Columns as wide as their widest cell, the first flush left, numbers flush right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    lay(rows, |column, text, width| match column {
        0 => format!("{text:<width$}"),
        _ => format!("{text:>width$}"),
    })
}

/// As [`aligned`], the last column flush left: a text.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    lay(rows, |column, text, width| match column {
        c if c == 0 || c == N - 1 => format!("{text:<width$}"),
        _ => format!("{text:>width$}"),
    })
}

fn lay<const N: usize>(
    rows: &[[String; N]],
    cell: impl Fn(usize, &str, usize) -> String,
) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = (0..N).map(|column| cell(column, &row[column], widths[column]));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::measure::tests::climbed;
    use super::*;

    fn reported(change: impl FnOnce(&mut Measured)) -> (String, Value) {
        let mut measured = climbed();
        change(&mut measured);
        let answer = Answer::of(&measured);
        let verdict = Verdict::of(&measured, &answer, 0.15, None);
        let now = Sizes { max_in_flight: Some(4), ..Sizes::default() };
        let report = Report {
            agent: "qa",
            measured: &measured,
            answer: &answer,
            verdict: &verdict,
            now: &now,
        };
        (report.text(), report.json())
    }

    #[test]
    fn a_report_has_its_figures_in_aligned_columns() {
        let (text, json) = reported(|_| {});
        for line in [
            "qa: 10 min, 400 windows of 1 s, worth 400 independent ones",
            "2000 requests (3.33/s), 0 failed",
            "working set, no limit",
            "UNDER WAY  WINDOWS",
            "max_in_flight                   8    4  what the limit less 15 % carries; 8 were reached",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
        assert!(!text.contains("no: ") && text.contains("memory = 10"), "{text}");
        assert_eq!((&json["answer"], &json["windows"]), (&"yes".into(), &400.into()));
        let p99 = json["memory"]["p99"]["value"].as_f64().unwrap_or(0.0);
        assert!(text.contains(&bytes(p99)), "{p99} in\n{text}");
    }

    #[test]
    fn what_was_killed_needs_at_least_what_was_seen() {
        let (text, json) = reported(|measured| {
            measured.tracks[0].kills = 1;
            measured.limit = Some(256 << 20);
            measured.early = Some("the agent was gone".to_owned());
        });
        for line in [
            "memory, at least",
            "ended early: the agent was gone",
            "limit 256 MiB",
            "AS FAR AS SEEN",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
        assert!(
            text.contains("no: it was killed or ended once under a limit of 256 MiB"),
            "{text}"
        );
        assert_eq!(
            (&json["at_least"], &json["refusals"][0]["code"]),
            (&true.into(), &"killed".into())
        );
    }
}
