//! What is measured, in the order of the table: one function, its rows.

mod bodies;
mod latency;
mod process;
mod requests;
mod streams;

use std::io;
use std::net::SocketAddr;

use super::args::Effort;
use super::proxies::{Proxy, Setup};
use super::report::Row;
use super::running::Running;

/// What every measurement needs.
pub(crate) struct Bench {
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) agent: SocketAddr,
    pub(crate) effort: Effort,
}

/// A measurement and the name that selects it on the command line.
pub(crate) type Measure = (&'static str, fn(&Bench) -> io::Result<Vec<Row>>);

pub(crate) const ALL: &[Measure] = &[
    ("small", requests::small),
    ("many", requests::many),
    ("workers", requests::workers),
    ("token", streams::tokens),
    ("body", bodies::bodies),
    ("latency", latency::added),
    ("memory", streams::memory),
    ("types", requests::types),
    ("start", process::start),
];

impl Bench {
    /// One worker, and few types.
    fn plain(&self) -> Setup {
        Setup { agent: self.agent, workers: 1, types: 10 }
    }

    /// Starts every proxy.
    fn start(&self, setup: &Setup) -> io::Result<Vec<Running>> {
        self.proxies.iter().map(|proxy| Running::start(proxy, setup)).collect()
    }
}

/// Processor time that `load` takes of a proxy, by how much was done, in microseconds.
fn cost(proxy: &Running, load: impl FnOnce() -> io::Result<f64>) -> io::Result<f64> {
    let before = proxy.cpu_us()?;
    let done = load()?;
    Ok((proxy.cpu_us()? - before) / done)
}
