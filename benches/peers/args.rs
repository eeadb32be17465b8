//! The command line, and how much effort it asks for.

use std::path::PathBuf;
use std::time::Duration;

use super::measures::ALL;

pub(crate) const USAGE: &str = "usage: benches/peers/run [--quick | --smoke] [--rounds N] \
    [--peers NAME,…] [--json FILE] [MEASURE…]\n\
    NAME: nginx, haproxy, envoy, nginx-new, haproxy-new, or none; all that are there, without --peers\n\
    MEASURE: small, many, workers, token, body, latency, memory, types, start";

/// What the command line asks for.
pub(crate) struct Args {
    pub(crate) effort: Effort,
    /// Only these; all that are there, where none is named.
    pub(crate) peers: Vec<String>,
    pub(crate) json: Option<PathBuf>,
    measures: Vec<String>,
    /// Cargo says that it runs benches, not tests.
    pub(crate) bench: bool,
}

/// How long everything takes.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Of a loop of load.
    pub(crate) load: Duration,
    /// Of the streams, whose tokens are few by the second.
    pub(crate) streams: Duration,
    /// Requests of the open loop.
    pub(crate) paced: usize,
    /// Bodies of 10 MB.
    pub(crate) bodies: usize,
}

impl Effort {
    /// What is kept: half an hour.
    const FULL: Self = Self {
        rounds: 15,
        load: Duration::from_millis(1500),
        streams: Duration::from_secs(2),
        paced: 1500,
        bodies: 10,
    };
    /// A first impression: 90 s.
    const QUICK: Self = Self {
        rounds: 3,
        load: Duration::from_millis(300),
        streams: Duration::from_millis(600),
        paced: 300,
        bodies: 4,
    };
    /// Whether it works at all.
    const SMOKE: Self = Self {
        rounds: 1,
        load: Duration::from_millis(50),
        streams: Duration::from_millis(100),
        paced: 50,
        bodies: 1,
    };
}

impl Args {
    pub(crate) fn parse() -> Option<Self> {
        let (effort, peers, json, measures) = (Effort::FULL, Vec::new(), None, Vec::new());
        let mut parsed = Self { effort, peers, json, measures, bench: false };
        let (mut args, mut rounds) = (std::env::args().skip(1), None);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => parsed.bench = true,
                "--quick" => parsed.effort = Effort::QUICK,
                "--smoke" => parsed.effort = Effort::SMOKE,
                "--rounds" => rounds = Some(args.next()?.parse().ok().filter(|n| *n > 0)?),
                "--peers" => parsed.peers = args.next()?.split(',').map(str::to_owned).collect(),
                "--json" => parsed.json = Some(args.next()?.into()),
                name if ALL.iter().any(|(known, _)| *known == name) => parsed.measures.push(arg),
                _ => return None,
            }
        }
        parsed.effort.rounds = rounds.unwrap_or(parsed.effort.rounds);
        Some(parsed)
    }

    /// Whether a measurement was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.measures.is_empty() || self.measures.iter().any(|wanted| wanted == name)
    }
}

/// The command line, as far as it says what is measured.
pub(crate) fn command() -> String {
    let (mut command, mut args) = ("benches/peers/run".to_owned(), std::env::args().skip(1));
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {}
            "--json" => drop(args.next()),
            word => command = command + " " + word,
        }
    }
    command
}
