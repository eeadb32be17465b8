//! What was measured, as a table and as JSON.

use std::fmt::Write as _;

use benches::machine;
use benches::stats::{Estimate, median, ratios};
use serde_json::{Value, json};

use super::args::{Args, command};
use super::bars::Bar;
use super::proxies::Proxy;

/// One line of the table: a value for each target and round.
pub(crate) struct Row {
    name: String,
    unit: &'static str,
    values: Vec<Vec<f64>>,
    bar: Bar,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, values: Vec<Vec<f64>>) -> Self {
        Self { name: name.into(), unit, values, bar: Bar::None }
    }

    pub(crate) fn held_to(mut self, bar: Bar) -> Self {
        self.bar = bar;
        self
    }

    /// Ours against each peer's, of the same rounds; the first target is us.
    fn against(&self) -> impl Iterator<Item = Estimate> {
        let (ours, peers) = self.values.split_at(1);
        peers.iter().map(|theirs| Estimate::of(&ratios(&ours[0], theirs)))
    }
}

/// Everything that is said at the end.
pub(crate) struct Report {
    machine: Value,
    command: String,
    rounds: usize,
    targets: Vec<String>,
    versions: Vec<String>,
    rows: Vec<Row>,
    failed: Vec<String>,
}

impl Report {
    pub(crate) fn new(machine: Value, args: &Args) -> Self {
        let (targets, versions, rows, failed) = Default::default();
        Self {
            machine,
            command: command(),
            rounds: args.effort.rounds,
            targets,
            versions,
            rows,
            failed,
        }
    }

    pub(crate) fn proxies(&mut self, proxies: &[Proxy]) {
        self.targets = proxies.iter().map(|proxy| proxy.name.clone()).collect();
        self.versions = proxies.iter().map(|proxy| proxy.version.clone()).collect();
    }

    pub(crate) fn rows(&mut self, mut rows: Vec<Row>) {
        self.rows.append(&mut rows);
    }

    pub(crate) fn failed(&mut self, what: String) {
        eprintln!("failed: {what}");
        self.failed.push(what);
    }

    pub(crate) fn all_worked(&self) -> bool {
        self.failed.is_empty()
    }

    /// The machine, the command and the versions.
    pub(crate) fn head(&self) -> String {
        let named = self.targets.iter().zip(&self.versions);
        let named: Vec<_> = named.map(|(name, version)| format!("{name} {version}")).collect();
        let Self { command, rounds, .. } = self;
        let machine = machine::line(&self.machine);
        format!("{machine}\n{command} ({rounds} rounds)\n{}\n", named.join(", "))
    }

    /// The medians of each; then ours against each peer's, the median of the rounds' quotients with
    /// its 95 % interval, and the bar.
    pub(crate) fn table(&self) -> String {
        let ours = self.targets.first().map_or("", String::as_str);
        let against = format!("{ours} against");
        let mut text = heading("", self.targets.iter().map(|name| format!(" {name:>11}")), "");
        self.rows.iter().for_each(|row| text += &Self::medians(row));
        let peers = self.targets.iter().skip(1).map(|name| format!(" {name:>19}"));
        text.push('\n');
        text += &heading(&against, peers, "  bar (reach)");
        self.rows.iter().for_each(|row| text += &self.quotients(row));
        text
    }

    fn medians(row: &Row) -> String {
        let values = row.values.iter().map(|values| format!(" {}", number(median(values))));
        line(row, &values.collect::<String>())
    }

    fn quotients(&self, row: &Row) -> String {
        let shown = |Estimate { median, low, high }| format!("{median:.2} [{low:.2} {high:.2}]");
        let mut rest: String = row.against().map(|one| format!(" {:>19}", shown(one))).collect();
        let verdict = row.bar.verdict(&self.targets, &row.values);
        let verdict = verdict.map_or("", |verdict| verdict.as_str());
        let _ = write!(rest, "  {:<30} {verdict}", row.bar.words());
        line(row, &rest)
    }

    /// The same for programs, with the values of every round.
    pub(crate) fn json(&self) -> Value {
        let versions: Vec<_> = self.targets.iter().zip(&self.versions).collect();
        let rows: Vec<_> = self.rows.iter().map(|row| self.row_json(row)).collect();
        json!({ "machine": self.machine, "command": self.command, "rounds": self.rounds,
            "versions": versions, "rows": rows, "failed": self.failed })
    }

    fn row_json(&self, row: &Row) -> Value {
        let of = |(name, values): (&String, &Vec<f64>)| {
            let values: Vec<_> = values.iter().map(|value| rounded(*value)).collect();
            (name.clone(), json!(values))
        };
        let values: serde_json::Map<_, _> = self.targets.iter().zip(&row.values).map(of).collect();
        let ratio = |(name, estimate): (&String, Estimate)| {
            let Estimate { median, low, high } = estimate;
            (name.clone(), json!([median, low, high].map(rounded)))
        };
        let ratios: serde_json::Map<_, _> =
            self.targets.iter().skip(1).zip(row.against()).map(ratio).collect();
        let verdict = row.bar.verdict(&self.targets, &row.values);
        json!({ "name": row.name, "unit": row.unit, "values": values, "ratios": ratios,
            "bar": row.bar.words(), "verdict": verdict.map(|verdict| verdict.as_str()) })
    }
}

fn heading(name: &str, columns: impl Iterator<Item = String>, last: &str) -> String {
    let columns: String = columns.collect();
    format!("{name:<42} {:<4}{columns}{last}\n", "")
}

fn line(row: &Row, rest: &str) -> String {
    let line = format!("{:<42} {:<4}{rest}", row.name, row.unit);
    format!("{}\n", line.trim_end())
}

/// To a thousandth, which is more than anything here is sure of.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn number(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:>11.0}"),
        10.0.. => format!("{value:>11.1}"),
        _ => format!("{value:>11.2}"),
    }
}
