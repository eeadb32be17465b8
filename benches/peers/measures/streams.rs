//! Event streams: what a token takes of the processor, and an open stream of memory.

use std::io;
use std::time::Duration;

use benches::client::Ask;
use benches::poll::{Closed, Streams};

use super::{Bench, cost};
use crate::bars::{Bar, HAPROXY};
use crate::report::Row;
use crate::running::{Running, pause};

/// Streams that are open at once.
const STREAMS: usize = 1000;
/// 20 tokens a second.
const GAP_MS: u64 = 50;
/// More tokens than anybody waits for.
const ENDLESS: u64 = 1_000_000;
/// Until buffers that were only needed in between are given back, and what was left is cleared up.
const SETTLE: Duration = Duration::from_millis(200);
/// Requests before memory counts: a process that has done nothing yet is smaller.
const WARM: Duration = Duration::from_millis(100);

pub(super) fn tokens(bench: &Bench) -> io::Result<Vec<Row>> {
    let ask = Ask::get(format!("/agents/qa/stream?n={ENDLESS}&gap={GAP_MS}")).bytes();
    let mut running = bench.start(&bench.plain())?;
    let [values] = bench.in_turn(&mut running, |proxy| {
        pause(SETTLE);
        let mut streams = Streams::open(proxy.address, STREAMS, &ask)?;
        let _preferred = proxy.preferred()?;
        Ok([cost(proxy, || Ok(streams.run(bench.effort.streams)? as f64))?])
    })?;
    let bar = Bar::Peers { families: HAPROXY, met: 1.0, reach: 0.85 };
    Ok(vec![Row::new("CPU of an SSE token, 1,000 streams × 20/s", "µs", values).held_to(bar)])
}

/// Idle, then with streams that have had one event and get no more; each round from a new process.
pub(super) fn memory(bench: &Bench) -> io::Result<Vec<Row>> {
    let setup = bench.plain();
    let mut proxies: Vec<_> = bench.proxies.iter().collect();
    let [idle, stream] = bench.in_turn(&mut proxies, |proxy| {
        let proxy = Running::start(proxy, &setup)?;
        pause(SETTLE);
        Ok([proxy.resident_kib()? / 1024.0, of_a_stream(&proxy)?])
    })?;
    Ok(vec![
        Row::new("memory of an open idle stream", "KiB", stream)
            .held_to(Bar::Own { met: 16.0, reach: 6.0 }),
        Row::new("idle memory", "MiB", idle).held_to(Bar::Own { met: 12.0, reach: 6.0 }),
    ])
}

fn of_a_stream(proxy: &Running) -> io::Result<f64> {
    let warm = Ask::post("/agents/qa/json", "{}").bytes();
    Closed::open(proxy.address, 1, vec![warm])?.run(WARM)?;
    pause(SETTLE);
    let before = proxy.resident_kib()?;
    let _streams = Streams::open(proxy.address, STREAMS, &Ask::get("/agents/qa/hold").bytes())?;
    pause(SETTLE);
    Ok((proxy.resident_kib()? - before) / STREAMS as f64)
}
