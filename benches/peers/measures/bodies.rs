//! Large bodies: what a megabyte (10⁶ bytes) takes of the processor, in either direction.

use std::io;

use benches::client::Ask;
use benches::poll::transfer;

use super::{Bench, cost};
use crate::bars::{Bar, HAPROXY};
use crate::report::Row;

/// A large body.
const BODY: usize = 10_000_000;

pub(super) fn bodies(bench: &Bench) -> io::Result<Vec<Row>> {
    let up = Ask::post("/agents/qa/up", vec![b'x'; BODY]).bytes();
    let down = Ask::get(format!("/agents/qa/down?bytes={BODY}")).bytes();
    let (n, mut running) = (bench.effort.bodies, bench.start(&bench.plain())?);
    let [up, down] = bench.in_turn(&mut running, |proxy| {
        let of = |ask: &[u8]| {
            transfer(proxy.address, ask, 1)?;
            cost(proxy, || {
                transfer(proxy.address, ask, n)?;
                Ok((n * BODY) as f64 / 1e6)
            })
        };
        Ok([of(&up)?, of(&down)?])
    })?;
    let bar = Bar::Peers { families: HAPROXY, met: 0.7, reach: 0.55 };
    Ok(vec![
        Row::new("CPU of 1 MB up, 10 MB bodies", "µs", up).held_to(bar),
        Row::new("CPU of 1 MB down, 10 MB bodies", "µs", down).held_to(bar),
    ])
}
