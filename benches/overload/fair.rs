//! Five times what two replicas can do, by tenants of whom one asks for half of all: how much is
//! served, how long who is served has waited, how soon the others are told, and whether each tenant
//! has what its weight says. All of them always have something waiting, so that fair is by weight.

use std::io;
use std::time::Duration;

use benches::packing::Window;
use benches::stats::quantile;

use super::arrivals::{Source, arrivals};
use super::client::{Outcome, TENANT};
use super::outcomes::{
    self, answers, done, due, jain, middle_and_tail, refusals_ms, retry_after, short, waits_ms,
};
use super::replica::Settings;
use super::report::Report;
use super::yard::{Bench, REPLICAS, Ran, Setup};

const PLACES: u64 = 8;
const HOLD_MS: u64 = 100;
const LINE: usize = 128;
const TIMEOUT: Duration = Duration::from_secs(1);
/// Of a second, both replicas.
const CAPACITY: f64 = (REPLICAS as u64 * PLACES * 1000 / HOLD_MS) as f64;

/// What they ask for comes to five times the capacity; and their weights.
const TENANTS: [(Source, f64); 6] = [
    (tenant("greedy", 400.0), 1.0),
    (tenant("gold", 160.0), 3.0),
    (tenant("t1", 60.0), 1.0),
    (tenant("t2", 60.0), 1.0),
    (tenant("t3", 60.0), 1.0),
    (tenant("t4", 60.0), 1.0),
];

const fn tenant(name: &'static str, per_second: f64) -> Source {
    Source { name, per_second, hold_ms: (HOLD_MS, HOLD_MS), body: (200, 200) }
}

/// With `[tenants]` and without.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> io::Result<()> {
    let sources = TENANTS.map(|(source, _)| source);
    let arrivals = arrivals(&sources, bench.effort.time);
    let agent = format!(
        "max_in_flight = {PLACES}\nqueue = {{ max = {LINE}, timeout = \"{}ms\" }}\n",
        TIMEOUT.as_millis()
    );
    let tenants =
        format!("[tenants]\nheader = \"{TENANT}\"\nknown = {{ gold = {{ weight = 3 }} }}\n");
    let replica = Settings { places: PLACES, base: 0, per_body_byte: 0 };
    let setup = Setup { replica, limit: None, agent: &agent, sections: &tenants };
    let with = bench.run(&setup, &sources, &arrivals).await?;
    let without = bench.run(&Setup { sections: "", ..setup }, &sources, &arrivals).await?;
    let window = outcomes::window(bench.effort);
    say(report, window, &[&with, &without]);
    shares(report, window, &[&with, &without]);
    judge(report, window, &with);
    Ok(())
}

fn say(report: &mut Report, window: Window, runs: &[&Ran; 2]) {
    let asked: f64 = TENANTS.iter().map(|(source, _)| source.per_second).sum();
    report.paragraph(&format!(
        "Overload: {REPLICAS} replicas of {PLACES} places, {HOLD_MS} ms a request, so {CAPACITY:.0} \
         requests/s; {asked:.0}/s are asked for; at most {LINE} wait, at most {} ms",
        TIMEOUT.as_millis()
    ));
    report.head("", &["tenants", "one line"]);
    let mut row = |name: &str, value: &dyn Fn(&Ran) -> String| {
        report.row(name, &runs.map(value));
    };
    row("goodput, requests/s", &|ran| short(goodput(window, ran)));
    row("goodput, % of the capacity", &|ran| short(100.0 * goodput(window, ran) / CAPACITY));
    row("wait of who was served, p50 / p99 ms", &|ran| {
        middle_and_tail(&waits_ms(due(window, &ran.outcomes)))
    });
    row("time to a refusal, p50 / p99 ms", &|ran| {
        middle_and_tail(&refusals_ms(due(window, &ran.outcomes)))
    });
    row("Retry-After, least / median / most s", &|ran| retry_after(&ran.outcomes));
    row("Jain's index over served by weight", &|ran| {
        format!("{:.4}", jain(&by_weight(window, ran)))
    });
    row("over-admissions", &|ran| ran.over_admitted.to_string());
    row("neither served nor refused", &|ran| lost(&ran.outcomes).to_string());
    for (name, ran) in ["tenants", "one line"].iter().zip(runs) {
        report.paragraph(&format!("answers, {name}: {}", answers(&ran.outcomes)));
    }
}

fn goodput(window: Window, ran: &Ran) -> f64 {
    done(window, &ran.outcomes, None) as f64 / window.seconds()
}

fn lost(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.lost()).count()
}

/// What each tenant was served, by its weight.
fn by_weight(window: Window, ran: &Ran) -> Vec<f64> {
    let each = TENANTS.iter().enumerate();
    each.map(|(n, (_, weight))| done(window, &ran.outcomes, Some(n)) as f64 / weight).collect()
}

/// How far each tenant's part of what was served is from its weight's, in percent of that.
fn off_percent(window: Window, ran: &Ran) -> Vec<f64> {
    let weights: f64 = TENANTS.iter().map(|(_, weight)| weight).sum();
    let fair = done(window, &ran.outcomes, None) as f64 / weights;
    by_weight(window, ran).iter().map(|served| 100.0 * (served / fair - 1.0)).collect()
}

fn shares(report: &mut Report, window: Window, runs: &[&Ran; 2]) {
    report.head(
        "tenant: served/s, and % off its weight's share",
        &["weight, asked/s", "tenants", "one line"],
    );
    let off = runs.map(|ran| off_percent(window, ran));
    for (n, (source, weight)) in TENANTS.iter().enumerate() {
        let served = |ran: &Ran| done(window, &ran.outcomes, Some(n)) as f64 / window.seconds();
        let shown = |run: usize| format!("{}  {:+.1} %", short(served(runs[run])), off[run][n]);
        let asked = format!("{weight:.0}, {:.0}", source.per_second);
        report.row(source.name, &[asked, shown(0), shown(1)]);
    }
}

/// The queue's limit is on what the gateway makes one wait. What the bench sees has the way there
/// and back in it, which is what a refusal takes that waits for nothing.
fn judge(report: &mut Report, window: Window, ran: &Ran) {
    let goodput = 100.0 * goodput(window, ran) / CAPACITY;
    report.bar("overload: goodput ≥ 95 % of the capacity", short(goodput), goodput >= 95.0);
    let refusal = quantile(&refusals_ms(due(window, &ran.outcomes)), 0.5);
    let wait = quantile(&waits_ms(due(window, &ran.outcomes)), 0.99) - refusal;
    let most = TIMEOUT.as_secs_f64() * 1e3;
    report.bar(
        format!("overload: p99 wait of who is served, without the way, ≤ {most} ms"),
        format!("{wait:.1}"),
        wait <= most,
    );
    report.bar("overload: median time to a refusal ≤ 10 ms", short(refusal), refusal <= 10.0);
    let off = off_percent(window, ran).iter().fold(0.0, |most: f64, off| most.max(off.abs()));
    report.bar("overload: served shares within 10 % of the weights'", short(off), off <= 10.0);
    let over = ran.over_admitted;
    report.bar("overload: no replica got more than it has places for", over.to_string(), over == 0);
}
