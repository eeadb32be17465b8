//! The start of the process.

use std::io;

use super::Bench;
use crate::bars::Bar;
use crate::proxies::Setup;
use crate::report::Row;
use crate::running::Running;

const TYPES: usize = 1000;

/// From just before the process is made to the first answer of the agent, with 1,000 types.
pub(super) fn start(bench: &Bench) -> io::Result<Vec<Row>> {
    let setup = Setup { types: TYPES, ..bench.plain() };
    let mut proxies: Vec<_> = bench.proxies.iter().collect();
    let [took] = bench.in_turn(&mut proxies, |proxy| {
        Ok([Running::start(proxy, &setup)?.took.as_secs_f64() * 1e3])
    })?;
    let bar = Bar::Own { met: 20.0, reach: 20.0 };
    Ok(vec![Row::new("cold start to first answer, 1,000 types", "ms", took).held_to(bar)])
}
