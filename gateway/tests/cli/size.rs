//! `switchyard size` on an agent whose memory is known ([`agent`]): what it finds lies within 3 % of what is
//! true. `SWITCHYARD_SIZE_TIME` (such as `10m`) makes the runs that the accuracy is read off longer;
//! `benches/size/run` does.

mod agent;
mod cluster;
mod refusals;
mod runs;
mod watch;

use serde_json::Value;
use tempfile::TempDir;

use super::{outcome, run, switchyard};
use agent::Known;

/// How far what is found may be from what is true.
const WITHIN: f64 = 0.03;

/// A table with one agent of known memory, and what it wrote of itself at its start.
struct Yard {
    folder: TempDir,
    known: Known,
}

impl Yard {
    fn new(known: Known) -> Yard {
        let folder = tempfile::tempdir().unwrap();
        let rest = folder.path().join("rest");
        std::fs::write(folder.path().join("t.toml"), agent::table(&known, &rest)).unwrap();
        Yard { folder, known }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Sizes it; gives the exit code, the report and stderr.
    fn size(&self, arguments: &[&str]) -> (Option<i32>, Value, String) {
        let table = self.path("t.toml");
        let all = [&["size", "known", "--config", &table, "--format", "json"], arguments].concat();
        let (code, out, err) = run(&all);
        let report = serde_json::from_str(&out).unwrap_or_else(|_| panic!("no report: {out}{err}"));
        (code, report, err)
    }

    /// What the process took before its known memory, as it is counted in this report.
    fn overhead(&self, report: &Value) -> f64 {
        let rest = std::fs::read_to_string(self.path("rest")).unwrap();
        let key =
            if report["memory_by"].as_str().unwrap().contains("cgroup") { "anon" } else { "all" };
        let line = rest.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().parse().unwrap()
    }
}

#[track_caller]
fn check(what: &str, found: &Value, truth: f64) {
    let found = found.as_f64().unwrap_or_else(|| panic!("no {what}: {found}"));
    let off = found / truth - 1.0;
    eprintln!("{what:<14} {truth:>14.0} {found:>14.0} {:>6.2} %", off * 100.0);
    assert!(off.abs() <= WITHIN, "{what} is {found}, not {truth}: {:.1} % off", off * 100.0);
}

fn time(otherwise: &str) -> String {
    std::env::var("SWITCHYARD_SIZE_TIME").unwrap_or_else(|_| otherwise.to_owned())
}

#[test]
fn known_quantiles_are_found() {
    let yard = Yard::new(Known { base: 160 << 20, spread: 120 << 20, ..Known::default() });
    let time = time("90s");
    // As long as a level lasts.
    let settings = ["--time", &time, "--window", "400ms", "--concurrency", "2"];
    let (_, report, err) = yard.size(&settings);
    assert!(report["windows"].as_u64() > Some(150), "{err}{report:#}");
    let rest = yard.known.base as f64 + yard.overhead(&report);
    for (name, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        check(name, &report["memory"][name]["value"], rest + yard.known.level(part));
    }
    check("max", &report["memory"]["max"], rest + yard.known.level(1.0));
    let limit = report["recommended"]["limit_memory"].as_f64().unwrap();
    let p99 = rest + yard.known.level(0.99);
    assert!(limit >= p99 * 1.15 * (1.0 - WITHIN) && limit < p99 * 1.3, "{limit} for {p99}");
}

#[test]
fn an_answer_is_put_into_the_table() {
    // A limit that it can't start under would be none.
    let yard = Yard::new(Known { base: 64 << 20, start: 192 << 20, ..Known::default() });
    let settings = ["--time", "25s", "--window", "50ms", "--concurrency", "2", "--write"];
    let (code, report, err) = yard.size(&settings);
    assert_eq!((code, &report["answer"]), (Some(0), &"yes".into()), "{err}{report:#}");
    let recommended = &report["recommended"];
    let limit = recommended["limit_memory"].as_f64().unwrap() / f64::from(256 << 20);
    assert!((1.15..1.25).contains(&limit), "{report:#}");
    let request = recommended["request_memory"].as_f64().unwrap() / f64::from(64 << 20);
    assert!((1.0..1.3).contains(&request), "{report:#}");
    assert_eq!(recommended["max_in_flight"], 2);
    let path = yard.path("t.toml");
    let table = std::fs::read_to_string(&path).unwrap();
    assert!(table.starts_with("# A table for tests.\n"), "{table}");
    assert!(table.contains("max_in_flight = 2\n"), "{table}");
    assert!(err.contains("+limits = { cpu = "), "{err}");
    let (code, _, problems) = run(&["check", "--config", &path]);
    assert_eq!(code, Some(0), "{problems}");
}

#[test]
fn what_a_request_and_a_byte_take_is_found() {
    let yard = Yard::new(Known {
        base: 160 << 20,
        per_request: 12 << 20,
        per_byte: 100,
        hold_ms: 800,
        ..Known::default()
    });
    let mix = yard.path("mix.toml");
    let text = "[arrival]\nconcurrency = [1, 2, 4]\n\
                [[request]]\nsize = { min = \"8KiB\", max = \"64KiB\" }\n";
    std::fs::write(&mix, text).unwrap();
    let time = time("90s");
    let (_, report, err) = yard.size(&["--time", &time, "--window", "400ms", "--mix", &mix]);
    assert_eq!(report["fit"]["usable"], true, "{err}{report:#}");
    let Known { base, per_request, per_byte, .. } = yard.known;
    let rest = base as f64 + yard.overhead(&report);
    check("at rest", &report["rest"], rest);
    check("base", &report["fit"]["base"]["value"], rest);
    check("per request", &report["fit"]["per_request"]["value"], per_request as f64);
    check("per byte", &report["fit"]["per_byte"]["value"], per_byte as f64);
    assert_eq!(report["in_flight_reached"], 4);
    assert_eq!(report["requests"]["failed"], 0, "{report:#}");
    let base = report["recommended"]["memory_base"].as_f64().unwrap();
    assert!(base >= per_request as f64 * (1.0 - WITHIN), "{base}");
}
