//! The command line, and how much effort it asks for.

use std::time::Duration;

pub(crate) const USAGE: &str = "usage: benches/overload/run [--quick | --smoke | --long] \
    [MEASURE…]\n\
    MEASURE: fair, calls, memory";

/// What can be measured.
pub(crate) const ALL: [&str; 3] = ["fair", "calls", "memory"];

/// What the command line asks for.
pub(crate) struct Args {
    pub(crate) effort: Effort,
    measures: Vec<String>,
    /// Cargo says that it runs benches, not tests.
    pub(crate) bench: bool,
}

/// How long everything takes.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Of the arrivals of one run.
    pub(crate) time: Duration,
    /// What comes before is not counted: the line has to fill.
    pub(crate) warm_up: Duration,
}

impl Effort {
    const fn new(time: u64, warm_up: u64) -> Self {
        Self { time: Duration::from_secs(time), warm_up: Duration::from_secs(warm_up) }
    }

    /// What is kept: three minutes.
    const FULL: Self = Self::new(20, 5);
    /// For sure figures: a quarter of an hour.
    const LONG: Self = Self::new(120, 5);
    /// A first impression: under a minute.
    const QUICK: Self = Self::new(5, 2);
    /// Whether it works at all.
    const SMOKE: Self = Self::new(2, 1);
}

impl Args {
    pub(crate) fn parse() -> Option<Self> {
        let mut parsed = Self { effort: Effort::FULL, measures: Vec::new(), bench: false };
        for arg in std::env::args().skip(1) {
            match arg.as_str() {
                "--bench" => parsed.bench = true,
                "--quick" => parsed.effort = Effort::QUICK,
                "--smoke" => parsed.effort = Effort::SMOKE,
                "--long" => parsed.effort = Effort::LONG,
                name if ALL.contains(&name) => parsed.measures.push(arg),
                _ => return None,
            }
        }
        Some(parsed)
    }

    /// Whether a measurement was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.measures.is_empty() || self.measures.iter().any(|wanted| wanted == name)
    }
}

/// The command line, as far as it says what is measured.
pub(crate) fn command() -> String {
    let given = std::env::args().skip(1).filter(|arg| arg != "--bench");
    given.fold("benches/overload/run".to_owned(), |command, arg| command + " " + &arg)
}
