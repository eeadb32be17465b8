//! What a small request takes of the processor: over few connections and many, with one worker and
//! two, with ten agent types and ten thousand.

use std::io;
use std::time::Duration;

use benches::client::Ask;
use benches::poll::Closed;

use super::{Bench, cost};
use crate::bars::{Bar, HAPROXY, NGINX_AND_HAPROXY};
use crate::proxies::Setup;
use crate::report::Row;
use crate::running::Running;
use crate::turns::{Values, quotients};

/// Clients that have a request under way.
const FEW: usize = 64;
const MANY: usize = 1024;
/// Agent types of a small table and of a large one.
const SMALL: usize = 10;
const LARGE: usize = 10_000;
/// Requests before those that count. At first, so that no connection waits for its first one until
/// all proxies have started, which with 10,000 types takes longer than a head may; then to open the
/// connections to the agent that were closed meanwhile.
const WARM: Duration = Duration::from_millis(50);
/// As an agent is asked by people.
const BODY: &str =
    r#"{"input":"Is the build green? Answer in one sentence.","session_id":"bench"}"#;

pub(super) fn small(bench: &Bench) -> io::Result<Vec<Row>> {
    let bar = Bar::Peers { families: NGINX_AND_HAPROXY, met: 1.0, reach: 0.85 };
    Ok(vec![over(bench, FEW)?.held_to(bar)])
}

pub(super) fn many(bench: &Bench) -> io::Result<Vec<Row>> {
    Ok(vec![over(bench, MANY)?.held_to(Bar::Peers { families: HAPROXY, met: 1.0, reach: 0.8 })])
}

fn over(bench: &Bench, connections: usize) -> io::Result<Row> {
    let setup = bench.plain();
    let mut loaded = loaded(bench, &setup, connections)?;
    let [values] = bench.in_turn(&mut loaded, |one| Ok([one.cost(bench)?]))?;
    Ok(Row::new(format!("CPU of a small POST, {connections} connections"), "µs", values))
}

/// One worker and two of the same proxy, in the same rounds.
pub(super) fn workers(bench: &Bench) -> io::Result<Vec<Row>> {
    let one = bench.plain();
    let [one, two] = pairs(bench, &one, &Setup { workers: 2, ..one })?;
    let against = quotients(&two, &one);
    Ok(vec![
        Row::new("CPU of a small POST, two workers", "µs", two),
        Row::new("two workers against one", "×", against)
            .held_to(Bar::Own { met: 1.05, reach: 1.02 }),
    ])
}

/// Every type is asked as often as any other.
pub(super) fn types(bench: &Bench) -> io::Result<Vec<Row>> {
    let plain = bench.plain();
    let small = Setup { types: SMALL, ..plain };
    let [few, many] = pairs(bench, &small, &Setup { types: LARGE, ..plain })?;
    let against = quotients(&many, &few);
    Ok(vec![
        Row::new("CPU of a small POST, 10,000 types", "µs", many),
        Row::new("10,000 types against 10", "×", against)
            .held_to(Bar::Own { met: 1.05, reach: 1.02 }),
    ])
}

/// Each proxy in two set-ups at once, one measured right after the other.
fn pairs(bench: &Bench, one: &Setup, other: &Setup) -> io::Result<[Values; 2]> {
    let (ones, others) = (loaded(bench, one, FEW)?, loaded(bench, other, FEW)?);
    let mut pairs: Vec<_> = ones.into_iter().zip(others).collect();
    bench.in_turn(&mut pairs, |(one, other)| Ok([one.cost(bench)?, other.cost(bench)?]))
}

/// A proxy under a closed loop.
struct Loaded {
    proxy: Running,
    load: Closed,
}

fn loaded(bench: &Bench, setup: &Setup, connections: usize) -> io::Result<Vec<Loaded>> {
    let load = |proxy: Running| {
        let mut load = Closed::open(proxy.address, connections, requests(setup.types))?;
        load.run(WARM)?;
        Ok(Loaded { proxy, load })
    };
    bench.start(setup)?.into_iter().map(load).collect()
}

fn requests(types: usize) -> Vec<Vec<u8>> {
    let of = |name: String| Ask::post(format!("/agents/{name}/json"), BODY).bytes();
    std::iter::once(of("qa".to_owned())).chain((1..types).map(|n| of(format!("t{n}")))).collect()
}

impl Loaded {
    /// Processor time of one request.
    fn cost(&mut self, bench: &Bench) -> io::Result<f64> {
        let Self { proxy, load } = self;
        load.run(WARM)?;
        cost(proxy, || Ok(load.run(bench.effort.load)? as f64))
    }
}
