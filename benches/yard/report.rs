//! What was measured, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Values of one thing, in the row's unit.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

/// One line of the table.
pub(crate) struct Row {
    name: String,
    unit: &'static str,
    gateway: Samples,
    direct: Option<Samples>,
}

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Nearest rank; not a number where nothing was measured.
    fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (q * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    fn json(&self) -> Value {
        let (median, p99, max) = (self.median(), self.quantile(0.99), self.quantile(1.0));
        json!({ "n": self.0.len(), "median": median, "p99": p99, "max": max })
    }
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, gateway: Samples) -> Self {
        Self { name: name.into(), unit, gateway, direct: None }
    }

    /// With the same measured without the gateway.
    pub(crate) fn beside(mut self, direct: Samples) -> Self {
        self.direct = Some(direct);
        self
    }

    fn line(&self) -> String {
        let Self { name, unit, gateway, direct } = self;
        let (median, p99) = (gateway.median(), gateway.quantile(0.99));
        let mut line = format!(
            "{name:<52} {unit:<5} {:>6} {} {} {}",
            gateway.0.len(),
            number(median),
            number(p99),
            number(gateway.quantile(1.0)),
        );
        if let Some(direct) = direct {
            let base = direct.median();
            // A string takes all.
            let _ = write!(
                line,
                " {} {} {} {:>6.2}",
                number(base),
                number(direct.quantile(0.99)),
                number(median - base),
                median / base,
            );
        }
        line
    }

    fn json(&self) -> Value {
        let direct = self.direct.as_ref().map(Samples::json);
        json!({ "name": self.name, "unit": self.unit, "gateway": self.gateway.json(),
            "direct": direct })
    }
}

/// The whole table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<52} {:<5} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}\n",
        "", "unit", "n", "median", "p99", "max", "direct", "p99", "added", "ratio"
    );
    for row in rows {
        text.push_str(row.line().trim_end());
        text.push('\n');
    }
    text
}

/// The whole table for programs.
pub(crate) fn json(machine: &Value, rows: &[Row], failed: &[String]) -> Value {
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    json!({ "machine": machine, "rows": rows, "failed": failed })
}

fn number(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:>9.0}"),
        10.0.. => format!("{value:>9.1}"),
        _ => format!("{value:>9.2}"),
    }
}
