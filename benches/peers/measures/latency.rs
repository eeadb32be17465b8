//! What a proxy adds to the time of a small request, at a rate that leaves it idle mostly.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use benches::client::Ask;
use benches::poll::open_loop;
use benches::stats::quantile;

use super::Bench;
use crate::bars::{Bar, HAPROXY};
use crate::report::Row;

/// Between two requests: 500 a second.
const GAP: Duration = Duration::from_millis(2);
/// More than are ever under way, unless something stalls.
const CONNECTIONS: usize = 16;
const BODY: &str = r#"{"input":"six by nine","session_id":"bench"}"#;

/// Each turn asks the agent alone and through the proxy; the difference is what the proxy adds.
pub(super) fn added(bench: &Bench) -> io::Result<Vec<Row>> {
    let mut running = bench.start(&bench.plain())?;
    let [p50, p99] = bench.in_turn(&mut running, |proxy| {
        let _preferred = proxy.preferred()?;
        let direct = took(bench, bench.agent)?;
        let through = took(bench, proxy.address)?;
        Ok([0.5, 0.99].map(|q| quantile(&through, q) - quantile(&direct, q)))
    })?;
    let bar = Bar::Peers { families: HAPROXY, met: 1.0, reach: 0.8 };
    Ok(vec![
        Row::new("added latency p50, 500 requests/s", "µs", p50).held_to(bar),
        Row::new("added latency p99, 500 requests/s", "µs", p99),
    ])
}

fn took(bench: &Bench, address: SocketAddr) -> io::Result<Vec<f64>> {
    let request = Ask::post("/agents/qa/json", BODY).bytes();
    // The first ones open the connections to the agent.
    open_loop(address, CONNECTIONS, &request, GAP, CONNECTIONS)?;
    open_loop(address, CONNECTIONS, &request, GAP, bench.effort.paced)
}
