//! One tenant's calls take 2 s each and alone want more than there is; three others ask short questions,
//! which need less than their share. Fair by what is used, seconds times places, they hardly wait.

use std::io;

use benches::packing::Window;

use super::arrivals::{Source, arrivals};
use super::client::{Outcome, TENANT};
use super::outcomes::{self, answers, due, middle_and_tail, short, waits_ms};
use super::replica::Settings;
use super::report::Report;
use super::yard::{Bench, REPLICAS, Ran, Setup};

const PLACES: u64 = 8;
const LINE: usize = 64;
/// The one with the long calls; the others follow.
const LONG: usize = 0;
const SOURCES: [Source; 4] = [
    Source { name: "runs", per_second: 16.0, hold_ms: (2000, 2000), body: (200, 200) },
    questions("q1"),
    questions("q2"),
    questions("q3"),
];

const fn questions(name: &'static str) -> Source {
    Source { name, per_second: 40.0, hold_ms: (50, 50), body: (200, 200) }
}

/// With `[tenants]` and without.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> io::Result<()> {
    let arrivals = arrivals(&SOURCES, bench.effort.time);
    let agent = format!("max_in_flight = {PLACES}\nqueue = {{ max = {LINE}, timeout = \"4s\" }}\n");
    let tenants = format!("[tenants]\nheader = \"{TENANT}\"\n");
    let replica = Settings { places: PLACES, base: 0, per_body_byte: 0 };
    let setup = Setup { replica, limit: None, agent: &agent, sections: &tenants };
    let with = bench.run(&setup, &SOURCES, &arrivals).await?;
    let without = bench.run(&Setup { sections: "", ..setup }, &SOURCES, &arrivals).await?;
    say(report, outcomes::window(bench.effort), &[&with, &without]);
    Ok(())
}

fn say(report: &mut Report, window: Window, runs: &[&Ran; 2]) {
    report.paragraph(&format!(
        "Long calls: {REPLICAS} replicas of {PLACES} places; one tenant asks for 16 calls of 2 s a \
         second, which is twice what there is; three for 40 of 50 ms, an eighth each; at most {LINE} \
         wait, at most 4 s"
    ));
    report.head("", &["tenants", "one line"]);
    let mut row = |name: &str, value: &dyn Fn(&Ran) -> String| {
        report.row(name, &runs.map(value));
    };
    for (long, kind) in [(false, "short"), (true, "long")] {
        row(&format!("{kind}: wait, p50 / p99 ms"), &|ran| {
            middle_and_tail(&waits_ms(asked(window, ran, long).into_iter()))
        });
        row(&format!("{kind}: served, % of what was asked"), &|ran| {
            let asked = asked(window, ran, long);
            let served = asked.iter().filter(|one| one.served.is_some()).count();
            short(100.0 * served as f64 / asked.len() as f64)
        });
    }
    row("places in use, %", &|ran| short(100.0 * in_use(window, &ran.outcomes)));
    row("over-admissions", &|ran| ran.over_admitted.to_string());
    for (name, ran) in ["tenants", "one line"].iter().zip(runs) {
        report.paragraph(&format!("answers, {name}: {}", answers(&ran.outcomes)));
    }
}

/// Those of the tenant with the long calls, or of the others.
fn asked(window: Window, ran: &Ran, long: bool) -> Vec<&Outcome> {
    let due = due(window, &ran.outcomes);
    due.filter(|outcome| (outcome.arrival.source == LONG) == long).collect()
}

/// Seconds of places that were used, of all that there were.
fn in_use(window: Window, outcomes: &[Outcome]) -> f64 {
    let used = outcomes.iter().filter_map(|outcome| {
        let served = outcome.served?;
        Some(window.part(served.begun, served.ended) * (served.ended - served.begun))
    });
    used.sum::<f64>() / (window.seconds() * (REPLICAS as u64 * PLACES) as f64)
}
